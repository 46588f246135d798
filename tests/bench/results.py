"""The tables of trained graph methods: every row is a training whose record is kept; the tables are written from them.

    python tests/bench/results.py             train what has no record of the present mathematics, then write the tables
    python tests/bench/results.py cora bat    only jobs whose command holds one of the words
    python tests/bench/results.py --tables    write the tables

A job that was killed goes on where it stopped. Its run is in runs/results, and in MLflow's experiment `results`. A
record has a hash of the code that its method imports; the row of a record whose code has changed since says so. A page
of a method has its jobs, a row each; the README has one table of all graph methods, a row a data set.
"""

import ast
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
JOBS, RECORDS, RUNS = ROOT / "tests/bench/results.yml", ROOT / "tests/bench/results.json", ROOT / "runs/results"
MATHEMATICS = (
    r"trainers(\.\w+)*|ops\.(losses|clustering|graph)(\.\w+)*|ops\.rng|ops\.evaluation\.(auto|quick|unlabelled)"
)
LINEAR = {"ssgc": "SSGC", "sagsc": "SAGSC", "s2cag": "S2CAG", "m-s2cag": "M-S2CAG", "degree+kmeans": "log(degree)"}
COLUMNS = (
    "data, seeds", "flags", "last", "consensus", "linear, best by labels", "filter + k-means", "selected", "oracle",
    "published", "CPU s a seed, peak", "commit",
)  # fmt: skip
OVERVIEW = {
    "auto": "`auto`, no labels", "linear": "linear, best by labels", "ns4gc": "NS4GC", "dmon": "DMoN", "hsan": "HSAN",
    "caegcn": "CaEGCN", "published": "HSAN, published",
}  # fmt: skip
OLD = "†: the method's code has changed since."
NONE = "No row has been measured yet."


def _code(path: Path) -> tuple[str, set[str]]:
    """A module's text without comments, empty lines and docstrings, and the modules that it imports from."""
    tree = ast.parse(path.read_text())
    left_out: set[int] = set()
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            left_out |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
        if isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    lines = (
        line.split("  #")[0].rstrip() for n, line in enumerate(path.read_text().splitlines(), 1) if n not in left_out
    )
    return "\n".join(line for line in lines if line and not line.lstrip().startswith("#")), modules


def mathematics(method: str) -> str:
    """A hash of the code that a method's figures depend on: its modules and what they import that is MATHEMATICS."""
    modules = (ROOT / "trainers" / method).glob("*.py")
    waiting, texts = {f"trainers.{method}.{module.stem}" for module in modules}, dict[str, str]()
    waiting |= {"ops.evaluation.auto"} if method == "auto" else set()
    while waiting:
        module = waiting.pop()
        path = ROOT / f"{module.replace('.', '/')}.py"
        if module not in texts and re.fullmatch(MATHEMATICS, module) and path.is_file():
            texts[module], imported = _code(path)
            waiting |= imported
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:12]


def measure(job: str) -> dict[str, Any]:
    """Run a job, or go on with it, and read its record from the run's `result.json`."""
    words = job.split()
    state = mathematics(words[0])
    name = re.sub(r"\W+", "-", job.replace("--", "")).strip("-") + f"-{state}"
    program = ["workflows/auto.py", *words[1:]] if words[0] == "auto" else ["workflows/train.py", *words]
    command = [sys.executable, *program, "--threads", "1", "--out", str(RUNS), "--name", name]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run(command, check=True, env=os.environ | {"MLFLOW_EXPERIMENT_NAME": "results"}, cwd=ROOT)
    result = json.loads((RUNS / name / "result.json").read_text())
    seeds = len(result["seeds"])
    cpu_seconds = result["cpu_seconds"] / seeds
    if words[0] == "auto":  # the choice counts, not only the run of what was chosen
        cpu_seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before

    def spread(scores: dict[str, Any] | None) -> list[float] | None:
        acc = (scores or {}).get("acc")
        return acc and [round(100 * acc["mean"], 2), round(100 * (acc["std"] or 0.0), 2)]

    groups = ("last", "consensus", "consensus_of_seeds", "selected", "oracle")
    commit, changed = (
        subprocess.run(["git", *question], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        for question in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "ops", "trainers", ":!*.md"])
    )
    return {
        "commit": f"{commit}, changed" if changed else commit, "mathematics": state, "seeds": seeds,
        "finished": result["finished"],
        **{group: spread(result.get(group)) for group in groups},
        "baselines": {name: spread(scores) for name, scores in result["baselines"].items()},
        "cpu_seconds": round(cpu_seconds, 1), "seconds": round(result["seconds"] / seeds, 1),
        "peak_gib": round(result["peak_memory_gib"], 2),
    }  # fmt: skip


def _cell(spread: list[float] | None, seeds: int) -> str:
    if spread is None:
        return ""
    return f"{spread[0]:.1f} ± {spread[1]:.1f}" if seeds > 1 else f"{spread[0]:.1f}"


def _linear(record: dict[str, Any]) -> tuple[str, float]:
    """The cell of the strongest method without training, by its labels, and its accuracy."""
    linear = {name: record["baselines"][key] for key, name in LINEAR.items() if record["baselines"].get(key)}
    best = max(linear, key=lambda name: linear[name][0], default="")
    return (f"{best} {_cell(linear[best], record['seeds'])}", linear[best][0]) if best else ("", 0.0)


def _stale(job: str, record: dict[str, Any]) -> str:
    return "" if record["mathematics"] == mathematics(job.split(maxsplit=1)[0]) else " †"


def _line(cells: list[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def _row(entry: dict[str, str], record: dict[str, Any]) -> list[str]:
    _, _, data, *flags = re.sub(r" --seeds \d+", "", entry["job"]).split()
    of = {group: _cell(record[group], record["seeds"]) for group in ("last", "consensus", "selected", "oracle")}
    if of_seeds := record.get("consensus_of_seeds"):
        of["consensus"] += f"; of the seeds {of_seeds[0]:.1f}"
    beside, accuracy = _linear(record)
    if accuracy > (record["last"] or [0.0])[0]:
        beside = f"**{beside}**"
    else:
        of["last"] = f"**{of['last']}**"
    return [
        f"{data}, {record['seeds']}", f"`{' '.join(flags)}`" if flags else "", of["last"], of["consensus"], beside,
        _cell(record["baselines"].get("filter+kmeans"), record["seeds"]), of["selected"], of["oracle"],
        entry.get("published", ""), f"{record['cpu_seconds']:,.0f}, {record['peak_gib']:.1f} GiB",
        record["commit"] + _stale(entry["job"], record),
    ]  # fmt: skip


def _overview(records: dict[str, dict[str, Any]]) -> list[list[str]]:
    """A row a data set: every graph method's `last` and consensus with its CPU seconds, beside the strongest without
    training.
    """
    rows: dict[str, dict[str, tuple[str, float]]] = {}
    for entry in (entry for entries in jobs().values() for entry in entries if entry["job"] in records):
        job, record = entry["job"], records[entry["job"]]
        method, _, data = job.split()[:3]
        row = rows.setdefault(data, {})
        row.setdefault("linear", _linear(record))
        agreed = _cell(record["consensus"], record["seeds"]) if method != "auto" else ""
        agreed = f" / {agreed}" if agreed else ""
        text = f"{_cell(record['last'], record['seeds'])}{agreed} ({record['cpu_seconds']:,.0f}){_stale(job, record)}"
        row.setdefault(method, (text, record["last"][0]))
        if "published" in entry:
            row["published"] = (entry["published"], 0.0)
    for row in rows.values():
        best = max(row, key=lambda name: row[name][1])
        row[best] = f"**{row[best][0]}**", row[best][1]
    return [[data, *(row.get(column, ("", 0.0))[0] for column in OVERVIEW)] for data, row in rows.items()]


def jobs() -> dict[str, list[dict[str, str]]]:
    """Each page with the jobs of its table."""
    pages: dict[str, list[dict[str, str]]] = yaml.safe_load(JOBS.read_text())
    return pages


def tables() -> dict[Path, str]:
    """The text of each page as the records have it: its table stands between two comments that name the results."""
    records, pages = json.loads(RECORDS.read_text()), dict[Path, str]()
    for page, entries in jobs().items():
        columns: list[str] = [*COLUMNS]
        rows = [_row(entry, records[entry["job"]]) for entry in entries if entry["job"] in records]
        if page == "README.md":
            columns, rows = ["data", *OVERVIEW.values()], _overview(records)
        lines = [_line(columns), "|---" * len(columns) + "|", *map(_line, rows)] if rows else [NONE]
        lines += ["", OLD] if any("†" in line for line in lines) else []
        table = "\n".join(["<!-- results -->", "", *lines, "", "<!-- end of results -->"])
        pattern = re.compile("<!-- results -->.*<!-- end of results -->", re.S)
        pages[ROOT / page] = pattern.sub(lambda _, table=table: table, (ROOT / page).read_text())
    return pages


def main(words: list[str]) -> None:
    """Measure what is asked for, a record kept after each job, and write the tables."""
    for job in [] if words == ["--tables"] else [entry["job"] for entries in jobs().values() for entry in entries]:
        records = json.loads(RECORDS.read_text())
        current = records.get(job, {}).get("mathematics") == mathematics(job.split(maxsplit=1)[0])
        if not current and (not words or any(word in job for word in words)):
            print(f"== {job}", flush=True)
            record = measure(job)
            records = json.loads(RECORDS.read_text()) | {job: record}  # another process may have added one
            RECORDS.write_text(json.dumps(records, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    for page, text in tables().items():
        page.write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
