"""HSAN's parts, settings and estimator: trusted rows, storage, the published protocol, scikit-learn's words."""

import math

import numpy as np
import pytest
import torch
from small import HSAN, SMALL, of

from ops.api import PlainRun
from ops.clustering.kmeans import kmeans
from ops.config.settings import build
from ops.data.io.validate import make_graph
from ops.data.synthetic.planted_partition import planted_graph
from ops.errors import DataError, ResourceError, SettingsError
from ops.evaluation.labelled import scores
from ops.graph.adjacency import low_pass
from ops.graph.pca import fit_pca
from ops.losses.pair_weights import trusted_rows
from trainers import hsan
from trainers.hsan import Settings, train
from trainers.hsan.cost import storage_for
from trainers.hsan.model import prepare

settings_of, small_graph, trained = of("hsan")
WORDS = {k: v for k, v in SMALL["hsan"].items() if k != "n_clusters"}


def test_trusted_rows_by_the_paper():
    """The least softmax over squared distances, at or below the floor(N (1 - tau))-th largest of them."""
    g = torch.Generator().manual_seed(0)
    fused, centres = torch.randn(40, 3, generator=g), torch.randn(4, 3, generator=g)
    value = [min(math.exp(d) for d in row) / sum(math.exp(d) for d in row)
             for row in torch.cdist(fused.double(), centres.double()).square().tolist()]  # fmt: skip
    for tau in (0.25, 0.5, 0.75):
        bar = sorted(value, reverse=True)[math.floor(40 * (1 - tau)) - 1]
        expected = [v <= bar * (1 + 1e-6) for v in value]
        assert trusted_rows(fused, centres, tau).tolist() == expected
        assert sum(expected) == 40 * tau + 1
    assert trusted_rows(fused, centres, 1.0).all()
    assert trusted_rows(fused, centres, 0.0).sum() == 1  # the row with the least value alone


def test_trusted_rows_keep_ties_and_prefer_rows_near_a_centre():
    centres = torch.tensor([[0.0], [10.0]])
    near, middle = torch.tensor([[0.1]]), torch.tensor([[5.0]])
    chosen = trusted_rows(torch.cat([near.repeat(4, 1), middle.repeat(4, 1)]), centres, 0.25)
    assert chosen.tolist() == [True] * 4 + [False] * 4  # the sixth largest is one of four equal near rows: all stay
    chosen = trusted_rows(torch.cat([near.repeat(3, 1), middle]), centres, 0.5)
    assert chosen.tolist() == [True, True, True, False]


def gib(pairs_bytes):
    return pairs_bytes / 2**30


def test_storage_by_budget():
    """96 rows in tiles of 16: 21 upper tiles of 256 pairs."""
    pairs = 21 * 256
    paper = lambda memory, **v: storage_for(48, settings_of(pair_memory=gib(memory), **v))  # noqa: E731
    assert paper(4 * pairs) == ("float", 0)
    assert paper(4 * pairs + 100) == ("float", 100)
    assert paper(4 * pairs - 1) == ("recompute", 4 * pairs - 1)
    assert paper(0) == ("recompute", 0)
    assert paper(2 * pairs, pair_storage="uint16") == ("uint16", 0)
    assert paper(10 * pairs, pair_storage="recompute") == ("recompute", 10 * pairs)
    assert paper(4 * pairs, weights="stale") == ("float", 0)
    assert paper(4 * pairs - 1, weights="stale") == ("uint16", 2 * pairs - 1)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"weights": "stale"},
            "stale pair weights as float or uint16 need 0.00 GiB, .* raise it or use --weights paper",
        ),
        ({"pair_storage": "float"}, "paper pair weights as float need 0.00 GiB, .* use --pair-storage recompute"),
        ({"pair_storage": "uint16"}, "paper pair weights as uint16 need 0.00 GiB, .* use --pair-storage recompute"),
    ],
)
def test_storage_over_the_budget(values, line):
    with pytest.raises(ResourceError, match=line) as caught:
        storage_for(48, settings_of(pair_memory=0, **values))
    assert "\n" not in str(caught.value)
    with pytest.raises(ResourceError):
        trained(pair_memory=0, **values)


def test_stale_weights_are_never_recomputed():
    with pytest.raises(ValueError, match=r"they have no snapshot.: drop --pair-storage recompute"):
        settings_of(weights="stale", pair_storage="recompute")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"batch_nodes": 9, "parts": 4}, "--batch-nodes and --parts exclude each other: got 9 and 4; drop one of them"),
        ({"blocks": 5, "parts": 4}, "--blocks 5 must be at most --parts, which is 4: lower --blocks or raise --parts"),
        ({"blocks": 2}, "--blocks 2 must be at most --parts, which is 0: lower --blocks or raise --parts"),
        (
            {"batch_nodes": 9, "weights": "stale"},
            "--weights stale (also of --protocol published) needs all pairs in every step: use --weights paper or "
            "drop --batch-nodes 9",
        ),
        (
            {"parts": 4, "protocol": "published", **hsan.PUBLISHED},
            "--weights stale (also of --protocol published) needs all pairs in every step: use --weights paper or "
            "drop --parts 4",
        ),
        ({"batch_nodes": 2}, "--batch-nodes 2 must be at least 3 (the clusters): raise it"),
        ({"batch_nodes": 1, "n_clusters": "auto"}, "--batch-nodes 1 must be at least 2: raise it"),
    ],
)
def test_batches_that_contradict_other_settings(values, line):
    with pytest.raises(SettingsError) as caught:
        build(Settings, SMALL["hsan"] | values, {})
    assert str(caught.value) == line


@pytest.mark.parametrize("values", [{"batch_nodes": 3}, {"parts": 4, "blocks": 4}, {"parts": 4}, {"batch_nodes": 2,
                                    "n_clusters": None}])  # fmt: skip
def test_batches_that_agree_with_the_other_settings(values):
    assert settings_of(**values).model_dump() == settings_of().model_dump() | values


def test_the_published_protocol_sets_three_settings_and_counts_the_untrained_start():
    settings = build(Settings, HSAN | {"protocol": "published"}, {})
    assert (settings.gradients, settings.weights, settings.kmeans) == ("accumulate", "stale", "released")
    assert settings_of().model_dump() | hsan.PUBLISHED | {"protocol": "published"} == settings.model_dump()
    data, _ = small_graph()
    run = PlainRun(0)
    train(settings, data, run)
    assert [r["epoch"] for r in run.history] == [-1, 0, 1, 2, 3, 4]
    filtered = torch.from_numpy(low_pass(data.x, data.edge_index, 2))
    assert np.array_equal(run.assignments[-1], kmeans(filtered, 3, (0, 0), init="released").labels.numpy())


def test_spherical_clusters():
    data, _ = small_graph()
    result, _ = trained(data, kmeans="spherical")
    assert torch.allclose(result.model["centres"].norm(dim=1), torch.ones(3), atol=1e-5)
    labels, confidence = hsan.predict(
        result.model, settings_of(kmeans="spherical").model_dump(), data.x, data.edge_index
    )
    assert np.array_equal(labels, result.assignment)
    assert np.array_equal(confidence, result.confidence)


def test_pca_comes_before_the_filter_and_goes_with_the_model():
    data, _ = small_graph()
    result, _ = trained(data, pca_dim=4)
    assert result.model["attribute_weight"].shape == (2, 4, 12)
    projection = fit_pca(data.x, 4)
    assert np.array_equal(result.model["pca.components"].numpy(), projection.components)
    x, _ = prepare(settings_of(pca_dim=4), data)
    assert np.array_equal(x.numpy(), low_pass(projection(data.x), data.edge_index, 2))
    labels, _ = hsan.predict(result.model, settings_of(pca_dim=4).model_dump(), data.x, data.edge_index)
    assert np.array_equal(labels, result.assignment)
    with pytest.raises(ValueError, match="x has 3 features, the model was fitted on 10"):
        hsan.predict(result.model, settings_of(pca_dim=4).model_dump(), data.x[:, :3])


def test_as_many_components_as_features_are_no_pca():
    assert "pca.mean" not in trained(pca_dim=10)[0].model


def test_self_loops_matter_to_the_structure_encoder_only_where_there_are_any():
    data, _ = small_graph()
    loops = np.concatenate([data.edge_index, [[1, 5, 9], [1, 5, 9]]], axis=1)
    looped = make_graph("looped", data.x, loops)
    plain, keep, drop = (
        [r["train/loss"] for r in trained(d, self_loops=s)[1].history]
        for d, s in ((data, "keep"), (looped, "keep"), (looped, "drop"))
    )
    assert drop == plain != keep
    assert plain == [r["train/loss"] for r in trained(data, self_loops="drop")[1].history]


def test_the_estimator_is_the_trainer():
    data, labels = small_graph()
    model = hsan.HSAN(3, seed=2, **WORDS).fit(data.x, data.edge_index)
    result, run = trained(data, seed=2)
    assert np.array_equal(model.labels_, result.assignment)
    assert np.array_equal(model.embedding_, result.embedding)
    assert np.array_equal(model.confidence_, result.confidence)
    assert model.history_ == run.history
    assert np.array_equal(model.predict(data.x, data.edge_index), model.labels_)
    assert np.array_equal(model.transform(data.x, data.edge_index), model.embedding_)
    assert np.array_equal(hsan.HSAN(3, seed=2, **WORDS).fit_predict(data.x, data.edge_index, labels), model.labels_)


def test_new_rows_without_edges():
    data, labels = planted_graph(120, 3, 10, degree=8, seed=0, separation=5.0)
    model = hsan.HSAN(3, **(WORDS | {"epochs": 10})).fit(data.x, data.edge_index)
    new = planted_graph(120, 3, 10, degree=8, seed=0, separation=5.0)[0].x[:20]
    assert model.transform(new).shape == (20, 12)
    assert np.mean(model.predict(new) == model.labels_[:20]) > 0.8
    assert scores(labels, model.labels_)["acc"] > 0.95


def test_one_direction_of_each_edge_is_enough():
    data, _ = small_graph()
    half = data.edge_index[:, data.edge_index[0] <= data.edge_index[1]]
    first, second = (hsan.HSAN(3, **WORDS).fit(data.x.tolist(), e) for e in (half, data.edge_index))
    assert np.array_equal(first.labels_, second.labels_)
    assert np.array_equal(first.predict(data.x, half), first.labels_)


def test_more_clusters_than_nodes_and_predicting_too_early():
    data, _ = small_graph()
    with pytest.raises(DataError, match="n_clusters=49: the data has 48 rows"):
        hsan.HSAN(49, **WORDS).fit(data.x, data.edge_index)
    with pytest.raises(ValueError, match="HSAN is not fitted yet: call fit first"):
        hsan.HSAN(3).predict(data.x)
