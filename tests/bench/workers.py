"""One worker against two, one thread each: wall seconds an epoch at N 7,650, and what a step sends against the plan.

`python tests/bench/workers.py` starts real Ray Train workers; about 5 minutes, with nothing else running.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from cases import ROOT

BAR = 1.7
DATA = "planted:nodes=7650,clusters=8,features=745,degree=31"  # the size of Amazon Photo
EPOCHS = 7  # 0 updates the pair weights, the last clusters once more: those between are timed


def measure(workers, out):
    """(median wall seconds of a plain epoch, bytes a step, CPU seconds in all, planned bytes in words)."""
    command = [
        sys.executable, str(ROOT / "workflows" / "train.py"), "hsan", "--dataset", DATA, "--preset", "none",
        "--epochs", str(EPOCHS), "--threads", "1", "--workers", str(workers), "--out", out, "--name", f"w{workers}",
        "--no-report", "--no-explain",
    ]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    completed = subprocess.run(
        command, check=True, text=True, capture_output=True, env=environment | {"OMP_NUM_THREADS": "1"}
    )
    folder = Path(out) / f"w{workers}"
    records = [json.loads(line) for line in (folder / "seed-0" / "history.jsonl").read_text().splitlines()]
    plain = [r["sys/epoch_s"] for r in records[1:-1]]
    sent = {r.get("sys/sent_bytes", 0.0) for r in records}
    plan = next(line for line in completed.stdout.splitlines() if "each sends" in line)
    return median(plain), sent, json.loads((folder / "result.json").read_text())["settings"], plan.strip()


def main():
    """Print the ratio and the traffic."""
    from ops.data.load import load
    from trainers import hsan

    with tempfile.TemporaryDirectory() as out:
        one, _, _, _ = measure(1, out)
        two, sent, values, plan = measure(2, out)
    settings = hsan.Settings.model_validate({k: v["value"] for k, v in values.items()})
    planned = hsan.exchanged(settings, load(DATA)[0], 2)
    verdict = f"bar {BAR} {'kept' if one / two >= BAR else 'BROKEN'}"
    print(f"N 7,650, D {settings.embedding_dim}, one thread a worker: {one:.2f} s an epoch with one worker, "
          f"{two:.2f} s with two: {one / two:.2f} times the throughput, {verdict}")  # fmt: skip
    equal = "equal" if sent == {float(planned)} else "UNEQUAL"
    print(f"a worker sends {', '.join(f'{s:,.0f}' for s in sorted(sent))} bytes a step, planned {planned:,}: {equal}")
    print(f"the plan: {plan}")


if __name__ == "__main__":
    main()
