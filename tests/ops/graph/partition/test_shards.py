"""Shards: every node and edge once, at the right place, and what is damaged is named."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hetero_graphs import FOLLOW, KNOWS, hetero, homogeneous, parts_for, sizes
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.data.hetero_load import load_hetero
from ops.data.types.hetero import Edges, HeteroGraph, Nodes, relation_name
from ops.errors import DataError, SettingsError
from ops.graph.partition.manifest import read_manifest
from ops.graph.partition.pipeline import partition_in_memory
from ops.graph.partition.shards import open_shard, to_homogeneous
from ops.graph.partition.tasks import PartitionRequest
from ops.graph.sampling.dataset import PartitionedGraph


def written(graph, part_of, folder, parts=None, feature_dtype="float32"):
    """The graph with its parts given."""
    parts = parts or 1 + max(int(part.max()) for part in part_of.values())
    return partition_in_memory(graph, folder, PartitionRequest(parts, "given", feature_dtype=feature_dtype), part_of)


def merged(edges):
    """{(src, dst): (weight, time)} with repeats merged, by plain Python."""
    stored_edges = {}
    for e in range(edges.count):
        key = int(edges.src[e]), int(edges.dst[e])
        weight, time = stored_edges.get(key, (0.0, -(2**62)))
        weight += 0.0 if edges.weight is None else float(edges.weight[e])
        stored_edges[key] = (weight, max(time, 0 if edges.time is None else int(edges.time[e])))
    return stored_edges


def stored(shards, manifest, relation, reverse=False):
    """{(source id, destination id): (weight, time)} of all parts; an edge that stands twice is an error."""
    source, _, target = relation
    ids = {k: np.concatenate([s.ids[k] for s in shards]) for k in manifest.nodes}
    stored_edges = {}
    for shard in shards:
        csr = shard.relations[relation]
        first = manifest.nodes[target].offsets[shard.part]
        for i in range(csr.indptr.size - 1):
            row = csr.indices[csr.indptr[i] : csr.indptr[i + 1]]
            assert (np.diff(row) > 0).all()
            for k in range(csr.indptr[i], csr.indptr[i + 1]):
                key = ids[source][csr.indices[k]].item(), ids[target][first + i].item()
                key = key[::-1] if reverse else key
                assert key not in stored_edges
                weight = 0.0 if csr.weight is None else float(csr.weight[k])
                stored_edges[key] = (weight, 0 if csr.time is None else int(csr.time[k]))
    return stored_edges


def check(graph, part_of, parts, folder):
    manifest = read_manifest(folder)
    shards = [open_shard(folder, manifest, p) for p in range(parts)]
    for kind, nodes in graph.nodes.items():
        for p, shard in enumerate(shards):
            inside = part_of[kind] == p
            assert np.array_equal(shard.ids[kind], nodes.ids[inside])
            if nodes.x is not None:
                assert np.array_equal(shard.features[kind], nodes.x[inside])
    for relation, edges in graph.edges.items():
        source, _, target = relation
        ids = graph.nodes[source].ids, graph.nodes[target].ids
        expected = {(ids[0][s].item(), ids[1][d].item()): v for (s, d), v in merged(edges).items()}
        assert manifest.edges[relation].count == len(expected)
        back = manifest.reverse(relation)
        for stored_edges in (stored(shards, manifest, relation), stored(shards, manifest, back, back != relation)):
            assert stored_edges.keys() == expected.keys()
            for key, (weight, time) in expected.items():
                assert stored_edges[key] == (pytest.approx(weight, rel=1e-5), time)


@settings(max_examples=6)
@given(size=sizes, parts=st.integers(1, 5), seed=st.integers(0, 99))
def test_every_node_and_edge_once_at_its_owner_and_the_reverse_is_the_transpose(size, parts, seed):
    graph = hetero(*size)
    parts = min(parts, sum(len(nodes.ids) for nodes in graph.nodes.values()))  # more are refused
    part_of = parts_for(graph, parts, seed)
    with TemporaryDirectory() as folder:
        manifest = written(graph, part_of, Path(folder), parts=parts)
        assert manifest.model_dump_json() == read_manifest(folder).model_dump_json()
        check(graph, part_of, parts, Path(folder))


def test_the_report_counts_what_plain_formulas_count(tmp_path):
    graph = hetero()
    part_of = parts_for(graph, 4)
    report = written(graph, part_of, tmp_path, parts=4).report
    pairs = np.array(list(merged(graph.edges[KNOWS])))
    apart = pairs[:, 0] != pairs[:, 1]
    owner = part_of["user"][pairs]
    knows = report["edges"][relation_name(KNOWS)]
    assert knows["cut"] == (owner[:, 0] != owner[:, 1]).sum() / apart.sum()
    assert knows["self_loops"] == (~apart).sum() > 0
    assert knows["parts"] == np.bincount(owner[:, 1], minlength=4).tolist()
    assert report["nodes"]["note"]["parts"] == np.bincount(part_of["note"], minlength=4).tolist()
    halo = [set() for _ in range(4)]  # notes of other parts whose reverse edges end in a part
    for user, note in merged(graph.edges[FOLLOW]):
        if part_of["note"][note] != part_of["user"][user]:
            halo[part_of["user"][user]].add(note)
    assert report["nodes"]["note"]["halo"] == [len(h) for h in halo]


def test_a_symmetric_graph_has_no_reverse_and_comes_back_whole(tmp_path):
    graph = homogeneous()
    part_of = parts_for(graph, 3)
    manifest = written(graph, part_of, tmp_path, parts=3)
    assert list(manifest.edges) == [("node", "edge", "node")]
    assert manifest.edges["node", "edge", "node"].symmetric
    x, edge_index, _, ids, part = to_homogeneous(tmp_path)
    edges = graph.edges["node", "edge", "node"]
    assert set(zip(*ids[edge_index], strict=True)) == set(zip(edges.src, edges.dst, strict=True))
    assert np.array_equal(x, graph.nodes["node"].x[ids])
    assert np.array_equal(part, part_of["node"][ids])


def test_only_homogeneous_graphs_come_back_as_one(tmp_path):
    graph = hetero()
    written(graph, parts_for(graph, 2), tmp_path)
    with pytest.raises(DataError, match="2 node types"):
        to_homogeneous(tmp_path)


def test_features_keep_their_names_on_every_way_to_a_method(tmp_path):
    (tmp_path / "shop" / "nodes").mkdir(parents=True)
    (tmp_path / "shop" / "edges").mkdir()
    (tmp_path / "shop" / "nodes" / "user.csv").write_text("id,age,id_of_town\n1,20,3\n2,30,4\n")
    (tmp_path / "shop" / "nodes" / "note.csv").write_text("id\n7\n8\n")
    (tmp_path / "shop" / "edges" / "user__likes__note.csv").write_text("src,dst\n1,7\n2,8\n")
    graph, _ = load_hetero(str(tmp_path / "shop"))
    assert graph.nodes["user"].names == ("age", "id_of_town")
    manifest = written(graph, {"user": np.array([0, 1]), "note": np.array([1, 0])}, tmp_path / "parts")
    assert read_manifest(tmp_path / "parts").model_dump_json() == manifest.model_dump_json()
    data = PartitionedGraph("shop", str(tmp_path / "parts"), manifest, (("user", "likes", "note"),))
    assert data.feature_names == ("age", "id_of_town")
    assert manifest.nodes["note"].names == ()


def test_half_precision_features_and_what_they_cannot_hold(tmp_path):
    graph = hetero()
    part_of = parts_for(graph, 2)
    manifest = written(graph, part_of, tmp_path / "a", feature_dtype="float16")
    shard = open_shard(tmp_path / "a", manifest, 0)
    assert shard.features["user"].dtype == np.float16
    graph.nodes["user"].x[3, 1] = 1e5
    with pytest.raises(DataError, match=r"beyond float16's range"):
        written(graph, part_of, tmp_path / "b", feature_dtype="float16")
    assert not (tmp_path / "b" / "manifest.json").exists()


def test_the_digest_is_of_the_graph_not_of_the_partition(tmp_path):
    graph = hetero()
    first = written(graph, parts_for(graph, 2), tmp_path / "a")
    second = written(graph, parts_for(graph, 3, seed=1), tmp_path / "b")
    assert first.digest == second.digest
    graph.edges[KNOWS].src[0] += 1
    assert written(graph, parts_for(graph, 2), tmp_path / "c").digest != first.digest


def test_names_that_reverse_relations_need_are_refused(tmp_path):
    edges = Edges(np.array([0]), np.array([0]))
    graph = HeteroGraph("g", {"a": Nodes(np.array([5]))}, {("a", "rev_x", "a"): edges})
    with pytest.raises(DataError, match="rev_"):
        written(graph, {"a": np.array([0])}, tmp_path)


@pytest.fixture
def folder(tmp_path):
    graph = hetero()
    written(graph, parts_for(graph, 2), tmp_path / "out")
    return tmp_path / "out"


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(("harm", "message"), [
    (lambda path: path.unlink(), "is missing"),
    (lambda path: path.write_bytes(path.read_bytes()[:-3]), "bytes, the manifest says"),
    (flip, "its checksum is not the manifest's"),
])  # fmt: skip
def test_a_harmed_file_is_named(folder, harm, message):
    path = folder / "part-00001" / "user__follow__note.indices.npy"
    harm(path)
    manifest = read_manifest(folder)
    open_shard(folder, manifest, 0)
    with pytest.raises(DataError, match=message) as error:
        open_shard(folder, manifest, 1)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def edit(folder, **values):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda f: edit(f, schema=2), "has version 2, this program reads 1"),
    (lambda f: edit(f, parts=3), "is damaged"),
    (lambda f: edit(f, nodes={"user": {}}), "is damaged"),
    (lambda f: (f / "manifest.json").write_text("{"), "no manifest of a partitioned graph"),
    (lambda f: (f / "manifest.json").write_text("[]"), "no manifest of a partitioned graph"),
    (lambda f: (f / "manifest.json").unlink(), "not finished"),
])  # fmt: skip
def test_a_manifest_that_cannot_be_used_is_said_so(folder, spoil, message):
    spoil(folder)
    with pytest.raises(DataError, match=message) as error:
        read_manifest(folder)
    assert "\n" not in str(error.value)


def test_other_folders_are_no_partitions(tmp_path):
    with pytest.raises(DataError, match="no partitioned graph"):
        read_manifest(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        read_manifest(tmp_path / "none")


def test_a_finished_partition_is_never_overwritten(folder):
    graph = hetero()
    with pytest.raises(SettingsError, match="already"):
        written(graph, parts_for(graph, 2), folder)
