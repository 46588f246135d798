"""A training that ends with worse clusters gives what it would have given had it ended before, to the bit."""

import numpy as np
import pytest
import torch
from small import Recorder, Scripted, small_graph, trained

from ops.api import PlainRun, State
from ops.clustering.soundness import has_fallen, is_collapsed
from tessera import HSAN
from trainers.last_sound import LastSound
from trainers.shared import run_epochs

EVALUATED = {"hsan": (0, 2, 4), "caegcn": (0, 2, 3), "ns4gc": (0, 2, 4), "dmon": (0, 2, 4)}
CASES = [("hsan", {}), ("hsan", {"ema": 0.5, "gradients": 0.5}), ("caegcn", {}), ("ns4gc", {}), ("dmon", {})]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path))


def script(monkeypatch, method, worse, after=-1):
    """The rule's answers at the evaluations behind an epoch: no at the epochs that are `worse`."""
    answers = iter([epoch not in worse for epoch in EVALUATED[method] if epoch > after])
    monkeypatch.setattr("trainers.last_sound.LastSound._is_sound", lambda *clusters: next(answers))


def same(one, other):
    arrays = all(np.array_equal(getattr(one, a), getattr(other, a)) for a in ("assignment", "confidence", "embedding"))
    return arrays and all(torch.equal(one.model[name], other.model[name]) for name in other.model)


@pytest.mark.parametrize(("method", "words"), CASES)
@pytest.mark.parametrize("sound", [0, 2])
def test_the_result_is_that_of_the_last_sound_evaluation_however_often_it_is_resumed(monkeypatch, method, words, sound):
    worse = [epoch for epoch in EVALUATED[method] if epoch > sound]
    short, _ = trained(method, epochs=sound + 1, **words)
    script(monkeypatch, method, worse)
    result, whole = trained(method, run=Recorder(), **words)
    assert (result.epoch, short.epoch) == (sound, None)
    assert same(result, short)
    for state in whole.states if not words else whole.states[1:4]:  # no copy yet, one of another epoch, one of its own
        script(monkeypatch, method, worse, after=state.epoch)
        again, _ = trained(method, run=PlainRun(start=state), **words)
        assert again.epoch == sound
        assert same(again, result)


@pytest.mark.parametrize(
    ("worse", "words"),
    [((0, 2), {}), ((2,), {}), ((0, 2, 4), {}), ((2, 4), {"protocol": "published"})],
    ids=["the last is sound", "it recovers", "never sound", "published"],
)
def test_elsewhere_the_last_epoch_stays_the_result(monkeypatch, worse, words):
    expected, _ = trained("hsan", **words)
    script(monkeypatch, "hsan", worse)
    result, _ = trained("hsan", **words)
    assert result.epoch is None
    assert same(result, expected)


def test_a_checkpoint_at_a_sound_evaluation_has_no_copy_of_its_own_weights(monkeypatch):
    script(monkeypatch, "hsan", [4])
    _, run = trained("hsan", run=Recorder())
    copies = {state.epoch: "sound.alpha" in state.shared for state in run.states}
    assert copies == {0: False, 1: True, 2: False, 3: True, 4: True}


def test_an_estimator_warns(monkeypatch):
    script(monkeypatch, "hsan", [4])
    data = small_graph("hsan")[0]
    estimator = HSAN(n_clusters=3, embedding_dim=12, epochs=5, update_every=2)
    with pytest.warns(UserWarning, match=r"^HSAN: the clusters have become worse .* the result is that of epoch 2$"):
        estimator.fit(data.x, data.edge_index)


@pytest.mark.parametrize(("smallest", "collapsed"), [(0, True), (47, True), (48, False)])
def test_a_collapsed_cluster_has_less_than_a_twentieth_of_the_mean(smallest, collapsed):
    assert is_collapsed(smallest, 7650, 8) is collapsed  # amap: 0.05 * 956.25 = 47.8


@pytest.mark.parametrize(("modularity", "highest", "fallen"), [
    (0.664, 0.701, True), (0.69, 0.701, False), (0.28, 0.301, True), (0.1, 0.29, False), (0.5, -1.0, False),
])  # fmt: skip
def test_modularity_has_fallen_more_than_two_hundredths_on_a_graph_of_communities(modularity, highest, fallen):
    assert has_fallen(modularity, highest) is fallen


CLIQUE = np.array([(i, j) for i in range(10) for j in range(10) if i != j]).T
EDGES = np.concatenate([CLIQUE, CLIQUE + 10], axis=1)
CLIQUES = np.repeat([0, 1], 10)  # modularity 0.5
ACROSS = np.arange(20) % 2  # below 0


@pytest.mark.parametrize(("clusters", "expected"), [
    ([CLIQUES, 1 - CLIQUES, ACROSS, ACROSS], 1),
    ([CLIQUES, ACROSS, CLIQUES, ACROSS], 2),
    ([ACROSS, CLIQUES, ACROSS, 1 - CLIQUES], None),
    ([ACROSS, ACROSS, ACROSS, ACROSS], None),
])  # fmt: skip
def test_a_fall_of_the_modularity_makes_the_result_that_before_it_however_often_it_is_resumed(clusters, expected):
    def ended(run):
        trainer = Scripted(clusters, run.start)
        result = run_epochs(LastSound(trainer, {"weight": trainer.weight}, EDGES, 2, run), run, 4)
        assert result.epoch == expected
        assert np.array_equal(result.assignment, clusters[3 if expected is None else expected])

    whole = Recorder()
    ended(whole)
    for state in whole.states:
        ended(PlainRun(start=state))


def test_a_checkpoint_of_an_earlier_version_without_a_modularity_goes_on():
    def train(run):
        return run_epochs(LastSound(Scripted([CLIQUES] * 3, run.start), {}, EDGES, 2, run), run, 3)

    run = Recorder()
    train(run)
    shared = {name: value for name, value in run.states[0].shared.items() if name != "sound.modularity"}
    assert train(PlainRun(start=State(0, shared))).epoch is None
