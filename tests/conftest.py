"""Shape and type checks at run time: every annotation of ops and trainers is verified while the tests run."""

import importlib
import os
import pkgutil
from contextlib import nullcontext

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

import annotations
from hypothesis import HealthCheck, settings

import ops.graph.kernels

for module in pkgutil.iter_modules(ops.graph.kernels.__path__):
    # before the hook: numba compiles what is written, not a checked version
    importlib.import_module(f"ops.graph.kernels.{module.name}")

annotations.install("ops", "trainers")

# A busy machine is slow, not wrong; `make fuzz` draws for minutes, the tests a few each time.
unchecked = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("quick", max_examples=20, deadline=None, suppress_health_check=unchecked)
settings.load_profile("quick")


LONG = ("workflows", "trainers", "test_tracker.py", "test_label_wall.py")


def pytest_collection_modifyitems(items):
    """Long files first: they must not begin when another process has no more."""
    items.sort(key=lambda item: next((i for i, name in enumerate(LONG) if name in item.path.parts), len(LONG)))


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


@pytest.fixture(scope="session")
def nursery(tmp_path_factory):
    """Commands in forks of one process that has imported everything."""
    from processes import Nursery

    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.close()


@pytest.fixture
def untracked(monkeypatch):
    """Trainings send nothing to MLflow, whose database takes seconds to make."""
    monkeypatch.setattr("ops.training.trainer.Tracking", lambda *args, **options: nullcontext())


@pytest.fixture
def unrendered(monkeypatch):
    """Figures are put together but not rendered, which is most of a report's time; a report of a file's is whole."""
    from ops.reporting import theme

    dot = theme.pngs(theme.blank(0.1, 0.1))[0]
    monkeypatch.setattr(theme, "pngs", lambda figure, all_colours=False: [dot])


@pytest.fixture(scope="session", autouse=True)
def quick_trainings():
    """One linear method in tables, for each costs seconds (`test_baselines` takes them all), and a prepared MLflow."""
    import quick_mlflow

    from ops.evaluation import baselines

    quick_mlflow.install()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "KINDS", baselines.KINDS[:1])
        patch.setattr(os, "fsync", lambda handle: None)  # tests kill processes, not machines
        yield
