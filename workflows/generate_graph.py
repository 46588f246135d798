"""Planted graphs of any size, written block by block.

python workflows/generate_graph.py --users 1000000 --notes 500000 --clusters 100 --parts 20 --out FOLDER
"""

import json
import resource
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Literal

from ops.config.cli import parser, read_settings
from ops.config.console import Console
from ops.config.exit_codes import entry
from ops.config.settings import Settings, flag, setting
from ops.data.synthetic.original import NOTES, USERS
from ops.data.synthetic.stream import generate
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
    preset: Literal["none", "original"] = setting(
        "none", "original: users with an age, notes with views, random edges, in the original's numbers"
    )
    homogeneous: bool = setting(False, "one node type, edges in both directions")
    fresh: bool = setting(False, "replace a graph in --out")
    json_output: bool = setting(False, "print a JSON summary and nothing else on standard output", alias="json")
    quiet: bool = setting(False, "print errors only")


def planted_of(settings: GenerateSettings) -> Planted:
    """What to write. Raises SettingsError for flags that do not go together."""
    original = settings.preset == "original"
    values: dict[str, Any] = {k: v for k, v in settings.model_dump().items() if k in Planted.model_fields}
    if original:
        other = [k for k in values if k not in ("users", "notes", "seed") and values[k] != getattr(DEFAULT, k)]
        if other:
            raise SettingsError(f"{flag(other[0])}: goes not with --preset original, which has no groups")
    if settings.homogeneous and settings.notes:
        raise SettingsError("--notes: goes not with --homogeneous, which has one type; --users are its nodes")
    values["users"] = settings.users or (USERS if original else DEFAULT.users)
    values["notes"] = settings.notes or (NOTES if original else DEFAULT.notes)
    return Planted(**values)


EXAMPLES = (
    "--users 1000 --notes 600 --clusters 10 --out FOLDER",
    "--homogeneous --users 5000 --clusters 8 --out FOLDER",
)


def flags(program: str) -> ArgumentParser:
    """The parser of this command."""
    return parser(program, "Planted graphs of any size.", GenerateSettings, examples=EXAMPLES)


def main(argv: list[str], program: str = "workflows/generate_graph.py") -> None:
    """Parse, generate, print; `program` is what the user typed before `argv`."""
    _, settings = read_settings(flags(program), argv, GenerateSettings, "")
    if not settings.out:
        raise SettingsError(f"--out: is missing; {program} --out FOLDER")
    if settings.out.startswith("s3://"):
        raise SettingsError(f"--out {settings.out}: is written to a local folder only; copy it to S3 afterwards")
    console = Console(settings.quiet, settings.json_output)
    start = time.monotonic()
    rows = generate(
        planted_of(settings), Path(settings.out).expanduser(), settings.parts, original=settings.preset == "original",
        fresh=settings.fresh, say=lambda line: console.progress(line, milestone=False),
    )  # fmt: skip
    if rows is None:
        console.say(f"{settings.out}: is there already, complete and of the same settings; --fresh replaces it")
        return
    used = {"rows": rows, "seconds": round(time.monotonic() - start, 2),
            "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)}  # fmt: skip
    if settings.json_output:
        print(json.dumps(used))
    for name, count in rows.items():
        console.say(f"{name}: {count:,} rows")
    console.say(f"{settings.out}: written in {used['seconds']} s, peak memory {used['peak_memory_gib']} GiB")


if __name__ == "__main__":
    entry(main)
