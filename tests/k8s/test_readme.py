"""k8s/README.md: its one-liner makes every Secret that the manifests refer to, what it names is there, sizes fit."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from kuberay_pods import pods, templates
from kuberay_rules import amount, groups
from manifests import K8S, OVERLAYS, built, one

TEXT = (K8S / "README.md").read_text()


def references(node: Any) -> Iterator[tuple[str, str]]:
    """(Secret, key) of everything below; key "" where all of it is taken."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "secretKeyRef":
                yield value["name"], value["key"]
            elif key == "secretRef":
                yield value["name"], ""
            else:
                yield from references(value)
    elif isinstance(node, list):
        for each in node:
            yield from references(each)


def test_the_one_liner_makes_every_secret():
    secrets = {
        name: set(re.findall(r"--from-literal=([\w-]+)=", words))
        for name, words in re.findall(r"\bs (tessera-[\w-]+)((?: --from-literal=\S+(?: drawn)?)+)", TEXT)
    }
    asked = {pair for overlay in OVERLAYS for document in built(overlay) for pair in references(document)}
    asked -= {("tessera", "auth_token")}  # the operator's
    assert len(asked) >= 8
    for name, key in asked:
        assert name in secrets, f"nothing makes Secret {name}"
        assert not key or key in secrets[name], (name, key)
    assert set(secrets) == {name for name, _ in asked}, "and none that nobody uses"


@pytest.mark.parametrize("path", sorted(set(re.findall(r"k8s/[\w./-]*\w", TEXT))))
def test_what_it_names_is_there(path):
    assert list(K8S.parent.glob(f"{path}*")), path


def test_every_overlay_and_base_has_a_line():
    for folder in [*(K8S / "base").iterdir()]:
        assert f"base/{folder.name}" in TEXT or folder.name in ("site", "gpu-job"), folder.name
    for name in OVERLAYS:
        words = ("rayjob-{train,tune}-*",) if name.startswith(("rayjob-train", "rayjob-tune")) else (name,)
        assert any(word in TEXT for word in words), name


def test_the_operator_is_let_in_where_the_two_ways_of_installing_it_put_it():
    policy = one("dev", "NetworkPolicy", "ray-head")
    (peer,) = [p for p in policy["spec"]["ingress"][0]["from"] if "namespaceSelector" in p]
    (names,) = [e["values"] for e in peer["namespaceSelector"]["matchExpressions"]]
    ((label, value),) = peer["podSelector"]["matchLabels"].items()
    assert f"{label}: {value}" in TEXT
    assert set(names) == set(re.findall(r"-n ((?:kube)?ray-system)", TEXT))


def requested(overlay: str, resource: str) -> float:
    """What all Pods of an overlay request together, in CPUs or GiB."""
    total = 0.0
    for document in built(overlay):
        replicas = {g["groupName"]: g["replicas"] for _, g in groups(document) if "groupName" in g}
        for (role, _, _), pod in zip(templates(document), pods(document), strict=True):
            asked = [c["resources"]["requests"][resource] for c in pod["spec"]["containers"] if "resources" in c]
            total += replicas.get(role, 1) * float(sum(map(amount, asked)))
    return total / (2**30 if resource == "memory" else 1)


def test_the_sizes_are_what_the_manifests_request():
    said = re.findall(r"([\d.]+) CPUs and ([\d.]+) GiB", TEXT)[:3]
    for (cpus, gib), overlay in zip(said, ("dev", "rayjob-train-hsan", "rayjob-train-hadis"), strict=True):
        assert (float(cpus), float(gib)) == pytest.approx(
            (requested(overlay, "cpu"), requested(overlay, "memory")), abs=0.06
        )
    assert requested("rayjob-tune-hsan", "cpu") == requested("rayjob-train-hsan", "cpu")
