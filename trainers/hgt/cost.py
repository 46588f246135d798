"""What a training of HGT will take: memory and traffic, and what the plan says about it."""

from __future__ import annotations

from ops.data.io.inductive_batch import neighbour_types
from ops.distributed.process_group import traffic
from ops.graph.sampling.client import cache_bytes
from ops.graph.sampling.dataset import PartitionedGraph
from trainers.hgt.loop import check_workers
from trainers.hgt.model import metadata_of, parameters
from trainers.hgt.settings import Settings

FLOAT = 4  # bytes
KEPT = 4  # copies of a gathered key and value that a backward pass has at once, as measured


def estimate(settings: Settings, data: PartitionedGraph, world: int) -> int:
    """Bytes above the imports: weights with gradients and Adam's moments, the largest batch, all embeddings."""
    check_workers(settings, world)
    nodes = data.manifest.nodes
    reached = {data.rows: settings.batch + 256.0, data.others: settings.batch + 256.0}
    gathered = 0.0
    for width in settings.fan_outs:
        drawn = {kind: min(count, data.count(kind)) * width for kind, count in reached.items()}
        gathered = max(gathered, sum(drawn[r[2]] for r in data.manifest.edges if r[2] in drawn))
        for relation in data.manifest.edges:
            if relation[2] in drawn:
                reached[relation[0]] = reached.get(relation[0], 0.0) + drawn[relation[2]]
    features = sum(min(count, data.count(kind)) * nodes[kind].features for kind, count in reached.items())
    states = sum(min(count, data.count(kind)) for kind, count in reached.items()) * settings.hidden * 6
    batch = FLOAT * (KEPT * 2 * settings.hidden * gathered + features + states)
    embeddings = 3 * FLOAT * settings.hidden * (data.n_rows + data.count(data.others))
    if settings.store_states:
        kinds = neighbour_types(tuple(data.manifest.edges), data.rows)
        embeddings += 2 * FLOAT * settings.hidden * settings.layers * sum(data.count(kind) for kind in kinds)
    cached = cache_bytes(data.manifest) if world > 1 else 0  # a single process maps the parts and caches nothing
    return int(4 * _weights(settings, data) + batch * (1 + settings.prefetch / 8) + embeddings + cached)


def exchanged(settings: Settings, data: PartitionedGraph, world: int) -> int:
    """Bytes that a worker sends in a step: all gradients once, and the sums of the loss."""
    return traffic(0, 2 * _weights(settings, data) + 3 * 8 + 2 * 8, world)


def remarks(settings: Settings, data: PartitionedGraph) -> list[str]:
    """What the plan says: which relations are predicted, and over which neighbourhoods."""
    names = ", ".join(r[1] for r in data.labels)
    said = [f"predicts {names}; {settings.fan_out} neighbours a relation, {settings.sampling}"]
    kinds = neighbour_types(tuple(data.manifest.edges), data.rows)
    if settings.store_states:
        size = FLOAT * settings.hidden * settings.layers * sum(data.count(kind) for kind in kinds)
        said.append(
            f"the model keeps {settings.layers} states of every {' and '.join(kinds)}, {size / 2**20:.1f} MiB, to "
            "place new users by; --no-store-states leaves them out"
        )
    return said


def _weights(settings: Settings, data: PartitionedGraph) -> int:
    return sum(w.nbytes for w in parameters(settings, metadata_of(data), 0).values())
