"""The table of all seeds' clusters is the same whether rows lie in one part or in several, here or in a bucket."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import adjusted_rand_score

from ops.clustering.label_matching import numbered_as
from ops.distributed.process_group import ProcessGroup
from ops.errors import DataError
from ops.graph.partition.executors import in_process
from ops.results.arrays import ASSIGNMENTS, table_path
from ops.results.seed_rows import SeedRows, save_rows
from ops.storage.location import parse
from ops.training.seed_tables import write_assignments

N, K, SEEDS = 60, 4, (3, 4, 5)
IDS = np.array([f"user {i}" for i in range(N)])


def clusters() -> dict[int, np.ndarray]:
    rng = np.random.default_rng(0)
    group = rng.integers(K, size=N)
    return {seed: (np.where(rng.random(N) < 0.2, rng.integers(K, size=N), group) + seed) % K for seed in SEEDS}


def stored(folder, offsets) -> None:
    """What seeds leave; of several parts each rank writes one."""
    for seed, last in clusters().items():
        for rank in range(len(offsets) - 1):
            own = slice(offsets[rank], offsets[rank + 1])
            rows = {"last": last[own], "confidence": np.full(N, seed / 10)[own], "id": IDS[own]}
            path = folder / f"seed-{seed}" / ASSIGNMENTS
            save_rows(path, ProcessGroup(rank, len(offsets) - 1), lambda name: np.array(offsets), rows)


@pytest.mark.parametrize("offsets", [[0, N], [0, 20, 20, N]])
def test_the_table_of_all_seeds_and_how_far_they_agree(tmp_path, offsets):
    stored(tmp_path, offsets)
    rows = SeedRows(tmp_path, SEEDS, len(offsets) - 1)
    agreement = write_assignments(rows, in_process(), 4, "last", K, IDS if rows.parts == 1 else None)
    each = clusters()
    pairs = [adjusted_rand_score(each[a], each[b]) for a, b in ((3, 4), (3, 5), (4, 5))]
    assert agreement == np.mean(pairs)
    assert 0.3 < agreement < 1
    assert table_path(tmp_path, "assignments") == tmp_path / rows.table("assignments")
    table = pq.read_table(tmp_path / rows.table("assignments")).to_pandas()
    for seed in SEEDS:
        own = table[table.seed == seed]
        assert own.id.tolist() == IDS.tolist()
        assert own.cluster.tolist() == numbered_as(each[4], each[seed]).tolist()
        assert (own.cluster.to_numpy() == each[4]).mean() > 0.6
        assert set(own.confidence) == {seed / 10}
    single = SeedRows(tmp_path, SEEDS[:1], rows.parts)
    assert write_assignments(single, in_process(), 3, "last", K, IDS if rows.parts == 1 else None) is None


@pytest.mark.slow
def test_parts_that_ranks_keep_in_a_bucket_are_read_and_written_there(s3, tmp_path):
    from s3_world import BUCKET

    stored(tmp_path / "rank", [0, 20, N])
    for path in sorted((tmp_path / "rank").rglob("part-*")):
        s3.put(f"rows/{path.relative_to(tmp_path / 'rank').as_posix()}", path.read_bytes())
    rows = SeedRows(tmp_path / "driver", SEEDS, 2, parse(f"s3://{BUCKET}/rows"))
    write_assignments(rows, in_process(), 4, "last", K, None)
    assert not list((tmp_path / "driver").rglob("*")), "nothing passes through the driver's folder"
    rows.bring("assignments")
    assert len(pq.read_table(tmp_path / "driver" / "assignments")) == N * len(SEEDS)
    missing = f"s3://{BUCKET}/rows/seed-9/assignments/part-00001.npz"
    with pytest.raises(DataError, match=f"{missing}: this part of the results is missing; run it again with --fresh"):
        rows.read(9, 1)
