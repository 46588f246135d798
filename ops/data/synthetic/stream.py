"""Planted graphs written to a folder block by block: memory is that of a block, whatever the graph's size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ops.data.io.writer import PartedTable, begin, edge_rows, label_rows, mapping, node_rows, paths, write_mapping
from ops.data.synthetic.legacy_fake import EDGES, original_blocks
from ops.data.synthetic.user_item import Block, Planted, blocks, both_ways
from ops.data.types.hetero import EDGE, NODE, Relation, relation_name
from ops.errors import DataError, SettingsError

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What to write: a planted graph, or (`original`) the original's fake data of its users, notes and seed."""

    planted: Planted
    parts: int = 1
    original: bool = False

    @property
    def relations(self) -> tuple[Relation, ...]:
        """The relations that are written."""
        return tuple(EDGES) if self.original else self.planted.relations

    def blocks(self, kind: str) -> Iterator[Block]:
        """The blocks of a node type, in order."""
        p = self.planted
        return original_blocks(kind, p.users, p.notes, p.seed) if self.original else blocks(p, kind)

    def made(self) -> dict[str, Any]:
        """What makes the folder, for graph.yaml."""
        wanted = asdict(self.planted)
        if self.original:
            wanted = {k: wanted[k] for k in ("users", "notes", "seed")} | {"preset": "original"}
        return wanted | {"parts": self.parts}


def generate(order: Order, folder: Path, fresh: bool = False, tell: Tell = lambda _: None) -> dict[str, int] | None:
    """Write the graph, graph.yaml last; the rows of each table, or None where it is there already.

    The rows do not depend on parts. Raises SettingsError for values out of range or a folder that
    holds something else; DataError for more clusters or parts than nodes.
    """
    counts = order.planted.counts
    if not order.original:
        order.planted.check()
    if order.parts < 1:
        raise SettingsError(f"--parts {order.parts} must be >= 1")
    if order.parts > min(counts.values()):
        raise DataError(f"--parts {order.parts} must be <= {min(counts.values())}, the nodes of the smallest type")
    if not begin(folder, fresh, order.made()):
        return None
    rows: dict[str, int] = {}
    for kind, count in counts.items():
        with _Tables(folder, order, count) as out:
            for block in order.blocks(kind):
                _write_block(out, order, kind, block)
                tell(f"{kind}: {out.rows[kind]:,} of {count:,}, rows in all {sum(out.rows.values()):,}")
        rows |= out.rows
    symmetric = [EDGE] if order.planted.homogeneous else []
    said = mapping("original" if order.original else "planted", symmetric)
    write_mapping(folder, said | {"made": order.made()})
    return rows


class _Tables:
    """The tables that one pass over a node type writes, opened as they come."""

    def __init__(self, folder: Path, order: Order, count: int) -> None:
        self._folder, self._order, self._count = folder, order, count
        self._open: dict[tuple[str, str], PartedTable] = {}
        self.rows: dict[str, int] = {}

    def write(self, top: str, key: str, table: Any, owners: Any) -> None:
        """Rows of nodes, edges or labels; see PartedTable."""
        if not table.num_rows:  # a relation of a tiny graph may stay without edges: then it has no table
            return
        if (top, key) not in self._open:
            files = paths(self._folder, top, key, self._order.parts)
            self._open[top, key] = PartedTable(files, self._count, table.schema)
        self._open[top, key].write(table, owners)
        if top != "labels":
            self.rows[key] = self.rows.get(key, 0) + table.num_rows

    def __enter__(self) -> _Tables:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for table in self._open.values():
            if kind is None:
                table.close()
            else:
                with suppress(Exception):
                    table.abort()


def _write_block(out: _Tables, order: Order, kind: str, block: Block) -> None:
    n = block.groups.size if block.x is None else block.x.shape[0]
    ids = np.arange(block.first, block.first + n, dtype=np.int64)
    out.write("nodes", kind, node_rows(ids, block.x), ids)
    if not order.original:
        out.write("labels", kind, label_rows(ids, block.groups), ids)
    for relation, edges in block.edges.items():
        owners = np.repeat(edges.src, 2) if kind == NODE else edges.src
        directed = both_ways(edges) if kind == NODE else edges
        out.write("edges", relation_name(relation), edge_rows(directed.src, directed.dst, directed), owners)
