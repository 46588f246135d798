"""The kinds of data that methods take; imported when one is needed, as they see labels that no method may reach."""

from typing import Any

from ops.api import D, Method, S
from ops.datamodules.base import DataModule


def datamodule_of(method: Method[S, D]) -> DataModule[S, D]:
    """What a run does for the kind of data that `method` takes."""
    from ops.datamodules.graph import GraphData
    from ops.datamodules.images import ImageData
    from ops.datamodules.users import UserData

    kinds: dict[str, type[DataModule[Any, Any]]] = {"graph": GraphData, "images": ImageData, "users": UserData}
    return kinds[method.kind]()
