"""Addresses in a bucket: s3://BUCKET/KEY."""

import re
from dataclasses import dataclass

from ops.atomic_io import name_fault
from ops.errors import SettingsError

SCHEME = "s3://"


@dataclass(frozen=True)
class Location:
    """An object, or all objects below `key`/; the key has no slash at its ends and may be empty (the bucket)."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.path}"

    def __truediv__(self, name: str) -> "Location":
        return Location(self.bucket, f"{self.key}/{name}".strip("/"))

    @property
    def path(self) -> str:
        """BUCKET/KEY, as pyarrow calls it."""
        return f"{self.bucket}/{self.key}".rstrip("/")

    @property
    def name(self) -> str:
        """The last part of the key, or the bucket."""
        return self.key.rpartition("/")[2] or self.bucket


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
