#!/usr/bin/env python3
"""Check manifests before anything is sent to a cluster: `python k8s/check.py [PATH ...]`.

PATH is a kustomize folder, a YAML file or - (standard input); without any, every folder below k8s/overlays.
Each finding is one line: file, object, field, rule: what is wrong; what to do. Exit 0: none, 1: some, 2: nothing could
be checked (kubectl missing, no YAML, no UTF-8).

  --pods    print the Pods that the operator would make, as YAML, instead
  --tools   also run kubernetes-validate --strict and checkov on these Pods (make check-k8s has both)
  --list    print the rules

Needs PyYAML, and kubectl for folders. The API server itself says more: kubectl apply --dry-run=server.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import kuberay_cluster_rules  # noqa: F401  registers its rules
import yaml
from kuberay_pods import CLUSTER, TEMPLATED, at, pods
from kuberay_rules import RULES, Rule

KUBERNETES = "1.36"
OVERLAYS = Path(__file__).parent / "overlays"
Document = dict[str, Any]
Finding = tuple[str, str, str, str]
# What comes of a value of another kind than a rule expects, here or in what it calls.
WRONG_KIND = (TypeError, AttributeError, LookupError, ValueError, ArithmeticError)


class Unreadable(Exception):
    """A path that cannot be read or built."""


def build(path: str) -> str:
    """The YAML of a folder (by kustomize), a file, or standard input. Raises Unreadable, UnicodeDecodeError."""
    if path == "-":
        return sys.stdin.read()
    if not Path(path).is_dir():
        try:
            return Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise Unreadable(f"{path}: cannot be read ({error.strerror}); give a kustomize folder or a file") from None
    kubectl = shutil.which("kubectl")
    if not kubectl:
        raise Unreadable(f"{path}: is a folder, which needs kubectl; install it, or give the built YAML")
    built = subprocess.run([kubectl, "kustomize", path], capture_output=True, text=True, check=False)  # noqa: S603
    if built.returncode:
        raise Unreadable(f"{path}: kustomize: {' '.join(built.stderr.split())[:400]}")
    return built.stdout


def load(path: str) -> list[Document]:
    """The objects of a path. Raises Unreadable."""
    try:
        return [d for given in yaml.safe_load_all(build(path)) for d in unfold(given)]
    except UnicodeDecodeError as error:
        raise Unreadable(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: such as a date's 13th month
        raise Unreadable(f"{path}: is not YAML ({' '.join(str(error).split())[:200]})") from None


def unfold(given: Any) -> Iterator[Document]:
    """The objects of one YAML document: its own, or those of a List, as a server answers with."""
    kind, items = at(given, "kind"), at(given, "items")
    if isinstance(kind, str) and kind.endswith("List") and isinstance(items, list):
        inherited = {} if kind == "List" else {"apiVersion": given.get("apiVersion"), "kind": kind.removesuffix("List")}
        for item in items:
            yield from unfold(inherited | item if isinstance(item, dict) else item)
    elif isinstance(given, dict):
        yield given


def findings(document: Document) -> Iterator[Finding]:
    """(field, rule, what is wrong, what to do) of one object."""
    kind, version = document.get("kind"), str(document.get("apiVersion"))
    if kind is not None and not isinstance(kind, str):
        yield "kind", "kind", f"is {kind!r}", "give the name of a kind"
    elif kind in CLUSTER or version.startswith("ray.io/"):
        if version != "ray.io/v1" or kind not in CLUSTER:
            yield "apiVersion", "version", f"{version} {kind} is not KubeRay 1.7's", f"ray.io/v1 {', '.join(CLUSTER)}"
            return
    elif kind == "List" or (kind and kind.endswith("List") and "items" in document):
        yield "items", "list", "is no list, nothing in it was checked", "give a list of objects"
    elif kind == "Secret" and (document.get("data") or document.get("stringData")):
        yield "data", "secret", "is in the open", "make Secrets by kubectl create secret, refer to them by name"
    if str(kind) in {*CLUSTER, *TEMPLATED}:
        for name, rule in RULES.items():
            yield from guarded(name, rule, document)


def guarded(name: str, rule: Rule, document: Document) -> Iterator[Finding]:
    """A rule's findings; where a value it looks at is of another kind than it expects, a finding that says so."""
    try:
        for field, wrong, remedy in rule(document):
            yield field, name, wrong, remedy
    except WRONG_KIND as error:
        words = " ".join(str(error).split())[:200]
        explain = f"compare with kubectl explain {str(document['kind']).lower()}.spec --recursive"
        yield "spec", name, f"a value that this rule looks at is of the wrong kind ({words})", explain


def title(document: Document) -> str:
    """An object's kind and name."""
    return f"{document.get('kind')} {at(document, 'metadata', 'name') or None}"


def pods_of(path: str, document: Document) -> list[Document]:
    """The Pods of an object. Raises Unreadable."""
    try:
        return list(pods(document))
    except WRONG_KIND:
        wrong = "has a value of the wrong kind, no Pods can be made of it; check it without --pods"
        raise Unreadable(f"{path}: {title(document)}: {wrong}") from None


def check(path: str, documents: list[Document]) -> list[str]:
    """The lines to print for one path's objects."""
    lines = []
    for document in documents:
        for field, name, wrong, remedy in findings(document):
            lines.append(f"{path}: {title(document)}: {field}: {name}: {wrong}; {remedy}")
    return lines


def tools(sets: dict[str, list[Document]]) -> list[str]:
    """What kubernetes-validate and checkov say of objects and Pods. Raises Unreadable where one is missing."""
    said: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (place, documents) in enumerate(sets.items()):
            operated: list[Document] = []
            for document in (d for d in documents if str(d.get("kind")) in CLUSTER):
                with suppress(Unreadable):  # our rules have said already what is wrong with it
                    operated += pods_of(place, document)
            core = [d for d in documents if re.fullmatch(r"(\w+|[\w.]+\.k8s\.io)(/\w+)?", str(d.get("apiVersion")))]
            if operated or core:
                text = yaml.safe_dump_all([*core, *operated], sort_keys=False)
                Path(folder, f"{number}.yaml").write_text(text, encoding="utf-8")
        files = sorted(map(str, Path(folder).glob("*.yaml")))
        said += _run("kubernetes-validate", "-k", KUBERNETES, "--strict", *files)
        said += _run("checkov", "--framework", "kubernetes", "--skip-download", "--quiet", "--compact", "-d", folder)
        for number, path in enumerate(sets):
            said = [line.replace(f"{folder}/", "/").replace(f"/{number}.yaml", f"{path} ") for line in said]
    return said


def _run(name: str, *arguments: str) -> list[str]:
    """The lines of a tool that found something; it is looked for beside this Python first."""
    program = shutil.which(name, path=Path(sys.executable).parent) or shutil.which(name)
    if not program:
        raise Unreadable(f"{name}: is not installed; make check-k8s brings it")
    ran = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    return [line for line in (ran.stdout + ran.stderr).strip().splitlines() if line] if ran.returncode else []


def main(argv: list[str]) -> int:
    """Check what is asked for; returns the exit code."""
    options, paths = {a for a in argv if a.startswith("--")}, [a for a in argv if not a.startswith("--")]
    if options - {"--pods", "--tools", "--list"}:
        print(__doc__)
        return 0 if options == {"--help"} else 2
    if "--list" in options:
        print("\n".join(f"{name:16}{(rule.__doc__ or '').splitlines()[0]}" for name, rule in sorted(RULES.items())))
        return 0
    try:
        sets = {p: load(p) for p in paths or sorted(map(str, OVERLAYS.glob("*/")))}
        if "--pods" in options:
            shown = [pod for place, documents in sets.items() for d in documents for pod in pods_of(place, d)]
            yaml.safe_dump_all(shown, sys.stdout, sort_keys=False)
            return 0
        lines = [line for path, documents in sets.items() for line in check(path, documents)]
        lines += tools(sets) if "--tools" in options else []
    except Unreadable as error:
        print(error, file=sys.stderr)
        return 2
    count = sum(map(len, sets.values()))
    print(
        "\n".join(
            [*lines, f"{count} objects of {len(sets)} places checked by {len(RULES)} rules, {len(lines)} findings"]
        )
    )
    return 1 if lines else 0 if count else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
