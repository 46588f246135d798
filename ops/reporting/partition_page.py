"""The picture of a partition and the page with it; imported inside functions, as it imports matplotlib."""

from __future__ import annotations

import base64
import html

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ops.graph.partition.manifest import Manifest
from ops.graph.partition.report import text
from ops.reporting.theme import CYCLE, INK, legend, panels, style


def picture(manifest: Manifest) -> Figure:
    """Edges and nodes by part, the cut by relation, the halo by part and node type."""
    report = manifest.report
    figure, axes = panels(4, height=3.0)
    at = np.arange(manifest.parts)
    stored = np.array(report["stored"]["parts"], dtype=float)
    style(axes[0], "Edges stored")
    axes[0].bar(at, stored, color=CYCLE[8], width=0.8)
    axes[0].axhline(stored.mean(), color=INK, linewidth=0.8)
    style(axes[1], "Nodes / mean")
    style(axes[2], "Halo / own nodes")
    for i, (kind, n) in enumerate(report["nodes"].items()):
        own, halo = np.array(n["parts"], dtype=float), np.array(n["halo"], dtype=float)
        colour = CYCLE[i % len(CYCLE)]
        axes[1].plot(at, own / max(own.mean(), 1e-9), color=colour, marker="o", markersize=3, linewidth=1, label=kind)
        axes[2].plot(at, halo / np.maximum(own, 1), color=colour, marker="o", markersize=3, linewidth=1)
    names = list(report["edges"])
    style(axes[3], "Edges cut (%)")
    axes[3].barh(np.arange(len(names)), [100 * report["edges"][name]["cut"] for name in names], color=CYCLE[0])
    axes[3].set_yticks(np.arange(len(names)), [name.replace("__", " ") for name in names])
    axes[3].set_xlim(0, 100)
    axes[3].invert_yaxis()
    for ax in axes[:3]:
        ax.set_ylim(0, 1.1 * max(ax.get_ylim()[1], 1e-9))
        ax.set_xlabel("part")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure, axes[1])
    return figure


def page(manifest: Manifest, image: bytes) -> str:
    """The text and the picture as one HTML page without any other file."""
    told = html.escape(text(manifest))
    data = base64.b64encode(image).decode()
    title = html.escape(f"{manifest.name} in {manifest.parts} parts")
    look = "body{font-family:sans-serif;max-width:64rem;margin:2rem auto}img{max-width:100%}pre{overflow:auto}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{look}</style>'
        f'<h1>{title}</h1><pre>{told}</pre><img alt="Sizes, cut and halo of the parts" '
        f'src="data:image/png;base64,{data}"></html>\n'
    )
