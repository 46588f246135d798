"""The columns of node, edge and label tables: which is what. The original's headers (id:int64 src_id:int64) count too.

A table of a folder with node types is `strict`: node tables need an id and hold no labels, edge tables name their ends.
The features and edges of a homogeneous folder are not: ids may be row numbers, two columns are two ends.
"""

import csv
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ops.data.io.readers import DataFile, check_text, opened, read_bytes, reading
from ops.data.types.encoding import Encoding
from ops.errors import DataError

HEADER_BYTES, LONGEST_HEADER = 1 << 16, 1 << 24
_TYPE = re.compile(r":(u?int\d*|float\d*|double|string)$")  # the original's
_ALIASES = {
    "source": "src", "src_id": "src", "target": "dst", "destination": "dst", "dst_id": "dst", "timestamp": "time",
}  # fmt: skip
_PAIRS = {  # other names of two ends
    "from": "to", "id_1": "id_2", "id1": "id2", "node_1": "node_2", "node1": "node2", "u": "v", "head": "tail",
}  # fmt: skip
END_NAMES = {"src", "dst", *_ALIASES, *_PAIRS, *_PAIRS.values()} - {"timestamp"}
_EDGE_COLUMNS = ("src", "dst", "weight", "time")
# a table that is trained on must not carry its answer
LABEL_LIKE = ("labels", "class", "classes", "target", "cluster", "category")
_JOINED = ("feature", "attribute")  # the original's: numbers joined by ":"
_ALLOWED = {
    "edges": "edges have the columns src, dst, weight, time",
    "nodes": "nodes have the columns id and feature columns",
    "labels": "labels have the columns id, label",
}


@dataclass(frozen=True)
class Columns:
    """Columns of a file as they stand there (`names`), their meaning (`roles`, "" = ignored), delimiter and quotes."""

    names: tuple[str, ...]
    roles: tuple[str, ...]
    delimiter: str = ""
    quoted: bool = True

    def named(self, role: str) -> str | None:
        """The column with that meaning, or None."""
        return self.names[self.roles.index(role)] if role in self.roles else None

    @property
    def features(self) -> tuple[str, ...]:
        """The feature columns, in their order."""
        return tuple(
            n for n, r in zip(self.names, self.roles, strict=True) if r in ("feature", "category", "list", "joined")
        )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One a feature; none where all features stand in one column."""
        return tuple(n for n, r in zip(self.names, self.roles, strict=True) if r == "feature")

    @property
    def ignored(self) -> tuple[str, ...]:
        """The columns without a meaning."""
        return tuple(n for n, r in zip(self.names, self.roles, strict=True) if not r)


def edge_columns(file: DataFile, strict: bool = True) -> Columns:
    """src and dst (also source, target), optionally weight and time (also timestamp); others are ignored.

    Not `strict`: also from, to and the like, or the only two columns whatever they are called.
    Raises DataError where an end is missing, a name stands twice, or one is nearly but not quite an allowed one.
    """
    names, delimiter, _ = _header(file)
    plains = _plain(names)
    if not strict:
        return Columns(names, _loose_ends(file, names, plains), delimiter)
    roles = []
    for name, plain in zip(names, plains, strict=True):
        role = _ALIASES.get(plain, plain)
        if role not in _EDGE_COLUMNS:
            near = difflib.get_close_matches(plain, (*_EDGE_COLUMNS, *_ALIASES), n=1, cutoff=0.75)
            if near:
                raise DataError(f"{file.uri}: unknown column {name!r}; did you mean {near[0]}? ({_ALLOWED['edges']})")
            role = ""
        roles.append(role)
    _need(file, names, roles, ("src", "dst"), "edges")
    return Columns(names, tuple(roles), delimiter)


def _loose_ends(file: DataFile, names: Sequence[str], plains: Sequence[str]) -> tuple[str, ...]:
    roles = [role if (role := _ALIASES.get(plain, plain)) in ("src", "dst") else "" for plain in plains]
    shown = ", ".join(names[:5])
    if len(names) < 2:
        raise DataError(f"{file.uri}: edges need two columns (source,target), found {shown or 'none'}")
    if not any(roles):
        pair = next(((a, b) for a, b in _PAIRS.items() if a in plains and b in plains), None)
        if pair is None and len(names) > 2:
            raise DataError(f"{file.uri}: name the two columns of the edges' ends source,target; found {shown}")
        first, second = (0, 1) if pair is None else (plains.index(pair[0]), plains.index(pair[1]))
        roles[first], roles[second] = "src", "dst"
    if "weight" in plains and not roles[plains.index("weight")]:
        roles[plains.index("weight")] = "weight"
    if sorted(role for role in roles if role in ("src", "dst")) != ["dst", "src"]:
        raise DataError(
            f"{file.uri}: edges need both columns source,target or src,dst (or two columns alone), found {shown}"
        )
    return tuple(roles)


def node_columns(file: DataFile, strict: bool = True, encoding: Encoding | None = None) -> Columns:
    """id, and features: any other columns, or one list column `features`, or the original's joined `feature`.

    Not `strict`: the id may be left out, and a column `label` may stand beside the features; `encoding` says which are
    ignored, and which categories. Raises DataError where a name stands twice or a column is named as if it held labels.
    """
    names, delimiter, typed = _header(file, numbers=not strict)
    ignored, categories = (encoding.ignored, encoding.categories) if encoding else ((), None)
    lost = [name for name in ignored if name not in names] if categories is None else []
    if lost:
        raise DataError(f"{file.uri}: --ignore {lost[0]}: no such column; it has {', '.join(names[:20])}")
    roles = []
    for name, plain in zip(names, _plain(names), strict=True):
        if name in ignored or name in (categories or ()):
            roles.append("" if name in ignored else "category")
            continue
        if plain in LABEL_LIKE or (strict and plain in ("label", "group")):
            advice = "labels stand apart, in labels/TYPE.csv with columns id,label" if strict else (
                f"name it label if it holds the classes, else give it another name, or --ignore {name}")  # fmt: skip
            raise DataError(f"{file.uri}: column {name!r}: {advice}")
        joined = typed and plain in _JOINED
        listed = strict and plain == "features"
        roles.append(plain if plain == "id" or (plain == "label" and not strict)
                     else "joined" if joined else "list" if listed else "feature")  # fmt: skip
    if {"list", "joined"} & set(roles) and len(roles) > 2:
        raise DataError(f"{file.uri}: features stand either in one column or in many, found {', '.join(names[:6])}")
    _need(file, names, roles, ("id",) if strict else (), "nodes")
    return Columns(names, tuple(roles), delimiter)


def table_names(file: DataFile) -> set[str]:
    """The names of a table's columns, in small letters. Raises DataError for what is no table."""
    return set(_plain(_header(file, numbers=True)[0]))


def label_columns(file: DataFile, strict: bool = True) -> Columns:
    """id and label of a label table; not `strict`: the id may be left out, the label be the only other column."""
    names, delimiter, _ = _header(file)
    roles = [plain if plain in ("id", "label") else "" for plain in _plain(names)]
    if not strict and "label" not in roles and roles.count("") == 1:
        roles[roles.index("")] = "label"
    _need(file, names, roles, ("id", "label") if strict else ("label",), "labels")
    return Columns(names, tuple(roles), delimiter)


def _need(file: DataFile, names: Sequence[str], roles: Sequence[str], wanted: Sequence[str], kind: str) -> None:
    for role in wanted:
        if role not in roles:
            near = difflib.get_close_matches(role, [n.lower() for n in names], n=1, cutoff=0.4)
            raise DataError(
                f"{file.uri}: no column {role} among {', '.join(names[:6]) or 'none'}; {_ALLOWED[kind]}"
                + (f"; the nearest is {near[0]}" if near else "")
            )
    for role in ("id", "label", "src", "dst", "weight", "time"):
        if roles.count(role) > 1:
            same = [n for n, r in zip(names, roles, strict=True) if r == role]
            raise DataError(f"{file.uri}: columns {', '.join(same)} could all be the {role}; keep one")


def _plain(names: Sequence[str]) -> list[str]:
    """Names in small letters without the original's types: src_id:int64 -> src_id."""
    return [_TYPE.sub("", n).strip().lower() for n in names]


def _header(file: DataFile, numbers: bool = False) -> tuple[tuple[str, ...], str, bool]:
    """Column names, the delimiter ("" for parquet), and whether they carry the original's types.

    `numbers`: the names 0, 1, 2, ... are names (a data frame written without any), not data.
    """
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        with opened(file) as stream:
            names = tuple(n for n in pq.read_schema(stream).names if not n.startswith("__index_level_"))
        return _distinct(file, names), "", False
    line = header_line(file)
    delimiter = "\t" if file.suffix == ".tsv" or "\t" in line else ","
    if delimiter not in line and ";" in line:
        raise DataError(f"{file.uri}: its columns are separated by semicolons (Excel with decimal commas); "
                        "save it with commas between columns and points in numbers, or as Parquet")  # fmt: skip
    try:
        names = tuple(n.strip() for n in next(csv.reader([line], delimiter=delimiter), []))
    except csv.Error as error:
        raise DataError(f"{file.uri}: the first line cannot be read ({error}); it must name the columns") from None
    if odd := [n for n in names if not n.isprintable()]:
        raise DataError(f"{file.uri}: column {odd[0]!r} has characters that do not print; name it otherwise")
    counted = numbers and names == tuple(str(i) for i in range(len(names)))
    if not names or (all(is_number(n) for n in names) and not counted):
        raise DataError(f"{file.uri}: the first line ({', '.join(names[:3])}) is data; it must name the columns")
    return _distinct(file, names), delimiter, names[0].startswith(("id:", "src_id:"))


def _distinct(file: DataFile, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, if each is one and none stands twice. Raises DataError."""
    nameless = [i for i, n in enumerate(names) if not n.strip() or n.startswith("Unnamed: ")]
    if nameless:
        raise DataError(f"{file.uri}: column {nameless[0]} has no name (a row index?); name it id or leave it out")
    twice = [n for n in names if names.count(n) > 1] if len(set(names)) < len(names) else []
    if twice:
        raise DataError(f"{file.uri}: column {twice[0]!r} stands twice; column names must differ")
    return names


def header_line(file: DataFile) -> str:
    """The first line of a text file without its end. Raises DataError where it is empty, too long or no text."""
    start = read_bytes(file, 0, HEADER_BYTES)
    if not start.strip():
        raise DataError(f"{file.uri}: is empty; its first line must name the columns")
    check_text(file.uri, start)
    if b"\0" in start:
        raise DataError(f"{file.uri}: holds binary data, not text; allowed: csv, tsv or txt files of text")
    if b"\n" not in start and file.size > len(start):  # a table of many columns
        start = read_bytes(file, 0, LONGEST_HEADER)
    line, end, _ = start.partition(b"\n")
    if not end and file.size > len(start):
        raise DataError(f"{file.uri}: its first line is longer than {LONGEST_HEADER} bytes; it must name the columns")
    with reading(file.uri):
        text = line.decode("utf-8-sig").rstrip("\r")
    if not text.strip():
        raise DataError(f"{file.uri}: its first line is empty; it must name the columns")
    return text


def is_number(text: str) -> bool:
    """Whether Python reads it as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
