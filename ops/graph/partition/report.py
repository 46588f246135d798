"""The quality of a partition: edge cut, balance by node type and edge type, halo sizes; as values and as text.

Axes: P parts.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ops.graph.partition.manifest import Manifest


def summary(kinds: Iterable[str], forward: Iterable[str], counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The report of a manifest, as JSON, from the counts of its parts; `forward` names the relations of the graph.

    `cut`: the share of the edges, without self loops, whose ends lie in different parts. `imbalance`: the largest part
    over the mean. `halo`: nodes of other parts with an edge into a part. Reverse relations count for `stored` only.
    """
    edges: dict[str, Any] = {}
    for name in forward:
        sizes = [c["edges"][name] for c in counts]
        loops, cut = sum(c["loops"][name] for c in counts), sum(c["cut"][name] for c in counts)
        edges[name] = {"cut": _share(cut, sum(sizes) - loops), "cut_edges": cut, "self_loops": loops,
                       "imbalance": _imbalance(sizes), "parts": sizes}  # fmt: skip
    nodes = {}
    for kind in kinds:
        sizes, halo = [c["nodes"][kind] for c in counts], [c["halo"][kind] for c in counts]
        nodes[kind] = {"imbalance": _imbalance(sizes), "parts": sizes, "halo": halo,
                       "halo_share": _share(sum(halo), sum(sizes))}  # fmt: skip
    stored = [sum(c["edges"].values()) for c in counts]
    total = sum(sum(e["parts"]) - e["self_loops"] for e in edges.values())
    return {
        "cut": _share(sum(e["cut_edges"] for e in edges.values()), total),
        "edges": edges,
        "nodes": nodes,
        "stored": {"parts": stored, "imbalance": _imbalance(stored)},
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _imbalance(sizes: Sequence[int]) -> float:
    """The largest over the mean; 1 where all are 0."""
    return max(sizes) * len(sizes) / sum(sizes) if sum(sizes) else 1.0


def tables(manifest: Manifest) -> tuple[list[list[str]], list[list[str]]]:
    """The report as two tables of text, of node types and of relations; the headings are the first rows."""

    def row(name: str, sizes: list[int], imbalance: float, last: str) -> list[str]:
        return [name, f"{sum(sizes):,}", f"{min(sizes):,}", f"{max(sizes):,}", f"{imbalance:.3f}", last]

    report = manifest.report
    nodes = [["node type", "nodes", "smallest", "largest", "imbalance", "halo"]]
    nodes += [row(kind, n["parts"], n["imbalance"], f"{n['halo_share']:.2f}") for kind, n in report["nodes"].items()]
    edges = [["relation", "edges", "smallest", "largest", "imbalance", "cut %"]]
    edges += [row(name, e["parts"], e["imbalance"], f"{100 * e['cut']:.1f}") for name, e in report["edges"].items()]
    return nodes, edges


def cut_headline(manifest: Manifest) -> str:
    """The number of parts, the edge cut and the balance in one line."""
    report, stored = manifest.report, manifest.report["stored"]["parts"]
    return (f"{manifest.name}: {manifest.parts} parts by {manifest.partitioner.get('method', 'given')}, edge cut "
            f"{100 * report['cut']:.1f} %, edges a part {min(stored):,} to {max(stored):,} "
            f"(imbalance {report['stored']['imbalance']:.3f})")  # fmt: skip


def remarks(manifest: Manifest) -> list[str]:
    """What the columns of the tables mean, the self loops, and how many edges were merged."""
    lines = [
        "imbalance: largest part / mean; halo: nodes of other parts with an edge into a part, per node of the part"
    ]
    loops = sum(e["self_loops"] for e in manifest.report["edges"].values())
    lines += [f"self loops: {loops:,}, stored, not counted in the cut"] if loops else []
    return [*lines, *manifest.notes]


def text(manifest: Manifest) -> str:
    """The report as the lines that a terminal shows."""
    lines = [cut_headline(manifest)]
    for table in tables(manifest):
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for name, *numbers in table:
            cells = [name.ljust(widths[0]), *(n.rjust(w) for n, w in zip(numbers, widths[1:], strict=True))]
            lines.append("  ".join(cells))
    return "\n".join([*lines, *remarks(manifest)])
