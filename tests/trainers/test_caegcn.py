"""CaEGCN against its equations written out, and what it recovers."""

import numpy as np
import pytest
import torch
from caegcn_small import SDCN, VARIANTS, dense_loss, joint
from small import of

from ops.api import PlainRun
from ops.clustering.kmeans import kmeans
from ops.config.settings import build
from ops.data.synthetic.planted_partition import planted_graph
from ops.errors import SettingsError
from ops.evaluation.labelled import scores
from trainers import caegcn
from trainers.caegcn import CaEGCN, Settings, predict, train
from trainers.caegcn.model import Model, decoder_layers, encoder_layers
from trainers.caegcn.training import PARTS, CaegcnTrainer

settings_of, small_graph, trained = of("caegcn")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path))


def unsettled(training):
    """Parameters moved off special values: attention's output starts at zero."""
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in training.model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return training


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_and_gradients_equal_the_equations_written_out(variant):
    data, _ = small_graph()
    settings = settings_of(**VARIANTS[variant])
    training = unsettled(CaegcnTrainer(settings, data, PlainRun()))
    p = {k: v.detach().double().requires_grad_() for k, v in training.model.named_parameters()}
    parts, q, z = dense_loss(p, data, settings)
    weights = (1, settings.content_kl, settings.graph_kl, settings.graph_mse, settings.structure)
    total = sum(w * part for w, part in zip(weights, parts, strict=True))
    total.backward()
    metrics = training.epoch(0)
    expected = {f"train/loss_{n}": float((w * v).detach()) for n, w, v in zip(PARTS, weights, parts, strict=True)}
    assert {k: metrics[k] for k in expected} == pytest.approx(expected, rel=2e-5, abs=1e-8)
    assert metrics["train/loss"] == pytest.approx(float(total.detach()), rel=2e-5)
    assert metrics["train/agreement"] == pytest.approx(float((q.argmax(1) == z.argmax(1)).double().mean()))
    sizes = z.argmax(1).bincount(minlength=3).tolist()
    assert [metrics[f"head/size_{i:02d}"] for i in range(3)] == sizes
    assert (metrics["head/size_min"], metrics["head/size_max"]) == (min(sizes), max(sizes))
    for name, parameter in training.model.named_parameters():
        theirs = torch.zeros_like(p[name]) if p[name].grad is None else p[name].grad
        scale = max(float(theirs.abs().max()), 1e-6)
        assert (parameter.grad.double() - theirs).abs().max() <= 5e-4 * scale, name


def test_the_layers_are_the_papers():
    settings = Settings(n_clusters=3)
    shape = lambda places: [(p.inputs, p.outputs, p.fused, p.attends) for p in places]  # noqa: E731
    assert shape(encoder_layers(settings, 1870)) == [
        (1870, 500, None, False), (500, 10, 0, True), (10, 3, 3, True)
    ]  # fmt: skip
    assert shape(decoder_layers(settings, 1870)) == [
        (3, 2000, None, False), (2000, 500, 0, False), (500, 1870, 2, False)
    ]  # fmt: skip
    full = settings.model_copy(update={"depth": "full", "attention_at": "all"})
    assert [p.outputs for p in encoder_layers(full, 1870)] == [500, 500, 2000, 10, 3]
    assert [p.outputs for p in decoder_layers(full, 1870)] == [10, 2000, 500, 500, 1870]
    assert [p.attends for p in encoder_layers(full, 1870) + decoder_layers(full, 1870)] == [False, *[True] * 4] * 2
    sdcn = Model(1870, Settings(n_clusters=3, **SDCN), 0)
    assert sdcn.decoder is None
    assert not any("attention" in name for name, _ in sdcn.named_parameters())


def test_the_heads_first_weights_are_the_least_squares_fit_to_the_target():
    data, _ = small_graph()
    training = CaegcnTrainer(settings_of(), data, PlainRun())
    rows, p = next(training._targets())
    wanted = p.log() - p.log().mean(1, keepdim=True)
    model, group = training.model, training.group
    passed = model.encoder(rows.mixed, None, dict(enumerate(model.content.encode(rows.x))), rows, group, head=False)
    weight = model.encoder.weights[-1].double()
    passed, wanted = passed.double(), wanted.double()
    ridge = 1e-3 * passed.square().sum(0).mean()
    left = passed.T @ (passed @ weight - wanted) + ridge * weight  # the gradient of the ridge regression
    assert left.abs().max() <= 1e-4 * (passed.T @ wanted).abs().max()
    drawn = CaegcnTrainer(settings_of(head_start="random"), data, PlainRun()).model.encoder.weights
    assert not torch.allclose(drawn[-1], model.encoder.weights[-1])
    assert torch.equal(drawn[0], model.encoder.weights[0])


PLANTED = {"widths": "32,32,32", "code_dim": 3, "head_dim": 16, "epochs": 31, "evaluate_every": 10, "lr": 0.001,
           "pretrain_epochs": 30, "pretrain_lr": 0.003, "pretrain_batch": 32}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["default", "sdcn"])
def test_recovers_planted_clusters_better_than_the_features_alone(variant):
    data, labels = planted_graph(300, 3, 16, degree=12, mixing=0.1, separation=5.0, seed=1)
    plain = scores(labels, kmeans(torch.from_numpy(data.x), 3, (0, 0)).labels.numpy())["acc"]
    result, run = trained(data, **(VARIANTS[variant] | PLANTED | {"head_start": "fit"}))
    assert scores(labels, result.assignment)["acc"] > 0.98 > plain
    assert run.history[-1]["head/size_min"] > 80  # no cluster is lost on the way
    assert np.array_equal(run.assignments[30], result.assignment)


def test_the_first_epochs_leave_the_pretrained_codes_where_they_are():
    """Adam's first steps move every weight by the whole rate; by one of eleven parts of it with a warm-up."""
    data, words = small_graph()[0], {"lr": 0.05, "epochs": 11}
    before = CaegcnTrainer(settings_of(**words), data, PlainRun()).codes()
    far = []
    for epochs in (0, 10):
        training = CaegcnTrainer(settings_of(**words, warmup_epochs=epochs), data, PlainRun())
        training.epoch(0)
        far.append(float((training.codes() - before).norm()))
    assert far[1] < 0.2 * far[0]
    rates = []
    for epoch in range(4):
        training = CaegcnTrainer(settings_of(warmup_epochs=2, lr=0.3), data, PlainRun())
        training.epoch(epoch)
        rates.append(training.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.3])


@pytest.mark.slow
def test_in_parts_every_node_is_trained_on_once_an_epoch_and_a_result_depends_on_the_model_alone():
    _, run = trained(parts=5, blocks=2)
    assert all(sum(r[f"head/size_{i:02d}"] for i in range(3)) == 50 for r in joint(run))
    data, labels = planted_graph(300, 3, 16, degree=12, mixing=0.05, separation=5.0, seed=1)
    cut, _ = trained(data, **(PLANTED | {"parts": 4, "blocks": 2}))
    assert scores(labels, cut.assignment)["acc"] > 0.9


@pytest.mark.filterwarnings("ignore:CaEGCN. the clusters have become worse")  # five epochs on noise
def test_predicts_the_training_graph_by_the_graph_branch_and_lone_rows_by_the_content_branch():
    data, _ = small_graph()
    model = CaEGCN(3, **{k: v for k, v in settings_of().model_dump().items() if k != "n_clusters"})
    labels = model.fit_predict(data.x, data.edge_index)
    assert np.array_equal(model.predict(data.x, data.edge_index), labels)
    assert np.allclose(model.transform(data.x), model.embedding_, atol=1e-6)
    centres = model.model_["centres"]
    nearest = torch.cdist(torch.from_numpy(model.embedding_), centres).argmin(1)
    assert np.array_equal(model.predict(data.x), nearest.numpy())  # the largest q is the nearest centre
    one, sure = predict(model.model_, model.settings.model_dump(), data.x[:1])
    assert one[0] == nearest[0]
    assert 0 < sure[0] <= 1


@pytest.mark.parametrize(("words", "message"), [
    ({"widths": "500,x"}, r"^--widths 500,x: give whole numbers"),
    ({"head_dim": 0}, r"^--head-dim 0: allowed are auto, layer or"),
    ({"pos_weight": -1.0}, r"^--pos-weight -1: allowed are balanced or a number above 0"),
    ({"decoder": False}, r"^--no-decoder: --graph-mse above 0 needs the decoder"),
    ({"decoder": False, "graph_mse": 0, "structure_from": "last"}, r"^--no-decoder: --structure-from last needs"),
    ({"blocks": 2}, r"^--blocks 2 must be at most --parts, which is 0"),
    ({"warmup_epochs": 4, "epochs": 4}, r"^--warmup-epochs 4 must be below --epochs, which is 4: lower it"),
    ({"gamma": 1.5}, r"gamma.*got 1.5; allowed: number in \[0, 1\]"),
])  # fmt: skip
def test_wrong_settings_are_one_line(words, message):
    with pytest.raises(SettingsError, match=message):
        build(Settings, words, {})


def test_the_plan_counts_parameters_as_they_are():
    from trainers.caegcn.cost import parameters

    for words in VARIANTS.values():
        settings = settings_of(**words)
        assert parameters(settings, 8) == sum(p.numel() for p in Model(8, settings, 0).parameters())
    data, _ = small_graph()
    assert caegcn.exchanged(settings_of(), data, 1) == 0
    assert caegcn.estimate(settings_of(), data) > 0


def test_q_and_p_are_scored_beside_the_clusters(tmp_path):
    """By the run, not the method: its record has their scores where there are labels."""
    from ops.clustering.owners import Owners
    from ops.config.console import Console
    from ops.evaluation.labelled import evaluator
    from ops.evaluation.unlabelled import GraphJudge
    from ops.training.experiment import Hooks, Judges, Worker
    from ops.training.seed_run import SeedRun

    data, labels = small_graph()
    judge = GraphJudge(data, 3)
    judges = Judges(lambda clusters, _: judge(clusters), evaluator(labels), 3, Owners.alone(50))
    with SeedRun(tmp_path / "run", 0, 3, judges, Console(quiet=True), Hooks(), Worker()) as run:
        result = train(settings_of(epochs=3), data, run)
    last = run.history[-1]
    assert last["eval/acc"] == pytest.approx(scores(labels, result.assignment)["acc"])
    centres = result.model["centres"]
    q = torch.cdist(torch.from_numpy(result.embedding), centres).argmin(1).numpy()
    assert last["branch/q_acc"] == pytest.approx(scores(labels, q)["acc"])
    assert {"branch/p_acc", "branch/p_nmi", "head/size_min"} <= set(last)
