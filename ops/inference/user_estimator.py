"""The estimators of users in heterogeneous graphs: HGT and TwHIN in scikit-learn's words."""

import shutil
import weakref
from os import PathLike, fspath
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeVar

import numpy as np

from ops.data.hetero_load import load_hetero
from ops.data.io.objects import as_array
from ops.data.io.validate import make_hetero
from ops.data.types.hetero import Edges, HeteroGraph, Nodes, find_relations
from ops.errors import DataError
from ops.graph.sampling.dataset import PartitionedGraph
from ops.inference.sklearn import Clusterer

U = TypeVar("U", bound="UserClusterer")
PART_SEED = 0


class UserClusterer(Clusterer):
    """Estimators of users (`Clusterer` says what they have); all edges are trained on, none is hidden for recall.

    `fit` takes a PyG `HeteroData` (`x` and, where there is one, `ids` of each type) or a name or folder as `--dataset`
    takes them. The first type of the first of `label_relations` is clustered; `ids_` are its nodes in the order of
    `labels_`. New users are placed by `tessera predict` on the saved folder.
    """

    def fit(self: U, X: object, y: object = None) -> U:
        """Cluster the users of a graph; `y` is ignored, as labels never enter."""
        from ops.graph.partition.pipeline import partition_in_memory
        from ops.graph.partition.tasks import PartitionRequest

        del y
        graph, settings = self._graph(X), self.settings
        folder = mkdtemp(prefix="tessera-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)  # the parts live as long as the estimator
        request = PartitionRequest(settings.parts, settings.partition, seed=PART_SEED, simple=True)
        manifest = partition_in_memory(graph, Path(folder) / "parts", request)
        first, *others = find_relations(manifest.forward, settings.labels)
        labels = (first, *(r for r in others if (r[0], r[2]) == (first[0], first[2])))
        data = PartitionedGraph(graph.name, f"{folder}/parts", manifest, labels, graph.notes)
        self._train(data)
        self.ids_ = data.connect().ids(data.rows)
        return self

    def _graph(self, x: Any) -> HeteroGraph:
        name = type(self).__name__
        if isinstance(x, str | PathLike):
            return load_hetero(fspath(x))[0]
        if not (hasattr(x, "node_types") and hasattr(x, "edge_types")):
            raise DataError(f"{name}: got a {type(x).__name__}; give a PyG HeteroData, or a name or folder of tables")
        nodes = {}
        for kind in x.node_types:
            store = x[kind]
            features = as_array(name, f"x of {kind}", store.x) if "x" in store else None
            ids = as_array(name, f"ids of {kind}", store.ids) if "ids" in store else np.arange(store.num_nodes)
            nodes[kind] = Nodes(ids, None if features is None else features.astype(np.float32))
        edges = {relation: Edges(*as_array(name, "edge_index", x[relation].edge_index)) for relation in x.edge_types}
        return make_hetero(name, nodes, edges)
