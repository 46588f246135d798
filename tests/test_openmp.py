"""Waiting threads sleep: libgomp itself tells, when torch loads it, what it has read. Large arrays have large pages."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
pytestmark = pytest.mark.slow


def spins(code, **variables):
    """How often threads of a fresh process look for work before they sleep, by every libgomp that it loads.

    0 where the policy is passive; it shows the policy itself as passive also where nobody has set one.
    """
    kept = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment = kept | {"PYTHONPATH": str(PROJECT), "OMP_DISPLAY_ENV": "verbose"} | variables
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return {int(count) for count in re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)}


@pytest.mark.parametrize("module", ["trainers.hsan", "ops.training.ray_train"])
def test_openmp_reads_that_threads_sleep(module):
    assert spins(f"import {module}") == {0}


def test_the_users_own_policy_stays():
    assert min(spins("import ops, torch", OMP_WAIT_POLICY="active")) > 1_000_000


def test_children_inherit_it_and_it_is_not_libgomps_default():
    code = "import subprocess, sys, ops\nsubprocess.run([sys.executable, '-c', 'import torch'], check=True)"
    assert spins(code) == {0}
    assert min(spins("import torch, ops")) > 0, "read once, when torch is imported"


PAGES = """
import {}
import torch
x = torch.ones(2**24)
print([line.split()[1] for line in open('/proc/self/smaps_rollup') if line.startswith('AnonHugePages')][0])
"""


@pytest.mark.skipif(
    not ENABLED.is_file() or "[madvise]" not in ENABLED.read_text(), reason="Linux gives large pages to all or to none"
)
def test_large_arrays_have_large_pages():
    def kib(module):
        environment = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"} | {
            "PYTHONPATH": str(PROJECT)
        }
        done = subprocess.run(
            [sys.executable, "-c", PAGES.format(module)], env=environment, capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert kib("trainers.hsan") - kib("sys") >= 60 * 1024  # of an array of 64 MiB
