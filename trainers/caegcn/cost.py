"""What a training of CaEGCN needs, computed before it starts: peak memory and traffic."""

from itertools import pairwise

from ops.clustering.lloyd import CHUNK_VALUES
from ops.data.types.graph import AttributedGraph
from ops.distributed.process_group import traffic
from ops.losses.tiles import tile_rows_on
from ops.memory import THREADS_AND_KERNELS
from trainers.caegcn.model import LayerPlan, decoder_layers, encoder_layers, head_width
from trainers.caegcn.settings import Settings


def layer_plans(settings: Settings, n_features: int) -> list[LayerPlan]:
    """The plans of all graph layers."""
    return encoder_layers(settings, n_features) + (decoder_layers(settings, n_features) if settings.decoder else [])


def parameters(settings: Settings, n_features: int) -> int:
    """How many numbers are trained."""
    widths = [n_features, *settings.layers, settings.code_dim]
    content = 2 * sum(a * b for a, b in pairwise(widths)) + 2 * sum(widths) - widths[0] - widths[-1]
    graph = 0
    for plan in layer_plans(settings, n_features):
        graph += plan.inputs * plan.outputs
        if plan.attends:
            graph += 4 * plan.inputs * settings.heads * head_width(settings, plan.inputs)
    return content + graph + settings.k * settings.code_dim


def estimate(settings: Settings, data: AttributedGraph, world: int = 1) -> int:
    """Peak bytes of one worker above the import baseline; checked against measured peaks by tests/bench/caegcn.py."""
    f, n = data.n_features, settings.largest_step(data.n_nodes)
    local = -(-n // world)
    width = 2 * (sum(settings.layers) + settings.code_dim)  # of the content branch, for its backward pass
    gathered = 0
    for plan in layer_plans(settings, f):
        width += 3 * plan.inputs + plan.outputs
        if plan.attends:
            inside = settings.heads * head_width(settings, plan.inputs)
            width += 4 * inside
            gathered = max(gathered, (6 if world > 1 else 3) * inside)
    outputs = 5 * f if settings.decoder else 3 * f  # of both decoders, their errors and gradients
    rows = 4 * local * (2 * f + outputs + width) + 4 * n * gathered
    rows += 4 * 4 * local * settings.k * settings.code_dim  # differences to every centre, and their gradients
    starts = data.n_nodes * settings.centre_starts  # of k-means: labels, distances, and those to all centres
    starts = 12 * starts + 2 * 4 * min(starts * settings.k, CHUNK_VALUES)
    if settings.structure_from == "last" and settings.structure:
        rows += 4 * 2 * n * f
    copies = 4 * 5 * parameters(settings, f)  # with gradients, Adam's moments, the copy of the last sound ones
    step = max(rows, starts) + copies + 4 * 4 * tile_rows_on(settings.tile_rows) ** 2
    inputs = data.x.nbytes + 3 * 12 * data.edge_index.shape[1]
    return int(THREADS_AND_KERNELS + inputs + step + data.x.nbytes * (1 if settings.parts else 0))


def exchanged(settings: Settings, data: AttributedGraph, world: int) -> int:
    """Bytes that one worker sends in a step: gathered rows and their gradients, sums, parameter gradients."""
    f, n = data.n_features, settings.largest_step(data.n_nodes)
    size = world * -(-n // world)
    gathered = 0
    for plan in layer_plans(settings, f):
        if plan.fused is not None or plan.inputs == settings.k:
            gathered += 2 * size * min(plan.inputs, plan.outputs)
        if plan.attends:
            gathered += 2 * 2 * size * settings.heads * head_width(settings, plan.inputs)
    if settings.structure:
        gathered += 2 * size * (settings.k if settings.structure_from == "bottleneck" else f)
    metrics = 8 * (settings.k + 7 + settings.k) + (8 if settings.structure else 0)
    return traffic(4 * gathered, 4 * parameters(settings, f) + metrics, world)
