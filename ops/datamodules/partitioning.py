"""What `workflows/partition_graph.py` runs: the build's stages with their place, progress, report and upload.

A build is worked on in OUT/.work (for S3 in a scratch folder of this machine) and goes on where a killed one ended, as
long as the settings and the input are the same. manifest.json comes last: nothing without it passes for finished.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ops.atomic_io import read_json, sync, write_json
from ops.config.console import Console
from ops.config.settings import PartitionSettings
from ops.data.io.chunks import Tables, tables
from ops.distributed.resources import on_cluster
from ops.errors import SettingsError
from ops.graph.partition.array_file import forget_after_reboot
from ops.graph.partition.manifest import (
    MANIFEST,
    WORK,
    Manifest,
    has_manifest,
    part_name,
    read_manifest,
    write_manifest,
)
from ops.graph.partition.metis import tasks_here, tasks_on_ray
from ops.graph.partition.pipeline import Each, Request, build
from ops.graph.partition.report import text
from ops.storage import object_store as s3
from ops.storage.run_dir import LOCK_FILE, lock, scratch

JOB, PICTURE, PAGE = "job.json", "partition.png", "report.html"
SMALL = 8  # chunks (of about a million rows) up to which starting Ray costs more than it brings
VERSION = 1  # of the build: another one would make other bytes
OWN = (JOB, PICTURE, PAGE, MANIFEST, WORK, LOCK_FILE)


def run_partition(request: PartitionSettings, console: Console) -> dict[str, Any]:
    """Build the parts of `request.graph` in `request.out`, or tell what is there already; returns the summary.

    Raises DataError for what is wrong with the input, SettingsError for another partition or foreign files in OUT.
    """
    began = time.monotonic()
    there = s3.parse(request.out) if s3.is_s3(request.out) else None
    if there is None and "://" in request.out:
        raise SettingsError(f"--out {request.out}: parts go to a folder or to s3://BUCKET/PREFIX; give one of them")
    if request.tasks != "auto" and request.tasks < 0:
        raise SettingsError(f"--tasks: got {request.tasks}; allowed: auto or a whole number >= 0")
    home = Path(request.out).expanduser() if there is None else scratch(request.scratch) / there.bucket / there.key
    own = _open(home, request.out)
    with lock(own):
        if request.fresh:
            _clear(home, there)
        source = tables(request.graph)
        job = _job(request, source)
        manifest = _finished(home, there, job)
        peaks: dict[str, int] = {}
        again = manifest is not None
        if manifest is None:
            write_json(home / JOB, job)
            if there is not None:  # before any part: nobody else builds another partition among ours
                s3.upload(home / JOB, there / JOB)
            manifest = _build(request, source, home, there, console, peaks)
        else:
            console.say(f"{request.out}: is finished already; --fresh builds it anew")
    console.say(text(manifest))
    console.say(f"{request.out}: {manifest.parts} parts")
    return {"out": request.out, "parts": manifest.parts, "digest": manifest.digest, "again": again,
            "partitioner": manifest.partitioner, "report": manifest.report, "notes": list(manifest.notes),
            "seconds": time.monotonic() - began, "peak_bytes": peaks}  # fmt: skip


def _open(home: Path, out: str) -> Path:
    """The folder, made if need be and ours to use."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        other = [p.name for p in home.iterdir() if p.name not in OWN and not p.name.startswith(("part-", "."))]
    except OSError as error:
        raise SettingsError(f"--out {out}: cannot be written ({error.strerror}); give a folder that can") from None
    if other and not (home / JOB).exists():
        raise SettingsError(f"--out {out}: holds files that are no partition's ({other[0]}); give another folder")
    return home


def _job(request: PartitionSettings, source: Tables) -> dict[str, Any]:
    """What makes two builds the same: the settings that matter, and the input's files."""
    keys = ("parts", "method", "fennel", "seed", "feature_dtype")
    values = request.model_dump(by_alias=True)
    chunks = {k if isinstance(k, str) else "__".join(k): [asdict(c) for c in own]
              for k, own in [*source.nodes.items(), *source.edges.items()]}  # fmt: skip
    inputs = hashlib.sha256(json.dumps(chunks, sort_keys=True).encode()).hexdigest()
    return {"version": VERSION, "settings": {k: values[k] for k in keys}, "inputs": inputs}


def _finished(home: Path, there: s3.Location | None, job: dict[str, Any]) -> Manifest | None:
    """The manifest where the same build is finished. Raises SettingsError where another one is in the place."""
    place = str(there or home)
    own, whole = read_json(home / JOB), has_manifest(place)
    known = own
    if there is not None:  # the bucket's word first: another machine may have built there since
        content = s3.read(there / JOB)
        known = None if content is None else json.loads(content)
    if known is None and whole:
        raise SettingsError(f"--out {place}: holds a partition of unknown making; give another --out, or --fresh")
    # While it is unfinished this machine's own work is gone on with, so that must be of the same partition too.
    for found in (known,) if whole else (known, own):
        if found is not None:
            _same(place, found, job)
    return read_manifest(place) if whole else None


def _same(place: str, known: dict[str, Any], job: dict[str, Any]) -> None:
    """Raises SettingsError where what is known of the place is another build than the one asked for."""
    old = {**known.get("settings", {}), **{k: known.get(k) for k in ("version", "inputs")}}
    new = {**job["settings"], **{k: job[k] for k in ("version", "inputs")}}
    differ = [f"{k} ({old.get(k)} there, {new[k]} now)" for k in job["settings"] if old.get(k) != new[k]]
    differ += [words for k, words in (("version", "the program's version"), ("inputs", "the input's files"))
               if old.get(k) != new[k]]  # fmt: skip
    if differ:
        raise SettingsError(
            f"--out {place}: is another partition: {', '.join(differ)} differ; give another --out, or --fresh"
        )


def _clear(home: Path, there: s3.Location | None) -> None:
    """Remove a partition, the manifest first: from then on it is unfinished."""
    ours = [home / MANIFEST, *sorted(p for p in home.glob("*") if p.name.startswith("part-")), home / WORK,
            home / PICTURE, home / PAGE, home / JOB]  # fmt: skip
    if there is not None:
        names = sorted(s3.listing(there), key=lambda name: name != MANIFEST)
        for name in names:
            if name in OWN or name.startswith("part-"):
                s3.delete(there / name)
    for path in ours:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _build(
    request: PartitionSettings, source: Tables, home: Path, there: s3.Location | None, console: Console,
    peaks: dict[str, int],
) -> Manifest:  # fmt: skip
    forget_after_reboot(home / WORK)
    asked = Request(request.parts, request.method, request.fennel, request.seed, request.feature_dtype)
    sent = home / WORK / "sent"

    def done(part: int) -> None:
        mark = sent / part_name(part)
        if there is None or mark.exists():
            return
        for path in sorted((home / part_name(part)).iterdir()):
            s3.upload(path, there / part_name(part) / path.name)
        sent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        shutil.rmtree(home / part_name(part))

    with _runner(request, source, home, console, peaks) as each:
        manifest = build(source, asked, home / WORK, home, each, _teller(console), done)
    _pictures(home, manifest)
    if there is None:
        write_manifest(home, manifest)
    else:
        for name in (PICTURE, PAGE):
            s3.upload(home / name, there / name)
        write_manifest(home, manifest)
        s3.upload(home / MANIFEST, there / MANIFEST)
    sync(home)
    shutil.rmtree(home / WORK)
    if there is not None:  # all of it is in the bucket
        _clear(home, None)
    return manifest


def _teller(console: Console) -> Callable[[str], None]:
    return lambda line: console.progress(line, milestone=True)


@contextmanager
def _runner(
    request: PartitionSettings, source: Tables, home: Path, console: Console, peaks: dict[str, int]
) -> Iterator[Each]:
    """How tasks are run: here, or over Ray while inside."""

    def told(stage: str, done: int, count: int, size: int) -> None:
        name = stage or "fennel"
        peaks[name] = max(peaks.get(name, 0), size)
        if stage:
            console.progress(f"{stage}: {done:,} of {count:,}", milestone=done == count)

    chunks = [c for own in (*source.nodes.values(), *source.edges.values()) for c in own]
    whole = all(c.kind == "graph" for c in chunks)  # each process would read all of it
    tasks = request.tasks
    if tasks == "auto":
        tasks = 0 if whole or (len(chunks) <= SMALL and not on_cluster()) else -1
    if tasks == 0:
        yield tasks_here(told)
        return
    from ops.distributed.ray_session import check_seen, ray_session

    with ray_session(os.cpu_count() or 1 if tasks < 0 else int(tasks)):
        import ray

        if on_cluster():
            check_seen(home, request.out)
        have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        count = int(have.get("CPU", 1)) if tasks < 0 else int(tasks)
        yield tasks_on_ray(count, told)


def _pictures(home: Path, manifest: Manifest) -> None:
    """The picture, and a page with it and the text."""
    from ops.atomic_io import replacing
    from ops.reporting.partition_page import page, picture
    from ops.reporting.theme import LIGHT, png

    image = png(picture(manifest, LIGHT))
    with replacing(home / PICTURE) as temporary:
        temporary.write_bytes(image)
    with replacing(home / PAGE) as temporary:
        temporary.write_text(page(manifest, image), encoding="utf-8")
