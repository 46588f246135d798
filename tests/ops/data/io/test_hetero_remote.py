"""Node and edge tables on a real S3 server, read by ranges."""

import numpy as np
import pytest
from hetero_world import write_folder, write_graph, write_original

from ops.data.hetero_load import load_hetero, open_graph
from ops.data.io import chunks, readers
from ops.data.io.chunks import read_edge_table, read_node_table
from ops.data.synthetic.user_item import planted_communities
from ops.errors import DataError, ServiceError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("form", ["parquet", "csv", "original"])
def test_a_folder_on_s3_is_the_folder_here(s3, tmp_path, monkeypatch, form):
    monkeypatch.setattr(chunks, "TEXT_BYTES", 3000)
    graph, groups = planted_communities("users=90,notes=60,clusters=3,mean_edges=5,features=4")
    if form == "original":
        write_original(tmp_path / "out", graph)
    elif form == "csv":
        write_folder(tmp_path / "out", graph, "csv", 2)
    else:
        write_graph(graph, tmp_path / "out", 2, groups)
    for path in (p for p in (tmp_path / "out").rglob("*") if p.is_file()):
        s3.put(f"data/{form}/{path.relative_to(tmp_path / 'out')}", path.read_bytes())
    remote, labels = load_hetero(f"s3://tessera/data/{form}")
    assert remote.digest() == load_hetero(str(tmp_path / "out"))[0].digest()
    assert form != "parquet" or labels["note"].tolist() == groups["note"].tolist()
    local, there = open_graph(str(tmp_path / "out")), open_graph(f"s3://tessera/data/{form}/")
    for relation, pieces in local.edges.items():
        assert [(c.first, c.count) for c in pieces] == [(c.first, c.count) for c in there.edges[relation]]


def test_recbole_and_homogeneous_files_on_s3(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path))
    s3.put("bole/x.inter", b"user_id:token\titem_id:token\n1\t2\n3\t4\n")
    assert load_hetero("s3://tessera/bole")[0].nodes["user"].ids.tolist() == [1, 3]
    s3.put("plain/features.csv", b"a,b\n1,2\n3,4\n")
    s3.put("plain/edges.csv", b"source,target\n0,1\n")
    graph, _ = load_hetero("s3://tessera/plain")
    assert graph.edges["node", "edge", "node"].src.tolist() == [0, 1]


def test_only_what_is_asked_for_is_read(s3, monkeypatch):
    rows = b"".join(b"%d,%d\n" % (i, i) for i in range(30_000))
    s3.put("big/nodes/a.csv", b"id,f\n" + rows)
    s3.put("big/edges/a__r__a.csv", b"src,dst\n" + rows)
    monkeypatch.setattr(chunks, "TEXT_BYTES", 100_000)
    listed = open_graph("s3://tessera/big")
    read: list[int] = []
    whole = readers.s3.read_range
    monkeypatch.setattr(readers.s3, "read_range", lambda *a, **k: (read.append(a[2]), whole(*a, **k))[1])
    ids, x = read_node_table(listed.nodes["a"][1])
    assert sum(read) < 110_000
    assert x.shape == (len(ids), 1)
    assert np.array_equal(ids, x[:, 0])


def test_what_goes_wrong_is_one_line(s3):
    with pytest.raises(DataError, match="s3://tessera/nothing"):
        load_hetero("s3://tessera/nothing")
    with pytest.raises(ServiceError, match="there is no bucket"):
        load_hetero("s3://nobucket/x")
    s3.put("bad/nodes/a.parquet", b"PAR1 no more")
    s3.put("bad/edges/a__r__a.csv", b"src,dst\n1,1\n")
    with pytest.raises(DataError, match=r"s3://tessera/bad/nodes/a\.parquet: cannot be read"):
        load_hetero("s3://tessera/bad")
    s3.put("bad/nodes/a.parquet", b"")
    with pytest.raises(DataError, match=r"s3://tessera/bad/nodes/a\.parquet: cannot be read"):
        load_hetero("s3://tessera/bad")
    s3.put("moved/nodes/a.csv", b"id\n1\n")
    s3.put("moved/edges/a__r__a.csv", b"src,dst\n1,1\n")
    chunk = open_graph("s3://tessera/moved").edges["a", "r", "a"][0]
    s3.put("moved/edges/a__r__a.csv", b"src,dst\n1,2\n1,1\n")
    with pytest.raises(DataError, match="was replaced while it was read"):
        read_edge_table(chunk)
