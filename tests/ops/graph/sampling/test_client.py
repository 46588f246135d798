"""The graph service: local and remote parts answer alike, a killed actor comes back, damage is named."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_hetero import FOLLOW, SHARE, small_parts

from ops.distributed.ray_session import ray_session
from ops.errors import DataError, ServiceError
from ops.graph.sampling.client import MAX_RESTARTS, remote_client, start_service, stop_service
from ops.graph.sampling.neighbor_sampler import Neighbourhood

ROOTS = {"user": np.arange(5, 45), "note": np.arange(3, 20)}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return small_parts(tmp_path_factory.mktemp("service"), 3)


@pytest.fixture(scope="module")
def session():
    before = dict(os.environ)
    with ray_session(2):
        yield
    os.environ.clear()  # a session of one machine sets what nodes that other tests start must not inherit
    os.environ.update(before)


@pytest.fixture(scope="module")
def actors(session, parts):
    """One service for the tests below, the last of which ends a part of it."""
    handles = start_service(parts.place, parts.manifest)
    yield handles
    stop_service(handles)


def everything(client):
    """What a training asks of a client."""
    drawn = client.sample(ROOTS, [4, 3], (0, 1, 2, 3), "distinct", featured=["user", "note"])
    pairs = client.seed_edges((FOLLOW, SHARE), 1, (0, 1, 2), 16)
    arrays = [ids for depth in drawn.nodes for ids in depth.values()]
    arrays += [t.numpy() for hop in drawn.blocks for block in hop.values() for t in block]
    arrays += [x.numpy() for x in drawn.features.values()]
    return [*arrays, *pairs, client.ids("note"), client.sizes()]


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("replicated", [False, True])
def test_actors_answer_as_files_do_to_the_bit(parts, actors, replicated):
    client = remote_client(parts.place, parts.manifest, actors, replicated=replicated)
    assert same(everything(client), everything(parts.connect()))
    client.cache_share = 0.5
    client._cached.clear()
    assert same(everything(client), everything(parts.connect()))
    assert len(client._cached["user"][0]) >= 28


@pytest.mark.slow
def test_a_killed_actor_comes_back_and_answers_the_same(parts, actors):
    import ray

    client = remote_client(parts.place, parts.manifest, actors)
    before = everything(client)
    for _ in range(2):
        pid = ray.get(actors[1].health.remote())["pid"]
        os.kill(pid, signal.SIGKILL)
        assert same(everything(client), before)
        assert ray.get(actors[1].health.remote())["pid"] != pid


@pytest.mark.slow
def test_an_actor_that_is_gone_for_good_is_one_line(parts, actors):
    import ray

    client = remote_client(parts.place, parts.manifest, actors)
    ray.kill(actors[2])
    with pytest.raises(ServiceError, match=f"lost a part for good after {MAX_RESTARTS} restarts"):
        everything(client)


@pytest.mark.slow
def test_a_damaged_part_is_named_when_the_service_starts(session, tmp_path):
    damaged = small_parts(tmp_path, 2)
    path = tmp_path / "parts-2" / "part-00001" / "feat.user.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"part-00001/feat\.user\.npy: is damaged"):
        start_service(damaged.place, damaged.manifest)


def test_features_come_in_single_precision(parts):
    assert parts.connect().features("user", np.arange(3)).dtype == np.float32
    drawn = parts.connect().sample(ROOTS, [2], (0, 0, 0, 0), featured=["note"])
    assert drawn.features["note"].dtype == torch.float32
    assert set(drawn.features) == {"note"}


def test_batches_asked_for_together_are_those_asked_for_alone(parts):
    client = parts.connect()
    calls = []

    def counted(name, arguments):
        calls.append(name)
        return client.draw(name, arguments)

    wanted = [
        Neighbourhood(ROOTS, [4, 3], (0, 1, 2, 3), "distinct"),
        Neighbourhood({"user": np.arange(5)}, [2], (0, 0, 0, 1), "padded"),
        Neighbourhood(ROOTS, [], (0, 0, 0, 2)),
    ]
    together = replace(client, draw=counted).samples(wanted, ["user", "note"])
    assert calls == ["sample"] * 2
    for each, drawn in zip(wanted, together, strict=True):
        alone = client.sample(each.roots, each.fanout, each.key, each.mode, featured=["user", "note"])
        assert drawn.edges == alone.edges
        for kind, rows in alone.features.items():
            assert torch.equal(rows, drawn.features[kind])
        for kind, ids in alone.nodes[-1].items():
            assert np.array_equal(ids, drawn.nodes[-1][kind])
