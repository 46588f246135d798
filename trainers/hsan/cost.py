"""What a training of HSAN needs, computed before it starts: how pair weights are stored, peak memory, traffic."""

from ops.data.types.graph import AttributedGraph
from ops.distributed.process_group import traffic
from ops.losses.memory_budget import storage_within
from ops.losses.pair_weights import Storage
from ops.losses.tiles import tile_rows_on, upper_numel
from ops.memory import THREADS_AND_KERNELS
from trainers.hsan.settings import Settings


def storage_for(n_nodes: int, settings: Settings, world: int = 1, tile_rows: int | None = None) -> tuple[Storage, int]:
    """How a worker stores its share of the pair weights within `pair_memory`, and the bytes that remain for kept tiles.

    `tile_rows` are those of the device that stores them; None means a CPU. Raises ResourceError where no way fits.
    """
    pairs = -(-upper_numel(2 * n_nodes, tile_rows or tile_rows_on(settings.tile_rows)) // world)
    return storage_within(settings.pair_memory, pairs, settings.weights, settings.pair_storage)


def columns(settings: Settings, data: AttributedGraph) -> int:
    """F, the number of columns that reach the encoders."""
    return min(settings.pca_dim or data.n_features, data.n_features, data.n_nodes)


def estimate(settings: Settings, data: AttributedGraph, world: int = 1) -> int:
    """Peak bytes of one worker above the import baseline; checked against measured peaks by tests/bench/train.py."""
    n, d, b = data.n_nodes, settings.embedding_dim, settings.largest_step(data.n_nodes)
    f = columns(settings, data)
    storage, cache = storage_for(b, settings, world)
    tile_rows = tile_rows_on(settings.tile_rows)
    pairs = 4 * upper_numel(2 * b, tile_rows) // world
    kept = {"float": pairs, "uint16": pairs // 2, "recompute": 0}[storage] + min(pairs, cache)
    rows, parameters = 4 * 2 * b * d, 4 * 2 * (n + f) * d
    # parameters with their gradients, Adam's moments and the copy of the last sound ones; then Z, E, their gradients
    # and what the encoders' backward pass adds
    copies = (4 + settings.guarded) * parameters
    snapshot = 2 * rows if storage == "recompute" else 0
    training = copies + 5.5 * rows + kept + snapshot + 4 * 4 * tile_rows**2
    clustering = copies + 5 * 4 * n * d if b < n else 0  # Z of all nodes, its fused rows, and what k-means adds
    preparing = 2 * 8 * n * f + (
        2 * data.x.nbytes if f < data.n_features else 0
    )  # the filter is in float64; PCA copies
    inputs = 2 * data.x.nbytes + 4 * n * f + 4 * data.edge_index.nbytes
    return int(THREADS_AND_KERNELS + inputs + max(training, preparing, clustering))


def exchanged(settings: Settings, data: AttributedGraph, world: int) -> int:
    """Bytes that one worker sends in a step: Z and E and their gradients, row totals, parameter gradients.

    Batches differ little in size. A step that updates the pair weights sends 32 bytes more, their range and counts.
    """
    b, d, f = settings.largest_step(data.n_nodes), settings.embedding_dim, columns(settings, data)
    gathered = 4 * (4 * 2 * world * -(-b // world) * d)
    parameters = 2 * (data.n_nodes + f + 2) * d + 1
    return traffic(gathered, 8 * 2 * b + 4 * parameters, world)
