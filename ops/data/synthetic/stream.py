"""Planted graphs as a folder of Parquet tables, written block by block: memory is that of a block."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ops.data.io.writer import (
    PartedTable,
    begin_folder,
    edge_rows,
    label_rows,
    mapping,
    node_rows,
    paths,
    write_mapping,
)
from ops.data.synthetic.original import original_blocks
from ops.data.synthetic.user_item import Block, Planted, blocks, both_ways
from ops.data.types.hetero import EDGE, relation_name
from ops.errors import DataError, SettingsError

TableRows = tuple[str, str, Any, Any]  # nodes, edges or labels; type or relation; an Arrow table; the node of each row
Say = Callable[[str], None]


def generate(
    planted: Planted, folder: Path, parts: int = 1, *, original: bool = False, fresh: bool = False,
    say: Say = lambda line: None,
) -> dict[str, int] | None:  # fmt: skip
    """Write the graph, graph.yaml last; the rows of each table, or None where it is there already.

    `original`: the original's fake data, of the users, notes and seed of `planted`. The rows do not depend on `parts`,
    the files of each table. Raises SettingsError for a folder that holds something else or edges that groups have no
    room for, DataError for more clusters or parts than nodes.
    """
    counts = planted.counts
    if not original:
        planted.check()
    if parts < 1:
        raise SettingsError(f"--parts {parts} must be >= 1")
    if parts > min(counts.values()):
        raise DataError(f"--parts {parts} must be <= {min(counts.values())}, the nodes of the smallest type")
    settings: dict[str, Any] = planted.model_dump()
    if original:
        settings = {k: settings[k] for k in ("users", "notes", "seed")} | {"preset": "original"}
    settings |= {"parts": parts}
    if not begin_folder(folder, fresh, settings):
        return None
    rows: dict[str, int] = {}
    for kind, count in counts.items():
        for total in _write_type(folder, planted, kind, parts, original):
            say(f"{kind}: {total[kind]:,} of {count:,}, rows in all {sum((rows | total).values()):,}")
        rows |= total
    content = mapping("original" if original else "planted", [EDGE] if planted.homogeneous else [])
    write_mapping(folder, content | {"made": settings})
    return rows


def _write_type(folder: Path, planted: Planted, kind: str, parts: int, original: bool) -> Iterator[dict[str, int]]:
    """Write the tables of one pass over a node type, opened as they come; yields their rows after every block."""
    tables: dict[tuple[str, str], PartedTable] = {}
    rows: dict[str, int] = {}
    with ExitStack() as stack:
        for block in original_blocks(planted, kind) if original else blocks(planted, kind):
            for top, key, table, owners in _rows_of(block, kind, planted.homogeneous):
                if not table.num_rows:  # a relation of a tiny graph may stay without edges: then it has no table
                    continue
                if (top, key) not in tables:
                    files = paths(folder, top, key, parts)
                    tables[top, key] = stack.enter_context(PartedTable(files, planted.counts[kind], table.schema))
                tables[top, key].write(table, owners)
                if top != "labels":
                    rows[key] = rows.get(key, 0) + table.num_rows
            yield rows


def _rows_of(block: Block, kind: str, homogeneous: bool) -> Iterator[TableRows]:
    yield "nodes", kind, node_rows(block.ids, block.x), block.ids
    if block.groups.size:
        yield "labels", kind, label_rows(block.ids, block.groups), block.ids
    for relation, drawn in block.edges.items():
        edges = both_ways(drawn) if homogeneous else drawn
        owners = np.repeat(drawn.src, 2) if homogeneous else drawn.src
        yield "edges", relation_name(relation), edge_rows(edges.src, edges.dst, edges), owners
