"""What `workflows/partition_graph.py` runs: the build's stages with their folder, progress, report and upload.

A build is worked on in OUT/.work (for S3 in a scratch folder of this machine) and goes on where a killed one ended, as
long as the settings and the input are the same. manifest.json comes last: nothing without it passes for finished.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from ops.atomic_io import read_json, sync, write_json
from ops.config.console import Console
from ops.config.settings import PartitionSettings
from ops.data.hetero_load import Tables, open_graph
from ops.data.types.hetero import HeteroGraph
from ops.distributed.resources import on_cluster
from ops.errors import SettingsError
from ops.graph.partition.arrays import forget_after_reboot
from ops.graph.partition.executors import RunTasks, in_process, on_ray
from ops.graph.partition.manifest import MANIFEST, WORK, has_manifest, part_name, read_manifest, write_manifest
from ops.graph.partition.pipeline import build
from ops.graph.partition.report import text
from ops.graph.partition.tables import store_tables
from ops.graph.partition.tasks import PartitionRequest
from ops.storage import object_store as s3
from ops.storage.run_dir import LOCK_FILE, lock, scratch

JOB, PICTURE, PAGE = "job.json", "partition.png", "report.html"
SMALL = 8  # chunks (of about a million rows) up to which starting Ray costs more than it brings
VERSION = 2  # of the build: another one makes other bytes, or keeps other files in between
FILES = (MANIFEST, JOB, PICTURE, PAGE, WORK)


class Job(TypedDict):
    """What makes two builds the same: the settings that matter, and a digest of the input's files."""

    version: int
    settings: dict[str, object]
    inputs: str


def run_partition(request: PartitionSettings, console: Console) -> dict[str, object]:
    """Build the parts of `request.graph` in `request.out`, or tell what is there already; returns the summary.

    Raises DataError for what is wrong with the input, SettingsError for another partition or foreign files in OUT.
    """
    began = time.monotonic()
    bucket = s3.parse(request.out) if s3.is_s3(request.out) else None
    if bucket is None and "://" in request.out:
        raise SettingsError(f"--out {request.out}: parts go to a folder or to s3://BUCKET/PREFIX; give one of them")
    if request.tasks != "auto" and request.tasks < 0:
        raise SettingsError(f"--tasks: got {request.tasks}; allowed: auto or a whole number >= 0")
    home = Path(request.out).expanduser() if bucket is None else scratch(request.scratch) / bucket.bucket / bucket.key
    _open(home, request.out)
    peaks: dict[str, int] = {}
    with lock(home):
        if request.fresh:
            _clear(home, bucket)
        source = open_graph(request.graph)
        settings = request.model_dump(by_alias=True, include={"parts", "method", "fennel", "seed", "feature_dtype"})
        job: Job = {"version": VERSION, "settings": settings, "inputs": source.digest()}
        finished = _finished(home, bucket, job)
        if finished:
            console.say(f"{request.out}: is finished already; --fresh builds it anew")
        else:
            write_json(home / JOB, job)
            if bucket is not None:  # before any part: nobody else builds another partition among ours
                s3.upload(home / JOB, bucket / JOB)
            _build(request, source, home, bucket, console, peaks)
        manifest = read_manifest(str(bucket or home))
    console.say(text(manifest), lines=True)
    console.say(f"{request.out}: {manifest.parts} parts")
    return {"out": request.out, "parts": manifest.parts, "digest": manifest.digest, "again": finished,
            "partitioner": manifest.partitioner, "report": manifest.report, "notes": list(manifest.notes),
            "seconds": time.monotonic() - began, "peak_bytes": peaks}  # fmt: skip


def _open(home: Path, out: str) -> None:
    """Make the folder if need be; what is no partition's may not be in it."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        names = [path.name for path in home.iterdir()]
    except OSError as error:
        raise SettingsError(f"--out {out}: cannot be written ({error.strerror}); give a folder that can") from None
    foreign = [name for name in names if name not in (*FILES, LOCK_FILE) and not name.startswith(("part-", "."))]
    if foreign and JOB not in names:
        raise SettingsError(f"--out {out}: holds files that are no partition's ({foreign[0]}); give another folder")


def _finished(home: Path, bucket: s3.Location | None, job: Job) -> bool:
    """Whether the same build is finished. Raises SettingsError where another one, finished or not, is in the place."""
    place = str(bucket or home)
    begun, whole = read_json(home / JOB), has_manifest(place)
    jobs = [begun]
    if bucket is not None:  # the bucket's word first: another machine may have built there since
        content = s3.read(bucket / JOB)
        jobs = [None if content is None else json.loads(content), begun]
    if jobs[0] is None and whole:
        raise SettingsError(f"--out {place}: holds a partition of unknown making; give another --out, or --fresh")
    # while it is unfinished this machine's work is gone on with, so that must be of the same partition too
    for other in jobs[:1] if whole else jobs:
        if other is not None:
            _check_same(place, other, job)
    return whole


def _check_same(place: str, other: Mapping[str, object], job: Job) -> None:
    """Raises SettingsError where the job of the place is another one than the one asked for."""
    stored, new = other.get("settings"), job["settings"]
    old = stored if isinstance(stored, dict) else {}
    differ = [f"{k} ({old.get(k)} there, {new[k]} now)" for k in new if old.get(k) != new[k]]
    differ += ["the program's version"] if other.get("version") != job["version"] else []
    differ += ["the input's files"] if other.get("inputs") != job["inputs"] else []
    if differ:
        raise SettingsError(
            f"--out {place}: is another partition: {', '.join(differ)} differ; give another --out, or --fresh"
        )


def _clear(home: Path, bucket: s3.Location | None = None) -> None:
    """Remove a partition, the manifest first: from then on it is unfinished."""
    if bucket is not None:
        for name in sorted(s3.listing(bucket), key=lambda name: name != MANIFEST):
            if name in FILES or name.startswith("part-"):
                s3.delete(bucket / name)
    for path in (home / MANIFEST, *home.glob("part-*"), *(home / name for name in FILES)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _build(
    request: PartitionSettings, source: Tables | HeteroGraph, home: Path, bucket: s3.Location | None, console: Console,
    peaks: dict[str, int],
) -> None:  # fmt: skip
    from ops.reporting.partition_page import write_page

    forget_after_reboot(home / WORK)
    wanted = PartitionRequest(request.parts, request.method, request.fennel, request.seed, request.feature_dtype)
    with _executor(request, source, home, console, peaks) as run:
        manifest = build(store_tables(source, home / WORK, run), wanted, home, run,
                         lambda line: console.progress(line, milestone=True),
                         lambda part: _send_part(home, bucket, part_name(part)))  # fmt: skip
    write_page(manifest, home / PICTURE, home / PAGE)
    write_manifest(home, manifest)
    if bucket is not None:
        for name in (PICTURE, PAGE, MANIFEST):
            s3.upload(home / name, bucket / name)
    sync(home)
    shutil.rmtree(home / WORK)
    if bucket is not None:  # all of it is in the bucket
        _clear(home)


def _send_part(home: Path, bucket: s3.Location | None, name: str) -> None:
    """Upload a part once, and remove it from this machine."""
    mark = home / WORK / "sent" / name
    if bucket is None or mark.exists():
        return
    for path in sorted((home / name).iterdir()):
        s3.upload(path, bucket / name / path.name)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    shutil.rmtree(home / name)


@contextmanager
def _executor(
    request: PartitionSettings, source: Tables | HeteroGraph, home: Path, console: Console, peaks: dict[str, int]
) -> Iterator[RunTasks]:
    """How tasks are run: in this process, or over Ray while inside."""

    def report(stage: str, done: int, count: int, size: int) -> None:
        name = stage or "fennel"
        peaks[name] = max(peaks.get(name, 0), size)
        if stage:
            console.progress(f"{stage}: {done:,} of {count:,}", milestone=done == count, share=done / max(count, 1))

    tasks = request.tasks
    if tasks == "auto":
        tables = [] if isinstance(source, HeteroGraph) else [*source.nodes.values(), *source.edges.values()]
        small = sum(map(len, tables)) <= SMALL and not on_cluster()
        tasks = 0 if small or isinstance(source, HeteroGraph) else -1
    if tasks == 0:
        yield in_process(report)
        return
    from ops.distributed.ray_session import check_seen, ray_session

    with ray_session(os.cpu_count() or 1 if tasks < 0 else tasks):
        import ray

        if on_cluster():
            check_seen(home, request.out)
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield on_ray(int(resources.get("CPU", 1)) if tasks < 0 else tasks, report)
