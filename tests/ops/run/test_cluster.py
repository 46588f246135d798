"""A local Ray session listens on the loopback address only."""

import subprocess
import sys

import pytest

LOOK = """
from ops.run.cluster import ray_session
with ray_session(1):
    import ray
    print(*(n["NodeManagerAddress"] for n in ray.nodes()))
"""


@pytest.mark.slow
def test_a_local_session_is_on_loopback():
    found = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.split() == ["127.0.0.1"]
