"""A stand-in of the API server for a real kubectl: objects with field managers, conflicts and what cannot be changed.

Every list has one manager as a whole, as in a custom resource. Pods are not made; a Deployment is available at once.
"""

import base64
import copy
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Object = dict[str, Any]
Path = tuple[str, ...]
KINDS = {  # kind: group/version; its plural is made of its name
    "Namespace": "v1", "ConfigMap": "v1", "Secret": "v1", "Service": "v1", "ServiceAccount": "v1",
    "Deployment": "apps/v1", "StatefulSet": "apps/v1", "Job": "batch/v1", "CronJob": "batch/v1",
    "NetworkPolicy": "networking.k8s.io/v1", "PodDisruptionBudget": "policy/v1",
    "RayCluster": "ray.io/v1", "RayJob": "ray.io/v1",
}  # fmt: skip
FIXED: dict[str, list[Path]] = {
    "Job": [("spec", "template"), ("spec", "selector")],
    "Deployment": [("spec", "selector")],
    "StatefulSet": [("spec", "selector"), ("spec", "serviceName"), ("spec", "volumeClaimTemplates")],
}
NAMING = {("apiVersion",), ("kind",), *(("metadata", key) for key in ("name", "namespace", "uid", "resourceVersion"))}
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def plural(kind: str) -> str:
    return re.sub("y$", "ie", kind.lower()) + "s"


def leaves(node: Any, *path: str) -> dict[Path, Any]:
    """Every value below that is no mapping with something in it, by its path; what names an object is left out."""
    if isinstance(node, dict) and node:
        return {where: value for key in node for where, value in leaves(node[key], *path, key).items()}
    return {} if path in NAMING else {path: node}


def at(node: Any, path: Path) -> Any:
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def put(node: Object, path: Path, value: Any) -> None:
    for key in path[:-1]:
        node = node.setdefault(key, {})
    node[path[-1]] = copy.deepcopy(value)


def merged(node: Any, patch: Any) -> Any:
    """A JSON merge patch, applied."""
    if not isinstance(patch, dict):
        return patch
    kept = {**node} if isinstance(node, dict) else {}
    for key, value in patch.items():
        kept.pop(key, None) if value is None else kept.update({key: merged(kept.get(key), value)})
    return kept


class Refused(Exception):
    """An answer that is no success: its code and reason, and the words for the user."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
                       "message": message}  # fmt: skip


class ApiServer:
    """Objects by (plural, namespace, name), each with the fields of every manager."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.managers: dict[tuple[str, str, str], dict[str, set[Path]]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _any(self) -> None:
                text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                url = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(url.query).items()}
                try:
                    body = decoded(text) if text[:4] == b"k8s\0" else yaml.safe_load(text) if text else {}
                    code, answer = 200, outer.answer(self.command, url.path, query, body, self.headers["Content-Type"])
                except Refused as refused:
                    code, answer = refused.status["code"], refused.status
                data = b"" if "watch" in query else json.dumps(answer).encode()  # nothing more happens
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _any  # noqa: N815

            def log_message(self, *words: Any) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, method: str, path: str, query: dict[str, str], body: Object, sent: str | None) -> Object:
        words = path.strip("/").split("/")
        if words[0] in ("openapi", "version") or len(words) < (3 if words[0] == "api" else 4):
            return discovery(words)
        words = words[2:] if words[0] == "api" else words[3:]
        namespace = words[1] if words[0] == "namespaces" and len(words) > 2 else ""
        kind, name, *_ = [*(words[2:] if namespace else words), ""]
        key = (kind, namespace, name or str(at(body, ("metadata", "name")) or ""))
        if method == "GET" and not name:
            wanted = query.get("fieldSelector", "").removeprefix("metadata.name=")
            items = [
                o for (k, n, each), o in self.objects.items() if (k, n) == (kind, namespace) and wanted in ("", each)
            ]
            return {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}
        if method == "POST":
            if key in self.objects:
                raise Refused(409, "AlreadyExists", f"{kind} {key[2]!r} already exists")
            return self.apply(key, body, query.get("fieldManager", "kubectl-create"), force=True)
        if method == "PATCH" and "apply" in str(sent):
            return self.apply(key, body, query["fieldManager"], force=query.get("force") == "true")
        if key not in self.objects:
            raise Refused(404, "NotFound", f"{kind} {key[2]!r} not found")
        if method == "DELETE":
            del self.managers[key]
            return self.objects.pop(key)
        if method == "PATCH":
            return self.update(key, query.get("fieldManager", "kubectl-patch"), lambda live: merged(live, body))
        return self.objects[key]

    def apply(self, key: tuple[str, str, str], given: Object, manager: str, *, force: bool) -> Object:
        """Server-side apply. Raises Refused for a conflict and for what cannot be changed."""
        live, owners = copy.deepcopy(self.objects.get(key)) or {}, self.managers.setdefault(key, {})
        wanted = leaves(given)
        others = {(who, path) for who, paths in owners.items() for path in paths if who != manager}
        taken = {(who, path) for who, path in others if path in wanted and at(live, path) != wanted[path]}
        if taken and not force:
            fields = sorted(f'conflict with "{who}": .{".".join(path)}' for who, path in taken)
            raise Refused(409, "Conflict", f"Apply failed with {len(fields)} conflict: {'; '.join(fields)}")
        for path in owners.get(manager, set()) - set(wanted) - {path for _, path in others}:
            at(live, path[:-1]).pop(path[-1], None)
        for path, value in wanted.items():
            put(live, path, value)
        for who, path in taken:
            owners[who].discard(path)
        owners[manager] = set(wanted)
        return self._keep(key, {"apiVersion": given["apiVersion"], "kind": given["kind"], **live}, given["metadata"])

    def update(self, key: tuple[str, str, str], manager: str, change: Callable[[Object], Object]) -> Object:
        """What a controller does: read, change, write; it then has every field whose value is another."""
        live = self.objects[key]
        new = change(copy.deepcopy(live))
        before, after = leaves(live), leaves(new)
        changed = {path for path in after if path not in before or before[path] != after[path]}
        for paths in self.managers[key].values():
            paths.difference_update(changed)
        self.managers[key].setdefault(manager, set()).update(changed)
        return self._keep(key, new, new["metadata"])

    def _keep(self, key: tuple[str, str, str], new: Object, identity: Object) -> Object:
        live = self.objects.get(key)
        for path in FIXED.get(new["kind"], []):
            if live is not None and at(live, path) != at(new, path):
                raise Refused(
                    422, "Invalid", f"{new['kind']} {key[2]!r} is invalid: {'.'.join(path)}: field is immutable"
                )
        if new["kind"] == "Deployment":
            new["status"] = {"conditions": [{"type": "Available", "status": "True"}]}
        given = {name: identity[name] for name in ("name", "namespace") if name in identity}
        new["metadata"] = {**new.get("metadata", {}), **given, "uid": "-".join(key), "resourceVersion": "1"}
        self.objects[key] = new
        return new


def wire(data: bytes) -> dict[int, list[bytes]]:
    """A protobuf message's fields of bytes, by their number."""
    fields: dict[int, list[bytes]] = {}

    def number() -> int:
        nonlocal data
        total = shift = 0
        while True:
            total, shift, byte, data = total | (data[0] & 127) << shift, shift + 7, data[0], data[1:]
            if byte < 128:
                return total

    while data:
        tag = number()
        if tag & 7 == 0:
            number()
        else:
            size = number()
            fields.setdefault(tag >> 3, []).append(data[:size])
            data = data[size:]
    return fields


def decoded(text: bytes) -> Object:
    """A Namespace or Secret as `kubectl create` sends it, in Kubernetes' envelope of protobuf."""
    envelope = wire(text[4:])
    version, kind = (value[0].decode() for _, value in sorted(wire(envelope[1][0]).items()))
    body = wire(envelope[2][0])
    names = {1: "name", 3: "namespace"}
    metadata = {names[at]: value[0].decode() for at, value in wire(body[1][0]).items() if at in names and value[0]}
    data = {
        pair[1][0].decode(): base64.b64encode(pair[2][0]).decode() for pair in map(wire, body.get(2, ())) if 2 in pair
    }
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **({"data": data} if kind == "Secret" else {})}


def discovery(words: list[str]) -> Object:
    """Which kinds there are, and that this server looks at their fields itself."""
    groups = sorted({version for version in KINDS.values() if "/" in version})
    if words == ["version"]:
        return {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
    if words == ["api"]:
        return {"kind": "APIVersions", "versions": ["v1"]}
    if words == ["apis"]:
        named = [{"groupVersion": each, "version": each.partition("/")[2]} for each in groups]
        listed = [{"name": each["groupVersion"].partition("/")[0], "versions": [each], "preferredVersion": each}
                  for each in named]  # fmt: skip
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    if words == ["openapi", "v3"]:
        roots = [f"apis/{each}" if "/" in each else f"api/{each}" for each in {"v1", *groups}]
        return {"paths": {root: {"serverRelativeURL": f"/openapi/v3/{root}"} for root in roots}}
    if words[0] == "openapi":
        version = "/".join(words[3:])
        return {"openapi": "3.0.0", "info": {"title": version, "version": "1"}, "paths": {
            f"/{kind}": {"patch": {
                "parameters": [{"name": "fieldValidation", "in": "query"}], "responses": {},
                "x-kubernetes-group-version-kind": {"group": version.rpartition("/")[0],
                                                    "version": version.rpartition("/")[2], "kind": kind},
            }} for kind, its in KINDS.items() if its == version
        }}  # fmt: skip
    version = "/".join(words[1:])
    resources = [
        {"name": plural(kind), "singularName": kind.lower(), "kind": kind, "namespaced": kind != "Namespace",
         "verbs": VERBS, "shortNames": ["deploy"] if kind == "Deployment" else []}
        for kind, its in KINDS.items() if its == version
    ]  # fmt: skip
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
