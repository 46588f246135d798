"""What a training of NS4GC needs, computed before it starts: peak memory and traffic."""

from ops.data.types.graph import AttributedGraph
from ops.distributed.process_group import traffic
from ops.losses.tiles import tile_rows_on
from ops.memory import THREADS_AND_KERNELS
from trainers.ns4gc.settings import Settings


def _parameters(settings: Settings, n_features: int) -> int:
    """How many numbers are trained."""
    return (n_features + 1) * settings.hidden + (settings.hidden + 1) * settings.embedding_dim


def estimate(settings: Settings, data: AttributedGraph, world: int = 1) -> int:
    """Peak bytes of one worker above the import baseline."""
    n, h, d = settings.largest_step(data.n_nodes), settings.hidden, settings.embedding_dim
    # of both views: hidden rows before and after SELU and embeddings, each with gradients
    rows = 4 * 2 * n * (4 * h // world + (h if world > 1 else 0) + 6 * d)
    evaluation = 4 * data.n_nodes * (3 * h // world + 4 * d) + 12 * data.n_nodes * settings.kmeans_starts
    edges = 6 * 20 * (data.edge_index.shape[1] + data.n_nodes)  # A, and S of both views, each with its transpose
    inputs = 2 * data.x.nbytes + 2 * data.edge_index.nbytes + edges
    parameters = 4 * 7 * _parameters(settings, data.n_features)
    tiles = 4 * 2 * tile_rows_on(settings.tile_rows) ** 2
    return int(THREADS_AND_KERNELS + inputs + parameters + tiles + max(rows, evaluation))


def exchanged(settings: Settings, data: AttributedGraph, world: int) -> int:
    """Bytes that one worker sends in a step: rows of both views with gradients, the loss, parameter gradients."""
    n, h, d = settings.largest_step(data.n_nodes), settings.hidden, settings.embedding_dim
    gathered = 4 * 2 * 2 * world * -(-n // world) * (h + d + d)
    return traffic(gathered, 8 + 4 * _parameters(settings, data.n_features), world)
