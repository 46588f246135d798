"""Pre-training: cached, resumed to the bit, shared by settings that do not change it; right without a cache too."""

import warnings
from dataclasses import replace

import pytest
import torch
from small import of

from ops.api import PlainRun
from ops.distributed.process_group import ProcessGroup
from ops.errors import Interrupted
from trainers.caegcn.model import Content
from trainers.caegcn.pretrain import key_of, pretrain

settings_of, small_graph, trained = of("caegcn")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pretrained"


class Stopping(PlainRun):
    """A run that is interrupted at the report of one epoch."""

    def __init__(self, at):
        super().__init__(0)
        self.at = at

    def report(self, epoch, metrics, assignment=None, state=None, embeddings=None):
        super().report(epoch, metrics, assignment, state)
        if epoch == self.at:
            raise Interrupted("stopped")


def content(run, **words):
    settings, data = settings_of(**words), small_graph()[0]
    result = Content(data.n_features, settings, run.seed)
    pretrain(result, settings, data, run, ProcessGroup())
    return {k: v.detach() for k, v in result.named_parameters()}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in b)


def test_the_second_run_takes_what_the_first_has_left(cache):
    first, second = PlainRun(), PlainRun()
    a, b = content(first), content(second)
    assert same(a, b)
    assert [r["epoch"] for r in first.history] == [-3, -2, -1]
    assert second.history == first.history
    losses = [r["train/loss_pretraining"] for r in first.history]
    assert losses == sorted(losses, reverse=True)
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("at", [-3, -2, -1])
def test_an_interrupted_one_goes_on_to_the_same_bits(at, cache, tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        content(Stopping(at))
    rest = PlainRun()
    result = content(rest)
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "other"))
    whole = PlainRun()
    assert same(result, content(whole))
    assert rest.history == whole.history, "what was told before the interruption is told again"


def test_a_damaged_cache_is_passed_over(cache):
    a = content(PlainRun())
    for path in cache.glob("*/epochs/*/shared.safetensors"):
        path.write_bytes(path.read_bytes()[:-3])
    again = PlainRun()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert same(a, content(again))
    assert len(again.history) == 3


def test_without_a_place_for_a_cache_it_trains_all_the_same(tmp_path, monkeypatch):
    a = content(PlainRun())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        run = PlainRun()
        assert same(a, content(run))
        assert len(run.history) == 3


def test_the_key_is_of_data_seed_and_the_stages_own_settings():
    data = small_graph()[0]
    key = key_of(settings_of(), data, 0)
    assert key == key_of(settings_of(gamma=0.1, epochs=9, lr=0.5, structure=0.2, heads=1), data, 0)
    others = ({"code_dim": 5}, {"widths": "12,10,15"}, {"pretrain_epochs": 4}, {"pretrain_lr": 0.5},
              {"pretrain_batch": 8}, {"pretrain_keep": "last"}, {"centre_starts": 3}, {"n_clusters": 4})  # fmt: skip
    changed = [key_of(settings_of(**words), data, 0) for words in others]
    other = [replace(data, x=data.x[:, ::-1].copy()), replace(data, edge_index=data.edge_index[:, 2:])]
    changed += [
        key_of(settings_of(), data, 1),
        key_of(settings_of(), data, 0, (2, 1, "cpu")),
        *(key_of(settings_of(), each, 0) for each in other),
    ]
    assert len({key, *changed}) == len(changed) + 1
    last = settings_of(pretrain_keep="last")  # depends on neither edges nor clusters
    assert key_of(last, data, 0) == key_of(settings_of(pretrain_keep="last", n_clusters=4), other[1], 0)


def test_the_epoch_is_kept_whose_codes_agree_best_with_the_edges(tmp_path, monkeypatch):
    run = PlainRun()
    kept = content(run, pretrain_epochs=40, pretrain_lr=0.003)
    looks = {r["epoch"] + 40: r["train/modularity_pretraining"] for r in run.history if len(r) > 2}
    assert sorted(looks) == list(range(1, 40, 2))
    best = max(looks, key=lambda epoch: (looks[epoch], epoch))
    assert run.history[-1]["train/kept_pretraining"] == best
    assert best < 39, "the small graph's codes lose the groups again, or this shows nothing"
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "other"))
    assert same(kept, content(PlainRun(), pretrain_epochs=best + 1, pretrain_lr=0.003, pretrain_keep="last"))
    assert not same(kept, content(PlainRun(), pretrain_epochs=40, pretrain_lr=0.003, pretrain_keep="last"))


def test_without_edges_the_last_epoch_is_kept(tmp_path, monkeypatch):
    data = small_graph()[0]
    data = replace(data, edge_index=data.edge_index[:, :0])
    result = []
    for keep in ("modularity", "last"):
        branch = Content(data.n_features, settings_of(), 0)
        pretrain(branch, settings_of(pretrain_epochs=12, pretrain_keep=keep), data, PlainRun(), ProcessGroup())
        result.append({k: v.detach() for k, v in branch.named_parameters()})
    assert same(*result)


def test_none_at_all_starts_from_the_untrained_branch():
    _, run = trained(pretrain_epochs=0, epochs=1)
    assert [r["epoch"] for r in run.history] == [0]
