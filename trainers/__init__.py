"""All methods by name. `METHODS[name]` imports a method when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

import ops  # noqa: F401  (before torch: see there)
from ops.errors import SettingsError

if TYPE_CHECKING:
    from ops.api import AnyMethod

_NAMES = (
    "caegcn",
    "degree",
    "dmon",
    "hadis",
    "hgt",
    "hsan",
    "ns4gc",
    "s2cag",
    "sagsc",
    "ssgc",
    "twhin",
)  # each is a folder of this package that has a METHOD


class _Registry(Mapping[str, "AnyMethod"]):
    """A read-only mapping of names to methods."""

    def __getitem__(self, name: str) -> AnyMethod:
        if name not in _NAMES:
            raise KeyError(name)
        method: AnyMethod = import_module(f"trainers.{name}").METHOD
        return method

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


METHODS: Mapping[str, AnyMethod] = _Registry()


def method_of(argv: list[str]) -> AnyMethod:
    """The method that a command names first. Raises SettingsError where the name is missing or unknown."""
    if not argv or argv[0] not in METHODS:
        from ops.config.settings import nearby

        hint = nearby(argv[0], METHODS) if argv else ""
        raise SettingsError(f"METHOD: got {argv[0] if argv else 'nothing'}; allowed: {', '.join(METHODS)}{hint}")
    return METHODS[argv[0]]
