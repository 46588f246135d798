"""What a training of DMoN needs, computed before it starts: peak memory and traffic."""

from ops.data.types.graph import AttributedGraph
from ops.distributed.process_group import traffic
from ops.memory import THREADS_AND_KERNELS
from trainers.dmon.settings import Settings


def _parameters(settings: Settings, n_features: int) -> int:
    """How many numbers are trained."""
    return (2 * n_features + 1) * settings.embedding_dim + (settings.embedding_dim + 1) * settings.k


def estimate(settings: Settings, data: AttributedGraph, world: int = 1) -> int:
    """Peak bytes of one worker above the import baseline."""
    n, d, k = settings.largest_step(data.n_nodes), settings.embedding_dim, settings.k
    rows = 4 * n * (7 * d // world + (2 * d if world > 1 else 0) + 6 * k)
    evaluation = 4 * data.n_nodes * (4 * d + 2 * k)
    edges = 8 * 20 * (data.edge_index.shape[1] + data.n_nodes)  # A, A^ and their transposes, twice while made
    inputs = 2 * data.x.nbytes + 2 * data.edge_index.nbytes + edges
    return int(THREADS_AND_KERNELS + inputs + 4 * 7 * _parameters(settings, data.n_features) + max(rows, evaluation))


def exchanged(settings: Settings, data: AttributedGraph, world: int) -> int:
    """Bytes that one worker sends in a step: rows and shares with their gradients, the loss, parameter gradients."""
    rows = world * -(-settings.largest_step(data.n_nodes) // world)
    gathered = 4 * 2 * rows * (settings.embedding_dim + settings.k)
    return traffic(gathered, 4 + 4 * _parameters(settings, data.n_features), world)
