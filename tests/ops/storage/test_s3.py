"""S3 URIs; and a real server asked, denied, missing and away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.errors import ServiceError, SettingsError
from ops.storage import s3
from ops.storage.s3 import Location, parse

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
    assert s3.is_s3("S3://bucket")
    assert not s3.is_s3("s3:/bucket")


@pytest.mark.parametrize(
    "text",
    ["s3://", "s3:///x", "s3://b/x", "s3://me:pw@bucket/x", "s3://bucket//x", "s3://bucket/../x", "gs://bucket/x"],
)
def test_what_is_no_place_is_refused(text):
    with pytest.raises(SettingsError, match="is no place on S3; give s3://BUCKET/PATH") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def failed(call, *args, **kwargs):
    with pytest.raises(ServiceError) as caught:
        call(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
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
    assert failed(s3.listing, place, patient=False) == expected
    assert failed(s3.download, place, tmp_path / "x", patient=False) == expected
    assert failed(s3.write, place, b"", patient=False) == expected
    assert list(tmp_path.iterdir()) == []


def test_an_endpoint_that_is_no_url_is_one_line(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "here:geheim")
    with pytest.raises(SettingsError, match=r"AWS_ENDPOINT_URL.*give http"):
        s3.listing(parse("s3://bucket/x"))


@pytest.mark.slow
def test_objects_come_and_go(s3, tmp_path):
    place = parse("s3://tessera/objects")
    (tmp_path / "a").write_bytes(b"1234")
    sent = s3.upload(tmp_path / "a", place / "sub" / "a")
    s3.write(place / "b", b"")
    assert s3.listing(place) == {"sub/a": sent, "b": s3.stat(place / "b")}
    assert list(s3.listing(place, deep=False)) == ["b"]
    assert list(s3.listing(place, start="su")) == ["sub/a"]
    assert s3.download(place / "sub" / "a", tmp_path / "copy" / "a") == sent
    assert (tmp_path / "copy" / "a").read_bytes() == b"1234"
    s3.delete(place / "b")
    s3.delete(place / "b")
    assert list(s3.listing(place)) == ["sub/a"]
    assert s3.listing(place / "sub" / "nothing") == {}
    assert s3.read(place / "b") is None
    with pytest.raises(s3.Missing):
        s3.stat(place / "b")
    with pytest.raises(s3.Missing):
        s3.download(place / "b", tmp_path / "copy" / "b")
    assert [p.name for p in (tmp_path / "copy").iterdir()] == ["a"]


@pytest.mark.slow
def test_many_objects_and_a_large_one(s3, tmp_path, monkeypatch):
    place = parse("s3://tessera/many")
    for i in range(1003):  # a page holds 1,000
        s3.write(place / str(i), b"")
    assert len(s3.listing(place)) == 1003
    monkeypatch.setattr(storage, "LARGE", 9 << 20)  # boto3 itself splits from 8 MiB on
    data = bytes(range(256)) * (40 << 10)
    (tmp_path / "large").write_bytes(data)
    sent = s3.upload(tmp_path / "large", place / "large")
    assert s3.download(place / "large", tmp_path / "back") == sent
    assert (tmp_path / "back").read_bytes() == data


@pytest.mark.slow
def test_conditional_writes(s3):
    place = parse("s3://tessera/conditional")
    with pytest.raises(s3.Conflict):
        s3.write(place, b"0", only_if='"abc"')
    first = s3.write(place, b"1", only_if="")
    with pytest.raises(s3.Conflict):
        s3.write(place, b"2", only_if="")
    s3.write(place, b"3", only_if=first)
    with pytest.raises(s3.Conflict):
        s3.write(place, b"4", only_if=first)
    content = s3.read(place)
    assert content is not None
    assert (content.data, content.age < 3) == (b"3", True)


@pytest.mark.slow
def test_denied_and_missing_buckets_are_one_line(s3, monkeypatch):
    where = s3.endpoint.removeprefix("http://")
    make = f"there is no bucket nowhere (endpoint {where}); make it, or correct the name or AWS_ENDPOINT_URL"
    place = parse("s3://nowhere/x")
    assert failed(s3.listing, place) == f"s3://nowhere/x: {make}"
    assert failed(s3.write, place, b"") == f"s3://nowhere/x: {make}"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nur-lesen")
    assert "started" in s3.listing(parse("s3://tessera"))
    advice = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their rights on the bucket"
    told = failed(s3.write, parse("s3://tessera/x"), b"")
    assert told == f"s3://tessera/x: access denied (AccessDenied) (endpoint {where}); {advice}"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim-2")
    assert "access denied (SignatureDoesNotMatch)" in failed(s3.listing, parse("s3://tessera"))
    assert "access denied (403)" in failed(s3.stat, parse("s3://tessera/x"))
