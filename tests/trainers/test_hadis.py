"""HaDis trained on small patterns: clusters, resumed anywhere, its model on the same and on new images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hadis_small import VARIANTS, equal_states, settings_of, small_data, small_features, small_images, trained

from ops.api import PlainRun
from ops.data.types.images import ImageSet
from ops.errors import DataError, DivergedError, SettingsError
from ops.evaluation.labelled import scores
from trainers.hadis import HaDis, embed, predict, train

GOLDEN = Path(__file__).with_name("hadis_golden.json")


@pytest.fixture(scope="module")
def runs():
    """Each variant trained once."""
    return {name: trained(words) for name, words in VARIANTS.items()}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_resumed_after_any_epoch_ends_in_the_same_bits(runs, name):
    result, run = runs[name]
    for state in run.states[:-1:2] if name == "resampled" else run.states[1:2]:
        again, resumed = trained(VARIANTS[name], start=state)
        assert [r["epoch"] for r in resumed.history] == list(range(state.epoch + 1, 4))
        assert resumed.history == run.history[state.epoch + 1 :]
        equal_states(resumed.states[-1], run.states[-1])
        assert np.array_equal(again.assignment, result.assignment)
        assert np.array_equal(again.embedding, result.embedding)
        assert all(torch.equal(again.model[k], t) for k, t in result.model.items())


@pytest.mark.parametrize("name", ["plain", "frozen"])
def test_golden_losses(runs, name):
    """No change of the mathematics by accident: losses written down by an earlier version, of the epochs in which the
    rounding of another machine has not grown yet."""
    parts = ("train/loss_dsa", "train/loss_hsd", "train/loss_proto")
    actual = [[record[part] for part in parts] for record in runs[name][1].history[:2]]
    assert np.allclose(actual, json.loads(GOLDEN.read_text())[name], rtol=1e-3, atol=1e-5)


def test_a_run_resumed_after_the_last_epoch_has_the_result_again(runs):
    result, run = runs["mixture"]
    again, resumed = trained(VARIANTS["mixture"], start=run.states[-1])
    assert resumed.history == []
    assert np.array_equal(again.assignment, result.assignment)
    assert np.array_equal(again.confidence, result.confidence)


@pytest.mark.parametrize("name", VARIANTS)
def test_what_a_run_reports_and_leaves(runs, name):
    result, run = runs[name]
    n, d = 72, 16
    assert list(run.assignments) == list(run.embeddings) == [0, 2, 3]
    assert all(np.isfinite(list(r.values())).all() for r in run.history)
    assert run.history[0]["train/loss_proto"] == 0  # the warm-up
    assert run.history[1]["train/loss_proto"] > 0
    for r in run.history:
        weights = settings_of(**VARIANTS[name])
        total = r["train/loss_dsa"] + weights.weight_hsd * r["train/loss_hsd"]
        assert r["train/loss"] == pytest.approx(total + weights.weight_proto * r["train/loss_proto"], rel=1e-5)
        assert 0 < r["collapse/std"] <= 1.01
    assert np.array_equal(run.assignments[3], result.assignment)
    assert result.embedding.shape == (n, d)
    assert np.allclose(np.linalg.norm(result.embedding, axis=1), 1, atol=1e-5)
    assert {k: v.shape for k, v in run.embeddings[2].items()} == {"embedding": (n, d), "copy_a": (n,), "copy_b": (n,)}
    assert result.confidence.min() >= 0
    assert result.confidence.max() <= 1
    pairs, values = result.more["hard_pairs"], result.more["hard_values"]
    assert len(np.unique(pairs)) == pairs.size
    assert (result.assignment[pairs[:, 0]] != result.assignment[pairs[:, 1]]).all()
    rows = result.embedding[pairs]
    assert np.allclose(values, np.linalg.norm(rows[:, 0] - rows[:, 1], axis=1), atol=1e-5)
    assert (np.diff(values) >= 0).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_the_model_places_the_training_rows_where_they_were(runs, name):
    result, _ = runs[name]
    settings, data = settings_of(**VARIANTS[name]).model_dump(), small_data(VARIANTS[name])
    clusters, confidence = predict(result.model, settings, data)
    assert np.array_equal(clusters, result.assignment)
    assert np.allclose(confidence, result.confidence, atol=1e-5)
    few = ImageSet("few", *(None if a is None else a[5:6] for a in (data.pixels, data.features)))
    assert np.allclose(embed(result.model, settings, few).numpy(), result.embedding[5:6], atol=1e-5)
    assert predict(result.model, settings, few)[0].tolist() == [result.assignment[5]]


@pytest.mark.slow
def test_clusters_of_images_form():
    data, labels = small_images(180)
    result = train(settings_of(epochs=12), data, PlainRun())
    assert scores(labels, result.assignment)["acc"] > 0.95


def test_clusters_of_features_form():
    data, labels = small_features(180)
    result = train(settings_of(backbone="frozen:x.npy", epochs=8), data, PlainRun())
    assert scores(labels, result.assignment)["acc"] > 0.95


def test_the_estimator_is_a_training_in_sklearns_words():
    data, _ = small_images()
    settings = settings_of(epochs=2)
    model = HaDis(**settings.model_dump(), seed=1).fit(data.pixels)
    direct = train(settings, data, PlainRun(1))
    assert np.array_equal(model.labels_, direct.assignment)
    assert np.array_equal(model.predict(data.pixels), model.labels_)
    assert np.allclose(model.transform(data.pixels[:4]), direct.embedding[:4], atol=1e-5)
    assert model.get_params()["backbone"] == "small"
    grey = HaDis(**settings_of(epochs=1, warmup_epochs=0).model_dump()).fit(data.pixels[:, 0])
    assert grey.labels_.shape == (72,)
    with pytest.raises(DataError, match=r"HaDis: got float32 \(2, 3, 8, 8\); images are uint8 "):
        model.predict(np.zeros((2, 3, 8, 8), np.float32))
    with pytest.raises(DataError, match="HaDis: has 10x10; the model takes images of 8x8 pixels"):
        model.predict(np.zeros((2, 3, 10, 10), np.uint8))


def test_features_of_another_width_are_refused(runs):
    wrong = ImageSet("other", features=np.zeros((3, 5), np.float32))
    with pytest.raises(DataError, match="other: has 5; the model takes 12 features"):
        predict(runs["frozen"][0].model, settings_of(backbone="frozen:x.npy").model_dump(), wrong)


def test_a_loss_that_is_not_finite_ends_the_run():
    wild = {"backbone": "frozen:x.npy", "lr": 10.0, "weight_decay": 1.0, "batch": 256, "epochs": 200}
    with pytest.raises(DivergedError, match=r"epoch \d+: the loss is nan; lower --lr or raise --warmup-epochs"):
        train(settings_of(**wild), small_features()[0], PlainRun())


@pytest.mark.parametrize(
    ("words", "world", "message"),
    [
        ({"accumulate": 12, "batch": 100}, 1, ""),
        ({"accumulate": 40, "batch": 100}, 1, r"--accumulate 40: leaves 1 of 72 images in a part"),
        ({"batch": 24}, 24, ""),
        ({"batch": 25}, 24, r"--workers 24: 25 images of a part cannot be shared by them"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_refused(words, world, message):
    from trainers.hadis.source import check_batch

    if not message:
        check_batch(settings_of(**words), 72, world)
        return
    with pytest.raises(SettingsError, match=message):
        check_batch(settings_of(**words), 72, world)
