"""Node, edge and label tables written in parts as csv, tsv, parquet or the original's tab files.

A folder is complete when its graph.yaml says so, which is the last thing written; readers refuse it before.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from ops.atomic_io import replacing
from ops.data.io.layout import MAPPING
from ops.data.types.hetero import Edges, HeteroGraph, Ids, Nodes, Relation, relation_name
from ops.errors import SettingsError

Form = Literal["parquet", "csv", "tsv", "original"]
FORMS: tuple[Form, ...] = ("parquet", "csv", "tsv", "original")
_OURS = re.compile(
    r"nodes|edges|labels|graph\.yaml|\.graph\.yaml\.tmp|\.?[\w.-]+(_node|__[\w.-]+__[\w.-]+?)(_\d{5})?\.tsv(\.tmp)?"
)


class PartedTable:
    """A table in files, one a range of owners (nodes): rows are written in the order of their owners.

    Each file is whole or not there; `close` writes those that got no rows, too.
    """

    def __init__(self, paths: Sequence[Path], owners: int, form: Form, schema: Any) -> None:
        self._paths, self._form, self._schema = paths, form, schema
        self._bounds = np.array([owners * p // len(paths) for p in range(1, len(paths) + 1)], dtype=np.int64)
        self._part, self._stack, self._out = -1, ExitStack(), None

    def write(self, table: Any, owners: NDArray[np.int64]) -> None:
        """Rows of an Arrow table; `owners` int64 [rows] never decrease, nor from one call to the next."""
        first = 0
        for part, end in enumerate(np.searchsorted(owners, self._bounds)):
            if end > first:
                self._open(part)
                self._out.write_table(table.slice(first, int(end) - first))  # type: ignore[attr-defined]
                first = int(end)

    def close(self) -> None:
        """All files are there afterwards."""
        self._open(len(self._paths) - 1)
        self._stack.close()

    def abort(self) -> None:
        """Remove the file that is being written."""
        self._stack.pop_all().__exit__(InterruptedError, InterruptedError(), None)

    def _open(self, part: int) -> None:
        import pyarrow.csv as pc
        import pyarrow.parquet as pq

        while self._part < part:
            self._stack.close()
            self._part += 1
            temporary = self._stack.enter_context(replacing(self._paths[self._part]))
            if self._form == "parquet":
                # random numbers do not repeat: dictionaries of them only cost time
                out = pq.ParquetWriter(temporary, self._schema, use_dictionary=["weight", "label"])
            else:
                # the original quotes nothing
                style = pc.WriteOptions(
                    delimiter="," if self._form == "csv" else "\t",
                    quoting_style="none" if self._form == "original" else "needed",
                    quoting_header="none",
                )
                out = pc.CSVWriter(temporary, self._schema, write_options=style)
            self._out = self._stack.enter_context(out)


def paths(folder: Path, top: str, key: str, parts: int, form: Form) -> list[Path]:
    """The files of a table: nodes/user.csv, or nodes/user/part-00000.csv ...; flat for the original's."""
    if form == "original" and top != "labels":
        stem = f"{key}_node" if top == "nodes" else key
        return [folder / f"{stem}{'' if parts == 1 else f'_{p:05}'}.tsv" for p in range(parts)]
    suffix = "tsv" if form == "original" else form
    if parts == 1:
        return [folder / top / f"{key}.{suffix}"]
    return [folder / top / key / f"part-{p:05}.{suffix}" for p in range(parts)]


def node_rows(ids: Ids, x: NDArray[np.float32] | None, form: Form) -> Any:
    """An Arrow table of nodes: id, f0, f1, ... or the original's id:int64 and feature:string (joined by ':')."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = {} if x is None else {f"f{i}": pa.array(np.ascontiguousarray(column)) for i, column in enumerate(x.T)}
    if form != "original":
        return pa.table({"id": _ids(ids)} | columns)
    rows = {f"id:{_kind(ids)}": _ids(ids)}
    if columns:
        words = [column.cast(pa.string()) for column in columns.values()]
        rows["feature:string"] = pc.binary_join_element_wise(*words, ":")
    return pa.table(rows)


def edge_rows(src: Ids, dst: Ids, edges: Edges, form: Form) -> Any:
    """An Arrow table of edges: src, dst, weight, time where they are; the original's columns and time:int64."""
    import pyarrow as pa

    names = {"src": "src", "dst": "dst", "weight": "weight", "time": "time"}
    if form == "original":
        names = {"src": f"src_id:{_kind(src)}", "dst": f"dst_id:{_kind(dst)}", "weight": "weight:float",
                 "time": "time:int64"}  # fmt: skip
    rows = {names["src"]: _ids(src), names["dst"]: _ids(dst)}
    if edges.weight is not None:
        rows[names["weight"]] = pa.array(edges.weight)
    if form == "original":
        rows["label:int32"] = pa.array(np.ones(edges.count, dtype=np.int32))
    if edges.time is not None:
        rows[names["time"]] = pa.array(edges.time)
    return pa.table(rows)


def label_rows(ids: Ids, labels: NDArray[np.int64]) -> Any:
    """An Arrow table of id and label."""
    import pyarrow as pa

    return pa.table({"id": _ids(ids), "label": pa.array(labels)})


def _ids(ids: Ids) -> Any:
    import pyarrow as pa

    return pa.array(ids) if ids.dtype.kind == "i" else pa.array(ids.tolist(), pa.string())


def _kind(ids: Ids) -> str:
    return "int64" if ids.dtype.kind == "i" else "string"


def begin(folder: Path, fresh: bool, made: dict[str, Any]) -> bool:
    """Make `folder` ready; False where it is complete and holds just what `made` describes, so nothing is to do.

    What an earlier start of the same command left half-written is removed, and all of ours with `fresh`. Raises
    SettingsError for a folder that holds anything else.
    """
    found = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"--out {folder}: is a file; give a folder")
    strange = [name for name in found if not _OURS.fullmatch(name)]
    if strange:
        raise SettingsError(f"--out {folder}: holds {', '.join(strange[:3])}, which no graph has; give an empty folder")
    old = _stored(folder / MAPPING)
    if found and not fresh:
        if old.get("made") != made:
            raise SettingsError(f"--out {folder}: is not empty; give another folder, or --fresh to replace the graph")
        if old.get("complete"):
            return False
    write_mapping(folder, {"complete": False, "made": made})
    for name in found:
        if name != MAPPING:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return True


def _stored(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def write_mapping(folder: Path, content: dict[str, Any]) -> None:
    """graph.yaml, whole or not there."""
    with replacing(folder / MAPPING) as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False))


def write_graph(
    graph: HeteroGraph, folder: Path, form: Form = "parquet", parts: int = 1, groups: dict[str, Any] | None = None
) -> None:
    """A graph in memory as a folder of tables, in the order of its rows; `groups` go to labels/."""
    for kind, nodes in graph.nodes.items():
        rows = node_rows(nodes.ids, nodes.x, form)
        _write(paths(folder, "nodes", kind, parts, form), form, rows, np.arange(nodes.count), nodes.count)
        if groups and kind in groups:
            rows = label_rows(nodes.ids, groups[kind])
            _write(paths(folder, "labels", kind, parts, form), form, rows, np.arange(nodes.count), nodes.count)
    for relation, edges in graph.edges.items():
        ends: tuple[Nodes, Nodes] = graph.nodes[relation[0]], graph.nodes[relation[2]]
        rows = edge_rows(ends[0].ids[edges.src], ends[1].ids[edges.dst], edges, form)
        _write(paths(folder, "edges", relation_name(relation), parts, form), form, rows, edges.src, ends[0].count)
    said = mapping(graph.name, list(graph.nodes), list(graph.edges), form, labelled=list(groups or {}))
    write_mapping(folder, said)


def _write(files: Sequence[Path], form: Form, rows: Any, owners: NDArray[np.int64], count: int) -> None:
    table = PartedTable(files, count, form, rows.schema)
    try:
        table.write(rows, owners)
        table.close()
    except BaseException:
        table.abort()
        raise


def mapping(
    name: str,
    kinds: Sequence[str],
    relations: Sequence[Relation],
    form: Form,
    *,
    labelled: Sequence[str] = (),
    symmetric: Sequence[Relation] = (),
) -> dict[str, Any]:
    """What graph.yaml says of a complete graph."""
    said: dict[str, Any] = {"name": name, "complete": True}
    if symmetric:
        said["symmetric"] = [relation_name(r) for r in symmetric]
    if form == "original":
        said["nodes"] = {kind: _flat(f"{kind}_node") for kind in kinds}
        said["edges"] = {relation_name(r): _flat(relation_name(r)) for r in relations}
        said["labels"] = {kind: [f"labels/{kind}.tsv", f"labels/{kind}/*"] for kind in labelled}
    return said


def _flat(stem: str) -> list[str]:
    return [f"{stem}.tsv", f"{stem}_[0-9][0-9][0-9][0-9][0-9].tsv"]
