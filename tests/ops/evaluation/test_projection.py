"""Modularity of the user-user projection against the projection itself."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from ops.evaluation.unlabelled import projection_modularity


@given(st.integers(2, 30), st.integers(1, 20), st.integers(1, 5), st.integers(0, 99))
def test_it_is_newmans_on_the_projection(users, notes, k, seed):
    rng = np.random.default_rng(seed)
    table = (rng.random((users, notes)) < 0.3).astype(float)
    clusters = rng.integers(k, size=users)
    common = table @ table.T
    np.fill_diagonal(common, 0)
    result = projection_modularity(sp.csr_array(table * 3), clusters)
    if common.sum() == 0:
        assert result == 0
        return
    degree, total = common.sum(1), common.sum()
    same = clusters[:, None] == clusters
    assert result == pytest.approx(float(((common - np.outer(degree, degree) / total) * same).sum() / total))


def test_a_cluster_a_user_and_entries_given_twice():
    twice = sp.coo_array((np.ones(5), ([0, 0, 1, 1, 2], [0, 0, 0, 1, 1])), shape=(3, 2)).tocsr()
    assert projection_modularity(twice, np.zeros(3, np.int64)) == pytest.approx(0)
    assert projection_modularity(twice, np.array([0, 1, 1])) == pytest.approx(0.5 - (1 / 16 + 9 / 16))
    with pytest.raises(ValueError, match="2 clusters for 3 users"):
        projection_modularity(twice, np.zeros(2, np.int64))
