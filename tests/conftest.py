"""Shape and type checks at run time: every annotation of ops and trainers is verified while the tests run."""

import importlib
import os
import pkgutil

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

import ops.graph.kernels

for module in pkgutil.iter_modules(ops.graph.kernels.__path__):
    # before the hook: numba compiles what is written, not a checked version
    importlib.import_module(f"ops.graph.kernels.{module.name}")

# an int is welcome where a float is asked for, as everywhere in Python
install_import_hook(["ops", "trainers"], "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

# a busy machine is slow, not wrong
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """A real S3 server, started when the first test asks for it."""
    from s3_world import S3

    made = S3(tmp_path_factory.mktemp("s3"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """The server, with this process's AWS settings pointing to it."""
    for key in [k for k in os.environ if k.startswith("AWS_")]:
        monkeypatch.delenv(key)
    for key, value in s3_server.environment.items():
        monkeypatch.setenv(key, value)
    return s3_server
