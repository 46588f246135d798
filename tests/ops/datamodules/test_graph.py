"""An attributed graph from the parts that partition_graph.py makes: the same graph, trained on part by part."""

import numpy as np
import pytest
import torch
from experiments import experiment_of

from ops.api import PlainRun
from ops.clustering.kmeans import kmeans
from ops.config.settings import LaunchSettings
from ops.data.synthetic.planted_partition import planted_graph
from ops.data.types.hetero import from_homogeneous
from ops.datamodules.graph import GraphData
from ops.distributed.process_group import ProcessGroup
from ops.errors import DataError, SettingsError
from ops.graph.partition.metis import partition
from ops.graph.partition.pipeline import partition_in_memory
from ops.graph.partition.tasks import PartitionRequest
from ops.graph.sampling.batches import part_of
from trainers import METHODS, hsan


@pytest.fixture
def parts(tmp_path):
    graph, _ = planted_graph(120, 3)
    part = partition(graph.edge_index, 120, 6, "metis", 0)
    partition_in_memory(from_homogeneous(graph), tmp_path / "parts", PartitionRequest(6, "given"), {"node": part})
    return graph, part, tmp_path / "parts"


def test_the_graph_comes_back_in_the_order_of_its_parts(parts):
    graph, part, folder = parts
    data, labels, hidden = GraphData().load(LaunchSettings(dataset=str(folder)), hsan.Settings())
    assert (labels, hidden) == (None, None)
    order = np.argsort(part, kind="stable")
    assert np.array_equal(data.ids, order)
    assert np.array_equal(data.x, graph.x[order])
    assert np.array_equal(data.part, part[order])
    here = {(order[a], order[b]) for a, b in data.edge_index.T}
    assert here == set(map(tuple, graph.edge_index.T))
    assert "6 parts made before by given" in data.notes


def test_hsan_takes_the_parts_as_they_are(parts):
    _, _, folder = parts
    data, _, _ = GraphData().load(LaunchSettings(dataset=str(folder)), hsan.Settings())
    settings = hsan.Settings(n_clusters=3, parts=6, blocks=2, epochs=2, embedding_dim=8)
    assert part_of(settings, data) is data.part
    assert "by the data's own partition" in hsan.remarks(settings, data)[0]
    result = hsan.train(settings, data, PlainRun())
    assert len(result.assignment) == 120
    with pytest.raises(SettingsError, match="--parts 4: planted lies in 6 parts; give --parts 6, or 0"):
        part_of(hsan.Settings(n_clusters=3, parts=4, blocks=2), data)


def test_another_partition_is_another_run(parts):
    graph, part, folder = parts
    request, others = PartitionRequest(6, "given"), folder.parent / "others"
    partition_in_memory(from_homogeneous(graph), others, request, {"node": np.sort(part)})
    folders = (folder, folder.parent / "others")
    actual = [GraphData().load(LaunchSettings(dataset=str(f)), hsan.Settings())[0] for f in folders]
    assert actual[0].digest() != actual[1].digest()


def test_what_is_no_attributed_graph_is_one_line(parts):
    from small_hetero import small_parts

    mixed = small_parts(parts[2].parent, 2)
    with pytest.raises(DataError, match="a homogeneous graph has one of each"):
        GraphData().load(LaunchSettings(dataset=mixed.place), hsan.Settings())


@pytest.mark.parametrize("name", ["hsan", "ns4gc", "caegcn", "ssgc"])
def test_a_method_that_trains_has_its_untrained_network_beside_it(name):
    graph, _ = planted_graph(60, 3)
    method = METHODS[name]
    settings = method.settings(n_clusters=3, **({} if name == "ssgc" else {"epochs": 2}))
    every = GraphData().baselines(experiment_of(method, settings, graph, seeds=1), ProcessGroup())
    rows = [clusters for row, clusters, _ in every if row == "untrained"]
    if name == "ssgc":
        assert rows == []
        return
    none = {k: 0 for k in ("epochs", "pretrain_epochs") if k in type(settings).model_fields}
    embedding = method.train(settings.model_copy(update=none), graph, PlainRun(0)).embedding
    expected = kmeans(torch.from_numpy(embedding), 3, (0, 0), spherical=name == "hsan")  # as the method takes the rows
    assert np.array_equal(rows[0], expected.labels.numpy())
    assert not np.array_equal(embedding, method.train(settings, graph, PlainRun(0)).embedding)
