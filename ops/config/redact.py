"""Addresses without their credentials, for messages and records."""

from __future__ import annotations

import re

_USER = re.compile(r"(?<!sqlite:)(?<=:)//[^\s'\"]*@")


_QUERY = re.compile(r"([?&]\w*(?:password|token|secret|key)=)[^&\s'\"]*", re.IGNORECASE)


def mask(text: str) -> str:
    """The text without user, password or token of any URI in it; the form that is printed and stored."""
    return _QUERY.sub(r"\1***", _USER.sub("//***@", text))
