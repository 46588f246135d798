"""The console command `tessera`: every workflow by one name, e.g. `tessera train hsan --dataset cora`.

A workflow is imported when it is called, so that `tessera --help` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

from ops.config.exit_codes import entry
from ops.errors import SettingsError, did_you_mean

SECTIONS = {  # a command: the workflow's module and what it is for; in the order in which a person needs them
    "first steps": {
        "auto": ("auto", "from a data file to a report in seconds: chooses among methods that train nothing"),
        "train": ("train", "train one method on one data set, over one or several seeds"),
    },
    "results": {
        "report": ("report", "draw a finished run's figures and report again"),
        "compare": ("compare", "finished runs side by side: a table and a page"),
        "predict": ("predict", "clusters of new rows by a trained model"),
    },
    "better settings": {"tune": ("tune", "search a method's settings without labels")},
    "images": {"features": ("features", "features of images by a trained network, for --backbone frozen:FILE")},
    "large graphs": {
        "partition": ("partition_graph", "cut a graph into parts"),
        "generate": ("generate_graph", "write planted graphs of any size"),
    },
    "shell": {"completion": ("completion", "print the completion of commands and flags by Tab")},
}
MODULES = {name: f"workflows.{module}" for each in SECTIONS.values() for name, (module, _) in each.items()}


def main(argv: list[str]) -> None:
    """Hand `argv` to the command that it names. Raises SettingsError for a command that there is not."""
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        print(help_text())
    elif name == "--version":
        print(f"tessera {version('tessera')}")
    elif name in MODULES:
        workflow(name).main(argv[1:], program=f"tessera {name}")
    else:
        raise SettingsError(f"tessera {name}: is no command of {', '.join(MODULES)}{did_you_mean(name, MODULES)}")


def workflow(name: str) -> Any:
    """The module of a command."""
    return import_module(MODULES[name])


def help_text() -> str:
    """What `tessera --help` prints."""
    lines = ["usage: tessera COMMAND [flags]", "", "Deep clustering of graphs, users and images; no label ever trains."]
    for title, commands in SECTIONS.items():
        lines += ["", f"{title}:", *(f"  {name:<10} {what}" for name, (_, what) in commands.items())]
    lines += ["", "examples:", "  tessera train hsan --dataset digits",
              "  tessera train hsan --dataset table.csv --knn 10 --n-clusters auto --dry-run", "",
              "tessera COMMAND --help lists its flags, tessera --version says which one this is."]  # fmt: skip
    return "\n".join(lines)


def command() -> None:
    """The entry point `tessera`."""
    entry(main)


if __name__ == "__main__":
    command()
