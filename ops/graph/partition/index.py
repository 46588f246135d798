"""The rows of a node type by their ids: written once, and mapped by every task that looks up the ends of edges.

Axes: N ids of a type, M ids that are looked up.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.graph.partition.arrays import open_arrays, read_facts, write_arrays
from ops.graph.partition.csr import index_dtype


def write_index(folder: Path, ids: NDArray[Any]) -> NDArray[np.int64] | None:
    """Store the rows of `ids` [N]; returns None, or the rows of the first repeated id, in which case nothing is stored.

    Numbers that lie close together become a table, other numbers and text a sorted list.
    """
    order = np.argsort(ids, kind="stable")
    ranked = ids[order]
    same = np.flatnonzero(ranked[1:] == ranked[:-1])
    if same.size:
        return order[same[0] : same[0] + 2].astype(np.int64)
    rows, low = order.astype(index_dtype(ids.size)), 0
    arrays = {"ids": ranked, "rows": rows}
    if ids.dtype.kind == "i" and ids.size and int(ranked[-1]) - int(ranked[0]) < 4 * ids.size + 1024:
        low = int(ranked[0])
        table = np.full(int(ranked[-1]) - low + 1, -1, dtype=rows.dtype)
        table[ranked - low] = rows
        arrays = {"table": table}
    write_arrays(folder, arrays, {"low": low, "dtype": ids.dtype.str})
    return None


def open_index(folder: Path) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """The function from ids [M] to rows [M] (-1: no such node) of a stored index; words do not match numbers."""
    facts, arrays = read_facts(folder), open_arrays(folder)
    numbers = np.dtype(facts["dtype"]).kind == "i"

    def rows_in_table(ids: NDArray[Any]) -> NDArray[Any]:
        at, table = ids - facts["low"], arrays["table"]
        inside = (at >= 0) & (at < table.size)
        return table[at] if inside.all() else np.where(inside, table[np.where(inside, at, 0)], -1).astype(table.dtype)

    def find(ids: NDArray[Any]) -> NDArray[Any]:
        if numbers and ids.dtype.kind != "i":
            return np.full(ids.size, -1, dtype=np.int32)
        if "table" in arrays:
            return rows_in_table(ids)
        keys = ids if numbers else ids.astype(np.str_, copy=False)
        ranked, rows = arrays["ids"], arrays["rows"]
        # in the width of the index, which else would be copied; ids that this cuts off are unequal below
        at = np.minimum(np.searchsorted(ranked, keys.astype(ranked.dtype, copy=False)), ranked.size - 1)
        return np.where(ranked[at] == keys, rows[at], -1).astype(rows.dtype)

    return find
