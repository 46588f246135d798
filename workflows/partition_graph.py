"""Cut a graph into parts: `python workflows/partition_graph.py --graph PATH|s3://... --parts 20 --out PATH|s3://...`.

Node and edge tables of any size go through Ray tasks; a killed command goes on when it is given again.
"""

import json
from argparse import ArgumentParser

from ops.config.cli import parser, read_settings
from ops.config.console import Console
from ops.config.exit_codes import entry
from ops.config.settings import PartitionSettings
from ops.datamodules.partitioning import run_partition
from ops.errors import SettingsError

EXAMPLES = ("--graph FOLDER --parts 20 --out PARTS", "--graph s3://BUCKET/graph --parts 64 --out s3://BUCKET/parts")


def flags(program: str) -> ArgumentParser:
    """The parser of this command."""
    return parser(program, "Cut a graph into parts with few edges between them.", PartitionSettings, examples=EXAMPLES)


def main(argv: list[str], program: str = "workflows/partition_graph.py") -> None:
    """Parse, partition, print; `program` is what the user typed before `argv`."""
    _, request = read_settings(flags(program), argv, PartitionSettings, "")
    for flag, value in (("--graph", request.graph), ("--out", request.out)):
        if not value:
            raise SettingsError(f"{flag}: is missing; {program} --graph GRAPH --parts 20 --out FOLDER")
    console = Console(request.quiet, request.json_output)
    summary = run_partition(request, console)
    if request.json_output:
        print(json.dumps(summary))


if __name__ == "__main__":
    entry(main)
