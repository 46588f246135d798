"""RecBole's atomic files (NAME.inter, .user, .item: tab-separated, headers like user_id:token) as users and notes.

Relations: where ratings go up to 5, rating 5 = share_note, 4 = comment_note, 3 = follow_note and lower ones are unused;
otherwise every interaction is interact_note. Features: one-hot of tokens, multi-hot of token sequences, ten bins of
equal size for tokens that are numbers of many values, floats scaled to mean 0 and deviation 1; words of more than
MANY values (names, titles, zip codes) are left out.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ops.data.io.chunks import Chunk, line_end, read_table
from ops.data.io.dtypes import numbers_of, times_of
from ops.data.io.ids import Lookup, check_unique, ids_of
from ops.data.io.readers import DataFile, files_below
from ops.data.io.schema import Columns, header_line, is_number
from ops.data.io.validate import make_hetero
from ops.data.types.hetero import Edges, HeteroGraph, Ids, Nodes, Relation
from ops.errors import DataError

MANY = 64  # values of a token column beyond which it names rather than describes
BINS, FEW = 10, 16
RATINGS = {5: "share_note", 4: "comment_note", 3: "follow_note"}
_TYPES = ("token", "token_seq", "float", "float_seq")
EncodedColumn = tuple[NDArray[np.float32], list[str]]  # features [N, width] and what each stands for
_KEYS = {"user": "user_id", "item": "item_id"}


@dataclass(frozen=True)
class Atomic:
    """One atomic file: Arrow columns by name, and their RecBole types."""

    file: DataFile
    columns: dict[str, Any]
    types: dict[str, str]

    def at(self, row: int) -> str:
        """Where a row stands, for messages."""
        return f"{self.file.uri}, row {row}"


def find_atomic(place: str) -> dict[str, DataFile] | None:
    """The .inter, .user and .item files of a folder by kind, None where it has no .inter file.

    Raises DataError where there are several data sets in one folder.
    """
    files = {n: f for n, f in files_below(place).items() if "/" not in n and f.suffix in (".inter", ".user", ".item")}
    kinds: dict[str, DataFile] = {}
    for file in files.values():
        other = kinds.setdefault(file.suffix[1:], file)
        if other != file:
            raise DataError(f"{file.uri}: stands beside {other.uri}; give a folder with one data set")
    return kinds if "inter" in kinds else None


def read_recbole(name: str, files: dict[str, DataFile]) -> HeteroGraph:
    """Users, notes (the items) and their relations. Raises DataError for headers or values that do not fit."""
    inter = read_atomic(files["inter"])
    notes: list[str] = []
    nodes = {
        "user": _nodes("user", files.get("user"), inter, notes),
        "note": _nodes("item", files.get("item"), inter, notes),
    }
    ends = [
        Lookup(kind, nodes[kind].ids)(_ids(inter, key), key, inter.at)
        for kind, key in (("user", "user_id"), ("note", "item_id"))
    ]
    seconds = inter.columns.get("timestamp")
    time = None if seconds is None else times_of(seconds, "timestamp", inter.at)
    edges = _relations(inter, Edges(ends[0], ends[1], None, time), notes)
    return make_hetero(name, nodes, edges, notes, origin=inter.file.uri)


def read_atomic(file: DataFile) -> Atomic:
    """The columns of an atomic file. Raises DataError for a header without types, ragged lines, no rows."""
    header = [(name, kind) for name, _, kind in (h.strip().partition(":") for h in header_line(file).split("\t"))]
    wrong = [f"{name}:{kind}" for name, kind in header if not name or kind not in _TYPES]
    names = [name for name, _ in header]
    if wrong:
        raise DataError(f"{file.uri}: column {wrong[0]!r}: must be NAME:TYPE, TYPE one of {', '.join(_TYPES)}")
    if len(set(names)) < len(names):
        raise DataError(f"{file.uri}: a column stands twice in {', '.join(names)}; column names must differ")
    # tokens as they stand; ids are src and dst, which become whole numbers where all of them are some
    roles = [
        {"user_id": "src", "item_id": "dst"}.get(n, "weight" if kind == "float" else "joined") for n, kind in header
    ]
    columns = Columns(tuple(names), tuple(roles), "\t", quoted=False)
    start = line_end(file, 0)
    chunk = Chunk(file, start, file.size - start, columns, row=0)
    table = read_table(chunk)
    if not table.num_rows:
        raise DataError(f"{file.uri}: has no rows; at least one is needed")
    return Atomic(file, {n: table.column(n) for n in names}, dict(header))


def _ids(table: Atomic, key: str) -> Ids:
    if key not in table.columns:
        raise DataError(f"{table.file.uri}: no column {key}:token; found {', '.join(table.columns)}")
    return ids_of(table.columns[key], table.at)


def _nodes(kind: str, file: DataFile | None, inter: Atomic, notes: list[str]) -> Nodes:
    key = _KEYS[kind]
    if file is None:
        notes.append(f"no .{kind} file: the {kind}s are those of the interactions, without features")
        return Nodes(cast(Ids, np.unique(_ids(inter, key))))
    table = read_atomic(file)
    ids = _ids(table, key)
    check_unique(ids, table.at, kind)
    blocks: list[NDArray[np.float32]] = []
    names: list[str] = []
    for name, column in table.columns.items():
        block = None if name == key else _encoded(table, name, column)
        if block is not None:
            blocks.append(block[0])
            names += [f"{name} {value}".strip() for value in block[1]]
        elif name != key:
            notes.append(f"{kind} column {name}: more than {MANY} values, or sequences of numbers: left out")
    return Nodes(ids, np.concatenate(blocks, axis=1) if blocks else None, tuple(names))


def _encoded(table: Atomic, name: str, column: Any) -> EncodedColumn | None:
    """A column as features, None where it only names."""
    kind = table.types[name]
    if kind == "float":
        values = numbers_of(column, name, table.at).astype(np.float64)
        finite = np.isfinite(values)
        centred = np.where(finite, values - (values[finite].mean() if finite.any() else 0), 0)
        spread = centred.std()
        return (centred / spread if spread > 0 else centred).astype(np.float32)[:, None], [""]
    if kind == "float_seq":
        return None
    words = [str(v) if v is not None else "" for v in column.to_pylist()]
    if kind == "token":
        numbers = _numbers(words)
        if numbers is not None:
            return _binned(numbers)
        lists = [[w] if w else [] for w in words]
    else:
        lists = [w.split(" ") if w else [] for w in words]
    return _hot(lists)


def _numbers(words: list[str]) -> NDArray[np.float64] | None:
    """Tokens of more than FEW numbers as such (NaN where one is missing, or in a hundred is a word), else None."""
    values = np.array([float(w) if is_number(w) else np.nan for w in words])
    strange = sum(bool(w) and not is_number(w) for w in words)
    finite = values[np.isfinite(values)]
    return values if strange <= len(words) / 100 and np.unique(finite).size > FEW else None


def _binned(values: NDArray[np.float64]) -> EncodedColumn:
    finite = np.isfinite(values)
    cuts = np.unique(np.quantile(values[finite], np.arange(1, BINS) / BINS))
    x = np.zeros((values.size, cuts.size + 1), dtype=np.float32)
    x[np.flatnonzero(finite), np.searchsorted(cuts, values[finite], side="right")] = 1
    ends = [f"{cut:g}" for cut in cuts]
    between = [f"{low} to {high}" for low, high in pairwise(ends)]
    return x, [f"under {ends[0]}", *between, f"from {ends[-1]}"]


def _hot(lists: list[list[str]]) -> EncodedColumn | None:
    names = sorted({w for words in lists for w in words if w})
    if not names or len(names) > MANY:
        return None
    place = {w: i for i, w in enumerate(names)}
    x = np.zeros((len(lists), len(names)), dtype=np.float32)
    for row, words in enumerate(lists):
        x[row, [place[w] for w in words if w]] = 1
    return x, names


def _relations(inter: Atomic, edges: Edges, notes: list[str]) -> dict[Relation, Edges]:
    """Interactions by their rating, or all as one relation."""
    every: Relation = ("user", "interact_note", "note")
    if inter.types.get("rating") != "float":
        return {every: edges}
    rating = numbers_of(inter.columns["rating"], "rating", inter.at).astype(np.float64)
    if not np.isfinite(rating).all():
        raise DataError(f"{inter.at(int((~np.isfinite(rating)).argmax()))}: rating is missing or not finite")
    if not (rating.max() == 5 and rating.min() >= 0):
        return {every: edges}
    stars = np.floor(rating)
    unused = int((stars < min(RATINGS)).sum())
    notes.append(f"{unused} interactions rated below {min(RATINGS)} are unused")
    parts = {("user", name, "note"): edges.take(stars == star) for star, name in sorted(RATINGS.items())}
    return {relation: part for relation, part in parts.items() if part.count}
