"""Which file of a folder holds which nodes and edges: the tables folder, the original's files, or what graph.yaml says.

nodes/user.parquet   nodes/note/part-0.csv ...   edges/user__follow_note__note.tsv   labels/user.parquet
user_node_0.txt      follow_note_edge_0.txt      (the original's: a flat folder, headers like id:int64)
"""

import fnmatch
import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from ops.data.io.chunks import Files
from ops.data.io.plain_yaml import load_yaml
from ops.data.io.readers import DataFile, escaped, files_below, is_folder, place_name, read_bytes, reading
from ops.data.io.schema import header_line
from ops.data.types.hetero import Relation, check_type_name, relation_name, relation_of
from ops.errors import DataError, did_you_mean

MAPPING = "graph.yaml"
SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")
_PART = re.compile(r"[-_.]?(part)?[-_.]?\d+$")
_NODE_WORDS = re.compile(r"_(nodes?|table|features?)$")
_EDGE_WORDS = re.compile(r"_(edges?|table)$")
_SINGULAR = {"users": "user", "notes": "note"}
_KEYS = ("name", "complete", "symmetric", "nodes", "edges", "labels", "made")


@dataclass(frozen=True)
class Layout:
    """The files of a graph, by node type and relation; `symmetric`: relations said to equal their own transpose.

    `unread`: names of files that are no table of the graph.
    """

    name: str
    origin: str
    nodes: dict[str, Files]
    edges: dict[Relation, Files]
    labels: dict[str, Files]
    symmetric: tuple[Relation, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Which files of the folder are not read, if any."""
        more = " ..." if self.unread[5:] else ""
        return (f"files not read: {escaped(', '.join(self.unread[:5]))}{more}",) if self.unread else ()


def find_layout(place: str, types: tuple[str, ...] = ()) -> Layout | None:
    """The layout of a folder or s3:// prefix, None where it is neither form of node and edge tables.

    `types` that a model has need no table of their own, and with them one table of nodes or edges is enough. Raises
    DataError for a half-written folder, a graph.yaml that does not fit, an unknown kind of file, a relation between
    types that have no nodes, or no relation at all.
    """
    if not is_folder(place):
        return None
    files = files_below(place)
    if MAPPING in files:
        layout = _mapped(place, files)
    elif any(name.startswith(("nodes/", "edges/")) for name in files):
        layout = _folders(place, files)
    elif typed := {n: f for n, f in files.items() if "/" not in n and f.suffix in SUFFIXES[:3] and _typed(f)}:
        layout = _original(place, typed, types)
    else:
        return None
    read = {f.uri for tables in (layout.nodes, layout.edges, layout.labels) for table in tables.values() for f in table}
    unread = tuple(name for name, file in files.items() if file.uri not in read and name != MAPPING)
    return _checked(replace(layout, unread=unread), types)


def _typed(file: DataFile) -> bool:
    """Whether the header is the original's (id:int64 or src_id:int64 first)."""
    return file.size > 0 and read_bytes(file, 0, 16).lstrip(b"\xef\xbb\xbf").startswith((b"id:", b"src_id:"))


def _folders(place: str, files: dict[str, DataFile]) -> Layout:
    """nodes/, edges/ and labels/, each with one file or one folder of files a type."""
    tables: dict[str, dict[str, list[DataFile]]] = {"nodes": {}, "edges": {}, "labels": {}}
    for name, file in files.items():
        top, _, rest = name.partition("/")
        if top not in tables or not rest:
            continue
        if file.suffix not in SUFFIXES:
            raise DataError(f"{file.uri}: unknown kind of file; allowed: {', '.join(s[1:] for s in SUFFIXES)}")
        folder, _, _ = rest.rpartition("/")
        key = folder or PurePosixPath(rest).stem
        twice = tables[top].setdefault(key, [])
        if twice and not folder:
            raise DataError(f"{file.uri}: stands beside {twice[0].uri}; keep one of them, or both in a folder {key}/")
        twice.append(file)
    return _layout(place, tables["nodes"], tables["edges"], tables["labels"])


def _layout(
    place: str, nodes: dict[str, list[DataFile]], edges: dict[str, list[DataFile]], labels: dict[str, list[DataFile]]
) -> Layout:
    return Layout(
        place_name(place), place,
        {check_type_name(t, place): tuple(f) for t, f in sorted(nodes.items())},
        dict(sorted((_relation(name, f[0].uri), tuple(f)) for name, f in edges.items())),
        {t: tuple(f) for t, f in sorted(labels.items())},
    )  # fmt: skip


def _relation(name: str, where: str) -> Relation:
    try:
        return relation_of(name)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _original(place: str, files: dict[str, DataFile], model_types: tuple[str, ...]) -> Layout:
    """The original's flat folder: node files TYPE[_node][_N], edge files SRC_REL_DST[_N] or REL_edge[_N]."""
    nodes: dict[str, list[DataFile]] = {}
    edges: dict[str, list[DataFile]] = {}
    stems = {name: _PART.sub("", PurePosixPath(name).stem) for name in files}
    starts = {name: header_line(file).startswith("id:") for name, file in files.items()}
    for name in (n for n in files if starts[n]):
        kind = _NODE_WORDS.sub("", stems[name])
        nodes.setdefault(_SINGULAR.get(kind, kind), []).append(files[name])
    for name in (n for n in files if not starts[n]):
        types = list(dict.fromkeys([*nodes, *model_types]))
        edges.setdefault(_relation_in(stems[name], types, files[name].uri), []).append(files[name])
    return _layout(place, nodes, edges, {})


def _relation_in(stem: str, types: list[str], uri: str) -> str:
    """The relation in a file's name, given the node types there are."""
    if "__" in stem:
        return stem
    stem = _EDGE_WORDS.sub("", stem)
    names = {
        relation_name((s, stem[len(s) + 1 : -len(d) - 1], d))
        for s in types
        for d in types
        if stem.startswith(f"{s}_") and stem.endswith(f"_{d}") and len(stem) > len(s) + len(d) + 2
    }
    if len(names) == 1:
        return names.pop()
    if len(types) == 1:
        return relation_name((types[0], stem, types[0]))
    if set(types) == {"user", "note"}:
        return relation_name(("user", stem, "note"))
    raise DataError(
        f"{uri}: its name does not tell which of {', '.join(types) or 'no node types'} it joins; name it "
        f"SOURCE__RELATION__DESTINATION.tsv, or say it in {MAPPING} (edges: {{SOURCE__RELATION__DESTINATION: FILE}})"
    )


def _mapped(place: str, files: dict[str, DataFile]) -> Layout:
    """What graph.yaml says; where it has no `nodes` and `edges`, the folders' names count."""
    origin = files[MAPPING].uri
    given = _yaml(files[MAPPING])
    if given.get("complete", True) is not True:
        raise DataError(f"{place}: is half-written ({MAPPING}: complete: false); make it again with --fresh")
    if "nodes" in given or "edges" in given:
        parts = [
            {str(k): _matching(origin, f"{top}: {k}", v, files) for k, v in _map(origin, top, given).items()}
            for top in ("nodes", "edges", "labels")
        ]
        layout = _layout(place, *parts)
    else:
        layout = _folders(place, files)
    symmetric = given.get("symmetric") or []
    if not isinstance(symmetric, list) or not all(isinstance(s, str) for s in symmetric):
        raise DataError(f"{origin}: symmetric: must be a list of relations, e.g. [node__edge__node]")
    name = given.get("name") or layout.name
    if isinstance(name, list | dict) or not str(name).isprintable():
        raise DataError(f"{origin}: name: {name!r} cannot name a graph; give text without control characters")
    return replace(layout, name=str(name), symmetric=tuple(_relation(s, f"{origin}: symmetric") for s in symmetric))


def _yaml(file: DataFile) -> dict[str, Any]:
    with reading(file.uri):
        given = load_yaml(read_bytes(file).decode())
    if not isinstance(given, dict):
        raise DataError(f"{file.uri}: must hold keys, allowed: {', '.join(_KEYS)}")
    for key in given:
        if key not in _KEYS:
            allowed = f"{', '.join(_KEYS)}{did_you_mean(str(key), _KEYS)}"
            raise DataError(f"{file.uri}: unknown key {key!r}; allowed: {allowed}")
    return given


def _map(origin: str, top: str, given: dict[str, Any]) -> dict[Any, Any]:
    value = given.get(top) or {}
    if not isinstance(value, dict):
        raise DataError(f"{origin}: {top}: must map names to files, e.g. {top}: {{user: user_*.tsv}}")
    return value


def _matching(origin: str, key: str, patterns: Any, files: dict[str, DataFile]) -> list[DataFile]:
    wanted = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(wanted, list) or not all(isinstance(p, str) for p in wanted):
        raise DataError(f"{origin}: {key}: must be a file, a pattern or a list of them")
    matching = [f for n, f in files.items() if n != MAPPING and any(_hit(n, p) for p in wanted)]
    if not matching:
        raise DataError(f"{origin}: {key}: no file matches {', '.join(wanted)}")
    wrong = [f for f in matching if f.suffix not in SUFFIXES]
    if wrong:
        raise DataError(f"{wrong[0].uri}: unknown kind of file; allowed: {', '.join(s[1:] for s in SUFFIXES)}")
    return matching


def _hit(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, pattern.rstrip("/") + "/*")


def _checked(layout: Layout, types: tuple[str, ...]) -> Layout:
    """Every relation has nodes at both ends, and labels belong to a type."""
    if not (layout.nodes or layout.edges if types else layout.nodes and layout.edges):
        kind, example = ("nodes", "user.csv") if not layout.nodes else ("edges", "user__follow_note__note.csv")
        raise DataError(f"{layout.origin}: no {kind}; a graph needs at least one table, e.g. {kind}/{example}")

    def need(kind: str, files: Files, what: str) -> None:
        if kind not in layout.nodes and kind not in types:
            there = f"(there are: {', '.join(dict.fromkeys([*layout.nodes, *types]))})"
            raise DataError(f"{files[0].uri}: {what} the node type {kind!r}, which has no nodes {there}"
                            f"{did_you_mean(kind, layout.nodes)}")  # fmt: skip

    for relation, files in layout.edges.items():
        for end in (relation[0], relation[2]):
            need(end, files, f"relation {relation_name(relation)} joins")
    for kind, files in layout.labels.items():
        need(kind, files, "labels belong to")
    for relation in layout.symmetric:
        if relation not in layout.edges:
            raise DataError(f"{layout.origin}: {MAPPING}: symmetric: there is no relation {relation_name(relation)}")
    return layout
