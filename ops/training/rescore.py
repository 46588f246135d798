"""What a finished seed says of ids, columns' names and labels is written anew when these have been corrected.

None of them reaches training, so the model, the clusters and every metric without labels stay as they are.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ops.api import AnyExperiment, Record
from ops.atomic_io import atomic_write, plain, save_arrays
from ops.evaluation.labelled import evaluator
from ops.graph.sampling.dataset import PartitionedGraph
from ops.results import arrays, statistics
from ops.results.model_store import ModelFile
from ops.results.schema import SeedResult
from ops.results.stored_run import read_history
from ops.storage.status import HISTORY, end
from ops.training.consensus_and_baselines import scored_again
from ops.training.seed_run import BRANCH

NAMED = {"ids": "ids", "names": "column names", "labels": "labels"}
LABELLED = ("eval/", BRANCH)  # what is known of an epoch by labels


def given(experiment: AnyExperiment) -> dict[str, str]:
    """A digest of the rows' ids, the columns' names and the labels: results name them, training never sees them."""
    data, classes = experiment.data, getattr(experiment.hidden, "classes", None)
    labels = () if experiment.labels is None else (experiment.labels, np.array(classes or (), dtype=np.str_))
    names = () if data.feature_names is None else (np.array(data.feature_names, dtype=np.str_),)
    if isinstance(data, PartitionedGraph):
        ids: tuple[Iterable[NDArray[np.generic]], ...] = (map(data.part_ids, range(data.parts)),)
    else:
        ids = () if data.ids is None else ((data.ids,),)
    return {"ids": _digest(ids), "names": _digest((each,) for each in names), "labels": _digest((x,) for x in labels)}


def _digest(columns: Iterable[Iterable[NDArray[np.generic]]]) -> str:
    """Of columns in pieces, however they are cut."""
    total, block = hashlib.sha256(), 4096
    for pieces in columns:
        for piece in pieces:
            for first in range(0, len(piece), block):
                words = "\0".join(map(str, piece[first : first + block].tolist()))
                total.update(words.encode("utf-8", "surrogatepass") + b"\0")
        total.update(b"\1")
    return total.hexdigest()[:16]


def changed(stored: dict[str, str], now: dict[str, str]) -> str:
    """What has been corrected since a result was stored, in words; "" where nothing was."""
    return " and ".join(words for key, words in NAMED.items() if stored.get(key) != now[key])


def rescored(experiment: AnyExperiment, folder: Path) -> SeedResult:
    """The summary of the finished seed in `folder`, by the names and labels that the experiment has now."""
    summary, now = SeedResult.read(folder / "result.json"), given(experiment)
    if summary.given == now:
        return summary
    _rename_columns(folder / "model", experiment.data.feature_names)
    if summary.given.get("labels") != now["labels"]:
        history = score_history(folder, experiment.labels)
        taken = int(summary.last["epoch"] or 0) if summary.taken else None
        for key, value in statistics.figures_of(history, taken).items():
            setattr(summary, key, value)
        if summary.consensus is not None:
            clusters = arrays.read_arrays(folder / arrays.ASSIGNMENTS)["consensus"]
            summary.consensus = scored_again(summary.consensus, clusters, experiment.labels)
        _label_sample(folder / arrays.SAMPLE, experiment.labels)
        if summary.baselines is not None:
            summary.baselines = None
    summary.given = now
    summary.write(folder / "result.json")
    end(folder, "FINISHED", metrics=summary.figures())
    return summary


def score_history(folder: Path, labels: NDArray[np.int64] | None) -> list[Record]:
    """Write a seed's history with its scores by `labels` [N], computed from the clusters of each epoch that was kept.

    Returns it. Epochs whose clusters were not kept (of trials that were ended early) have no such scores.
    """
    scored, kept = evaluator(labels), arrays.read_arrays(folder / arrays.EPOCHS, axis=1)
    clusters = dict(zip(kept["epoch"].tolist(), kept["clusters"].astype(np.int64), strict=True)) if kept else {}
    history = []
    read_history(folder / HISTORY)  # a damaged one is told
    for line in (folder / HISTORY).read_text(encoding="utf-8").splitlines():
        record = {k: v for k, v in json.loads(line).items() if not k.startswith(LABELLED)}
        if record["epoch"] in clusters:
            record |= {f"eval/{k}": v for k, v in scored(clusters[record["epoch"]]).items()}
        history.append(record)
    atomic_write(folder / HISTORY, "".join(json.dumps(plain(record)) + "\n" for record in history))
    return [statistics.numbers(record) for record in history]


def _rename_columns(model: Path, names: tuple[str, ...] | None) -> None:
    if stored := ModelFile.read_optional(model / "settings.json"):
        stored.feature_names = None if names is None else list(names)
        stored.write(model / "settings.json")


def _label_sample(path: Path, labels: NDArray[np.int64] | None) -> None:
    sample = arrays.read_arrays(path)
    sample.pop("label", None)
    save_arrays(path, **sample, **({} if labels is None else {"label": labels[sample["rows"]]}))
