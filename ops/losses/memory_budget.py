"""Choosing how pair weights are stored within a budget of memory."""

from typing import Literal

from ops.errors import ResourceError
from ops.losses.pair_weights import Storage


def storage_within(
    gib: float, pairs: int, mode: Literal["paper", "stale"], wanted: Literal["auto", "float", "uint16", "recompute"]
) -> tuple[Storage, int]:
    """(storage, bytes left for kept tiles) for `pairs` weights of the upper tiles within `gib`.

    `auto` prefers the exact forms: float, then recompute. Stale weights, which cannot be recomputed, take uint16 after
    float. Raises ResourceError where the requested form, or every form for stale weights, needs more.
    """
    budget = int(gib * 2**30)
    need: dict[Storage, int] = {"float": 4 * pairs, "uint16": 2 * pairs, "recompute": 0}
    choices: list[Storage] = ["float", "uint16" if mode == "stale" else "recompute"]
    if wanted != "auto":
        choices = [wanted]
    for choice in choices:
        if need[choice] <= budget:
            return choice, budget - need[choice]
    raise ResourceError(
        f"{mode} pair weights as {' or '.join(choices)} need {need[choices[-1]] / 2**30:.2f} GiB, --pair-memory allows "
        f"{gib:g}: raise it or use " + ("--weights paper" if mode == "stale" else "--pair-storage recompute")
    )
