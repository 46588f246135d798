"""Linear heads on frozen features, trained without labels on pairs of neighbours (TEMI: Adaloglou et al., BMVC 2023).

Heads `softmax(cos(x, w_c) / tau)` of a student and of its exponential average, the teacher, see pairs (x, x') of a row
and one of its nearest neighbours. With student and teacher probabilities q_s, q_t and the teacher's mean q(c),

    pmi(x, x') = log sum_c (q_s(c|x) q_t(c|x'))^beta / q(c),   L = -1/2 mean w(x, x') (pmi(x, x') + pmi(x', x)),

w the mean over heads of sum_c q_t(c|x) q_t(c|x'). The head with the lowest loss is the result. Theirs has hidden
layers; these heads are linear, on principal components with rows of unit length.

Axes: N rows, F features, D components, B pairs of a step, H heads, K clusters.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from ops.graph.pca import fit_pca
from ops.rng import generator, torch_generator

BETA, TEMPERATURE, NEIGHBOURS, HEADS = 0.6, 0.1, 50, 8  # the paper's, which has 50 heads
COMPONENTS, ROWS = 64, 50_000  # columns that features are reduced to; rows that heads learn from, at most
BATCH, STEPS, EPOCHS = 512, 800, 200  # pairs of a step; steps, and passes over a small table, at most
RATE, MOMENTUM, MEAN_MOMENTUM, LOSS_MOMENTUM = 3e-2, 0.95, 0.9, 0.98  # set on features of CIFAR-10, with labels


def temi_loss(
    student: Float[Tensor, "2 B H K"], teacher: Float[Tensor, "2 B H K"], mean: Float[Tensor, "H K"], beta: float = BETA
) -> Float[Tensor, "H"]:
    """L of every head; `student` and `teacher` are log-probabilities of B pairs of rows, `mean` is the log of q(c)."""
    weight = (teacher[0] + teacher[1]).exp().sum(2).mean(1)
    crossed = beta * (student + teacher.flip(0)) - mean
    return -(weight[:, None] * crossed.logsumexp(3).sum(0)).mean(0) / 2


def temi(x: Float32[np.ndarray, "N F"], n_clusters: int, seed: int) -> NDArray[np.int64]:
    """Clusters [N] of features; the seed keys every draw. Of more than 50,000 rows the heads see a sample.

    Takes about ten seconds of one core with 10 clusters: 800 steps of 512 pairs, however many rows there are.
    """
    n = len(x)
    drawn = np.arange(n) if n <= ROWS else np.sort(generator(seed, "temi/rows").choice(n, ROWS, replace=False))
    projection = fit_pca(x[drawn], COMPONENTS)
    z = normalize(torch.from_numpy(projection(x)))
    head = _trained(z if n <= ROWS else z[drawn], n_clusters, seed)
    return torch.cat([(rows @ head).argmax(1) for rows in torch.split(z, ROWS)]).numpy()


def _trained(z: Float[Tensor, "N D"], k: int, seed: int) -> Float[Tensor, "D K"]:
    """The teacher's directions, of unit length, in the head with the lowest loss over the last steps."""
    neighbours = _neighbours(z.numpy(), max(1, min(NEIGHBOURS, len(z) // (2 * k))))
    student = torch.randn(z.shape[1], HEADS, k, generator=torch_generator(seed, "temi/heads")).div_(z.shape[1] ** 0.5)
    teacher, mean, losses = student.clone(), torch.full((HEADS, k), 1 / k), torch.zeros(HEADS)
    optimizer = torch.optim.Adam([student.requires_grad_()], lr=RATE)
    batch = min(BATCH, len(z))
    steps = min(STEPS, EPOCHS * -(-len(z) // batch))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        draws = generator(seed, "temi/pairs", step)
        rows = draws.choice(len(z), batch, replace=False)
        pairs = z[np.stack([rows, neighbours[rows, draws.integers(neighbours.shape[1], size=batch)]])]
        with torch.no_grad():
            guided = _log_probabilities(pairs, teacher)
            mean.lerp_(guided.exp().mean((0, 1)), 1 - MEAN_MOMENTUM)
        optimizer.zero_grad()
        loss = temi_loss(_log_probabilities(pairs, student), guided, mean.log())
        loss.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            teacher.lerp_(student, 1 - MOMENTUM)
            losses.lerp_(loss, 1 - LOSS_MOMENTUM)
    return normalize(teacher[:, losses.argmin()], dim=0)


def _log_probabilities(rows: Float[Tensor, "2 B D"], heads: Float[Tensor, "D H K"]) -> Float[Tensor, "2 B H K"]:
    cosines = rows @ normalize(heads, dim=0).flatten(1)
    return (cosines.view(*rows.shape[:2], *heads.shape[1:]) / TEMPERATURE).log_softmax(3)


def _neighbours(z: Float32[np.ndarray, "N D"], count: int) -> NDArray[np.int64]:
    """The `count` rows that are nearest to each row; the first of them is mostly the row itself."""
    import faiss

    index = faiss.IndexFlatIP(z.shape[1])
    index.add(z)
    return np.asarray(index.search(z, min(count + 1, len(z)))[1][:, 1:])
