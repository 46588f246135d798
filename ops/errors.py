"""Errors a user can act on, one class per documented exit code.

Each carries one line: what was given, where, what is allowed, what to do. Workflows print that line to standard
error and end with `code`; anything else that escapes is a bug of ours and ends with 1 and its traceback.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path


class TesseraError(Exception):
    """Base of every error that ends a run with one clear line."""

    code = 1


class SettingsError(TesseraError):
    """A flag, YAML key or output place is wrong (also K < 2, unwritable output)."""

    code = 2


class DataError(TesseraError):
    """The input data is missing or malformed (also K > N, a download that cannot be reached)."""

    code = 3


class ResourceError(TesseraError):
    """The run would not fit the memory or disk there is."""

    code = 4


class DivergedError(TesseraError):
    """The loss is not finite, or the clusters collapsed where the user asked to stop."""

    code = 5


class ServiceError(TesseraError):
    """Storage, or tracking with `--require-tracking`, cannot be reached."""

    code = 6


class Interrupted(TesseraError):
    """A signal stopped the run; its checkpoint lets the same command go on."""

    code = 130


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """`; did you mean X?` where one of the allowed words is near, else nothing."""
    return "".join(f"; did you mean {near}?" for near in get_close_matches(word, list(allowed), n=1))


@contextmanager
def naming(path: Path, place: str) -> Iterator[None]:
    """Errors from inside call the local copy at `path` by the `place` that the user gave."""
    try:
        yield
    except TesseraError as error:
        raise type(error)(str(error).replace(str(path), place)) from None
