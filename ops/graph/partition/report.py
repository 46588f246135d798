"""What a partition is worth: edge cut, balance by node type and edge type, halo sizes; as values and as text.

Axes: P parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ops.data.types.hetero import relation_name

if TYPE_CHECKING:
    from ops.graph.partition.manifest import Manifest


def summary(manifest: Any, counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The report of a manifest (its `edges` counted) from what was counted part by part, as JSON.

    `cut`: share of the edges, self loops apart, whose ends have different owners. `imbalance`: the largest part over
    the mean. `halo`: nodes of other parts with an edge into a part. Reverse relations count for `stored` only.
    """
    forward = [relation_name(r) for r in manifest.forward]
    edges: dict[str, Any] = {}
    for name in forward:
        each = [c["edges"][name] for c in counts]
        loops, cut = sum(c["loops"][name] for c in counts), sum(c["cut"][name] for c in counts)
        edges[name] = {"cut": _share(cut, sum(each) - loops), "cut_edges": cut, "self_loops": loops,
                       "imbalance": _imbalance(each), "parts": each}  # fmt: skip
    nodes = {}
    for kind in sorted(manifest.nodes):
        each, halo = [c["nodes"][kind] for c in counts], [c["halo"][kind] for c in counts]
        nodes[kind] = {"imbalance": _imbalance(each), "parts": each, "halo": halo,
                       "halo_share": _share(sum(halo), sum(each))}  # fmt: skip
    stored = [sum(c["edges"].values()) for c in counts]
    loops = sum(e["self_loops"] for e in edges.values())
    total = sum(manifest.edges[r].count for r in manifest.forward)
    return {
        "cut": _share(sum(e["cut_edges"] for e in edges.values()), total - loops),
        "edges": edges,
        "nodes": nodes,
        "stored": {"parts": stored, "imbalance": _imbalance(stored)},
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _imbalance(sizes: Sequence[int]) -> float:
    """The largest over the mean; 1 where there is nothing."""
    return max(sizes) * len(sizes) / sum(sizes) if sum(sizes) else 1.0


def text(manifest: Manifest) -> str:
    """The report as lines for a terminal."""
    report = manifest.report
    stored = np.array(report["stored"]["parts"])
    lines = [
        f"{manifest.name}: {manifest.parts} parts by {manifest.partitioner.get('method', 'given')}, "
        f"edge cut {100 * report['cut']:.1f} %, edges a part {stored.min():,} to {stored.max():,} "
        f"(imbalance {report['stored']['imbalance']:.3f})"
    ]
    head = ("node type", "nodes", "smallest", "largest", "imbalance", "halo")
    rows = [head]
    for kind, n in report["nodes"].items():
        rows.append((kind, f"{sum(n['parts']):,}", f"{min(n['parts']):,}", f"{max(n['parts']):,}",
                     f"{n['imbalance']:.3f}", f"{n['halo_share']:.2f}"))  # fmt: skip
    lines += _table(rows)
    rows = [("relation", "edges", "smallest", "largest", "imbalance", "cut %")]
    for name, e in report["edges"].items():
        rows.append((name, f"{sum(e['parts']):,}", f"{min(e['parts']):,}", f"{max(e['parts']):,}",
                     f"{e['imbalance']:.3f}", f"{100 * e['cut']:.1f}"))  # fmt: skip
    lines += _table(rows)
    lines.append("imbalance: largest part / mean; halo: nodes of other parts with an edge into a part, per own node")
    loops = sum(e["self_loops"] for e in report["edges"].values())
    if loops:
        lines.append(f"self loops: {loops:,}, stored, not counted in the cut")
    return "\n".join([*lines, *manifest.notes])


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their widest cell; the first on the left, numbers on the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lined = []
    for row in rows:
        cells = [cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lined.append("  ".join(cells))
    return lined
