import numpy as np
import pytest
from sklearn.cluster import KMeans

from ops.data.synthetic.planted_partition import planted_graph
from ops.errors import DataError, SettingsError


def test_sizes_degree_and_mixing_are_as_asked():
    graph, labels = planted_graph(nodes=1003, clusters=4, features=16, degree=8, mixing=0.25, seed=3)
    source, target = graph.edge_index
    assert sorted(np.bincount(labels)) == [250, 251, 251, 251]
    assert graph.edge_index.shape[1] == 2 * round(1003 * 8 / 2)
    assert (labels[source] != labels[target]).mean() == pytest.approx(0.25, abs=1e-3)
    assert (source != target).all()
    assert not any("merged" in note or "symmetrised" in note for note in graph.notes)


def test_the_seed_decides_everything():
    one, two, other = (planted_graph(nodes=200, seed=s) for s in (1, 1, 2))
    assert one[0].digest() == two[0].digest()
    assert np.array_equal(one[1], two[1])
    assert one[0].digest() != other[0].digest()


def test_features_tell_the_clusters_apart_by_separation():
    def purity(separation):
        graph, labels = planted_graph(nodes=300, clusters=3, features=8, separation=separation)
        clusters = KMeans(3, n_init=5, random_state=0).fit_predict(graph.x)
        return sum(np.bincount(labels[clusters == c]).max() for c in range(3)) / 300

    assert purity(8.0) > 0.98
    assert purity(0.0) < 0.6


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"clusters": 1}, SettingsError, r"^clusters=1: give at least 2$"),
    ({"nodes": 4, "clusters": 5}, DataError, r"^clusters=5: the data has 4 rows, and a cluster needs at least one$"),
    ({"features": 0}, SettingsError, r"^planted: features=0 must be >= 1$"),
    ({"mixing": 1.5}, SettingsError, r"^planted: mixing=1.5 must be in \[0, 1\]$"),
    ({"degree": 500}, SettingsError, r"^planted: degree=500 must be in \[0.002, 110.556\] for clusters of 200 nodes$"),
    ({"separation": -1}, SettingsError, r"^planted: separation=-1 must be >= 0$"),
    ({"seed": -1}, SettingsError, r"^planted: seed=-1 must be >= 0$"),
])  # fmt: skip
def test_values_out_of_range_are_one_line(arguments, error, message):
    with pytest.raises(error, match=message):
        planted_graph(**arguments)
