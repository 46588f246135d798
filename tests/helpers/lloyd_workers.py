"""What each worker of a gloo group clusters, for the tests of k-means and the SOM over workers."""

import torch

from ops.clustering.kmeans import START_ROWS, kmeans
from ops.clustering.lloyd import assign, prepare
from ops.clustering.shards import Shard
from ops.clustering.som import som
from ops.distributed.process_group import ProcessGroup

TOTAL, WIDTH = 11_000, 13  # no multiple of a block; rows at any address
OFFSETS = (0, 1000, 5100, 5103, 11_000)


def table(total=TOTAL, width=WIDTH, seed=0):
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(6, width, generator=g) * 4
    return centres[torch.randint(6, (total,), generator=g)] + torch.randn(total, width, generator=g) * 2 + 3


def dealt(rank, world, how):
    """This worker's rows: a share of whole blocks, every `world`-th part, or all of them at rank 0."""
    if how == "one has all":
        return Shard(TOTAL, ((0, TOTAL),) if rank == 0 else ((TOTAL, 0),))
    if how == "blocks":
        return Shard.even(TOTAL, ProcessGroup(rank, world))
    return Shard.of_parts(OFFSETS, range(rank, len(OFFSETS) - 1, world))


def found(rank, world, how, what):
    """(global row numbers, per-row results..., results of all rows...) as numpy, by one call of k-means or the SOM."""
    shard, group = dealt(rank, world, how), ProcessGroup(rank, world)
    z = table()[torch.from_numpy(shard.numbers())]
    if what == "pass":
        points = prepare(z, shard, group)
        clustering = assign(points, table(7, seed=1))
        return (
            shard.numbers(),
            (clustering.labels, clustering.nearest),
            (clustering.sums, clustering.counts, torch.tensor(float(clustering.inertia))),
        )
    if what == "empty":
        first = torch.cat([table(3, seed=1), torch.full((2, WIDTH), 1e3)])  # two centres that no row is nearest to
        clustering = kmeans(z, 5, (3,), shard=shard, group=group, first=first, max_iterations=3)
        return shard.numbers(), (clustering.labels,), (clustering.centres, clustering.sizes)
    if what == "som":
        clustering = som(z, shard, (4, 5), 3, (1,), group=group, rounds=4)
        alike = (clustering.weights, clustering.hits, clustering.unit_clusters, clustering.umatrix)
        return (
            shard.numbers(), (clustering.bmu, clustering.labels, clustering.confidence),
            (*alike, torch.tensor([clustering.quantisation, clustering.topographic])),
        )  # fmt: skip
    rule = {"init": "released"} if what == "released" else {"spherical": what == "spherical"}
    if what != "starts":  # else every start sees all rows of all workers
        rule["start_rows"] = START_ROWS
    clustering = kmeans(z, 9, (5, 2), shard=shard, group=group, tolerance=1e-9, max_iterations=8, **rule)
    return (
        shard.numbers(),
        (clustering.labels, clustering.confidence),
        (clustering.centres, torch.tensor(clustering.inertia), clustering.sizes),
    )


def many(rank, world, calls):
    """Several calls in one group."""
    return [
        (numbers, [x.numpy() for x in each], [x.numpy() for x in alike])
        for numbers, each, alike in (found(rank, world, *call) for call in calls)
    ]
