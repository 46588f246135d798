"""Which file of a folder holds which nodes and edges: the tables folder, the original's files, or what graph.yaml says.

nodes/user.parquet   nodes/note/part-0.csv ...   edges/user__follow_note__note.tsv   labels/user.parquet
user_node_0.txt      follow_note_edge_0.txt      (the original's: a flat folder, headers like id:int64)
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from ops.data.catalog.graphs import canonical
from ops.data.io.sources import Source, is_folder, listing, read_bytes, reading
from ops.data.types.hetero import Relation, check_type_name, relation_name, relation_of
from ops.errors import DataError
from ops.storage import object_store as s3

MAPPING = "graph.yaml"
ML100K = ("ml-100k", "ml_100k", "ml100k")
SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")
HEADER_BYTES = 1 << 16
_PART = re.compile(r"[-_.]?(part)?[-_.]?\d+$")
_NODE_WORDS = re.compile(r"_(nodes?|table|features?)$")
_EDGE_WORDS = re.compile(r"_(edges?|table)$")
_SINGULAR = {"users": "user", "notes": "note"}
_KEYS = ("name", "complete", "symmetric", "nodes", "edges", "labels", "made")
Files = tuple[Source, ...]


@dataclass(frozen=True)
class Layout:
    """The files of a graph, by node type and relation; `symmetric`: relations said to equal their own transpose."""

    name: str
    origin: str
    nodes: dict[str, Files]
    edges: dict[Relation, Files]
    labels: dict[str, Files]
    symmetric: tuple[Relation, ...] = ()


def find_layout(place: str, known: tuple[str, ...] = ()) -> Layout | None:
    """The layout of a folder or s3:// prefix, None where it is neither form of node and edge tables.

    `known` types need no table of their own, and with them one table of nodes or edges is enough. Raises DataError for
    a half-written folder, a graph.yaml that does not fit, an unknown kind of file, a relation between types that have
    no nodes, or no relation at all.
    """
    if is_known(place) or not is_folder(place):
        return None
    files = listing(place)
    if MAPPING in files:
        return _checked(_mapped(place, files), known)
    if any(name.startswith(("nodes/", "edges/")) for name in files):
        return _checked(_folders(place, files), known)
    typed = {name: f for name, f in files.items() if "/" not in name and f.suffix in SUFFIXES[:3] and _typed(f)}
    return _checked(_original(place, typed, known), known) if typed else None


def is_known(spec: str) -> bool:
    """Whether it is the name of a data set, which goes before a folder of that name (write ./NAME for the folder)."""
    name = spec.partition(":")[0].strip().lower()
    return name in (*ML100K, "planted", "digits") or ("/" not in name and canonical(name) is not None)


def header_line(file: Source) -> str:
    """The first line of a text file without its end. Raises DataError where it is empty, too long or no text."""
    start = read_bytes(file, 0, HEADER_BYTES)
    if not start:
        raise DataError(f"{file.uri}: is empty; its first line must name the columns")
    if b"\0" in start:
        raise DataError(f"{file.uri}: holds binary data, not text; allowed: csv, tsv or txt files of text")
    line, end, _ = start.partition(b"\n")
    if not end and file.size > len(start):
        raise DataError(f"{file.uri}: its first line is longer than {HEADER_BYTES} bytes; it must name the columns")
    with reading(file.uri):
        return line.decode("utf-8-sig").rstrip("\r")


def _typed(file: Source) -> bool:
    """Whether the header is the original's (id:int64 or src_id:int64 first)."""
    return file.size > 0 and read_bytes(file, 0, 16).lstrip(b"\xef\xbb\xbf").startswith((b"id:", b"src_id:"))


def place_name(place: str) -> str:
    """What a graph read from there is called: the last part of the path."""
    name = s3.parse(place).name if s3.is_s3(place) else Path(place).expanduser().resolve().name
    return name or "graph"


def _folders(place: str, files: dict[str, Source]) -> Layout:
    """nodes/, edges/ and labels/, each with one file or one folder of files a type."""
    found: dict[str, dict[str, list[Source]]] = {"nodes": {}, "edges": {}, "labels": {}}
    for name, file in files.items():
        top, _, rest = name.partition("/")
        if top not in found or not rest:
            continue
        if file.suffix not in SUFFIXES:
            raise DataError(f"{file.uri}: unknown kind of file; allowed: {', '.join(s[1:] for s in SUFFIXES)}")
        folder, _, _ = rest.rpartition("/")
        key = folder or PurePosixPath(rest).stem
        twice = found[top].setdefault(key, [])
        if twice and not folder:
            raise DataError(f"{file.uri}: stands beside {twice[0].uri}; keep one of them, or both in a folder {key}/")
        twice.append(file)
    return _layout(place, found["nodes"], found["edges"], found["labels"])


def _layout(
    place: str, nodes: dict[str, list[Source]], edges: dict[str, list[Source]], labels: dict[str, list[Source]]
) -> Layout:
    def relation(name: str) -> Relation:
        try:
            return relation_of(name)
        except DataError as error:
            raise DataError(f"{edges[name][0].uri}: {error}") from None

    return Layout(
        place_name(place), place,
        {check_type_name(t, place): tuple(f) for t, f in sorted(nodes.items())},
        dict(sorted((relation(name), tuple(f)) for name, f in edges.items())),
        {t: tuple(f) for t, f in sorted(labels.items())},
    )  # fmt: skip


def _original(place: str, files: dict[str, Source], known: tuple[str, ...]) -> Layout:
    """The original's flat folder: node files TYPE[_node][_N], edge files SRC_REL_DST[_N] or REL_edge[_N]."""
    nodes: dict[str, list[Source]] = {}
    edges: dict[str, list[Source]] = {}
    stems = {name: _PART.sub("", PurePosixPath(name).stem) for name in files}
    starts = {name: header_line(file).startswith("id:") for name, file in files.items()}
    for name in (n for n in files if starts[n]):
        kind = _NODE_WORDS.sub("", stems[name])
        nodes.setdefault(_SINGULAR.get(kind, kind), []).append(files[name])
    for name in (n for n in files if not starts[n]):
        types = list(dict.fromkeys([*nodes, *known]))
        edges.setdefault(_relation_in(stems[name], types, files[name].uri), []).append(files[name])
    return _layout(place, nodes, edges, {})


def _relation_in(stem: str, types: list[str], uri: str) -> str:
    """The relation that a file's name tells, given the node types there are."""
    if "__" in stem:
        return stem
    stem = _EDGE_WORDS.sub("", stem)
    found = {
        relation_name((s, stem[len(s) + 1 : -len(d) - 1], d))
        for s in types
        for d in types
        if stem.startswith(f"{s}_") and stem.endswith(f"_{d}") and len(stem) > len(s) + len(d) + 2
    }
    if len(found) == 1:
        return found.pop()
    if len(types) == 1:
        return relation_name((types[0], stem, types[0]))
    if set(types) == {"user", "note"}:
        return relation_name(("user", stem, "note"))
    raise DataError(
        f"{uri}: its name does not tell which of {', '.join(types) or 'no node types'} it joins; name it "
        f"SOURCE__RELATION__DESTINATION.tsv, or tell it in {MAPPING} (edges: {{SOURCE__RELATION__DESTINATION: FILE}})"
    )


def _mapped(place: str, files: dict[str, Source]) -> Layout:
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
        made = _layout(place, *parts)
    else:
        made = _folders(place, files)
    symmetric = given.get("symmetric") or []
    if not isinstance(symmetric, list) or not all(isinstance(s, str) for s in symmetric):
        raise DataError(f"{origin}: symmetric: must be a list of relations, e.g. [node__edge__node]")
    name = str(given.get("name") or made.name)
    return Layout(name, place, made.nodes, made.edges, made.labels, tuple(relation_of(s) for s in symmetric))


def _yaml(file: Source) -> dict[str, Any]:
    with reading(file.uri):
        given = yaml.safe_load(read_bytes(file).decode())
    if not isinstance(given, dict):
        raise DataError(f"{file.uri}: must hold keys, allowed: {', '.join(_KEYS)}")
    for key in given:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise DataError(f"{file.uri}: unknown key {key!r}; allowed: {', '.join(_KEYS)}{hint}")
    return given


def _map(origin: str, top: str, given: dict[str, Any]) -> dict[Any, Any]:
    value = given.get(top) or {}
    if not isinstance(value, dict):
        raise DataError(f"{origin}: {top}: must map names to files, e.g. {top}: {{user: user_*.tsv}}")
    return value


def _matching(origin: str, key: str, patterns: Any, files: dict[str, Source]) -> list[Source]:
    wanted = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(wanted, list) or not all(isinstance(p, str) for p in wanted):
        raise DataError(f"{origin}: {key}: must be a file, a pattern or a list of them")
    found = [f for n, f in files.items() if n != MAPPING and any(_hit(n, p) for p in wanted)]
    if not found:
        raise DataError(f"{origin}: {key}: no file matches {', '.join(wanted)}")
    wrong = [f for f in found if f.suffix not in SUFFIXES]
    if wrong:
        raise DataError(f"{wrong[0].uri}: unknown kind of file; allowed: {', '.join(s[1:] for s in SUFFIXES)}")
    return found


def _hit(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, pattern.rstrip("/") + "/*")


def _checked(made: Layout, known: tuple[str, ...]) -> Layout:
    """Every relation has nodes at both ends, and labels belong to a type."""
    if not (made.nodes or made.edges if known else made.nodes and made.edges):
        kind, example = ("nodes", "user.csv") if not made.nodes else ("edges", "user__follow_note__note.csv")
        raise DataError(f"{made.origin}: no {kind}; a graph needs at least one table, e.g. {kind}/{example}")

    def need(kind: str, files: Files, what: str) -> None:
        if kind not in made.nodes and kind not in known:
            near = difflib.get_close_matches(kind, made.nodes, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise DataError(
                f"{files[0].uri}: {what} the node type {kind!r}, which has no nodes (there are: "
                f"{', '.join(dict.fromkeys([*made.nodes, *known]))}){hint}"
            )

    for relation, files in made.edges.items():
        for end in (relation[0], relation[2]):
            need(end, files, f"relation {relation_name(relation)} joins")
    for kind, files in made.labels.items():
        need(kind, files, "labels belong to")
    for relation in made.symmetric:
        if relation not in made.edges:
            raise DataError(f"{made.origin}: {MAPPING}: symmetric: there is no relation {relation_name(relation)}")
    return made
