"""What a training of HSAN needs, told before it starts: how pair weights are held, peak memory."""

from __future__ import annotations

from ops.contrast.budget import storage_within
from ops.contrast.tiles import upper_numel
from ops.contrast.weights import Storage
from ops.data.types import AttributedGraph
from trainers.hsan.settings import Settings

THREADS_AND_KERNELS = 160 * 2**20  # what torch, BLAS and scikit-learn take at their first real work, measured on bat


def storage_for(n_nodes: int, settings: Settings) -> tuple[Storage, int]:
    """How to hold the pair weights within `pair_memory`, and the bytes left for kept tiles; ResourceError if nohow."""
    pairs = upper_numel(2 * n_nodes, settings.tile_rows)
    return storage_within(settings.pair_memory, pairs, settings.weights, settings.pair_storage)


def estimate(settings: Settings, data: AttributedGraph) -> int:
    """Peak bytes of one training above the import baseline; checked against measured peaks by tests/bench/train.py."""
    n, d = data.n_nodes, settings.embedding_dim
    f = min(settings.pca_dim or data.n_features, data.n_features, n)
    storage, cache = storage_for(n, settings)
    pairs = 4 * upper_numel(2 * n, settings.tile_rows)
    kept = {"float": pairs, "uint16": pairs // 2, "recompute": 0}[storage] + min(pairs, cache)
    rows, parameters = 4 * 2 * n * d, 4 * 2 * (n + f) * d
    # parameters with gradients and Adam's moments; Z, E, their gradients and what the encoders' backward pass adds
    training = 4 * parameters + 5.5 * rows + kept + 4 * 4 * settings.tile_rows**2
    preparing = 2 * data.x.nbytes + 3 * 8 * n * f  # PCA's copy; the filter works in float64
    inputs = 2 * data.x.nbytes + 4 * n * f + 4 * data.edge_index.nbytes
    return int(THREADS_AND_KERNELS + inputs + max(training, preparing))
