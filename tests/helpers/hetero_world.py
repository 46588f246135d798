"""Small heterogeneous graphs for tests, ways to write them down that share nothing with our writer, and our writer."""

from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from ops.data.io.validate import make_hetero
from ops.data.io.writer import PartedTable, edge_rows, label_rows, mapping, node_rows, paths, write_mapping
from ops.data.types.hetero import Edges, Nodes, relation_name

RELATIONS = [("user", "follow_note", "note"), ("user", "share_note", "note"), ("user", "knows", "user")]


@st.composite
def graphs(draw, words=True, widths=(0, 1, 3)):
    """Users and notes as plain arrays (see `built`): ids of numbers or words, features, weights and times or none."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    nodes = {}
    for kind in ("user", "note"):
        n = draw(st.integers(1, 7))
        ids = rng.permutation(50)[:n].astype(np.int64)
        if words and draw(st.booleans()):
            ids = np.array([draw(st.sampled_from(["n{}", "0{}", "{} x", "é{}"])).format(i) for i in ids])
        width = draw(st.sampled_from(widths))
        # multiples of 1/8 are exact in every format
        nodes[kind] = (ids, rng.integers(-9, 9, size=(n, width)).astype(np.float32) / 8 if width else None)
    edges = {}
    for relation in draw(st.sets(st.sampled_from(RELATIONS), min_size=1)):
        a, b = len(nodes[relation[0]][0]), len(nodes[relation[2]][0])
        pairs = np.array(sorted(draw(st.sets(st.integers(0, a * b - 1), min_size=1, max_size=10))))
        weight = (rng.integers(0, 9, size=pairs.size) / 8).astype(np.float32) if draw(st.booleans()) else None
        time = rng.integers(0, 2**33, size=pairs.size) if draw(st.booleans()) else None
        edges[relation] = (pairs // b, pairs % b, weight, time)
    return nodes, edges


def built(raw):
    """The checked graph of what `graphs` draws (our functions are type-checked at random, which no strategy may be)."""
    nodes, edges = raw
    return make_hetero("shop", {k: Nodes(*v) for k, v in nodes.items()}, {r: Edges(*e) for r, e in edges.items()})


def frames(graph):
    """{"nodes/user": table, "edges/user__follow_note__note": table, ...} with edges in reverse order."""
    tables = {}
    for kind, nodes in graph.nodes.items():
        x = {} if nodes.x is None else {f"f{i}": column for i, column in enumerate(nodes.x.T)}
        tables[f"nodes/{kind}"] = pd.DataFrame({"id": nodes.ids} | x)
    for (source, name, target), edges in graph.edges.items():
        columns = {"src": graph.nodes[source].ids[edges.src], "dst": graph.nodes[target].ids[edges.dst]}
        columns |= {} if edges.weight is None else {"weight": edges.weight}
        columns |= {} if edges.time is None else {"time": edges.time}
        tables[f"edges/{source}__{name}__{target}"] = pd.DataFrame(columns).iloc[::-1]
    return tables


def write_table(path: Path, table: pd.DataFrame, suffix: str, listed: bool = False):
    """One table as csv, tsv or parquet; `listed` puts features into one column (of lists, or joined by ':')."""
    path.parent.mkdir(parents=True, exist_ok=True)
    features = [c for c in table.columns if c not in ("id", "src", "dst", "weight", "time")]
    if listed and features:
        rows = table[features].to_numpy()
        values = [list(r) for r in rows] if suffix == "parquet" else [":".join(map(str, r)) for r in rows]
        table = table.drop(columns=features).assign(features=values)
    if suffix == "parquet":
        table.to_parquet(f"{path}.parquet", index=False)
    else:
        table.to_csv(f"{path}.{suffix}", index=False, sep="\t" if suffix == "tsv" else ",")


def write_folder(folder: Path, graph, suffix: str = "csv", parts: int = 1, listed: bool = False):
    """nodes/ and edges/, each table in one file or in a folder of `parts`."""
    for name, table in frames(graph).items():
        if parts == 1:
            write_table(folder / name, table, suffix, listed)
            continue
        for part in range(parts):
            rows = table.iloc[len(table) * part // parts : len(table) * (part + 1) // parts]
            write_table(folder / name / f"part-{part}", rows, suffix, listed)


def write_original(folder: Path, graph):
    """The original's tab files, flat; ids are whole numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, nodes in graph.nodes.items():
        lines = ["id:int64\tfeature:string" if nodes.x is not None else "id:int64"]
        for row, i in enumerate(nodes.ids):
            lines.append(f"{i}" if nodes.x is None else f"{i}\t{':'.join(str(v) for v in nodes.x[row])}")
        (folder / f"{kind}_node_0.txt").write_text("\n".join(lines) + "\n")
    for (source, name, target), edges in graph.edges.items():
        lines = ["src_id:int64\tdst_id:int64\tweight:float\tlabel:int32"]
        for row in range(edges.count):
            ends = graph.nodes[source].ids[edges.src[row]], graph.nodes[target].ids[edges.dst[row]]
            weight = 1 if edges.weight is None else edges.weight[row]
            lines.append(f"{ends[0]}\t{ends[1]}\t{weight}\t1")
        (folder / f"{source}_{name}_{target}_0.txt").write_text("\n".join(lines) + "\n")


def write_graph(graph, folder: Path, parts: int = 1, groups=None):
    """A graph in memory as a folder of tables by our writer, in the order of its rows; `groups` go to labels/."""
    for kind, nodes in graph.nodes.items():
        _write(paths(folder, "nodes", kind, parts), node_rows(nodes.ids, nodes.x), np.arange(nodes.count), nodes.count)
        if groups and kind in groups:
            rows = label_rows(nodes.ids, groups[kind])
            _write(paths(folder, "labels", kind, parts), rows, np.arange(nodes.count), nodes.count)
    for relation, edges in graph.edges.items():
        source, target = graph.nodes[relation[0]], graph.nodes[relation[2]]
        rows = edge_rows(source.ids[edges.src], target.ids[edges.dst], edges)
        _write(paths(folder, "edges", relation_name(relation), parts), rows, edges.src, source.count)
    write_mapping(folder, mapping(graph.name))


def _write(files, rows, owners, count):
    with PartedTable(files, count, rows.schema) as table:
        table.write(rows, owners)
