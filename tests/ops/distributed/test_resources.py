"""How workers and trials are shared out over the nodes of a cluster that is only described."""

import pytest

from ops.config.settings import LaunchSettings, SearchSettings
from ops.distributed.resources import Node, cluster_share, cluster_workers, local_share, places, room, threads_for
from ops.errors import SettingsError

GIB = 2**30


def cluster(*cpus, gpus=0.0):
    return [Node(str(i), "", c, gpus, 8.0 * GIB) for i, c in enumerate(cpus)]


def unused(nodes):
    return {"CPU": sum(n.cpus for n in nodes), "GPU": sum(n.gpus for n in nodes)}


@pytest.fixture(autouse=True)
def _on_a_cluster(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")


@pytest.mark.parametrize(
    ("cpus", "count", "threads"),
    [((0, 8, 8), 2, 8), ((0, 8, 8), 3, 4), ((4, 4), 1, 4), ((1, 2), 3, 1), ((1,), 5, 1), ((), 1, 1), ((6, 5), 2, 5)],
)
def test_a_process_gets_the_most_threads_that_nodes_can_hold(cpus, count, threads):
    result = threads_for(cluster(*cpus), count)
    assert result == threads
    assert places(cluster(*cpus), result) >= count or result == 1


@pytest.mark.parametrize(
    ("cpus", "count", "threads"),
    [((0, 8, 8), 4, 4), ((0, 2), 1, 2), ((2, 3), 1, 3), ((7, 7), 2, 4), ((0,), 1, 1), ((64,), 16, 4)],
)
def test_auto_is_a_worker_per_four_free_cpus(cpus, count, threads):
    nodes = cluster(*cpus)
    result = cluster_workers(LaunchSettings(), nodes, unused(nodes))
    assert (result.count, result.threads, result.gpus, result.cluster) == (count, threads, 0, True)


def test_auto_takes_only_what_is_free():
    assert cluster_workers(LaunchSettings(), cluster(8, 8), {"CPU": 9.0}).count == 2


def test_auto_is_a_worker_per_gpu():
    nodes = cluster(8, 8, gpus=2)
    result = cluster_workers(LaunchSettings(), nodes, unused(nodes))
    assert (result.count, result.gpus) == (4, 1)
    halves = cluster_workers(LaunchSettings(gpus_per_worker=0.5), nodes, unused(nodes))
    assert (halves.count, halves.gpus) == (8, 0.5)
    without = cluster_workers(LaunchSettings(gpus_per_worker=0), nodes, unused(nodes))
    assert (without.count, without.gpus) == (4, 0)


def test_gpus_that_are_not_there_are_refused():
    with pytest.raises(SettingsError, match=r"--gpus-per-worker 1: the cluster has 0 GPUs; give 0"):
        cluster_workers(LaunchSettings(gpus_per_worker=1), cluster(4), unused(cluster(4)))


def test_workers_are_as_many_as_asked_for():
    result = cluster_workers(LaunchSettings(workers=3), cluster(0, 8, 8), {"CPU": 16.0})
    assert (result.count, result.threads) == (3, 4)
    assert cluster_workers(LaunchSettings(workers=3, threads=2), cluster(8), {"CPU": 8.0}).threads == 2


@pytest.mark.parametrize(("settings", "concurrent", "threads", "resources"), [
    ({"trials": 100}, 16, 1, {"cpu": 1}),
    ({"trials": 4}, 4, 4, {"cpu": 4}),
    ({"trials": 100, "threads": 4}, 4, 4, {"cpu": 4}),
    ({"trials": 100, "concurrent": 2}, 2, 8, {"cpu": 8}),
    ({"trials": 100, "concurrent": 50}, 16, 1, {"cpu": 1}),
])  # fmt: skip
def test_trials_follow_the_clusters_cpus(settings, concurrent, threads, resources):
    nodes = cluster(0, 8, 8)
    result = cluster_share(SearchSettings(**settings), nodes, unused(nodes))
    assert (result.concurrent, result.threads, result.resources) == (concurrent, threads, resources)
    assert result.cpus <= 16


def test_trials_take_gpus_where_there_are_any():
    nodes = cluster(8, 8, gpus=1)
    result = cluster_share(SearchSettings(trials=9), nodes, unused(nodes))
    assert (result.concurrent, result.resources) == (2, {"cpu": 8, "gpu": 1})


def test_trials_with_workers_leave_a_spare_cpu_each():
    nodes = cluster(0, 8, 8)
    result = cluster_share(SearchSettings(trials=9, workers=2, threads=1), nodes, unused(nodes))
    assert (result.concurrent, result.resources, result.cpus) == (4, {"cpu": 1}, 16)
    assert str(result) == "4 trials at a time with 2 workers of 1 thread"
    wide = cluster_share(SearchSettings(trials=9, workers=2), nodes, unused(nodes))
    assert (wide.concurrent, wide.workers.threads) == (1, 4)
    assert cluster_share(SearchSettings(workers=9), nodes, unused(nodes)).concurrent == 1  # it waits, and says so


def test_room_is_what_the_fullest_node_leaves():
    assert room(cluster(0, 8, 4), 2, 6) == 2 * GIB
    assert room(cluster(0, 8, 4), 8, 1) == 8 * GIB
    assert room(cluster(0), 1, 1) is None


def test_without_a_cluster_the_machine_is_shared(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    result = local_share(SearchSettings(trials=4, gpus_per_worker=0))
    assert (result.concurrent, result.threads, result.workers) == (4, 2, None)
    result = local_share(SearchSettings(trials=4, workers=2, gpus_per_worker=0))
    assert (result.concurrent, result.workers.threads, result.cpus) == (1, 4, 10)
