"""Settings that come with a kind of data: the methods for it derive theirs from them."""

from typing import Literal

from ops.config.settings import MethodSettings, setting


class ImageSettings(MethodSettings):
    """What every method on images has; a method's own `Settings` derive from it."""

    backbone: str = setting("resnet18", "resnet18, resnet34, resnet50, small (20 MFLOP at 32x32) or frozen:FILE")
    image_size: int | None = setting(None, "side that images are brought to; default: the data's own", ge=4, le=1024)


class UserSettings(MethodSettings):
    """What every method on users of a heterogeneous graph has; a method's own `Settings` derive from it."""

    label_relations: str = setting(
        "", "comma-separated relations whose edges are predicted; default: all that join the first one's types"
    )
    holdout: Literal["auto", "time", "user", "none"] = setting(
        "auto",
        "what is hidden for the evaluation: the last edges of all or of each user; auto: the data set's own; "
        "none: nothing, of a graph that was partitioned before",
    )
    cluster: Literal["kmeans", "som"] = setting("kmeans", "what makes the clusters of users")
    parts: int = setting(1, "parts of the graph", ge=1, le=100_000)
    partition: Literal["hash", "fennel", "metis"] = setting(
        "fennel", "how the graph is cut; hash ignores its edges, metis needs the whole graph in memory"
    )
    topology: Literal["replicated", "sharded"] = setting(
        "sharded", "replicated: every worker holds all edges, features stay with their part"
    )

    @property
    def labels(self) -> tuple[str, ...]:
        """The label relations that were named; none: the data set's own."""
        return tuple(name.strip() for name in self.label_relations.split(",") if name.strip())
