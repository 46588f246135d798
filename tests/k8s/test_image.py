"""k8s/Dockerfile without Docker: its context, its COPYs, its user, and those of its commands that run anywhere."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from manifests import K8S, built

ROOT = K8S.parent
TEXT = (K8S / "Dockerfile").read_text().replace("\\\n", " ")
LINES = [line.split(maxsplit=1) for line in TEXT.splitlines() if line and not line.startswith("#")]


def ignored(name: str) -> bool:
    """Whether .dockerignore leaves a path out of the context: the last pattern that fits decides."""
    out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern, parts = line.lstrip("!").removeprefix("**/"), Path(name).parts
        heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        names = [*heads, *parts] if "**/" in line else heads
        if any(fnmatch.fnmatch(each, pattern) for each in names):
            out = not line.startswith("!")
    return out


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """What `docker build .` would send."""
    folder = tmp_path_factory.mktemp("context")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git, or no repository: what belongs to the context is unknown")
    for name in listed.stdout.splitlines():
        if not ignored(name) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def image(context, tmp_path_factory):
    """WORKDIR after the COPYs."""
    folder = tmp_path_factory.mktemp("tessera")
    for word, rest in LINES:
        if word == "COPY":
            *sources, target = rest.split()
            for each in sources:
                path = context / each
                assert path.exists(), f"COPY {each}: is not in the context"
                if path.is_dir():
                    shutil.copytree(path, folder / target)
                else:
                    shutil.copyfile(path, folder / target / path.name)
    return folder


def run(image: Path, command: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment = kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", command], cwd=image, env=environment, capture_output=True, text=True,
        check=False, timeout=900,
    )  # fmt: skip


def test_the_context_is_small_and_holds_no_results(context):
    files = [p for p in context.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 2 << 20
    assert {p.relative_to(context).parts[0] for p in files} == {
        "LICENSE", "README.md", "constraints.txt", "k8s", "ops", "pyproject.toml", "trainers", "workflows",
    }  # fmt: skip
    assert all(ignored(name) for name in ("runs/x", ".git/HEAD", "ops/__pycache__/x.pyc", "tests/k8s/test_image.py"))


def test_one_user_who_is_not_root_and_one_file_for_both_devices():
    assert ["USER", "1000:1000"] in LINES
    assert ["WORKDIR", "/tessera"] in LINES
    assert ["ARG", "TORCH=cpu"] in LINES
    assert "whl/${TORCH}" in TEXT
    uids = {c["securityContext"]["runAsUser"] for c in _specs()}
    assert uids == {1000, 999}, "999: the databases' own images"


def _specs() -> list[dict]:
    specs = []
    for document in built("dev"):
        spec = document.get("spec", {})
        if document["kind"] in ("Deployment", "StatefulSet", "Job"):
            specs.append(spec["template"]["spec"])
        elif document["kind"] == "RayCluster":
            specs += [g["template"]["spec"] for g in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    return specs


def locked(lock: Path) -> dict[str, str]:
    """Name -> version of every package in a lock, each of which has hashes."""
    text = lock.read_text()
    entries = re.findall(r"(?m)^([a-z0-9-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", text)
    assert len(entries) == len(re.findall(r"(?m)^[^#\s]", text)) > 100
    return {name: version for name, version, _ in entries}


def constraints() -> dict[str, str]:
    return dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)


@pytest.mark.parametrize(
    ("lock", "extra", "left_out"),
    [("k8s/requirements.lock", "server", {"torch", "torchvision"}), (".ci/requirements.lock", "dev", set())],
)
def test_a_lock_has_what_pyproject_asks_for_at_the_versions_of_the_constraints(lock, extra, left_out):
    project, packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"], locked(ROOT / lock)
    wanted = [*project["dependencies"], *project["optional-dependencies"][extra]]
    assert {re.split(r"[\[>=<]", line)[0].lower() for line in wanted} - packages.keys() == left_out
    pins = constraints()
    assert packages | {n.lower(): pin for n, pin in pins.items() if n.lower() in packages} == packages


def test_the_layer_of_dependencies_is_the_lock_by_hash():
    (command,) = (rest for word, rest in LINES if word == "RUN" and "requirements.lock" in rest)
    assert command.startswith("pip install --require-hashes --no-deps -r requirements.lock")
    assert "extra-index-url" not in TEXT


def test_the_base_image_is_asked_for_by_its_digest():
    assert LINES[:2] == [["ARG", "PYTHON_IMAGE"], ["FROM", "${PYTHON_IMAGE}"]], "no default: a build names the digest"


def test_the_constraints_hold_for_every_pin_that_the_manifests_name():
    (cluster,) = [d for d in built("dev") if d["kind"] == "RayCluster"]
    assert cluster["spec"]["rayVersion"] == constraints()["ray"], "the operator's checks go by this version"


@pytest.mark.slow
def test_the_code_compiles_and_runs_from_the_working_directory(image):
    command = next(re.search(r"python -m compileall [^|]*", rest)[0] for word, rest in LINES if "compileall" in rest)
    done = run(image, re.sub(r"\S*site-packages", "", command))
    assert done.returncode == 0, done.stderr
    assert list((image / "ops" / "tuning" / "__pycache__").glob("tuner.*.pyc"))
    last = [rest for word, rest in LINES if word == "CMD"]
    done = run(image, shlex.join(json.loads(last[0])))
    assert (done.returncode, done.stdout.split()[0]) == (0, "usage:"), done.stderr
    done = run(image, "PYTHONPATH=. python -c 'import ops; print(ops.__file__)'")
    assert done.stdout.startswith(str(image)), "nothing that the code imports was left out"
