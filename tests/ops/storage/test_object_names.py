"""Names of objects that lead out of a folder: refused in one line by whoever lists them, and nothing is written."""

import json
import os
from functools import partial

import pytest
from hetero_graphs import hetero
from plain_bucket import plain_bucket
from refusals import one_line
from s3_world import BUCKET

from ops.atomic_io import inside, name_fault
from ops.data.images.sources import images_copy
from ops.data.io.readers import files_below
from ops.data.io.remote import cached_copy, local_copy
from ops.errors import DataError
from ops.graph.partition.manifest import MANIFEST, read_manifest
from ops.graph.partition.pipeline import partition_in_memory
from ops.graph.partition.shards import fetch_shards
from ops.graph.partition.tasks import PartitionRequest
from ops.storage import object_store
from ops.storage.mirror import Mirror, mirrored
from ops.storage.run_copy import fetched, local_folder
from ops.storage.run_dir import MARK_FILE
from ops.tuning.remote_trials import Trials

NAMES = {
    "/etc/x": "is absolute",
    "a//b": "has an empty part",
    "../x": "has a part . or ..",
    "seed-0/../../x": "has a part . or ..",
    "./x": "has a part . or ..",
    "a\x00b": "has a control character",
    "a\nb": "has a control character",
    "a\x1b[2Jb": "has a control character",
    "a\x85b": "has a control character",
    "a\u2028b": "has a control character",
    "a\ufffdb": "has a control character",
    "C:/x": "is absolute",
    "..\\..\\x": "has a backslash",
    "": "has an empty part",
}


@pytest.mark.parametrize(("name", "fault"), NAMES.items())
def test_a_name_that_leads_out_of_its_folder_is_refused(tmp_path, name, fault):
    assert name_fault(name) == fault
    text = one_line(DataError, inside, tmp_path, name)
    assert text == (f"{tmp_path}: the name {name!r} {fault}; names must be FOLDER/FILE and stay inside: rename it")
    assert text.isprintable()
    assert not mirrored(name, ())


@pytest.mark.parametrize("name", ["x", "a/b.c", "...", "..a/b..", "ü ö/K=1+2", "a:b", "Straße/日本.png"])
def test_other_names_are_taken(tmp_path, name):
    assert name_fault(name) is None
    assert inside(tmp_path, name) == tmp_path / name
    assert object_store.parse(f"s3://bucket/{name}").key == name


def test_a_link_does_not_lead_out_either(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "run" / "seed-0").symlink_to(tmp_path / "other")
    (tmp_path / "run" / "within").symlink_to(tmp_path / "run")
    (tmp_path / "linked").symlink_to(tmp_path / "run")
    with pytest.raises(DataError, match="leads out of the folder by a symbolic link"):
        inside(tmp_path / "run", "seed-0/model")
    assert inside(tmp_path / "run", "within/x") == tmp_path / "run" / "within" / "x"
    assert inside(tmp_path / "linked", "x") == tmp_path / "linked" / "x"


def readers(tmp_path):
    """Everything that lists a place, as functions of its address."""

    def read(address):
        with fetched(address):
            pass

    def pull(address):
        (tmp_path / "run").mkdir(exist_ok=True)
        Mirror(tmp_path / "run", object_store.parse(address), print).pull()

    def search(address):
        (tmp_path / "study").mkdir(exist_ok=True)
        Trials(tmp_path / "study", object_store.parse(address)).pull()

    tables = partial(images_copy, tables=True)
    return [read, pull, search, local_folder, files_below, local_copy, images_copy, tables]


def state(tmp_path):
    return sorted(str(p) for p in tmp_path.rglob("*"))


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """An empty bucket that takes any key, and scratch and cache below `tmp_path`."""
    objects: dict[str, bytes] = {}
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with plain_bucket(objects) as environment:
        for key in [k for k in os.environ if k.startswith("AWS_")]:
            monkeypatch.delenv(key)
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        yield objects


@pytest.mark.parametrize("tail", ["{victim}", "../../../../../../../..{victim}", "seed-0/./..{victim}", "a\x01b.png"])
def test_every_reader_refuses_a_bucket_that_holds_such_a_name(bucket, tmp_path, tail):
    victim = tmp_path / "victim" / "report.png"
    name = tail.format(victim=victim)
    bucket |= {
        "runs/t0/run.json": b"{}",
        "runs/t0/trial-1/.mirror": b"{}",
        "runs/t0/a.png": b"",
        f"runs/t0/{name}": b"!",
    }
    bucket[f"runs/t0/trial-1/{name}"] = b"!"
    for read in readers(tmp_path):
        message = one_line(DataError, read, "s3://tessera/runs/t0")
        assert message.startswith("s3://tessera/runs/t0: holds an object whose name there, '")
        assert message.endswith("and backslashes: rename or remove it")
        assert message.isprintable()
    assert not victim.exists()
    assert not any(p.name in ("report.png", "a\x01b.png") for p in tmp_path.rglob("*"))


def test_objects_that_stand_for_folders_are_passed_over(bucket, tmp_path):
    bucket |= {"runs/t0/": b"", "runs/t0//": b"", "runs/t0/a/": b"", "runs/t0/a/b": b"1"}
    assert list(object_store.listing(object_store.parse("s3://tessera/runs/t0"))) == ["a/b"]


def test_a_mirror_neither_deletes_nor_sends_by_such_names(bucket, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    bucket |= {"runs/t1/x": b"theirs", "runs/t0/a": b"1"}
    names = dict.fromkeys(("../t1/x", "/x", "gone"), (1, 1))
    (run / MARK_FILE).write_text(json.dumps({"id": "me", "sent": names}))
    bucket[f"runs/t0/{MARK_FILE}"] = b"me"
    (run / "a\nb").write_text("a name that no listing takes")
    (run / "a").write_text("1")
    mirror = Mirror(run, object_store.parse("s3://tessera/runs/t0"), print)
    mirror.pull()
    mirror.push()
    assert bucket.keys() == {"runs/t1/x", "runs/t0/a", f"runs/t0/{MARK_FILE}"}
    assert (run / "a\nb").exists()


def test_a_mirror_follows_no_link_out_of_its_folder(bucket, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "run" / "seed-0").symlink_to(tmp_path / "other")
    bucket["runs/t0/seed-0/result.json"] = b"!"
    with pytest.raises(DataError, match="symbolic link"):
        Mirror(tmp_path / "run", object_store.parse("s3://tessera/runs/t0"), print).pull()
    assert list((tmp_path / "other").iterdir()) == []


def test_the_cache_is_not_left_by_a_name(bucket, tmp_path):
    place = object_store.parse("s3://tessera/data")
    with pytest.raises(DataError, match="is absolute"):
        cached_copy(place, dict.fromkeys([str(tmp_path / "x"), *"abcdefgh"], object_store.Stored(1, "0")), True)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["{out}", "part-00000/../../../{out}", "part-00000//x", "part-00000/x\n"])
def test_a_manifest_names_files_of_its_own_folder_only(bucket, tmp_path, name):
    graph = hetero()
    partition_in_memory(graph, tmp_path / "parts", PartitionRequest(2, "hash"))
    manifest = read_manifest(tmp_path / "parts").model_dump(mode="json", by_alias=True)
    name = name.format(out=tmp_path / "out")
    manifest["files"][name] = {"bytes": 1, "sha256": "0"}
    bucket |= {f"p/{MANIFEST}": json.dumps(manifest).encode(), f"p/{name}": b"!"}
    with pytest.raises(DataError, match=r"manifest.json: is damaged \(.*the name of the file "):
        fetch_shards("s3://tessera/p", tmp_path / "copy")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "copy").exists()


def test_a_manifest_names_no_type_that_is_a_path(tmp_path):
    graph = hetero()
    partition_in_memory(graph, tmp_path, PartitionRequest(2, "hash"))
    manifest = read_manifest(tmp_path).model_dump(mode="json", by_alias=True)
    manifest["nodes"]["../../user"] = manifest["nodes"]["user"]
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"'../../user' cannot name a node type"):
        read_manifest(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a\x01b.csv", "sub/line\nbreak.npz"])
def test_a_real_server_that_holds_such_a_name(s3, tmp_path, monkeypatch, name):
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "cache"))
    key = f"names/{len(name)}"
    s3.put(f"{key}/result.json", b"{}")
    s3.put(f"{key}/{name}", b"!")
    s3.put(f"{key}/trial-1/{name}", b"!")
    try:
        for read in readers(tmp_path):
            if read is local_copy and "/" in name:  # lists what lies right below only
                continue
            with pytest.raises(DataError, match="holds an object whose name there") as caught:
                read(f"s3://tessera/{key}")
            assert repr(name.replace("\x01", "\ufffd"))[1:-1] in str(caught.value)  # no XML can hold a \x01
    finally:  # other tests list the whole bucket
        for each in (name, f"trial-1/{name}"):
            s3.client().delete_object(Bucket=BUCKET, Key=f"{key}/{each}")
