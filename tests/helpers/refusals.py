"""Errors of ours as a user sees them."""

from collections.abc import Callable
from typing import Any

import pytest

from ops.errors import TesseraError


def one_line(kind: type[TesseraError], call: Callable[..., Any], *arguments: Any, **words: Any) -> str:
    """What the error of a kind says that a call raises, which is one line."""
    with pytest.raises(kind) as caught:
        call(*arguments, **words)
    text = str(caught.value)
    assert "\n" not in text
    return text
