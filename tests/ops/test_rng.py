"""Keyed draws: the same on every machine and in every order of asking."""

import itertools

import numpy as np
import pytest
import torch

from ops.rng import generator, torch_generator


def test_draws_are_pinned():
    """A checkpoint of today must go on tomorrow: these numbers may change with a major version only."""
    draws = generator(0, "kmeans++", 1).random(3)
    assert draws.tolist() == [0.832907562483739, 0.8311876552496793, 0.26664683883995755]
    draws = torch.rand(3, generator=torch_generator(0, "hsan/encoders"))
    assert draws.tolist() == [0.26003730297088623, 0.7976545095443726, 0.6330960988998413]


def test_a_key_gives_the_same_numbers_again():
    first = generator(3, "a", 1, 2)
    generator(3, "b").random(10)  # nothing that others draw moves it
    assert np.array_equal(first.random(5), generator(3, "a", 1, 2).random(5))
    assert torch.equal(*(torch.rand(5, generator=torch_generator(3, "a", 1, 2)) for _ in range(2)))


@pytest.mark.parametrize("draw", [
    lambda *key: generator(*key).random(),
    lambda *key: torch.rand((), dtype=torch.float64, generator=torch_generator(*key)).item(),
])  # fmt: skip
def test_every_part_of_a_key_counts(draw):
    keys = itertools.product((0, 1, 2**31), ("a", "b", "kmeans"), (1, 2, 10**6), (1, 2))
    values = [draw(*key) for key in keys]
    assert len(set(values)) == len(values) == 54
    assert draw(0, "a", 1, 2) != draw(0, "a", 2, 1)


def test_the_global_generators_are_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    torch.rand(4, generator=torch_generator(1, "a"))
    assert torch.equal(torch.rand(1), expected)
