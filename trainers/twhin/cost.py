"""What a training of TwHIN will take: memory and traffic, and what the plan says about it."""

from ops.graph.sampling.dataset import PartitionedGraph
from trainers.hgt.loop import check_workers
from trainers.twhin.settings import Settings

FLOAT = 4  # bytes


def estimate(settings: Settings, data: PartitionedGraph, world: int) -> int:
    """Bytes above the imports: a worker's share of the tables with their accumulators, a step, all embeddings."""
    check_workers(settings, world)
    d = settings.embedding_dim
    tables = FLOAT * sum(n.count for n in data.manifest.nodes.values()) * (d + 1) / min(world, data.parts)
    step = FLOAT * _rows(settings, data, settings.step_batches) * d * 8
    crossed = FLOAT * settings.batch * (2 * settings.neg_num + settings.batch_negatives) * 4
    embeddings = 3 * FLOAT * d * (data.n_rows + data.count(data.others))
    if settings.store_states:
        embeddings += FLOAT * d * data.count(data.others)
    return int(tables + step + crossed + embeddings)


def exchanged(settings: Settings, data: PartitionedGraph, world: int) -> int:
    """About how many bytes a worker sends in a step.

    It sends the numbers of the rows that its batches need, the rows that other workers need from it, and the gradients
    of its batches; of each a share of 1 / W stays with the worker itself.
    """
    rows = _rows(settings, data, -(-settings.step_batches // world))
    return int((world - 1) / world * rows * (2 * FLOAT * settings.embedding_dim + 16)) if world > 1 else 0


def remarks(settings: Settings, data: PartitionedGraph) -> list[str]:
    """What the plan says: which relations are predicted, and against which negatives."""
    names = ", ".join(r[1] for r in data.labels)
    said = [
        f"predicts {names}; {settings.batch_negatives} negatives of the batch, {settings.neg_num} drawn ones an end"
    ]
    if settings.store_states:
        size = FLOAT * settings.embedding_dim * data.count(data.others) / 2**20
        said.append(
            f"the model keeps the vectors of every {data.others}, {size:.1f} MiB, to place new users by; "
            "--no-store-states leaves them out"
        )
    return said


def _rows(settings: Settings, data: PartitionedGraph, batches: int) -> int:
    """How many rows this number of batches needs at most."""
    ends = (settings.batch + settings.neg_num) * batches
    return min(ends, data.n_rows) + min(ends, data.count(data.others))
