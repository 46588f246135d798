"""What memory a process uses and may use, against this very process."""

import os
import re
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from ops import memory
from ops.errors import ResourceError

MIB = 2**20


def test_resident_and_peak_follow_what_is_allocated_and_freed():
    memory.reset_peak()
    before = memory.resident()
    kept = torch.ones(256 * MIB // 4)  # large beside what the system reclaims of idle pages meanwhile
    assert 192 * MIB < memory.resident() - before < 320 * MIB
    assert memory.peak() >= memory.resident()
    del kept
    assert memory.resident() - before < 64 * MIB
    assert memory.peak() - before > 192 * MIB


def test_the_peak_starts_anew():
    kept = torch.ones(64 * MIB // 4)
    high = memory.peak()
    del kept
    memory.reset_peak()
    if memory.peak() == high:
        pytest.skip("this kernel does not reset the peak")
    assert memory.peak() < high - 32 * MIB


def test_the_peak_is_the_kernels():
    assert memory.peak() <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + MIB


def test_available_is_the_machines_memory_or_the_cgroups_limit():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [total]
    for path in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if path.is_file() and path.read_text().strip().isdigit():
            limits.append(int(path.read_text()))
    assert memory.available() == min(limits)


def test_freed_arrays_are_given_back():
    before = memory.resident()
    pieces = [np.ones(2**15, np.float32) for _ in range(4000)]  # 128 KiB each: below what glibc maps apart
    keep = pieces[::400]
    kept = memory.resident() - before
    del pieces
    memory.give_back()
    assert kept > 400 * MIB
    assert memory.resident() - before < 100 * MIB, len(keep)


def test_preloading_brings_what_a_training_imports_late():
    first = memory.preload()
    assert first > 50 * MIB
    assert memory.preload() - first < 32 * MIB  # once is enough


@pytest.mark.parametrize(("planned", "limit_gib"), [(MIB, 0.5), (2**29, 0.5), (MIB, 0), (0, 0.001)])
def test_a_plan_that_fits_passes(planned, limit_gib):
    memory.check_fits(planned, limit_gib, "x")


@pytest.mark.parametrize(("planned", "limit_gib"), [(2**29 + 1, 0.5), (2**30, 0.1), (2**60, 0)])
def test_a_plan_that_does_not_fit_says_both_figures_and_what_would(planned, limit_gib):
    with pytest.raises(ResourceError) as caught:
        memory.check_fits(planned, limit_gib, "lower --embedding-dim")
    limit = limit_gib or memory.available() / 2**30
    needed = f"{planned / 2**30:.2f} GiB, there are {limit:.2f} GiB: lower --embedding-dim"
    assert str(caught.value) == f"the training is planned to need {needed}"
    assert caught.value.code == 4
    assert re.fullmatch(r"[^\n]*", str(caught.value))
