"""Steps of an epoch: every batch once a pass, shared alike, cut into epochs of any length."""

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from ops.graph.sampling.dataset import steps_of

SIZES = st.lists(st.integers(0, 50), min_size=1, max_size=5).filter(any)


@given(SIZES, st.integers(1, 20), st.integers(1, 5))
def test_a_pass_has_every_batch_once(sizes, batch, together):
    steps = steps_of(sizes, batch, 3, 0, together)
    every = {(0, part, number) for part, size in enumerate(sizes) for number in range(-(-size // batch))}
    assert sorted(chain(*steps)) == sorted(every)
    assert all(len(step) == together for step in steps[:-1])
    assert 1 <= len(steps[-1]) <= together
    again = steps_of(sizes, batch, 3, 1, together)
    assert sorted(which[1:] for which in chain(*again)) == sorted(which[1:] for which in every)
    assert {which[0] for which in chain(*again)} == {1}


@given(SIZES, st.integers(1, 20), st.integers(1, 5), st.integers(1, 7))
def test_shorter_and_longer_epochs_go_on_where_the_one_before_ended(sizes, batch, together, limit):
    passes = [steps_of(sizes, batch, 3, turn, together) for turn in range(8)]
    length = len(passes[0])
    epochs = range(min(8 * length // limit, 20))
    cut = list(chain(*(steps_of(sizes, batch, 3, epoch, together, limit) for epoch in epochs)))
    assert cut == list(chain(*passes))[: len(cut)]
    assert len(cut) == len(epochs) * limit


def test_the_order_is_keyed():
    first = steps_of([100, 90], 10, 1, 0, 4)
    assert steps_of([100, 90], 10, 1, 0, 4) == first
    assert steps_of([100, 90], 10, 2, 0, 4) != first
    assert [w[1:] for w in chain(*steps_of([100, 90], 10, 1, 1, 4))] != [w[1:] for w in chain(*first)]
