"""The way to a bucket on S3 and servers that speak its protocol: its clients, and its errors in one line.

boto3 says where endpoint and region come from, as for every AWS tool (AWS_ENDPOINT_URL, a profile ...). Timeouts and
numbers of tries are finite.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ops.errors import ServiceError, SettingsError
from ops.masking import mask, shown
from ops.storage.location import Location

if TYPE_CHECKING:
    from botocore.client import BaseClient
    from pyarrow.fs import S3FileSystem

_DENIED = ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "AllAccessDisabled")


class Missing(Exception):
    """There is no such object (the bucket may well exist)."""


class Conflict(Exception):
    """The object is another one than it was when it was last looked at."""


def _environment() -> frozenset[tuple[str, str]]:
    """The AWS settings; both libraries read them. Many servers do not know the checksums that they send by default."""
    for key in ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"):
        os.environ.setdefault(key, "when_required")
    return frozenset((key, value) for key, value in os.environ.items() if key.startswith("AWS_"))


@cache
def _client(pid: int, settings: frozenset[tuple[str, str]], patient: bool) -> "BaseClient":
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    custom = {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} & dict(settings).keys()
    tries = {"mode": "standard", "total_max_attempts": 4 if patient else 1}
    config = Config(
        connect_timeout=5 if patient else 2, read_timeout=60 if patient else 10, retries=tries,
        s3={"addressing_style": "path"} if custom else None,
    )  # fmt: skip
    try:
        return boto3.Session().client("s3", config=config)
    except ValueError as error:
        raise SettingsError(f"AWS_ENDPOINT_URL: {mask(str(error))}; give http(s)://HOST:PORT") from None
    except BotoCoreError as error:
        raise SettingsError(f"AWS settings: {' '.join(mask(str(error)).split())}; correct them") from None


def client(patient: bool = True) -> "BaseClient":
    """This process's boto3 client; without `patient` it tries once and gives up soon. Raises SettingsError."""
    return _client(os.getpid(), _environment(), patient)


@cache
def _filesystem(pid: int, settings: frozenset[tuple[str, str]], bucket: str, patient: bool) -> "S3FileSystem":
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    meta = client(patient).meta
    url = urlsplit(meta.endpoint_url)
    at_aws = re.fullmatch(r"s3[.-].*amazonaws\.com(\.cn)?", url.hostname or "")
    return S3FileSystem(
        endpoint_override=None if at_aws else url.netloc.rpartition("@")[2], scheme=url.scheme,
        region=resolve_s3_region(bucket) if at_aws else meta.region_name.replace("aws-global", "us-east-1"),
        connect_timeout=5 if patient else 2, request_timeout=60 if patient else 10,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=4 if patient else 1),
        allow_delayed_open=True,  # a small object goes in one request
    )  # fmt: skip


def file_system(location: Location, patient: bool = True) -> "S3FileSystem":
    """This process's `pyarrow.fs` file system for a bucket, patient or not as `client`. Raises SettingsError."""
    return _filesystem(os.getpid(), _environment(), location.bucket, patient)


def endpoint() -> str:
    """HOST[:PORT] of the store, without credentials."""
    return shown(str(client().meta.endpoint_url)).partition("://")[2].removeprefix("***@").partition("/")[0]


@contextmanager
def translated(location: Location) -> Iterator[None]:
    """Whatever boto3 and pyarrow raise as Missing, Conflict, or ServiceError in one line; errors of disks pass."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except FileNotFoundError:
        raise Missing(str(location)) from None
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in ("404", "NoSuchKey", "NotFound"):
            raise Missing(str(location)) from None
        if code in ("412", "409", "PreconditionFailed", "ConditionalRequestConflict"):
            raise Conflict(str(location)) from None
        raise failure(location, *_explained(location, code)) from None
    except BotoCoreError as error:
        raise failure(location, *_explained(location, type(error).__name__)) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise failure(location, *_explained(location, arrow_code(str(error)))) from None


def arrow_code(message: str) -> str:
    """S3's name of the error (NoSuchBucket, AccessDenied ...) that an exception of pyarrow tells of."""
    if match := re.search(r"AWS Error UNKNOWN \(HTTP status (\d+)\)", message):
        return match[1]
    if match := re.search(r"AWS Error ([A-Z_]+)", message):
        return match[1].title().replace("_", "")
    return "NoSuchBucket" if re.search("[Bb]ucket '.*' not found", message) else ""


def failure(location: Location, cause: str, advice: str) -> ServiceError:
    """The one line: which place, what happened, at which endpoint, what to do."""
    place = str(location).split("/.")[0]  # what begins with a dot is ours, the user knows what it belongs to
    return ServiceError(f"{place}: {cause} (endpoint {endpoint()}); {advice}")


def _explained(location: Location, code: str) -> tuple[str, str]:
    """Cause and advice for S3's name of an error, or the class of boto3's."""
    if code in ("NoSuchBucket", "InvalidBucketName"):
        return f"there is no bucket {location.bucket}", "make it, or correct the name or AWS_ENDPOINT_URL"
    if re.search("Connect|Timeout|HTTPClient|SSL|Network", code):
        return "storage cannot be reached", "start it or correct AWS_ENDPOINT_URL, then give the same command again"
    if code in _DENIED or "Credential" in code:
        import boto3

        if boto3.Session().get_credentials() is None:
            return "no credentials are set", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        advice = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their rights on the bucket"
        return f"access denied ({code})", advice
    return f"the server answers {code or 'an error'}", "start the same command again, or ask who runs the server"
