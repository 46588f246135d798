"""What decides a GPU's speed, counted on the pretended accelerator: kernels, waits, bytes on their way to it."""

import pytest
import torch
import users_small
from accelerator import NAME, accelerator
from device_cases import DeviceRun, settings_of
from small import small_graph
from torch.utils._pytree import tree_leaves
from users_small import parts_in

from ops.clustering.kmeans import kmeans
from ops.clustering.shards import Shard
from ops.clustering.som import som
from ops.distributed.process_group import ProcessGroup
from ops.losses.tiles import GPU_TILE_ROWS
from trainers.hgt.training import HgtTrainer
from trainers.hsan.training import HsanTrainer

HSAN_STARTS = 200  # kernels and views of a step on Cora, whose 5,416 rows are one tile of a GPU, as the 96 here


def hsan(tile_rows):
    """A trainer after its first epoch and update, on 96 rows."""
    settings = settings_of("hsan", {"tile_rows": tile_rows, "confidence": 0.6})
    trainer = HsanTrainer(settings, small_graph("hsan")[0], DeviceRun(0, device=NAME))
    trainer.epoch(0)
    trainer.evaluate(0)
    return trainer


def test_a_step_of_hsan_starts_few_kernels():
    with accelerator() as count:
        trainer = hsan("auto")
        count.clear()
        trainer.epoch(1)
    assert trainer.tile_rows == GPU_TILE_ROWS
    assert 60 < count["kernels"] + count["views"] <= HSAN_STARTS
    assert count["d2h bytes"] <= 16  # loss and alpha
    assert count["h2d bytes"] == 0


def test_an_update_of_hsan_waits_as_often_for_many_tiles_as_for_few():
    waits = []
    with accelerator() as count:
        for tile_rows in (16, 64):
            trainer = hsan(tile_rows)
            count.clear()
            z, e = trainer.model.encode(trainer.rows, trainer.group)
            fused = (z[:48] + z[48:]).detach() / 2
            clusters = trainer.cluster(fused, 3)
            before = count["host syncs"]
            trainer.weights.update(z.detach(), e.detach(), 0.5, clusters.labels, trainer._trusted(fused, clusters))
            waits.append(count["host syncs"] - before)
    assert waits[0] == waits[1] <= 2  # alpha's copy to the device


@pytest.mark.parametrize(("rows", "k", "starts"), [(200, 3, 2), (9000, 8, 5)])
def test_an_iteration_of_kmeans_waits_twice(rows, k, starts):
    x, waits = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0)), []
    with accelerator() as count:
        z = x.to(NAME)
        for rounds in (2, 5):
            count.clear()
            assert kmeans(z, k, (0,), starts=starts, tolerance=-1, max_iterations=rounds).iterations == rounds
            waits.append(count["host syncs"])
    assert waits[1] - waits[0] == 3 * 2


def test_a_round_of_the_map_does_not_wait():
    x, waits = torch.randn(9000, 4, generator=torch.Generator().manual_seed(0)), []
    with accelerator() as count:
        z = x.to(NAME)
        for rounds in (1, 4):
            count.clear()
            som(z, Shard.even(9000, ProcessGroup()), (3, 4), 3, (0,), rounds=rounds)
            waits.append(count["host syncs"])
    assert waits[0] == waits[1]


def test_hgt_copies_its_batches_to_the_device_and_nothing_else(tmp_path):
    settings = users_small.settings_of("hgt", dropout=0.1, epoch_steps=2, step_batches=2)
    data = parts_in(tmp_path)
    size = 0
    prepare = HgtTrainer(settings, data, DeviceRun(0)).prepare
    with accelerator() as count:
        trainer = HgtTrainer(settings, data, DeviceRun(0, device=NAME))
        on_device = trainer.prepare

        def measured(group):
            nonlocal size
            for batch in prepare(group):
                parts = [batch.sample.blocks, batch.sample.features, batch.pairs, batch.candidates]
                size += sum(x.nbytes for x in tree_leaves(parts) if isinstance(x, torch.Tensor))
            return on_device(group)

        trainer.prepare = measured
        trainer.epoch(0)
        size = 0
        count.clear()
        trainer.epoch(1)
    assert 0 < count["h2d bytes"] <= 1.1 * size
    assert count["d2h bytes"] <= 16
