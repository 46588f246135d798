"""Users folded in by a stored TwHIN: the closed form by hand and refinement."""

import numpy as np
import pytest
import torch
from users_small import parts_in, settings_of

from ops.api import PlainRun
from ops.data.io.inductive_batch import NewRows, links, unpack_ids
from trainers import twhin

BACK = ("note", "rev_follow_note", "user")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Parts, settings and a trained model."""
    data = parts_in(tmp_path_factory.mktemp("twhin"))
    settings = settings_of("twhin", epochs=8, lr=0.3, batch=256, step_batches=1)
    return data, settings, twhin.train(settings, data, PlainRun(3))


def users(pairs, n, relation=BACK):
    rows, numbers = (np.array(each, np.int64) for each in zip(*pairs, strict=True))
    return NewRows("user", np.full(n, -1), None, {relation: links(rows, numbers, n)})


def test_the_model_keeps_what_fold_in_needs(world):
    data, _, result = world
    np.testing.assert_array_equal(result.model["table.note"].numpy(), result.more["others"])
    np.testing.assert_array_equal(unpack_ids(result.model["ids.user"].numpy()), data.ids)


def test_a_vector_is_the_mean_of_what_the_edges_say(world):
    _, settings, result = world
    table, shift = result.model["table.note"], result.model["shift.user__follow_note__note"]
    placed = twhin.predict(result.model, settings.model_dump(), users([(0, 4), (0, 9), (2, 4), (2, 4)], 3))
    np.testing.assert_allclose(placed.vector[0], (table[[4, 9]] - shift).mean(0), atol=1e-6)
    np.testing.assert_allclose(placed.vector[2], table[4] - shift, atol=1e-6)
    assert placed.edges.tolist() == [2, 0, 1]
    assert placed.evidence.tolist() == [True, False, True]
    assert placed.confidence[1] == 0
    assert (placed.confidence[[0, 2]] > 0).all()


def test_edges_of_other_relations_tell_nothing(world):
    _, settings, result = world
    new = users([(0, 4)], 1)
    both = NewRows(new.kind, new.numbers, None, new.edges | {("note", "rev_like_note", "user"): new.edges[BACK]})
    one, other = (twhin.predict(result.model, settings.model_dump(), each) for each in (new, both))
    np.testing.assert_array_equal(one.vector, other.vector)
    assert other.edges.tolist() == [1]


@pytest.mark.parametrize("normalise", [False, True])
def test_refinement_raises_the_score_of_own_edges_whoever_else_is_there(world, normalise):
    _, settings, result = world
    pairs = [(0, 4), (0, 9), (1, 30), (1, 31), (3, 50)]
    plain = settings.model_dump() | {"normalise": normalise}
    refined = plain | {"fold_steps": 20, "lr": 0.1}
    table, shift = result.model["table.note"], result.model["shift.user__follow_note__note"]

    def gap(vectors):
        near = torch.cosine_similarity(torch.from_numpy(vectors[[0, 0]]) + shift, table[[4, 9]], dim=1)
        far = torch.cosine_similarity(torch.from_numpy(vectors[[0]]) + shift, table, dim=1)
        return float(near.mean() - far.mean())

    before = twhin.predict(result.model, plain, users(pairs, 4)).vector
    together = twhin.predict(result.model, refined, users(pairs, 4)).vector
    assert gap(together) > gap(before)
    assert (together[2] == 0).all()
    alone = twhin.predict(result.model, refined, users(pairs[:2], 1)).vector
    np.testing.assert_allclose(alone[0], together[0], atol=1e-6)
