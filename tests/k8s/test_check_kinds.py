"""k8s/check.py on values of the wrong kind, on lists of objects, on Pods and CronJobs, and on other bytes."""

import copy
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import check
import pytest
import yaml
from kuberay_pods import pods
from manifests import one

KINDS: list[Any] = [None, "text", 7, [1], ["text"], [None], {"key": "text"}, {"key": None}, -1.5, True, float("inf")]
SOURCES = [("rayjob-tune-hsan", "RayJob", ""), ("dev", "RayCluster", ""), ("dev", "Deployment", "mlflow")]
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
       "spec": {"hostNetwork": True, "containers": []}}  # fmt: skip


def places(node: Any, *keys: Any) -> Iterator[tuple[Any, ...]]:
    """The keys to every value below."""
    for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield (*keys, key)
        yield from places(node[key], *keys, key)


def replaced(document: dict[str, Any], keys: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy with another value in one place."""
    changed = copy.deepcopy(document)
    node = changed
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = copy.deepcopy(value)
    return changed


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source[1])
def test_no_value_of_another_kind_is_an_exception(source):
    document = one(*source)
    for i, keys in enumerate(places(document)):
        for value in KINDS[i % 4 :: 4]:  # every kind at a quarter of the places
            wrong = replaced(document, keys, value)
            for line in check.check("f", [wrong]):
                assert line.startswith("f: "), (keys, value)
                assert "\n" not in line, (keys, value)
            with suppress(check.Unreadable):
                check.pods_of("f", wrong)


def test_a_value_of_the_wrong_kind_is_one_finding_a_rule():
    wrong = replaced(one("rayjob-tune-hsan", "RayJob"), ("spec", "backoffLimit"), "2")
    (line,) = check.check("f", [wrong])
    assert line.startswith(
        "f: RayJob rayjob-tune-hsan: spec: retries: a value that this rule looks at is of the wrong "
    )
    assert line.endswith("; compare with kubectl explain rayjob.spec --recursive")
    (line,) = check.check("f", [{"apiVersion": "v1", "kind": ["Pod"]}])
    assert "kind: kind: is ['Pod']; give" in line


def test_null_lists_are_none():
    job = one("rayjob-tune-hsan", "RayJob")
    worker = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    worker["volumes"] = worker["containers"][0]["volumeMounts"] = worker["initContainers"] = None
    assert check.check("f", [job]) == []
    pod = list(pods(job))[1]["spec"]
    assert [v["name"] for v in pod["volumes"]] == ["shared-mem"]
    assert [c["name"] for c in pod["initContainers"]] == ["wait-gcs-ready"]


def test_two_groups_of_one_name_are_looked_at_each():
    job = one("rayjob-tune-hsan", "RayJob")
    groups = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    groups.append(copy.deepcopy(groups[0]))
    groups[1]["template"]["spec"]["hostNetwork"] = True
    (line,) = check.check("f", [job])
    assert "workerGroupSpecs[1].template.spec.hostNetwork: pod-security: is true" in line


def cron(pod: dict[str, Any]) -> dict[str, Any]:
    template = {"spec": {"template": {"spec": pod["spec"]}}}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"}, "spec": {"jobTemplate": template}}


def test_pods_and_cronjobs_are_looked_at():
    message = "pod-security: is true; Pod Security restricted needs it"
    assert check.check("f", [POD]) == [f"f: Pod p: spec.hostNetwork: {message}"]
    assert check.check("f", [cron(POD)]) == [
        f"f: CronJob c: spec.jobTemplate.spec.template.spec.hostNetwork: {message}"
    ]
    replicas = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "spec": {"template": POD}}
    assert check.check("f", [replicas]) == [f"f: ReplicaSet None: spec.template.spec.hostNetwork: {message}"]


def test_lists_are_unfolded(tmp_path, capsys):
    job, file = one("rayjob-tune-hsan", "RayJob"), tmp_path / "list.yaml"
    job["spec"]["submissionMode"] = "typo"
    bare = {key: value for key, value in job.items() if key not in ("apiVersion", "kind")}
    for given in (
        {"apiVersion": "v1", "kind": "List", "items": [POD, job]},
        {"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "List", "items": [job]}, POD]},
        {"apiVersion": "ray.io/v1", "kind": "RayJobList", "items": [bare, POD]},  # as the server's API has it
    ):
        file.write_text(yaml.safe_dump(given))
        assert check.main([str(file)]) == 1
        said = capsys.readouterr().out
        assert "RayJob rayjob-tune-hsan: spec.submissionMode" in said
        assert "Pod p: spec.hostNetwork" in said
        assert "2 objects" in said
    file.write_text("{apiVersion: v1, kind: List, items: text}")
    assert check.main([str(file)]) == 1
    assert "List None: items: list: is no list" in capsys.readouterr().out
    file.write_text("{apiVersion: v1, kind: List, items: []}")
    assert check.main([str(file)]) == 2, "nothing could be checked"


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"kind: \xff\xfe", "is not UTF-8 (byte 6)"), (b"when: 2026-13-40", "is not YAML (month must be")],
)
def test_other_bytes_are_one_line(data, said, tmp_path, capsys):
    file = tmp_path / "other.yaml"
    file.write_bytes(data)
    assert check.main([str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{file}: {said}")


def test_no_pods_of_a_wrong_manifest(tmp_path, capsys):
    wrong, file = one("rayjob-tune-hsan", "RayJob"), tmp_path / "wrong.yaml"
    wrong["metadata"] = {"name": "x"}
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"] = 7
    file.write_text(yaml.safe_dump(wrong))
    assert check.main(["--pods", str(file)]) == 2
    assert capsys.readouterr().err.startswith(f"{file}: RayJob x: has a value of the wrong kind")
