"""Which label-free rules make the last epoch steady and high: one trajectory, many rules scored on it.

`record` trains one seed with one gradients mode under the defaults and keeps, at every evaluation, the fused rows of
the weights and of their exponential averages. `score` then clusters what was kept by every rule and prints ACC of the
last evaluation and its spread over the last ten. Labels are read by `score` only, to choose a default for data that
have none; they never reach a training.

    python tests/bench/rules.py record cora accumulate 0 FOLDER
    python tests/bench/rules.py score FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import torch

from ops.clustering.kmeans import kmeans
from ops.clustering.label_matching import matched_ids

EPOCHS, DECAYS, LAST = 200, (0.9, 0.97), 11
ROOT = Path(__file__).parents[2]


def _job(name, gradients):
    from ops.config.cli import resolve
    from ops.config.console import Console
    from ops.config.settings import LaunchSettings
    from ops.training.experiment import build_experiment
    from trainers import hsan

    argv = ["--dataset", name, "--preset", "none", "--epochs", str(EPOCHS), "--threads", "1",
            "--gradients", gradients, "--kmeans", "euclidean", "--ema", "0"]  # fmt: skip
    return build_experiment(
        hsan.METHOD,
        resolve(argv, hsan.METHOD, LaunchSettings, ROOT / "workflows" / "presets", "bench"),
        Console(quiet=True),
    )


def record(name, gradients, seed, folder):
    """Train, keep fused rows [N, D] at every evaluation: raw and one per decay of the averaged attribute weights."""
    from ops.api import PlainRun
    from trainers import hsan
    from trainers.hsan.model import Encoders, fuse, prepare

    job = _job(name, gradients)
    settings = job.settings
    x, _ = prepare(settings, job.data)
    means = {}
    kept = {}

    class Recorder(PlainRun):
        def report(self, epoch, metrics, assignment=None, state=None, embeddings=None):
            own = {k.removeprefix("model."): v for k, v in state().shared.items() if k.startswith("model.attribute")}
            for decay in DECAYS:
                for k, v in own.items():
                    means[decay, k] = v.clone() if epoch == 0 else means[decay, k].lerp_(v, 1 - decay)
            if assignment is None:
                return
            model = Encoders(1, x.shape[1], settings, 0)
            for decay in (0, *DECAYS):
                with torch.no_grad():
                    for k, v in own.items():
                        model.get_parameter(k).copy_(means[decay, k] if decay else v)
                    kept[f"{epoch}/{decay}"] = fuse(model.local_attributes(x).flatten(0, 1)).half().numpy()
            kept[f"{epoch}/loss"] = np.float64(metrics["train/loss"])

    hsan.train(settings, job.data, Recorder(seed))
    np.savez(Path(folder) / f"{name}-{gradients}-{seed}.npz", **kept)


def vote(assignments, k):
    """The cluster that most of several assignments put a row into; three rounds of aligning them to the result."""
    found = assignments[-1]
    for _ in range(3):
        votes = sum(np.eye(k)[matched_ids(each, found, k)[each]] for each in assignments)
        found = votes.argmax(1)
    return found


def rules(kept, k):
    """Per rule the assignments of the last evaluations (one for rules that average over them)."""
    epochs = sorted({int(key.split("/")[0]) for key in kept.files})[-LAST:]
    for spherical in (False, True):
        name = "spherical" if spherical else "euclidean"
        fused = {d: [torch.from_numpy(kept[f"{e}/{d}"].astype(np.float32)) for e in epochs] for d in (0, *DECAYS)}
        for decay, rows in fused.items():
            each = [kmeans(x, k, (0, e + 1), spherical=spherical) for e, x in zip(epochs, rows, strict=True)]
            found = [one.labels.numpy() for one in each]
            yield f"{name}, {f'encoders averaged ({decay})' if decay else 'last encoders'}", found
            if not decay:
                yield f"{name}, vote of {LAST} evaluations", [vote(found, k)]
        mean = torch.stack(fused[0]).mean(0)
        yield f"{name}, mean rows of {LAST} evaluations", [kmeans(mean, k, (0, 0), spherical=spherical).labels.numpy()]


def score(folder):
    """A line a gradients mode and rule: ACC of the last evaluation over seeds, and how it moves between evaluations."""
    from ops.data.load import load
    from ops.evaluation.labelled import scores

    table = {}
    for path in sorted(Path(folder).glob("*.npz")):
        name, gradients, _ = path.stem.split("-")
        labels = load(name)[1]
        with np.load(path, allow_pickle=False) as kept:
            for rule, found in rules(kept, int(labels.max()) + 1):
                accs = [100 * scores(labels, each)["acc"] for each in found]
                table.setdefault((gradients, rule), []).append((accs[-1], np.std(accs, ddof=1) if accs[1:] else np.nan))
    for (gradients, rule), values in sorted(table.items(), key=lambda item: -np.mean([v[0] for v in item[1]])):
        last, moves = np.array(values).T
        spread = f", moves by {moves.mean():.1f} between evaluations" if np.isfinite(moves).all() else ""
        print(f"{gradients:10} {rule:45} last {last.mean():.1f} +- {last.std(ddof=1):.1f}{spread}  {last.round(1)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "record":
        record(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
    else:
        score(sys.argv[2])
