"""What a worker of TwHIN sends in a step, the batches of a worker the same: `python tests/bench/twhin.py`, gloo."""

import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from gloo import run_in_processes  # noqa: E402

from ops.api import PlainRun  # noqa: E402
from ops.data.hetero_load import load_hetero  # noqa: E402
from ops.graph.partition.manifest import read_manifest  # noqa: E402
from ops.graph.partition.pipeline import partition_in_memory  # noqa: E402
from ops.graph.partition.tasks import PartitionRequest  # noqa: E402
from ops.graph.sampling.dataset import PartitionedGraph  # noqa: E402
from trainers import twhin  # noqa: E402

PARTS, BATCHES = 8, 2  # of a worker in a step


def measured(rank, world, folder):
    """(bytes a step of this worker, planned)."""
    manifest = read_manifest(Path(folder))
    data = PartitionedGraph(
        "planted", folder, manifest, tuple(r for r in manifest.edges if r[0] == "user" and r[2] == "note")
    )
    settings = twhin.Settings(
        n_clusters=8, epochs=1, batch=512, step_batches=BATCHES * world, epoch_steps=4, prefetch=0, neg_num=64
    )
    run = PlainRun(0)
    run.rank, run.world = rank, world
    twhin.METHOD.train(settings, data, run)
    return run.history[0].get("sys/sent_bytes", 0.0), twhin.METHOD.exchanged(settings, data, world)


def main():
    """Print bytes a step of 2, 4 and 8 workers, and the share of rows that lie with others."""
    with tempfile.TemporaryDirectory() as folder:
        graph = load_hetero("planted:users=20000,notes=10000,clusters=8,seed=0")[0]
        place = Path(folder) / "parts"
        partition_in_memory(graph, place, PartitionRequest(PARTS, "hash"))
        first = None
        for world in (2, 4, 8):
            each = run_in_processes(world, measured, str(place))
            most, mean = max(bytes_ for bytes_, _ in each), sum(bytes_ for bytes_, _ in each) / world
            first = first or (most, mean)
            times, of_mean = most / first[0], mean / first[1]
            print(f"{world} workers: at most {most:,.0f} bytes a step, planned {each[0][1]:,}, {times:.2f} times what "
                  f"2 send, in the mean {of_mean:.2f}; rows of others {1 - 1 / world:.1%}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
