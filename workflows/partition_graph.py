"""Cut a graph into parts: `python workflows/partition_graph.py --graph PATH|s3://... --parts 20 --out PATH|s3://...`.

Node and edge tables of any size go through Ray tasks; a killed command goes on when it is given again.
"""

import json

from ops.errors import SettingsError
from ops.run.cli import parser, read_settings
from ops.run.console import Console
from ops.run.entry import entry
from ops.run.partition import run_partition
from ops.run.settings import PartitionSettings


def main(argv: list[str]) -> None:
    """Parse, partition, print."""
    made = parser("partition_graph.py", "Cut a graph into parts with few edges between them.", PartitionSettings)
    _, request = read_settings(made, argv, PartitionSettings, "")
    for flag, value in (("--graph", request.graph), ("--out", request.out)):
        if not value:
            raise SettingsError(f"{flag}: is missing; partition_graph.py --graph GRAPH --parts 20 --out FOLDER")
    console = Console(request.quiet, request.json_output)
    summary = run_partition(request, console)
    if request.json_output:
        print(json.dumps(summary))


if __name__ == "__main__":
    entry(main)
