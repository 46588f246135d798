"""The build over files: the same bytes as from memory and whatever comes before what; bad input is one line."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from graph_tables import write_tables
from hetero_graphs import FOLLOW, hetero, homogeneous, sizes
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.data.chunked import tables
from ops.data.types.hetero import HeteroGraph
from ops.errors import DataError
from ops.graph.partition.array_file import forget_after_reboot, open_pack, read_facts, save_pack
from ops.graph.partition.manifest import as_json, part_name, write_manifest
from ops.graph.partition.metis import tasks_here
from ops.graph.partition.pipeline import Request, build
from ops.graph.partition.shards import open_shard, write_shards
from ops.graph.partition.tasks import open_book, write_book


def quiet(*_):
    pass


def made(graph, folder, method="hash", parts=3, form="stream", each=None, pieces=3, feature_dtype="float32"):
    """The graph by way of tables in `folder`, built in folder/out."""
    folder = Path(folder)
    if not (folder / "g").exists():
        write_tables(graph, folder / "g", pieces)
    request = Request(parts, method, form, 0, feature_dtype)
    out = folder / "out"
    manifest = build(tables(str(folder / "g")), request, folder / "work", out, each or tasks_here(quiet), quiet)
    write_manifest(out, manifest)
    return manifest


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def parts_of(graph, manifest, folder):
    """Which part each node of the graph has come to."""
    found = {}
    shards = [open_shard(folder, manifest, p) for p in range(manifest.parts)]
    for kind, nodes in graph.nodes.items():
        where = {i: p for p, shard in enumerate(shards) for i in shard.ids[kind].tolist()}
        assert len(where) == nodes.count
        found[kind] = np.array([where[i] for i in nodes.ids.tolist()], dtype=np.int64)
    return found


@settings(max_examples=6)
@given(size=sizes, parts=st.integers(1, 2), method=st.sampled_from(["hash", "fennel"]), pieces=st.integers(1, 3))
def test_the_same_bytes_as_from_memory(size, parts, method, pieces):
    graph = hetero(*size)
    if min(e.count for e in graph.edges.values()) == 0 or graph.nodes["user"].count < 3:
        return  # the files would have no rows
    with TemporaryDirectory() as folder:
        manifest = made(graph, folder, method, parts, pieces=pieces)
        own = HeteroGraph("g", graph.nodes, graph.edges)  # named as the folder
        part_of = parts_of(graph, manifest, Path(folder) / "out")
        again = write_shards(own, part_of, Path(folder) / "memory", parts=parts, partitioner=manifest.partitioner)
        assert as_json(again) == as_json(manifest)
        assert contents(Path(folder) / "memory") == contents(Path(folder) / "out")


@pytest.mark.parametrize("method", ["hash", "fennel", "metis"])
@pytest.mark.parametrize("make", [hetero, homogeneous])
def test_every_method_covers_every_node_once(tmp_path, make, method):
    graph = make()
    manifest = made(graph, tmp_path, method)
    part_of = parts_of(graph, manifest, tmp_path / "out")
    assert set(np.concatenate(list(part_of.values())).tolist()) == {0, 1, 2}
    assert manifest.partitioner["method"] == method
    assert all(e.symmetric == (make is homogeneous) for r, e in manifest.edges.items() if r in manifest.forward)


@pytest.mark.parametrize("form", ["stream", "waves"])
def test_the_order_in_which_tasks_run_changes_nothing(tmp_path, form):
    graph = hetero(900, 700, 4000, 2000)
    here = tasks_here(quiet)

    def backwards(stage, jobs):
        yield from here(stage, list(reversed(jobs)))

    for name, each in (("a", here), ("b", backwards)):
        made(graph, tmp_path / name, "fennel", form=form, each=each)
    assert contents(tmp_path / "a" / "out") == contents(tmp_path / "b" / "out")


class Killed(Exception):
    pass


def test_a_build_that_ends_anywhere_goes_on_to_the_same_bytes(tmp_path):
    graph = hetero(600, 500, 2500, 1500)
    count = 0

    def counted(stage, jobs):
        nonlocal count
        for found in tasks_here(quiet)(stage, jobs):
            count += 1
            yield found

    made(graph, tmp_path / "whole", "fennel", form="waves", each=counted)
    expected = contents(tmp_path / "whole" / "out")
    for last in range(1, count, count // 3):
        left = last

        def dying(stage, jobs):
            nonlocal left
            for found in tasks_here(quiet)(stage, jobs):
                left -= 1
                if left < 0:
                    raise Killed
                yield found

        folder = tmp_path / str(last)
        with pytest.raises(Killed):
            made(graph, folder, "fennel", form="waves", each=dying)
        assert not (folder / "out" / "manifest.json").exists()
        made(graph, folder, "fennel", form="waves")
        assert contents(folder / "out") == expected


def test_auto_is_resolved_by_the_data():
    asked = Request(2, "auto", "auto", 0, "float32")
    assert asked.resolved(1, 50_000_000).method == "metis"
    assert asked.resolved(1, 50_000_001).partitioner() == {"method": "fennel", "seed": 0, "form": "waves"}
    assert asked.resolved(2, 100).partitioner() == {"method": "fennel", "seed": 0, "form": "stream"}


def test_half_precision_is_stored_as_such(tmp_path):
    manifest = made(hetero(), tmp_path, feature_dtype="float16")
    assert open_shard(tmp_path / "out", manifest, 0).features["user"].dtype == np.float16


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


@pytest.mark.parametrize(
    ("kind", "piece", "columns", "told"),
    [
        ("edges/user__follow__note", 1, {"src": put(4, 10**6)}, r"001.parquet, row 4: 1000000 is not among the ids"),
        ("edges/user__follow__note", 2, {"dst": put(3, "x7")}, r"002.parquet, row 3: 'x7' is not among the ids"),
        ("nodes/note", 2, {"id": put(1, "n3")}, r"parquet, row \d+: id 'n3' stands twice \(first in .*parquet, row"),
        ("edges/user__follow__note", 0, {"weight": put(2, -1.0)}, r"000.parquet.*row 2"),
        ("edges/user__follow__note", 0, {"weight": put(2, np.inf)}, r"000.parquet.*row 2"),
        ("nodes/user", 1, {"x1": put(5, np.nan)}, r"001.parquet.*row 5"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_with_file_and_row(tmp_path, kind, piece, columns, told):
    write_tables(hetero(), tmp_path / "g")
    replaced(tmp_path, kind, piece, **columns)
    with pytest.raises(DataError, match=told) as error:
        made(None, tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_more_parts_than_nodes(tmp_path):
    with pytest.raises(DataError, match=r"--parts 8: the graph has 7 nodes"):
        made(hetero(4, 3, 9, 9), tmp_path, parts=8)
    made(hetero(4, 3, 9, 9), tmp_path / "b", parts=7, method="fennel")


some_ids = st.one_of(
    st.sets(st.integers(-50, 60), min_size=1),
    st.sets(st.integers(-(2**62), 2**62), min_size=1),
    st.sets(st.text("abc", max_size=4), min_size=1),
    st.integers(1, 9).map(lambda n: set(range(n))),
)
some_keys = st.lists(st.one_of(st.integers(-60, 70), st.text("abcd", max_size=6)), max_size=20)


@settings(max_examples=60)
@given(ids=some_ids, asked=some_keys, seed=st.integers(0, 9))
def test_a_book_finds_what_is_there_and_nothing_else(ids, asked, seed):
    ids = np.random.default_rng(seed).permutation(np.array(sorted(ids)))
    if ids.dtype.kind != "i":
        asked = [str(a) for a in asked]
        rows = {str(v): i for i, v in enumerate(ids)}
    else:
        asked = [a for a in asked if isinstance(a, int)]
        rows = {int(v): i for i, v in enumerate(ids)}
    asked = [*asked, *rows]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "book"
        assert write_book(path, ids) is None
        assert open_book(path)(np.array(asked)).tolist() == [rows.get(a, -1) for a in asked]


def test_a_pack_is_whole_or_not_there(tmp_path):
    path = tmp_path / "p"
    save_pack(path, {"a": np.arange(7), "b": None, "c": np.empty((0, 3), np.float32), "d": np.array(["xy"])}, {"n": 1})
    found = open_pack(path)
    assert {k: v.tolist() for k, v in found.items()} == {"a": list(range(7)), "c": [], "d": ["xy"]}
    assert read_facts(path) == {"n": 1}
    found["a"][0] = 9  # copy-on-write
    assert open_pack(path)["a"][0] == 0
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def test_packs_of_before_a_reboot_are_forgotten(tmp_path):
    work = tmp_path / "work"
    forget_after_reboot(work)
    save_pack(work / "p", {}, {})
    forget_after_reboot(work)
    assert (work / "p").exists()
    (work / "boot").write_text("another")
    forget_after_reboot(work)
    assert not (work / "p").exists()


def test_the_manifest_names_every_file_and_only_those(tmp_path):
    manifest = made(hetero(), tmp_path)
    there = {name for name in contents(tmp_path / "out") if name.startswith("part-")}
    assert there == set(manifest.files)
    assert {name.partition("/")[0] for name in there} == {part_name(p) for p in range(3)}
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["schema"] == 1
    assert FOLLOW in manifest.edges


def killed_with(work, pattern):
    """A runner that dies as soon as there is a pack that fits."""

    def each(stage, jobs):
        for task in tasks_here(quiet)(stage, jobs):
            yield task
            if list(work.glob(pattern)):
                raise Killed

    return each


def put(place, value):
    def change(array):
        array = array.copy()
        array[place] = value
        return array

    return change


@pytest.mark.parametrize(
    ("form", "pattern", "name", "change", "told"),
    [
        ("waves", "blocks/*", "indptr", put(1, -(2**63)), "CSR indptr holds -9223372036854775808"),
        ("waves", "blocks/*", "indices", put(0, 2**31 - 1), "CSR column 2147483647 is not in 0.."),
        ("stream", "blocks/*", "indices", put(-1, -7), "CSR column -7 is not in 0.."),
        ("stream", "blocks/*", "indptr", lambda a: a[:-1], "CSR indptr must"),
        ("waves", "blocks.book", "offsets", put(-1, 2**40), "offsets holds 1099511627776; its entries must be in 0.."),
        ("waves", "rounds/round.*", "part", put(0, 99), "must hold a part in -1..2 for each of"),
        ("waves", "edges/*", "dst", put(0, 2**30), "edge 0 joins rows"),
        ("stream", "edges/*", "src", put(0, -1), "edge 0 joins rows"),
        ("stream", "links/*", "dst", put(slice(None), 2**30), "leads into row 1073741824, which is not in 0.."),
        ("stream", "routed/*", "dst", put(slice(None), -5), "leads into row -5, which is not in 0.."),
    ],
)
def test_a_pack_whose_rows_point_outside_is_refused(tmp_path, form, pattern, name, change, told):
    graph = hetero(600, 500, 2500, 1500)
    work = tmp_path / "work"
    with pytest.raises(Killed):
        made(graph, tmp_path, "fennel", form=form, each=killed_with(work, pattern))
    path = min(work.glob(pattern))
    arrays = {key: np.array(array) for key, array in open_pack(path).items()}
    save_pack(path, arrays | {name: change(arrays[name])}, read_facts(path))
    with pytest.raises(DataError) as caught:
        made(graph, tmp_path, "fennel", form=form)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
