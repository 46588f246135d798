"""The build over files: the same bytes as from memory and whatever comes before what; bad input is one line."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from graph_tables import write_tables
from hetero_graphs import FOLLOW, KNOWS, hetero, homogeneous, sizes
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.data.hetero_load import open_graph
from ops.data.types.hetero import Edges, HeteroGraph
from ops.errors import DataError
from ops.graph.partition.arrays import forget_after_reboot, open_arrays, read_facts, read_rows_of_part, write_arrays
from ops.graph.partition.executors import in_process
from ops.graph.partition.index import open_index, write_index
from ops.graph.partition.manifest import part_name, write_manifest
from ops.graph.partition.pipeline import build, partition_in_memory
from ops.graph.partition.shards import open_shard
from ops.graph.partition.tables import store_tables
from ops.graph.partition.tasks import PartitionRequest


def built(graph, folder, method="hash", parts=3, form="stream", run=None, pieces=3):
    """The graph by way of tables in `folder`, built in folder/out."""
    folder, run = Path(folder), run or in_process()
    if not (folder / "g").exists():
        write_tables(graph, folder / "g", pieces)
    request = PartitionRequest(parts, method, form)
    manifest = build(store_tables(open_graph(str(folder / "g")), folder / "work", run), request, folder / "out", run)
    write_manifest(folder / "out", manifest)
    return manifest


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def parts_of(graph, manifest, folder):
    """Which part each node of the graph has come to."""
    results = {}
    shards = [open_shard(folder, manifest, p) for p in range(manifest.parts)]
    for kind, nodes in graph.nodes.items():
        where = {i: p for p, shard in enumerate(shards) for i in shard.ids[kind].tolist()}
        assert len(where) == nodes.count
        results[kind] = np.array([where[i] for i in nodes.ids.tolist()], dtype=np.int64)
    return results


@settings(max_examples=6)
@given(
    size=sizes, parts=st.integers(1, 2), method=st.sampled_from(["hash", "fennel", "metis"]), pieces=st.integers(1, 3)
)
def test_the_same_bytes_as_from_memory(size, parts, method, pieces):
    graph = hetero(*size)
    if min(e.count for e in graph.edges.values()) == 0 or graph.nodes["user"].count < 3:
        return  # the files would have no rows
    with TemporaryDirectory() as folder:
        built(graph, folder, method, parts, pieces=pieces)
        same = HeteroGraph("g", graph.nodes, graph.edges)  # named as the folder
        partition_in_memory(same, Path(folder) / "memory", PartitionRequest(parts, method))
        assert contents(Path(folder) / "memory") == contents(Path(folder) / "out")


@pytest.mark.parametrize("method", ["hash", "fennel", "metis"])
def test_a_training_sees_no_repeats_and_loops_when_it_assigns(tmp_path, method):
    """`simple`: the parts are those of the graph without repeated edges and self loops."""
    graph = hetero()
    pairs = {r: np.unique(np.stack([e.src, e.dst]), axis=1) for r, e in graph.edges.items()}
    once = HeteroGraph("g", graph.nodes, {r: Edges(*p[:, p[0] != p[1]] if r == KNOWS else p) for r, p in pairs.items()})
    request = PartitionRequest(3, method, simple=True)
    results = [parts_of(g, partition_in_memory(g, tmp_path / name, request), tmp_path / name)
             for name, g in (("whole", graph), ("once", once))]  # fmt: skip
    assert all(np.array_equal(results[0][kind], results[1][kind]) for kind in graph.nodes)


@pytest.mark.parametrize("method", ["hash", "fennel", "metis"])
@pytest.mark.parametrize("make", [hetero, homogeneous])
def test_every_method_covers_every_node_once(tmp_path, make, method):
    graph = make()
    manifest = built(graph, tmp_path, method)
    part_of = parts_of(graph, manifest, tmp_path / "out")
    assert set(np.concatenate(list(part_of.values())).tolist()) == {0, 1, 2}
    assert manifest.partitioner["method"] == method
    assert all(e.symmetric == (make is homogeneous) for r, e in manifest.edges.items() if r in manifest.forward)


@pytest.mark.parametrize("form", ["stream", "waves"])
def test_the_order_in_which_tasks_run_changes_nothing(tmp_path, form):
    graph = hetero(900, 700, 4000, 2000)
    here = in_process()

    def backwards(stage, jobs):
        yield from here(stage, list(reversed(jobs)))

    for name, each in (("a", here), ("b", backwards)):
        built(graph, tmp_path / name, "fennel", form=form, run=each)
    assert contents(tmp_path / "a" / "out") == contents(tmp_path / "b" / "out")


class Killed(Exception):
    pass


def test_a_build_that_ends_anywhere_goes_on_to_the_same_bytes(tmp_path):
    graph = hetero(600, 500, 2500, 1500)
    count = 0

    def counted(stage, jobs):
        nonlocal count
        for results in in_process()(stage, jobs):
            count += 1
            yield results

    built(graph, tmp_path / "whole", "fennel", form="waves", run=counted)
    expected = contents(tmp_path / "whole" / "out")
    for last in range(1, count, count // 3):
        left = last

        def dying(stage, jobs):
            nonlocal left
            for results in in_process()(stage, jobs):
                left -= 1
                if left < 0:
                    raise Killed
                yield results

        folder = tmp_path / str(last)
        with pytest.raises(Killed):
            built(graph, folder, "fennel", form="waves", run=dying)
        assert not (folder / "out" / "manifest.json").exists()
        built(graph, folder, "fennel", form="waves")
        assert contents(folder / "out") == expected


def test_auto_is_resolved_by_the_data():
    asked = PartitionRequest(2, "auto", "auto", 0, "float32")
    assert asked.resolved(1, 50_000_000).method == "metis"
    assert asked.resolved(1, 50_000_001).partitioner() == {"method": "fennel", "seed": 0, "form": "waves"}
    assert asked.resolved(2, 100).partitioner() == {"method": "fennel", "seed": 0, "form": "stream"}


def replaced(folder, kind, piece, **columns):
    path = folder / "g" / kind / f"{piece:03d}.parquet"
    table = pd.read_parquet(path)
    for name, change in columns.items():
        table[name] = change(table[name].to_numpy().copy())
    table.to_parquet(path)


def put(row, value):
    def change(column):
        column[row] = value
        return column

    return change


@pytest.mark.parametrize(("kind", "piece", "columns", "message"), [
    ("edges/user__follow__note", 1, {"src": put(4, 10**6)}, r"001.parquet, row 4: 1000000 is not among the ids"),
    ("edges/user__follow__note", 2, {"dst": put(3, "x7")}, r"002.parquet, row 3: 'x7' is not among the ids"),
    ("nodes/note", 2, {"id": put(1, "n3")}, r"parquet, row \d+: id 'n3' stands twice \(first in .*parquet, row"),
    ("edges/user__follow__note", 0, {"weight": put(2, -1.0)}, r"000.parquet.*row 2"),
    ("edges/user__follow__note", 0, {"weight": put(2, np.inf)}, r"000.parquet.*row 2"),
    ("nodes/user", 1, {"x1": put(5, np.nan)}, r"001.parquet.*row 5"),
])  # fmt: skip
def test_bad_input_is_one_line_with_file_and_row(tmp_path, kind, piece, columns, message):
    write_tables(hetero(), tmp_path / "g")
    replaced(tmp_path, kind, piece, **columns)
    with pytest.raises(DataError, match=message) as error:
        built(None, tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_more_parts_than_nodes(tmp_path):
    with pytest.raises(DataError, match=r"--parts 8: the graph has 7 nodes"):
        built(hetero(4, 3, 9, 9), tmp_path, parts=8)
    built(hetero(4, 3, 9, 9), tmp_path / "b", parts=7, method="fennel")


some_ids = st.one_of(
    st.sets(st.integers(-50, 60), min_size=1),
    st.sets(st.integers(-(2**62), 2**62), min_size=1),
    st.sets(st.text("abc", max_size=4), min_size=1),
    st.integers(1, 9).map(lambda n: set(range(n))),
)
some_keys = st.lists(st.one_of(st.integers(-60, 70), st.text("abcd", max_size=6)), max_size=20)


@given(ids=some_ids, asked=some_keys, seed=st.integers(0, 9))
def test_an_index_finds_what_is_there_and_nothing_else(ids, asked, seed):
    ids = np.random.default_rng(seed).permutation(np.array(sorted(ids)))
    if ids.dtype.kind != "i":
        asked = [str(a) for a in asked]
        rows = {str(v): i for i, v in enumerate(ids)}
    else:
        asked = [a for a in asked if isinstance(a, int)]
        rows = {int(v): i for i, v in enumerate(ids)}
    asked = [*asked, *rows]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        assert write_index(path, ids) is None
        assert open_index(path)(np.array(asked)).tolist() == [rows.get(a, -1) for a in asked]


def test_arrays_are_whole_or_not_there(tmp_path):
    path = tmp_path / "p"
    arrays = {"bounds": np.array([0, 3, 7]), "a": np.arange(7), "b": None, "c": np.empty((7, 0), np.float32)}
    write_arrays(path, arrays, {"n": 1})
    stored = open_arrays(path)
    assert sorted(stored) == ["a", "bounds", "c"]
    assert read_facts(path) == {"n": 1}
    stored["a"][0] = 9  # copy-on-write
    assert {k: v.tolist() for k, v in read_rows_of_part(path, 0).items()} == {"a": [0, 1, 2], "c": [[]] * 3}
    write_arrays(path, {"a": np.arange(2)})  # another attempt of the task: what is there stays
    assert open_arrays(path)["a"].tolist() == list(range(7))
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def test_arrays_of_before_a_reboot_are_forgotten(tmp_path):
    work = tmp_path / "work"
    forget_after_reboot(work)
    write_arrays(work / "p", {})
    forget_after_reboot(work)
    assert (work / "p").exists()
    (work / "boot").write_text("another")
    forget_after_reboot(work)
    assert not (work / "p").exists()


def test_the_manifest_names_every_file_and_only_those(tmp_path):
    manifest = built(hetero(), tmp_path)
    there = {name for name in contents(tmp_path / "out") if name.startswith("part-")}
    assert there == set(manifest.files)
    assert {name.partition("/")[0] for name in there} == {part_name(p) for p in range(3)}
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["schema"] == 1
    assert FOLLOW in manifest.edges
