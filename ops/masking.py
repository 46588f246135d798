"""What may be shown and stored of a URI that may hold secrets: scheme, host and, where there is no doubt, database."""

import os
import re
import shlex
from collections.abc import Iterable

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_URI = re.compile(rf"{_SCHEME.pattern}://\S*")
_PORT = r"(?::\d+)?"
_HOSTS = re.compile(rf"(?:[\w.-]+|\[[\da-fA-F:.]+\])?{_PORT}(?:,[\w.-]+{_PORT})*")
_VALUE = r"(?:\{[^}\n]*\}|[^\s&;'\"]+)"
_WORDS = re.compile(rf"\b(\w*(?:pwd|passwd|password|secret|token|sig|signature)=){_VALUE}", re.IGNORECASE)
_DATABASES = ("postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle")
_PATHS = ("sqlite", "s3", "models", "runs", "file")  # what they hold is a path, which may have any character in it
_CLOSING = "'\"`,;:.!)>]}"  # ends a sentence or a bracket, not a URI


def shown(uri: str) -> str:
    """A whole URI as it may be printed and stored; `***` stands for what is left out.

    A URI without credentials and without a query stays. Of others the host and a plain database name are kept, unless
    an unquoted `@`, `/`, `?` or `#` makes it doubtful where the credentials end.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:  # at most a path; a URI whose scheme was forgotten may hold as much as another
        return "***" if re.search("[@=?]", uri) else uri
    if not _SCHEME.fullmatch(scheme):
        return "***"
    base = re.split("[?#;&]", rest, maxsplit=1)[0]
    authority, slash, path = base.partition("/")
    credentials = "@" in authority
    if scheme.lower() in _PATHS and not credentials and "=" not in rest[len(base) :]:
        return uri
    host = authority.rpartition("@")[2]
    if "@" in path + rest[len(base) :] or not _HOSTS.fullmatch(host):
        return f"{scheme}://***"
    if not credentials and base == rest:
        return uri
    is_name = scheme.lower().partition("+")[0] in _DATABASES and re.fullmatch(r"[\w-]+", path)
    return f"{scheme}://{'***@' * credentials}{host}{slash + path if is_name else ''}{'?***' * (base != rest)}"


def mask(text: str) -> str:
    """A text of which every URI is `shown`, and no value of a password's key.

    What follows a doubtful URI on its line is left out too: a password may hold blanks.
    """
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):  # known as a whole, whatever characters it has
        text = text.replace(uri, shown(uri))
    return _WORDS.sub(r"\1***", "\n".join(_line(line) for line in text.split("\n")))


def _line(line: str) -> str:
    masked, end = "", 0
    for match in _URI.finditer(line):
        uri = match[0].rstrip(_CLOSING)
        masked += line[end : match.start()] + shown(uri)
        end = match.start() + len(uri)
        if masked.endswith("://***") or "odbc_connect" in uri.lower():
            return masked
    return masked + line[end:]


def command(words: Iterable[str]) -> str:
    """A command as it is typed into a shell, with the URI that ends a word `shown`."""
    uri = re.compile(rf"{_SCHEME.pattern}://.*", re.DOTALL)
    return shlex.join(uri.sub(lambda match: shown(match[0]), word) for word in words)
