"""Planted graphs of any size, written block by block.

python workflows/generate_graph.py --users 1000000 --notes 500000 --clusters 100 --parts 20 --out FOLDER
"""

import json
import resource
import time
from pathlib import Path
from typing import Literal

from ops.config.cli import parser, read_settings
from ops.config.console import Console
from ops.config.exit_codes import entry
from ops.config.settings import Settings, flag, setting
from ops.data.synthetic.legacy_fake import NOTES, USERS
from ops.data.synthetic.stream import Order, generate
from ops.data.synthetic.user_item import Planted
from ops.errors import SettingsError

MAX = 10**12
DEFAULT = Planted()


class GenerateSettings(Settings):
    """What `workflows/generate_graph.py` takes."""

    out: str = setting("", "folder for the tables, labels/ and graph.yaml")
    users: int | None = setting(None, "users, or nodes with --homogeneous; default 1000", ge=2, le=MAX)
    notes: int | None = setting(None, "notes; default 600 (--preset original: 1000)", ge=2, le=MAX)
    clusters: int = setting(DEFAULT.clusters, "planted groups", ge=1, le=MAX)
    mean_edges: float = setting(
        DEFAULT.mean_edges, "mean edges a user over all relations; --homogeneous: directed edges a node", ge=1, le=1e6
    )
    mixing: float = setting(DEFAULT.mixing, "share of the edges that leave the group", ge=0, le=1)
    features: int = setting(DEFAULT.features, "features a node; 0: none", ge=0, le=100_000)
    feature_noise: float = setting(
        DEFAULT.feature_noise, "deviation of the features from their group's centre, whose own is 1", ge=0, le=1e6
    )
    seed: int = setting(0, "seed of every draw", ge=0, le=2**31)
    parts: int = setting(1, "files a table; the rows are the same whatever their number", ge=1, le=1_000_000)
    format: Literal["parquet", "csv", "tsv", "original"] = setting("parquet", "how tables are written")
    preset: Literal["none", "original"] = setting(
        "none", "original: users with an age, notes with views, random edges, in the original's files"
    )
    homogeneous: bool = setting(False, "one node type, edges in both directions")
    fresh: bool = setting(False, "replace a graph in --out")
    json_output: bool = setting(False, "print a JSON summary and nothing else on standard output", alias="json")
    quiet: bool = setting(False, "print errors only")


def order_of(given: GenerateSettings) -> Order:
    """What to write. Raises SettingsError for flags that do not go together."""
    original = given.preset == "original"
    own = {k: v for k, v in given.model_dump().items() if k in Planted.__dataclass_fields__}
    sizes = {"users": given.users or (USERS if original else DEFAULT.users),
             "notes": given.notes or (NOTES if original else DEFAULT.notes)}  # fmt: skip
    if original:
        other = [k for k in own if k not in ("users", "notes", "seed") and own[k] != getattr(DEFAULT, k)]
        if other:
            raise SettingsError(f"{flag(other[0])}: goes not with --preset original, which has no groups")
    if given.homogeneous and given.notes:
        raise SettingsError("--notes: goes not with --homogeneous, which has one type; --users are its nodes")
    return Order(Planted(**own | sizes), given.parts, "original" if original else given.format, original)


def main(argv: list[str]) -> None:
    """Parse, generate, print."""
    made = parser("generate_graph.py", "Planted graphs of any size.", GenerateSettings)
    _, given = read_settings(made, argv, GenerateSettings, "")
    if not given.out:
        raise SettingsError("--out: is missing; generate_graph.py --out FOLDER")
    if given.out.startswith("s3://"):
        raise SettingsError(f"--out {given.out}: is written to a local folder only; copy it to S3 afterwards")
    console = Console(given.quiet, given.json_output)
    start = time.monotonic()
    rows = generate(
        order_of(given), Path(given.out).expanduser(), given.fresh, lambda text: console.progress(text, milestone=False)
    )
    if rows is None:
        console.say(f"{given.out}: is there already, complete and made with the same settings; --fresh makes it again")
        return
    used = {"rows": rows, "seconds": round(time.monotonic() - start, 2),
            "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)}  # fmt: skip
    if given.json_output:
        print(json.dumps(used))
    for name, count in rows.items():
        console.say(f"{name}: {count:,} rows")
    console.say(f"{given.out}: written in {used['seconds']} s, peak memory {used['peak_memory_gib']} GiB")


if __name__ == "__main__":
    entry(main)
