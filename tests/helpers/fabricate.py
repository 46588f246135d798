"""Run and study folders made of real arrays (digits before, their discriminant projection after), without training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

SETTINGS = {"n_clusters": 10, "temperature": 0.5, "confidence": 0.9, "beta": 2, "epochs": 200, "lr": 0.001}
SCORES = {"acc": 0.853, "nmi": 0.81, "ari": 0.77, "f1": 0.84}
INDICES = {"modularity": 0.7123, "conductance": 0.2, "silhouette": 0.312, "davies_bouldin": 1.41}


def spread(values: dict[str, float], seeds: list[int], shift: float = 0.0) -> dict[str, Any]:
    """{metric: {values, mean, std}} around `values`."""
    metrics = {}
    for name, value in values.items():
        each = [value + shift + 0.01 * s for s in seeds]
        std = float(np.std(each, ddof=1)) if len(each) > 1 else None
        metrics[name] = {"values": each, "mean": float(np.mean(each)), "std": std}
    return metrics


def make_run(folder: Path, rows: int = 60, seeds: int = 2, labels: bool = True, **changes: Any) -> Path:
    """A finished run's folder; `changes` overwrite keys of result.json."""
    folder.mkdir(parents=True)
    numbers = list(range(seeds))
    metrics = (SCORES if labels else {}) | INDICES
    nulls = {} if labels else dict.fromkeys(SCORES)
    result = {
        "schema": 1,
        "method": "hsan",
        "dataset": {"name": "digits", "hash": "3f2a91c0d4e5f6a7b8c9", "rows": 1797},
        "settings": {k: {"value": v, "source": "preset" if k == "beta" else "default"} for k, v in SETTINGS.items()},
        "seeds": numbers,
        "resumed_from": {str(s): [120] if s == 1 else [] for s in numbers},
        "last": spread(metrics, numbers) | nulls,
        "selected": spread(metrics, numbers, -0.02) | nulls | {"epochs": [150 for _ in numbers]},
        "oracle": (spread(metrics, numbers, 0.03) | {"epochs": [170 for _ in numbers]}) if labels else None,
        "baselines": {"kmeans": spread(metrics, numbers, -0.15), "filter+kmeans": spread(metrics, numbers, -0.08)},
        "seconds": 83.2, "cpu_seconds": 151.7, "peak_memory_gib": 0.91, "planned_memory_gib": 0.88,
        "paths": {},
        "command": "python workflows/train.py hsan --dataset digits --seeds 2",
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result | changes))
    for seed in numbers:
        make_seed(folder / f"seed-{seed}", seed, rows, labels)
    return folder


def make_seed(folder: Path, seed: int, rows: int, labels: bool) -> None:
    folder.mkdir()
    rng = np.random.default_rng([seed, 7])
    scores, lines = SCORES if labels else {}, []
    for epoch in range(200):
        share, noise = 1 - np.exp(-epoch / 40), iter(0.01 * rng.standard_normal(12))
        line = {"epoch": epoch, "train/loss": 8 - 2 * share + next(noise), "hard/fraction": 0.3 - 0.2 * share}
        if epoch % 10 == 0 or epoch == 199:
            line |= {f"cluster/{k}": v * (0.4 + 0.6 * share) + next(noise) for k, v in INDICES.items()}
            line |= {"cluster/calinski_harabasz": 300 * share + 20, "cluster/size_gini": 0.1}
            line |= {"tune/score": 0.5 + 0.2 * share}
            line |= {f"eval/{k}": v * (0.5 + 0.5 * share) + next(noise) for k, v in scores.items()}
        lines.append(json.dumps(line))
    (folder / "history.jsonl").write_text("\n".join(lines) + "\n")
    result = {
        "seed": seed,
        "epochs": 200,
        "resumed_from": [],
        "last": {k: v + 0.01 * seed for k, v in (scores | INDICES).items()},
        "selected": {"epoch": 150} | INDICES,
        "oracle": {"epoch": 170} | SCORES if labels else None,
        "sizes": [210, 205, 199, 188, 180, 178, 177, 175, 165, 120],
        "seconds": 40.1,
    }
    (folder / "result.json").write_text(json.dumps(result))
    if seed == 0:
        x, y = load_digits(return_X_y=True)
        after = LinearDiscriminantAnalysis().fit_transform(x, y)[:rows].astype(np.float32)
        x, y = x[:rows], y[:rows].astype(np.int64)
        before = PCA(min(50, rows - 1), random_state=0).fit_transform(x).astype(np.float32)
        cluster = np.where(rng.random(rows) < 0.1, rng.integers(0, 10, rows), (y + 3) % 10)
        arrays = {"rows": np.arange(rows), "before": before, "after": after, "cluster": cluster}
        np.savez(folder / "figures.npz", **arrays, **({"label": y} if labels else {}))


AUTO = {
    "k": [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
    "indices": {
        "silhouette": [0.1, 0.15, 0.2, 0.22, 0.25, 0.27, 0.3, 0.31, 0.33, 0.3, 0.28],
        "davies_bouldin": [2.5, 2.3, 2.1, 2.0, 1.9, 1.8, 1.7, 1.65, 1.6, 1.7, 1.75],
        "modularity": [0.3, 0.4, 0.5, 0.55, 0.6, 0.64, 0.68, 0.7, 0.71, 0.7, None],
    },
    "rank": [11, 10, 9, 8, 7, 6, 4.3, 3, 1, 2.3, 4.7],
    "chosen": 10,
    "confidence": 0.83,
    "reason": "Three of three indices are best at 10.",
}


def make_study(folder: Path, rows: int = 60, best: bool = True) -> Path:
    """A search's folder with nine trials and, with `best`, its best run."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([0, 9])
    trials: list[dict[str, Any]] = []
    for i in range(9):
        confidence, score = round(float(rng.uniform(0.3, 0.9)), 3), 0.6 + 0.1 * float(rng.random()) - 0.01 * abs(i - 4)
        settings = {"temperature": round(0.1 * 1.4**i, 4), "confidence": confidence, "beta": i % 4 + 1}
        status = "stopped" if i in (2, 6) else "failed" if i == 8 else "finished"
        trial = {"trial": f"trial-{i:08x}", "settings": settings, "status": status, "rank": None, "score": None}
        trial |= {"epochs": 200 if status == "finished" else 40, "metrics": {}}
        trial |= {} if status == "failed" else {"score": score}
        trial |= {"metrics": SCORES | INDICES} if status == "finished" else {}
        trials.append(trial)
    trials.sort(key=lambda t: (t["status"] != "finished", -(t["score"] or 0)))
    for rank, trial in enumerate(trials[:6], 1):
        trial["rank"] = float(rank)
    study = {
        "method": "hsan",
        "dataset": "digits",
        "objective": "tune/score",
        "trials": trials,
        "best": trials[0]["trial"],
        "agreement": "Score and panel agree: Spearman 0.93 over 6 finished trials; both name the same best trial.",
    }
    (folder / "trials.json").write_text(json.dumps(study))
    if best:
        make_run(folder / "best", rows=rows)
    return folder


def recall_rows(names: list[str], seeds: int) -> list[dict[str, Any]]:
    """Rows of a recall table, the i-th i points above the first; popularity has no seeds."""
    keys = [f"{what}@{k}" for what in ("recall", "ndcg", "hit_rate") for k in (10, 20, 50, 100)]
    rows = []
    for i, name in enumerate(names):
        values = dict.fromkeys(keys, 0.2 + 0.01 * i) | {"scanned": 1234.0, "coverage": 0.9, "gini": 0.4}
        numbers = [0] if name == "popularity" else list(range(seeds))
        rows.append({"name": name, "note": "b = 0.5" if "boosted" in name else "", "metrics": spread(values, numbers)})
    return rows


def make_users_run(folder: Path, seeds: int = 2, cluster: str = "som", rows: int = 20, **changes: Any) -> Path:
    """A finished run of HGT on users, its clusters from a map of 3 x 4 units (or k-means)."""
    method = "hgt + SOM" if cluster == "som" else "hgt + k-means"
    numbers = list(range(seeds))
    hidden = {
        "method": "hgt",
        "embeddings": "embeddings.parquet",
        "recall": {
            "rows": recall_rows(["popularity", method, "hgt, all users", "hgt, all users, boosted"], seeds),
            **{"queries": 90, "users": 100, "left_out": 3},
        },
        "links": spread({"auc": 0.8, "mrr": 0.2, "hits@1": 0.1, "hits@10": 0.4}, numbers),
        "last": spread(SCORES | INDICES | {"recall_at_50": 0.45}, numbers),
    }
    if cluster == "som":
        hidden["map"] = spread({"quantisation": 0.7, "topographic": 0.02}, numbers)
    make_run(folder, rows, seeds, **(hidden | changes))
    for seed in numbers:
        place = folder / f"seed-{seed}"
        lines = [json.loads(line) for line in (place / "history.jsonl").read_text().splitlines()]
        lines = [e | ({"cluster/recall_at_50": 0.4} if "tune/score" in e else {}) for e in lines]
        (place / "history.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
        (place / "figures.npz").unlink(missing_ok=True)  # t-SNE would take most of a test's time
        np.savez(place / "more.npz", embedding=np.ones((rows, 4), np.float32), **(MAP if cluster == "som" else {}))
    return folder


MAP = {
    "map_umatrix": np.arange(12.0).reshape(3, 4),
    "map_hits": np.arange(12),
    "map_unit_clusters": np.arange(12) // 6,
    "map_errors": np.array([0.71, 0.025]),
}
