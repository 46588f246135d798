"""What each worker of a gloo group clusters, for the tests of k-means and the SOM over workers."""

import torch

from ops.clustering.distributed_kmeans import team_kmeans
from ops.clustering.lloyd import Rows, assign, prepare
from ops.clustering.som import som
from ops.distributed.process_group import Team

TOTAL, WIDTH = 11_000, 13  # no multiple of a block; rows at any address
OFFSETS = (0, 1000, 5100, 5103, 11_000)


def table(total=TOTAL, width=WIDTH, seed=0):
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(6, width, generator=g) * 4
    return centres[torch.randint(6, (total,), generator=g)] + torch.randn(total, width, generator=g) * 2 + 3


def dealt(rank, world, how):
    """This worker's rows: a share of whole blocks, every `world`-th part, or all of them at rank 0."""
    if how == "one has all":
        return Rows(TOTAL, ((0, TOTAL),) if rank == 0 else ((TOTAL, 0),))
    if how == "blocks":
        return Rows.share(TOTAL, Team(rank, world))
    return Rows.of_parts(OFFSETS, range(rank, len(OFFSETS) - 1, world))


def found(rank, world, how, what):
    """(global row numbers, per-row results..., results of all rows...) as numpy, by one call of k-means or the SOM."""
    rows, team = dealt(rank, world, how), Team(rank, world)
    z = table()[torch.from_numpy(rows.numbers())]
    if what == "pass":
        points = prepare(z, rows, team)
        made = assign(points, table(7, seed=1))
        return rows.numbers(), (made.labels, made.nearest), (made.sums, made.counts, torch.tensor(made.inertia))
    if what == "empty":
        first = torch.cat([table(3, seed=1), torch.full((2, WIDTH), 1e3)])  # two centres that no row is nearest to
        made = team_kmeans(z, rows, 5, (3,), team=team, first=first, max_iterations=3)
        return rows.numbers(), (made.labels,), (made.centres, made.sizes)
    if what == "som":
        made = som(z, rows, (4, 5), 3, (1,), team=team, rounds=4)
        alike = (made.weights, made.hits, made.unit_clusters, made.umatrix)
        return (
            rows.numbers(), (made.bmu, made.labels, made.confidence),
            (*alike, torch.tensor([made.quantisation, made.topographic])),
        )  # fmt: skip
    made = team_kmeans(z, rows, 9, (5, 2), team=team, spherical=what == "spherical", tolerance=1e-9, max_iterations=8)
    return rows.numbers(), (made.labels, made.confidence), (made.centres, torch.tensor(made.inertia), made.sizes)


def many(rank, world, calls):
    """Several calls in one group."""
    return [
        (numbers, [x.numpy() for x in each], [x.numpy() for x in alike])
        for numbers, each, alike in (found(rank, world, *call) for call in calls)
    ]
