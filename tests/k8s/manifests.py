"""The repository's manifests as a test gets them: built once by kustomize."""

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

K8S = Path(__file__).parents[2] / "k8s"
OVERLAYS = sorted(p.name for p in (K8S / "overlays").iterdir() if (p / "kustomization.yaml").is_file())


def build(folder: str) -> str:
    """The YAML that kustomize makes of a folder."""
    command = ["kubectl", "kustomize", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def _text(overlay: str) -> str:
    return build(str(K8S / "overlays" / overlay))


def built(overlay: str) -> list[dict[str, Any]]:
    """An overlay's objects, new ones at every call; skips the test where there is no kubectl."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed, which has kustomize")
    return list(yaml.safe_load_all(_text(overlay)))


def one(overlay: str, kind: str, name: str = "") -> dict[str, Any]:
    """The overlay's object of a kind (and name)."""
    objects = [d for d in built(overlay) if d["kind"] == kind and name in ("", d["metadata"]["name"])]
    assert len(objects) == 1, (overlay, kind, name, len(objects))
    return objects[0]
