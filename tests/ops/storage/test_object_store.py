"""S3 URIs; and a real server asked, denied, missing and away."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import one_line

from ops.errors import ServiceError, SettingsError
from ops.storage import connection, object_store
from ops.storage.object_store import Location, parse

PARTS = st.lists(st.text("abcXYZ019 =+%ü._-", min_size=1).filter(lambda p: p not in (".", "..")), max_size=4)


@given(PARTS)
def test_a_place_survives_its_own_text(parts):
    place = Location("my-bucket", "/".join(parts))
    assert parse(str(place)) == place
    assert parse(f"{place}/") == place
    assert parse(str(place / "x.npz")) == place / "x.npz"
    assert (place / "x.npz").name == "x.npz"
    assert place.name == (parts[-1] if parts else "my-bucket")


def test_the_scheme_has_no_case():
    assert parse("S3://bucket/a/b") == Location("bucket", "a/b")
    assert object_store.is_s3("S3://bucket")
    assert not object_store.is_s3("s3:/bucket")


@pytest.mark.parametrize(
    "text",
    ["s3://", "s3:///x", "s3://b/x", "s3://me:pw@bucket/x", "s3://bucket//x", "s3://bucket/../x", "gs://bucket/x"],
)
def test_what_is_no_place_is_refused(text):
    with pytest.raises(SettingsError, match="is no place on S3; give s3://BUCKET/PATH") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def failed(call, *args, **kwargs):
    text = one_line(ServiceError, call, *args, **kwargs)
    assert "geheim" not in text
    assert "nur-lesen" not in text
    return text


def test_a_server_that_is_not_there_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:geheim@127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim")
    expected = (
        "s3://bucket/x: storage cannot be reached (endpoint 127.0.0.1:9); "
        "start it or correct AWS_ENDPOINT_URL, then give the same command again"
    )
    place = parse("s3://bucket/x")
    assert failed(object_store.listing, place, patient=False) == expected
    assert failed(object_store.download, place, tmp_path / "x", patient=False) == expected
    assert failed(object_store.write, place, b"", patient=False) == expected
    assert list(tmp_path.iterdir()) == []


def test_an_endpoint_that_is_no_url_is_one_line(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "here:geheim")
    with pytest.raises(SettingsError, match=r"AWS_ENDPOINT_URL.*give http"):
        object_store.listing(parse("s3://bucket/x"))


@pytest.mark.parametrize(("message", "code"), [
    ("When listing: AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation: it does not exist", "NoSuchBucket"),
    ("AWS Error UNKNOWN (HTTP status 501) during CreateMultipartUpload operation: ", "501"),
    ("Bucket 'x' not found", "NoSuchBucket"),
    ("something else", ""),
])  # fmt: skip
def test_the_name_of_an_error_is_read_from_what_pyarrow_says(message, code):
    assert connection.arrow_code(message) == code


@pytest.mark.slow
def test_objects_come_and_go(s3, tmp_path):
    place = parse("s3://tessera/objects")
    (tmp_path / "a").write_bytes(b"1234")
    object_store.upload(tmp_path / "a", place / "sub" / "a")
    sent = object_store.stat(place / "sub" / "a")
    object_store.write(place / "b", b"")
    assert object_store.listing(place) == {"sub/a": sent, "b": object_store.stat(place / "b")}
    assert list(object_store.listing(place, deep=False)) == ["b"]
    assert list(object_store.listing(place, start="su")) == ["sub/a"]
    assert object_store.download(place / "sub" / "a", tmp_path / "copy" / "a") == sent
    assert (tmp_path / "copy" / "a").read_bytes() == b"1234"
    object_store.delete(place / "b")
    object_store.delete(place / "b")
    assert list(object_store.listing(place)) == ["sub/a"]
    assert object_store.listing(place / "sub" / "nothing") == {}
    assert object_store.read(place / "b") is None
    assert object_store.read(place / "sub" / "a") == b"1234"
    assert s3.keys("objects/") == ["objects/sub/a"], "nothing stands for a folder"
    with pytest.raises(object_store.Missing):
        object_store.stat(place / "b")
    with pytest.raises(object_store.Missing):
        object_store.download(place / "b", tmp_path / "copy" / "b")
    assert [p.name for p in (tmp_path / "copy").iterdir()] == ["a"]


@pytest.mark.slow
def test_many_objects_and_a_large_one(s3, tmp_path, monkeypatch):
    place = parse("s3://tessera/many")
    for i in range(1003):  # a page holds 1,000
        object_store.write(place / str(i), b"")
    assert len(object_store.listing(place)) == 1003
    monkeypatch.setattr(object_store, "BLOCK", 3 << 20)
    data = bytes(range(256)) * (80 << 10)  # pyarrow sends it in two parts
    (tmp_path / "large").write_bytes(data)
    object_store.upload(tmp_path / "large", place / "large")
    assert object_store.download(place / "large", tmp_path / "back") == object_store.stat(place / "large")
    assert (tmp_path / "back").read_bytes() == data


@pytest.mark.slow
def test_ranges_and_objects_that_are_replaced(s3, tmp_path, monkeypatch):
    place = parse("s3://tessera/ranges/x")
    s3.put("ranges/x", b"0123456789")
    first = object_store.etag(place)
    assert object_store.read_range(place, 3, 4, stamp=object_store.stat(place).stamp) == b"3456"
    assert object_store.read_range(place, 3, 0) == b""
    with pytest.raises(object_store.Conflict):
        object_store.read_range(place, 3, 4, stamp="2001-01-01T00:00:00Z")
    assert "ends before byte 12" in failed(object_store.read_range, place, 8, 4)
    with pytest.raises(object_store.Missing):
        object_store.read_range(place / "y", 0, 1)
    monkeypatch.setattr(object_store, "BLOCK", 4)
    copy = object_store.shutil.copyfileobj

    def replaced_meanwhile(source, file, block):
        copy(source, file, block)
        s3.put("ranges/x", b"9876543210")

    monkeypatch.setattr(object_store.shutil, "copyfileobj", replaced_meanwhile)
    assert "was replaced while it was read" in failed(object_store.download, place, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    assert object_store.etag(place) != first


@pytest.mark.slow
def test_denied_and_missing_buckets_are_one_line(s3, monkeypatch):
    where = s3.endpoint.removeprefix("http://")
    make = f"there is no bucket nowhere (endpoint {where}); make it, or correct the name or AWS_ENDPOINT_URL"
    place = parse("s3://nowhere/x")
    assert failed(object_store.listing, place) == f"s3://nowhere/x: {make}"
    assert failed(object_store.write, place, b"") == f"s3://nowhere/x: {make}"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nur-lesen")
    assert "started" in object_store.listing(parse("s3://tessera"))
    advice = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their rights on the bucket"
    told = failed(object_store.write, parse("s3://tessera/x"), b"")
    assert told == f"s3://tessera/x: access denied (AccessDenied) (endpoint {where}); {advice}"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim-2")
    assert "access denied (SignatureDoesNotMatch)" in failed(object_store.listing, parse("s3://tessera"))
    assert "access denied (AccessDenied)" in failed(object_store.stat, parse("s3://tessera/x"))


@pytest.mark.parametrize("profile", ["nosuch", "two words", "\u00fc"])
def test_an_unknown_profile_is_a_setting(monkeypatch, profile):
    monkeypatch.setenv("AWS_PROFILE", profile)
    with pytest.raises(
        SettingsError, match=r"^AWS settings: The config profile .* could not be found.*; correct them$"
    ):
        object_store.listing(parse("s3://bucket/x"))
