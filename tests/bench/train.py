"""Whole trainings: CPU seconds an epoch and memory on Cora against the authors' loop, planned against measured memory.

`python tests/bench/train.py` needs the real data (TESSERA_DATA or ../shared/data); each set trains in a process of its
own, on one thread.
"""

from cases import against_plan, in_process, run, train

# The authors' code on Cora, measured once on a machine whose matmul rate was 106-121 GFLOP per CPU second.
AUTHORS_CPU, AUTHORS_GIB = 9.1, 3.3e9 / 2**30
EPOCHS = {"bat": 31, "cora": 12, "amap": 3}


def measure(name):
    """Train a few epochs of a data set with its paper preset."""
    marked, measured = train(["--dataset", name, "--epochs", str(EPOCHS[name])], threads=1)
    steps = [b - a for a, b in zip(marked.cpu, marked.cpu[1:], strict=False)]
    plain = sorted(s for i, s in enumerate(steps, 1) if i % marked.update_every and i < EPOCHS[name] - 1)
    return measured | {"epoch": plain[len(plain) // 2], "whole": sum(steps) / len(steps)}


def main():
    """Print a line a data set."""
    for name in EPOCHS:
        m = in_process(__file__, name)
        print(
            f"{name}: {m['epoch']:.2f} CPU-s an epoch ({m['whole']:.2f} with updates and indices), "
            f"{against_plan(m)}, matmul {m['rate']:.0f} GFLOP/CPU-s",
            flush=True,
        )
        if name == "cora":
            print(
                f"cora against the authors' loop (9.1 CPU-s at 106-121 GFLOP/CPU-s, 3.3 GB): "
                f"{m['epoch'] / AUTHORS_CPU:.2f} of its CPU (bar 0.4), "
                f"{(m['peak'] - m['base']) / AUTHORS_GIB:.2f} of its memory (bar 0.25)",
                flush=True,
            )


if __name__ == "__main__":
    run(measure, main)
