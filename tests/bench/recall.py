"""Recall of hidden notes by peers that know no clusters: `python tests/bench/recall.py ml-100k --lightgcn 3`.

The same split, users and validation pairs as a run of HGT or TwHIN has. Beside every run's rows of the interactions:
what linear algebra makes of side relations between users (their neighbours as further columns of EASE; the notes of
their neighbours), and LightGCN (He et al., SIGIR 2020; torch_geometric's), with and without side edges, over as many
seeds as asked for, stopped at the epoch that is best on validation pairs.
"""

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse as sp
import torch

from ops.data.hetero_load import load_hetero
from ops.data.splits import Split, split
from ops.evaluation import recall, recommenders
from ops.evaluation.recall import RecallRow, Task

WIDTH, LAYERS, LR, RIDGE, BATCH, EVERY, PATIENCE, EPOCHS = 64, 3, 0.01, 1e-4, 4096, 5, 4, 200


def matrix(hidden: Split, users_only: bool = False) -> sp.csr_array | None:
    """Users by notes of the label relations, or users by users of the others (both directions), 0 / 1."""
    (kind, _, other) = hidden.relations[0]
    ends = (kind, kind) if users_only else (kind, other)
    edges = [e for r, e in hidden.train.edges.items() if (r[0], r[2]) == ends]
    if not edges:
        return None
    shape = tuple(hidden.train.nodes[end].count for end in ends)
    src, dst = (np.concatenate([getattr(e, end) for e in edges]) for end in ("src", "dst"))
    table = sp.csr_array((np.ones(len(src)), (src, dst)), shape=shape)
    table = sp.csr_array(table + table.T) if users_only else table
    table.data[:] = 1
    return table


def by_side(task: Task, check: Task, side: sp.csr_array) -> Iterator[RecallRow]:
    """Linear peers that read the side relation, their knobs by validation pairs."""
    n_notes, tried = task.train.shape[1], []
    for share in (0.3, 1.0):
        wide = sp.csr_array(sp.hstack([task.train, share * side]))
        counts = np.asarray((wide.T @ wide).toarray(), dtype=np.float32)
        for penalty in (50.0, 200.0, 800.0):
            weights = recommenders.ease(counts, penalty)[:, :n_notes]
            tried.append(row_of(lambda u, x=wide, w=weights: x[u] @ w, check, task,
                                "EASE with the side relation", f"penalty {penalty:g}, side {share:g}"))  # fmt: skip
    yield max(tried, key=lambda pair: pair[0])[1]
    tried = []
    for own in (0.0, 0.3, 1.0):
        near = sp.csr_array(side + own * (side @ side))
        tried.append(row_of(lambda u, a=near: (a[u] @ task.train).toarray(), check, task,
                            "notes of one's neighbours", f"theirs by {own:g}"))  # fmt: skip
    yield max(tried, key=lambda pair: pair[0])[1]


def row_of(scores: Callable, check: Task, task: Task, name: str, note: str) -> tuple[float, RecallRow]:
    """Validation recall and the row of a model."""
    return recall.scored_row(check, scores, name).metrics["recall@50"], recall.scored_row(task, scores, name, note)


def lightgcn(task: Task, check: Task, side: sp.csr_array | None, seed: int) -> RecallRow:
    """LightGCN's row at its best validation epoch; the graph has the `side` edges too where they are given."""
    from torch_geometric.nn.models import LightGCN

    torch.manual_seed(seed)
    n_users, n_notes = task.train.shape
    whole = sp.block_array(
        [[side, task.train], [task.train.T, None if side is not None else sp.csr_array((n_notes,) * 2)]]
    )
    root = sp.diags_array(1 / np.sqrt(np.maximum(whole.sum(axis=1), 1)))
    csr = sp.csr_array(root @ whole @ root, dtype=np.float32)
    adjacency = torch.sparse_csr_tensor(
        torch.from_numpy(csr.indptr.astype(np.int64)),
        torch.from_numpy(csr.indices.astype(np.int64)),
        torch.from_numpy(csr.data),
        csr.shape,
    )
    model = LightGCN(n_users + n_notes, WIDTH, LAYERS, normalize=False)
    optimiser = torch.optim.Adam(model.parameters(), lr=LR)
    users, notes = (torch.from_numpy(ends.astype(np.int64)) for ends in task.train.nonzero())
    best, row, stale = -1.0, None, 0
    for epoch in range(1, EPOCHS + 1):
        for edges in torch.randperm(len(users)).split(BATCH):
            u, liked = users[edges], n_users + notes[edges]
            other = n_users + torch.randint(n_notes, (len(edges),))
            z = model.get_embedding(adjacency)
            loss = model.recommendation_loss((z[u] * z[liked]).sum(1), (z[u] * z[other]).sum(1),
                                             torch.cat([u, liked, other]).unique(), RIDGE)  # fmt: skip
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if epoch % EVERY == 0:
            z = model.get_embedding(adjacency).detach().numpy()
            name = "LightGCN" if side is None else "LightGCN with the side relation"
            score, each = row_of(
                lambda u, z=z: (z[u] @ z[n_users:].T).astype(float), check, task, name, f"epoch {epoch}"
            )
            best, row, stale = (score, each, 0) if score > best else (best, row, stale + 1)
            if stale == PATIENCE:
                break
    assert row is not None
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--lightgcn", type=int, default=0, help="seeds of LightGCN; 0 leaves it out")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for spec in args.datasets:
        hidden = split(load_hetero(spec)[0])
        train, side = matrix(hidden), matrix(hidden, users_only=True)
        task, check = (recall.make_task(train, tuple(pairs.T)) for pairs in (hidden.test, hidden.valid))
        print(f"{spec}: {task.users} users asked, {task.left_out} left out", flush=True)
        show([recall.popularity(task)], time.process_time())
        began = time.process_time()
        for row in [recall.user_knn(task), *recommenders.rows(task, check)[0]]:
            show([row], began)
        if side is not None:
            began = time.process_time()
            for row in by_side(task, check, side):
                show([row], began)
        for edges in [None] if side is None else [None, side]:
            began = time.process_time()
            if args.lightgcn:
                show([lightgcn(task, check, edges, seed) for seed in range(args.lightgcn)], began)


def show(rows: list[RecallRow], began: float) -> None:
    """A row over seeds: Recall@10, @50, @100 in percent, ± over seeds, CPU seconds since `began`."""
    cells = []
    for k in (10, 50, 100):
        each = [100 * row.metrics[f"recall@{k}"] for row in rows]
        cells.append(f"{np.mean(each):.1f}" + (f" ± {np.std(each, ddof=1):.1f}" if len(each) > 1 else ""))
    notes = "; ".join(row.note for row in rows)
    print(f"| {rows[0].name} | {' | '.join(cells)} | {time.process_time() - began:.1f} | {notes}", flush=True)


if __name__ == "__main__":
    main()
