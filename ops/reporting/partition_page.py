"""The picture of a partition and the page with it; imported inside functions, as it imports matplotlib."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ops.atomic_io import atomic_write
from ops.graph.partition import report
from ops.graph.partition.manifest import Manifest
from ops.reporting.html import render
from ops.reporting.theme import CYCLE, INK, legend, panels, pngs, style


def picture(manifest: Manifest) -> Figure:
    """Edges and nodes by part, the cut by relation, the halo by part and node type."""
    summary = manifest.report
    figure, axes = panels(4, height=3.0)
    titles = ("Edges stored", "Nodes / mean", "Halo / nodes of the part", "Edges cut (%)")
    for ax, title in zip(axes, titles, strict=True):
        style(ax, title)
    at, stored = np.arange(manifest.parts), np.array(summary["stored"]["parts"], dtype=float)
    axes[0].bar(at, stored, color=CYCLE[8], width=0.8)
    axes[0].axhline(stored.mean(), color=INK, linewidth=0.8)
    for i, (kind, n) in enumerate(summary["nodes"].items()):
        nodes, halo = np.array(n["parts"], dtype=float), np.array(n["halo"], dtype=float)
        colour = CYCLE[i % len(CYCLE)]
        for ax, values in ((axes[1], nodes / max(nodes.mean(), 1e-9)), (axes[2], halo / np.maximum(nodes, 1))):
            ax.plot(at, values, color=colour, marker="o", markersize=3, linewidth=1, label=kind)
    rows = np.arange(len(summary["edges"]))
    axes[3].barh(rows, [100 * edges["cut"] for edges in summary["edges"].values()], color=CYCLE[0])
    axes[3].set_yticks(rows, [name.replace("__", " ") for name in summary["edges"]])
    axes[3].set_xlim(0, 100)
    axes[3].invert_yaxis()
    for ax in axes[:3]:
        ax.set_ylim(0, 1.1 * max(ax.get_ylim()[1], 1e-9))
        ax.set_xlabel("part")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure, axes[1])
    return figure


def write_page(manifest: Manifest, picture_file: Path, page_file: Path) -> None:
    """The picture as PNG, and the report with it as one HTML page without any other file."""
    whole, *panels_of_it = pngs(picture(manifest))
    drawings = {"Sizes, cut and halo of the parts; the line is the mean.": panels_of_it}
    title, heading = f"{manifest.name} in {manifest.parts} parts", "Parts and relations"
    html = render("page.html.j2", title=title, heading=heading, text=report.text(manifest), drawings=drawings)
    atomic_write(picture_file, whole)
    atomic_write(page_file, html)
