"""Objects on S3 and on servers that speak its protocol: find, read, write, delete, with one clear line when that fails.

Endpoint, region and credentials come from where every AWS tool takes them (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, a
profile ...). No call waits for ever: timeouts and the number of tries are finite.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any

from ops.atomic_io import name_fault, replacing
from ops.errors import DataError, ServiceError, SettingsError
from ops.masking import mask, shown

SCHEME = "s3://"
LARGE = 64 << 20  # bytes from which a file goes in parts
_RIGHTS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their rights on the bucket"
_DENIED = ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "AllAccessDisabled")
_GONE = ("404", "NoSuchKey", "NotFound")
_CLASH = ("412", "409", "PreconditionFailed", "ConditionalRequestConflict")


class Missing(Exception):
    """There is no such object (the bucket may well exist)."""


class Conflict(Exception):
    """A conditional write met another object than it was meant for."""


class Unsupported(Exception):
    """The server does not know what was asked of it."""


@dataclass(frozen=True)
class Location:
    """An object, or all objects below `key`/; the key has no slash at its ends and may be empty (the bucket)."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}".rstrip("/")

    def __truediv__(self, name: str) -> Location:
        return Location(self.bucket, f"{self.key}/{name}".strip("/"))

    @property
    def name(self) -> str:
        """The last part of the key, or the bucket."""
        return self.key.rpartition("/")[2] or self.bucket


@dataclass(frozen=True)
class Stored:
    """What a listing tells of an object."""

    size: int
    etag: str


@dataclass(frozen=True)
class Content:
    """A small object: its bytes, ETag, and the seconds since it was written by the server's own clock."""

    data: bytes
    etag: str
    age: float


def is_s3(text: str) -> bool:
    """Whether a place is meant to be on S3."""
    return text.lower().startswith(SCHEME)


def parse(text: str) -> Location:
    """s3://BUCKET[/KEY]. Raises SettingsError for anything else, or a key that `name_fault` finds fault with."""
    bucket, _, key = text[len(SCHEME) :].partition("/") if is_s3(text) else ("", "", "")
    key = key.removesuffix("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", bucket) or (key and name_fault(key)):
        raise SettingsError(
            f"{text if text.isprintable() else repr(text)}: is no place on S3; give s3://BUCKET/PATH "
            "(no empty, . or .. part, control character or backslash in PATH)"
        )
    return Location(bucket, key)


@cache
def _client(pid: int, settings: frozenset[tuple[str, str]], patient: bool) -> Any:
    import boto3
    from botocore.config import Config

    own = {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} & dict(settings).keys()
    tries = {"mode": "standard", "total_max_attempts": 4 if patient else 1}
    config = Config(
        connect_timeout=5 if patient else 2, read_timeout=60 if patient else 10, retries=tries,
        # servers other than AWS's often do not know the newer checksums, which boto3 would send with everything
        request_checksum_calculation="when_required", response_checksum_validation="when_required",
        s3={"addressing_style": "path"} if own else None,
    )  # fmt: skip
    try:
        return boto3.Session().client("s3", config=config)
    except ValueError as error:
        raise SettingsError(f"AWS_ENDPOINT_URL: {mask(str(error))}; give http(s)://HOST:PORT") from None


def client(patient: bool = True) -> Any:
    """This process's boto3 client; without `patient` it tries once and gives up soon. Raises SettingsError."""
    settings = frozenset((key, value) for key, value in os.environ.items() if key.startswith("AWS_"))
    return _client(os.getpid(), settings, patient)


def endpoint() -> str:
    """HOST[:PORT] that the client speaks to, without credentials."""
    return shown(str(client().meta.endpoint_url)).partition("://")[2].removeprefix("***@").partition("/")[0]


@contextmanager
def _translated(location: Location) -> Iterator[None]:
    """Whatever boto3 raises as Missing, Conflict, Unsupported, or ServiceError in one line."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _GONE:
            raise Missing(str(location)) from None
        if code in _CLASH:
            raise Conflict(str(location)) from None
        if code in ("501", "NotImplemented"):
            raise Unsupported(str(location)) from None
        raise _error(location, *_told(code, location)) from None
    except (BotoCoreError, Boto3Error) as error:
        raise _error(location, *_untold(error)) from None


def _error(location: Location, cause: str, advice: str) -> ServiceError:
    place = str(location).split("/.")[0]  # what begins with a dot is ours, the user knows what it belongs to
    return ServiceError(f"{place}: {cause} (endpoint {endpoint()}); {advice}")


def _told(code: str, location: Location) -> tuple[str, str]:
    """Cause and advice for what the server answered."""
    if code in ("NoSuchBucket", "InvalidBucketName"):
        return f"there is no bucket {location.bucket}", "make it, or correct the name or AWS_ENDPOINT_URL"
    if code in _DENIED:
        return f"access denied ({code})", _RIGHTS
    return f"the server answers {code or 'an error'}", "start the same command again, or ask who runs the server"


def _untold(error: Exception) -> tuple[str, str]:
    """Cause and advice where there was no answer, or no request."""
    kind = type(error).__name__
    if "Credential" in kind:
        return "no credentials are set", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if "Connect" in kind or "Timeout" in kind or "HTTPClient" in kind or "SSL" in kind:
        return "storage cannot be reached", "start it or correct AWS_ENDPOINT_URL, then give the same command again"
    return " ".join(mask(str(error)).split())[:200] or kind, "correct the AWS settings and give the same command again"


def stat(location: Location) -> Stored:
    """Size and ETag of an object. Raises Missing, ServiceError."""
    with _translated(location):
        head = client().head_object(Bucket=location.bucket, Key=location.key)
    return Stored(int(head["ContentLength"]), str(head["ETag"]))


def listing(location: Location, *, start: str = "", deep: bool = True, patient: bool = True) -> dict[str, Stored]:
    """The objects below `location`, by their names relative to it.

    `start`: only names that begin so; not `deep`: only those right below. A missing bucket is a ServiceError, a missing
    folder is empty. Raises DataError for an object whose name could lead out of a folder (`ops.atomic_io.name_fault`).
    """
    head = f"{location.key}/" if location.key else ""
    found: dict[str, Stored] = {}
    asked: dict[str, Any] = {"Bucket": location.bucket, "Prefix": head + start} | ({} if deep else {"Delimiter": "/"})
    try:
        with _translated(location):
            for page in client(patient).get_paginator("list_objects_v2").paginate(**asked):
                for each in page.get("Contents", ()):
                    name = str(each["Key"])[len(head) :]
                    if name and not name.endswith("/"):  # some tools keep empty objects for folders
                        _check_name(location, name)
                        found[name] = Stored(int(each["Size"]), str(each["ETag"]))
    except Missing:
        raise _error(location, *_told("NoSuchBucket", location)) from None
    return found


def _check_name(location: Location, name: str) -> None:
    if fault := name_fault(name):
        raise DataError(
            f"{location}: holds an object whose name there, {name!r}, {fault}; names must be FOLDER/FILE without "
            "empty, . or .. parts, control characters and backslashes: rename or remove it"
        )


def download(location: Location, path: Path, *, patient: bool = True) -> Stored:
    """The object as a file, whole or not there. Raises Missing, ServiceError, ResourceError on a full disk."""
    with replacing(path) as temporary, _translated(location):
        got = client(patient).get_object(Bucket=location.bucket, Key=location.key)
        with temporary.open("wb") as file:
            for block in got["Body"].iter_chunks(1 << 20):
                file.write(block)
            size = file.tell()
    if size != got["ContentLength"]:
        path.unlink()
        raise _error(location, "the connection broke off", "give the same command again")
    return Stored(size, str(got["ETag"]))


def read_range(location: Location, first: int, count: int, *, etag: str = "") -> bytes:
    """`count` bytes of an object from byte `first` on. Raises Missing, ServiceError, Conflict where `etag` changed."""
    if count <= 0:
        return b""
    asked = {"Range": f"bytes={first}-{first + count - 1}"} | ({"IfMatch": etag} if etag else {})
    with _translated(location):
        got = client().get_object(Bucket=location.bucket, Key=location.key, **asked)
        data: bytes = got["Body"].read()
    if len(data) != int(got["ContentLength"]):
        raise _error(location, "the connection broke off", "give the same command again")
    return data


def upload(path: Path, location: Location, *, patient: bool = True) -> Stored:
    """The file as an object, which appears whole. Raises ServiceError, FileNotFoundError."""
    size = path.stat().st_size
    try:
        with _translated(location):
            if size < LARGE:
                data = path.read_bytes()  # what is sent is one state of a file that may be growing
                put = client(patient).put_object(Bucket=location.bucket, Key=location.key, Body=data)
                return Stored(len(data), str(put["ETag"]))
            client().upload_file(str(path), location.bucket, location.key)
            return stat(location)
    except Missing:
        raise _error(location, *_told("NoSuchBucket", location)) from None


def read(location: Location, *, patient: bool = True) -> Content | None:
    """A small object, None where there is none. Raises ServiceError."""
    try:
        with _translated(location):
            got = client(patient).get_object(Bucket=location.bucket, Key=location.key)
            data = got["Body"].read()
    except Missing:
        return None
    date = got["ResponseMetadata"]["HTTPHeaders"].get("date")
    age = (parsedate_to_datetime(date) - got["LastModified"]).total_seconds() if date else 0.0
    return Content(data, str(got["ETag"]), max(age, 0.0))


def write(location: Location, data: bytes, *, only_if: str | None = None, patient: bool = True) -> str:
    """Write a small object; returns its ETag. `only_if`: "" = none is there, else the ETag of the one there.

    Raises Conflict where that is not so (if the server knows conditions: not all do), ServiceError.
    """
    condition = {} if only_if is None else {"IfMatch": only_if} if only_if else {"IfNoneMatch": "*"}
    try:
        with _translated(location):
            put = client(patient).put_object(Bucket=location.bucket, Key=location.key, Body=data, **condition)
    except Unsupported:
        if not condition:
            raise _error(location, *_told("NotImplemented", location)) from None
        return write(location, data, patient=patient)
    except Missing:
        if only_if:  # the object that it names has gone
            raise Conflict(str(location)) from None
        raise _error(location, *_told("NoSuchBucket", location)) from None
    return str(put["ETag"])


def delete(location: Location, *, patient: bool = True) -> None:
    """Remove an object; none there is no error. Raises ServiceError."""
    try:
        with _translated(location):
            client(patient).delete_object(Bucket=location.bucket, Key=location.key)
    except Missing:
        return
