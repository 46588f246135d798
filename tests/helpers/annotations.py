"""Checks of annotations, shapes too, that cost little: built at a function's first call, and run once a call."""

import dataclasses
from contextlib import suppress
from functools import wraps
from inspect import isgeneratorfunction
from typing import Any, get_type_hints
from unittest import mock

import beartype
import jaxtyping
import torch

# an int is welcome where a float is asked for, as everywhere in Python
beartyped = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
jaxtyped = jaxtyping.jaxtyped
Generator = torch.Generator  # which the pretended accelerator replaces for a while by one of its own


def with_check(function: Any) -> Any:
    """The function with beartype's check, where its annotations can be looked up and it is over when it returns."""
    with mock.patch.object(torch, "Generator", Generator), suppress(Exception):
        if get_type_hints(function) is not None and not isgeneratorfunction(function):
            return beartyped(function)
    return jaxtyped(function, typechecker=beartyped)


def checked(function: Any = None, **_: Any) -> Any:
    """In jaxtyping's place, whose own builds two checks of every function at import, and checks arguments twice a call.

    All dimensions of one call agree here as there; only what `jaxtyping` says of a mistake is shorter.
    """
    if function is None:
        return checked
    if isinstance(function, type):
        if dataclasses.is_dataclass(function) and not hasattr(function.__init__, "__wrapped__"):
            function.__init__ = checked(function.__init__)  # type: ignore[misc]
        return function
    call = None

    @wraps(function)
    def checking(*arguments: Any, **named: Any) -> Any:
        nonlocal call
        call = call or with_check(function)
        with jaxtyped("context"):
            return call(*arguments, **named)

    return checking


def install(*packages: str) -> None:
    """Check every function and dataclass of these packages, from their import on."""
    jaxtyping.jaxtyped = checked
    jaxtyping.install_import_hook(packages, "beartype.beartype")
