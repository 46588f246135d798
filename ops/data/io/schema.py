"""The columns of node and edge tables: which is what. The original's headers (id:int64 src_id:int64) count too."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from ops.data.io.layout import header_line
from ops.data.io.sources import Source, opened
from ops.errors import DataError

_ALIASES = {
    "source": "src", "src_id": "src", "target": "dst", "destination": "dst", "dst_id": "dst", "timestamp": "time",
}  # fmt: skip
_EDGE_COLUMNS = ("src", "dst", "weight", "time")
# a table that is trained on must not carry its answer
_LABEL_LIKE = ("label", "labels", "class", "classes", "target", "cluster", "category", "group")
_JOINED = ("feature", "attribute")  # the original's: numbers joined by ":"
LIST = "features"


@dataclass(frozen=True)
class Columns:
    """Columns of a file as they stand there (`names`), their meaning (`roles`, "" = ignored) and its delimiter."""

    names: tuple[str, ...]
    roles: tuple[str, ...]
    delimiter: str = ""

    def named(self, role: str) -> str | None:
        """The column with that meaning, or None."""
        return self.names[self.roles.index(role)] if role in self.roles else None

    @property
    def features(self) -> tuple[str, ...]:
        """The feature columns, in their order."""
        return tuple(n for n, r in zip(self.names, self.roles, strict=True) if r in ("feature", "list", "joined"))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One a feature; none where all features stand in one column."""
        return tuple(n for n, r in zip(self.names, self.roles, strict=True) if r == "feature")


def edge_columns(file: Source) -> Columns:
    """src and dst (also source, target), optionally weight and time (also timestamp); others are ignored.

    Raises DataError where src or dst is missing, a name stands twice, or one is nearly but not quite an allowed one.
    """
    names, delimiter, _ = _header(file)
    roles = []
    for name, plain in zip(names, _plain(names), strict=True):
        role = _ALIASES.get(plain, plain)
        if role not in _EDGE_COLUMNS:
            near = difflib.get_close_matches(plain, (*_EDGE_COLUMNS, *_ALIASES), n=1, cutoff=0.75)
            if near:
                raise DataError(f"{file.uri}: unknown column {name!r}; did you mean {near[0]}? ({_allowed('edges')})")
            role = ""
        roles.append(role)
    _need(file, names, roles, ("src", "dst"), "edges")
    return Columns(names, tuple(roles), delimiter)


def node_columns(file: Source) -> Columns:
    """id, and features: any other columns, or one list column `features`, or the original's joined `feature`.

    Raises DataError where id is missing, a name stands twice, or a column is named as if it held labels.
    """
    names, delimiter, typed = _header(file)
    plains = _plain(names)
    roles = []
    for name, plain in zip(names, plains, strict=True):
        if plain in _LABEL_LIKE:
            raise DataError(
                f"{file.uri}: column {name!r}: labels stand apart, in labels/TYPE.csv with columns id,label"
            )
        joined = typed and plain in _JOINED
        roles.append("id" if plain == "id" else "joined" if joined else "list" if plain == LIST else "feature")
    if {"list", "joined"} & set(roles) and len(roles) > 2:
        raise DataError(f"{file.uri}: features stand either in one column or in many, found {', '.join(names[:6])}")
    _need(file, names, roles, ("id",), "nodes")
    return Columns(names, tuple(roles), delimiter)


def label_columns(file: Source) -> Columns:
    """id and label of a label table. Raises DataError where one is missing."""
    names, delimiter, _ = _header(file)
    roles = [plain if plain in ("id", "label") else "" for plain in _plain(names)]
    _need(file, names, roles, ("id", "label"), "labels")
    return Columns(names, tuple(roles), delimiter)


def _allowed(kind: str) -> str:
    allowed = {"edges": "src, dst, weight, time", "nodes": "id and feature columns", "labels": "id, label"}[kind]
    return f"{kind} have the columns {allowed}"


def _need(file: Source, names: Sequence[str], roles: Sequence[str], wanted: Sequence[str], kind: str) -> None:
    for role in wanted:
        if role not in roles:
            near = difflib.get_close_matches(role, [n.lower() for n in names], n=1, cutoff=0.4)
            raise DataError(
                f"{file.uri}: no column {role} among {', '.join(names[:6]) or 'none'}; {_allowed(kind)}"
                + (f"; the nearest is {near[0]}" if near else "")
            )
    special = [r for r in roles if r not in ("", "feature")]
    twice = [r for r in special if special.count(r) > 1] or [n for n in names if names.count(n) > 1]
    if twice:
        raise DataError(f"{file.uri}: column {twice[0]} stands twice; column names must differ")


def _plain(names: Sequence[str]) -> list[str]:
    """Names in small letters without the original's types: src_id:int64 -> src_id."""
    return [n.partition(":")[0].strip().lower() for n in names]


def _header(file: Source) -> tuple[tuple[str, ...], str, bool]:
    """Column names, the delimiter ("" for parquet), and whether they carry the original's types."""
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        with opened(file) as stream:
            return tuple(str(n) for n in pq.read_schema(stream).names), "", False
    line = header_line(file)
    delimiter = "\t" if file.suffix == ".tsv" or "\t" in line else ","
    try:
        names = tuple(n.strip() for n in next(csv.reader([line], delimiter=delimiter), []))
    except csv.Error as error:
        raise DataError(f"{file.uri}: the first line cannot be read ({error}); it must name the columns") from None
    if odd := [n for n in names if not n.isprintable()]:
        raise DataError(f"{file.uri}: column {odd[0]!r} has characters that do not print; name it otherwise")
    if not names or all(is_number(n) for n in names):
        raise DataError(f"{file.uri}: the first line ({line[:40]}) is data; it must name the columns")
    if not all(names):
        raise DataError(f"{file.uri}: column {names.index('')} has no name; name every column")
    return names, delimiter, names[0].startswith(("id:", "src_id:"))


def is_number(text: str) -> bool:
    """Whether Python reads it as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
