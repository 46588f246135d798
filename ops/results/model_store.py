"""A trained model as it lies in a run's `model/` folder: tensors, settings, and what it was trained on."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ops.api import AnyMethod
from ops.atomic_io import plain, replacing
from ops.config.settings import build, flat
from ops.data.types.encoding import Encoding, MadeFeatures
from ops.data.types.graph import AttributedGraph, Data
from ops.data.types.hetero import relation_name
from ops.data.types.images import ImageSet
from ops.data.types.scaling import Scaling
from ops.device import send
from ops.errors import DataError, ResourceError, SettingsError
from ops.graph.sampling.dataset import PartitionedGraph
from ops.results.feature_scale import ColumnStatistics, unlike
from ops.results.schema import StoredJson


class _GraphOfModel(StoredJson):
    rows: str
    others: str
    relations: list[str]


class _ScalingOfModel(StoredJson):
    kind: Literal["standard", "robust", "minmax"]
    centre: list[float]
    width: list[float]


class _EncodingOfModel(StoredJson):
    ignored: tuple[str, ...]
    categories: dict[str, tuple[str, ...]]
    made: MadeFeatures = "none"


class ModelFile(StoredJson):
    """settings.json of a model: the method's settings, and these keys, which no method has."""

    method: str
    dataset: str | None = None
    data: str | None = None
    n_features: int | None = None
    feature_names: list[str] | None = None
    columns: dict[str, list[float]] | None = None
    scaling: _ScalingOfModel | None = None
    encoding: _EncodingOfModel | None = None
    graph: _GraphOfModel | None = None
    pixels: list[int] | None = Field(None, min_length=2)

    @property
    def scaler(self) -> Scaling | None:
        """How the training scaled its features."""
        given = self.scaling
        return None if given is None else Scaling(given.kind, np.array(given.centre), np.array(given.width))


@dataclass(frozen=True)
class StoredModel:
    """`settings` are the method's own; `about` says what was stored besides."""

    folder: Path
    tensors: dict[str, Tensor]
    settings: dict[str, Any]
    about: ModelFile

    @property
    def encoding(self) -> Encoding:
        """How the training's table was read; nothing is left out or encoded of what was none."""
        given = self.about.encoding
        if given is None:
            return Encoding(categories={})
        return Encoding(True, given.ignored, given.categories, given.made)

    @property
    def method(self) -> str:
        """The trainer's name."""
        return self.about.method

    def remarks(self, rows: ColumnStatistics) -> list[str]:
        """What to warn of when the model places rows of these features."""
        training = self.about.columns
        sentence = unlike(training, rows, self.about.feature_names) if training else None
        return [sentence] if sentence else []

    def checked(self, method: AnyMethod) -> "StoredModel":
        """The model with its settings as the method has them. Raises DataError for others."""
        path = self.folder / "settings.json"
        try:
            settings = build(method.settings, self.settings, dict.fromkeys(self.settings, str(path)))
        except SettingsError as error:
            raise DataError(f"{error}; the file is damaged or another program's") from None
        if not isinstance(settings.n_clusters, int):
            raise DataError(f"{path}: n_clusters is {settings.n_clusters!r}; give a finished run's model")
        return replace(self, settings=self.settings | flat(settings))

    def on(self, device: torch.device) -> "StoredModel":
        """The model with its tensors on a device, where its method then places rows."""
        return replace(self, tensors={name: send(x, device) for name, x in self.tensors.items()})


def describe(method: str, data: Data, columns: ColumnStatistics) -> dict[str, object]:
    """What `settings.json` says beside the settings: the method, the data's name and hash, its columns.

    Of `columns` means, deviations and ranges are kept. Of images also height and width, and their bits a channel
    where they had more than 8. Of a partitioned graph also its relations, reverse ones too, and the types at the ends
    of the predicted ones.
    """
    names = None if data.feature_names is None else list(data.feature_names)
    about: dict[str, object] = {"method": method, "dataset": data.name, "data": data.digest(),
                             "n_features": data.n_features, "feature_names": names}  # fmt: skip
    if data.n_features and columns.count:
        about["columns"] = columns.plain()
    if isinstance(data, AttributedGraph) and data.scaling is not None:
        about["scaling"] = data.scaling.plain()
    if isinstance(data, AttributedGraph) and data.encoding and data.encoding.plain() != Encoding().plain():
        about["encoding"] = data.encoding.plain()
    if isinstance(data, PartitionedGraph):
        relations = [relation_name(r) for r in data.manifest.edges]
        about["graph"] = {"rows": data.rows, "others": data.others, "relations": relations}
    if isinstance(data, ImageSet) and data.pixels is not None:
        about["pixels"] = [*data.size, *([data.depth] if data.depth > 8 else [])]
    return about


def read_model(folder: Path) -> StoredModel:
    """Read a `model/` folder. Raises DataError where it is missing, damaged, or not a run's model."""
    path = folder / "settings.json"
    if not path.is_file():
        raise DataError(f"{folder}: holds no model (no settings.json in it); give a finished run")
    stored = ModelFile.read(path)
    try:
        tensors = load_file(folder / "model.safetensors")
    except OSError as error:
        raise DataError(f"{folder}: holds no model ({error.strerror or error}); give a finished run") from None
    except (ValueError, SafetensorError) as error:
        raise DataError(f"{folder}: the model cannot be read ({' '.join(str(error).split())})") from None
    bad = next((k for k, v in tensors.items() if v.is_floating_point() and not v.isfinite().all()), None)
    if bad is not None:
        raise DataError(
            f"{folder}: tensor {bad!r} of the model holds NaN or infinity; train it again with a lower --lr"
        )
    # The name becomes an import: only a plain word may pass, never a dotted path out of a file.
    if not re.fullmatch(r"[a-z][a-z0-9]*", stored.method):
        raise DataError(f"{path}: method is {stored.method!r}; it must be one lower-case word")
    names, width, scaling = stored.feature_names, stored.n_features, stored.scaling
    if scaling and not (len(scaling.centre) == len(scaling.width) == width and all(scaling.width)):
        raise DataError(f"{path}: scaling does not fit the {width} features; the file is damaged")
    if names is not None and width is not None and len(names) != width:
        raise DataError(f"{path}: {len(names)} feature names for {width} features; the file is damaged")
    return StoredModel(folder, tensors, stored.model_extra or {}, stored)


def as_trained(
    x: NDArray[np.float32], names: Sequence[str] | None, model: StoredModel, origin: str
) -> NDArray[np.float32]:
    """`x` [n, F] as the model's training had it: columns in its order, on its scale. Raises DataError."""
    x, scaling = _in_order(x, names, model, origin), model.about.scaler
    return x if scaling is None else scaling(x)


def _in_order(
    x: NDArray[np.float32], names: Sequence[str] | None, model: StoredModel, origin: str
) -> NDArray[np.float32]:
    """`x` [n, F] with its columns as the model was trained on them: put in order by name where both have names.

    Raises DataError where columns are missing or too many.
    """
    wanted, f = model.about.feature_names, model.about.n_features
    if names and wanted and list(names) != wanted:
        difference = {"lacks": [c for c in wanted if c not in names],
                      "has besides": [c for c in names if c not in wanted]}  # fmt: skip
        words = [f"{word} {', '.join(columns[:5])}{' ...' if len(columns) > 5 else ''}"
                 for word, columns in difference.items() if columns]  # fmt: skip
        if words:
            needed = f"the model needs the {len(wanted)} columns it was trained on"
            raise DataError(f"{origin}: {' and '.join(words)}; {needed}")
        column_of = {name: i for i, name in enumerate(names)}
        return np.ascontiguousarray(x[:, [column_of[name] for name in wanted]])
    if f is not None and x.shape[1] != f:
        raise DataError(
            f"{origin}: {x.shape[1]} features, the model was trained on {f}; give the same columns in the same order"
        )
    return x


def plain_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as safetensors takes them: detached, on the CPU, contiguous."""
    return {k: v.detach().cpu().contiguous() for k, v in tensors.items()}


def save_model(folder: Path, tensors: Mapping[str, Tensor], settings: Mapping[str, object]) -> None:
    """A model for `predict`: `model.safetensors` and `settings.json` (which names its method), renamed into place."""
    try:  # both are on disk before either is renamed
        with replacing(folder / "settings.json") as words, replacing(folder / "model.safetensors") as model:
            save_file(plain_tensors(tensors), model)
            words.write_text(json.dumps(plain(settings), indent=1, allow_nan=False) + "\n")
    except SafetensorError as error:  # how it tells of a full disk
        raise ResourceError(f"{folder}: {error}; free some space and start the same command again") from None
