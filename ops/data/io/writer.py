"""Node, edge and label tables written in parts as Parquet.

A folder is complete when its graph.yaml says so, which is the last thing written; readers refuse it before.
"""

import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ops.atomic_io import atomic_write, replacing
from ops.data.io.layout import MAPPING
from ops.data.io.plain_yaml import load_yaml
from ops.data.types.hetero import Edges, Ids, Relation, relation_name
from ops.errors import SettingsError

# what a graph's folder may hold; the tab-separated files are those of earlier versions
_WRITTEN = re.compile(
    r"nodes|edges|labels|graph\.yaml|\.graph\.yaml\.tmp|\.?[\w.-]+(_node|__[\w.-]+__[\w.-]+?)(_\d{5})?\.tsv(\.tmp)?"
)


class PartedTable:
    """A table in files, one a range of owners (nodes): rows are written in the order of their owners.

    A context manager: at the end all files are there, those that got no rows too; after an error only whole ones are.
    """

    def __init__(self, paths: Sequence[Path], owners: int, schema: Any) -> None:
        self._paths, self._schema = paths, schema
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

    def __enter__(self) -> "PartedTable":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        if kind is None:
            self._open(len(self._paths) - 1)
        self._stack.__exit__(kind, *error)

    def _open(self, part: int) -> None:
        import pyarrow.parquet as pq

        while self._part < part:
            self._stack.close()
            self._part += 1
            temporary = self._stack.enter_context(replacing(self._paths[self._part]))
            # random numbers do not repeat: dictionaries of them only cost time
            writer = pq.ParquetWriter(temporary, self._schema, use_dictionary=["weight", "label"])
            self._out = self._stack.enter_context(writer)


def paths(folder: Path, top: str, key: str, parts: int) -> list[Path]:
    """The files of a table: nodes/user.parquet, or nodes/user/part-00000.parquet ..."""
    if parts == 1:
        return [folder / top / f"{key}.parquet"]
    return [folder / top / key / f"part-{p:05}.parquet" for p in range(parts)]


def node_rows(ids: Ids, x: NDArray[np.float32] | None) -> Any:
    """An Arrow table of nodes: id, f0, f1, ..."""
    import pyarrow as pa

    columns = {} if x is None else {f"f{i}": pa.array(np.ascontiguousarray(column)) for i, column in enumerate(x.T)}
    return pa.table({"id": pa.array(ids)} | columns)


def edge_rows(src: Ids, dst: Ids, edges: Edges) -> Any:
    """An Arrow table of edges: src, dst, weight and time where they are."""
    import pyarrow as pa

    columns = {"src": src, "dst": dst, "weight": edges.weight, "time": edges.time}
    return pa.table({name: pa.array(values) for name, values in columns.items() if values is not None})


def label_rows(ids: Ids, labels: NDArray[np.int64]) -> Any:
    """An Arrow table of id and label."""
    import pyarrow as pa

    return pa.table({"id": pa.array(ids), "label": pa.array(labels)})


def begin_folder(folder: Path, fresh: bool, recipe: dict[str, Any]) -> bool:
    """Make `folder` ready; False where it is complete and holds just what `recipe` describes, so nothing is to do.

    What an earlier start of the same command left half-written is removed, and all of ours with `fresh`. Raises
    SettingsError for a folder that holds anything else.
    """
    names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"--out {folder}: is a file; give a folder")
    strange = [name for name in names if not _WRITTEN.fullmatch(name)]
    if strange:
        raise SettingsError(f"--out {folder}: holds {', '.join(strange[:3])}, which no graph has; give an empty folder")
    old = _stored(folder / MAPPING)
    if names and not fresh:
        if old.get("made") != recipe:
            raise SettingsError(f"--out {folder}: is not empty; give another folder, or --fresh to replace the graph")
        if old.get("complete"):
            return False
    write_mapping(folder, {"complete": False, "made": recipe})
    for path in (folder / name for name in names if name != MAPPING):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return True


def _stored(path: Path) -> dict[str, Any]:
    try:
        content = load_yaml(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def write_mapping(folder: Path, content: dict[str, Any]) -> None:
    """graph.yaml, whole or not there."""
    atomic_write(folder / MAPPING, yaml.safe_dump(content, sort_keys=False))


def mapping(name: str, symmetric: Sequence[Relation] = ()) -> dict[str, Any]:
    """What graph.yaml says of a complete graph."""
    said: dict[str, Any] = {"name": name, "complete": True}
    return said | ({"symmetric": [relation_name(r) for r in symmetric]} if symmetric else {})
