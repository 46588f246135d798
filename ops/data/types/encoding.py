"""Which columns of a table are left out, and which are categories, whose values become a column of 0 and 1 each.

A model keeps both (`--one-hot`, `--ignore`), so that rows that come later are read as the training's were.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

MadeFeatures = Literal["none", "degree", "spectral"]
MISSING = ("", "nan", "na", "n/a", "null", "none")


@dataclass(frozen=True)
class Encoding:
    """`ignored` columns are left out; `categories` has the values of each column of words, once they are settled.

    Before, `one_hot` says whether the table's columns of words become categories. `made` says how features were made of
    the edges, where there were none.
    """

    one_hot: bool = False
    ignored: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str, ...]] | None = None
    made: MadeFeatures = "none"

    @classmethod
    def asked(cls, one_hot: bool, ignore: str) -> "Encoding":
        """That of the settings of these names."""
        return cls(one_hot, tuple(name.strip() for name in ignore.split(",") if name.strip()))

    def expanded(self, columns: Sequence[str]) -> list[str]:
        """The names of the features that `columns` become: `city=Bern` for a value of a category."""
        categories = self.categories or {}
        return [n for c in columns for n in ([f"{c}={v}" for v in categories[c]] if c in categories else [c])]

    def blocks(self, features: Sequence[str]) -> list[list[int]]:
        """The places among `features` of each category's columns."""
        place = {name: i for i, name in enumerate(features)}
        return [[place[f"{c}={v}"] for v in values] for c, values in (self.categories or {}).items()]

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        categories = {name: list(values) for name, values in (self.categories or {}).items()}
        return {"ignored": list(self.ignored), "categories": categories, "made": self.made}
