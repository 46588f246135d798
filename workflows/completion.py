"""Completion of `tessera` in a shell, printed once: `tessera completion bash > FILE`, which the shell reads.

The script is shtab's and holds every command, method and flag, so that no Python starts when Tab is pressed.
"""

import argparse
from typing import Any

from ops.config.cli import parser
from ops.config.exit_codes import entry
from ops.config.settings import LaunchSettings, SearchSettings
from ops.errors import SettingsError
from trainers import METHODS

EXAMPLES = ("bash > ~/.local/share/bash-completion/completions/tessera", "zsh > ~/.zfunc/_tessera")
OF_METHODS = {"train": LaunchSettings, "tune": SearchSettings}  # commands that take a method


def flags(program: str) -> argparse.ArgumentParser:
    """The parser of this command."""
    each = parser(program, "Print the completion of tessera.", takes="SHELL > FILE", examples=EXAMPLES)
    each.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return each


def main(argv: list[str], program: str = "workflows/completion.py") -> None:
    """Print the script. Raises SettingsError where shtab is not installed."""
    shell = flags(program).parse_args(argv).shell
    try:
        import shtab
    except ImportError:
        raise SettingsError("completion: needs shtab; pip install 'tessera[completion]'") from None
    print(shtab.complete(_tree(shtab.FILE), shell=shell))


def _tree(file: Any) -> argparse.ArgumentParser:
    """All commands as one parser, in which a flag's value may be a `file`."""
    from workflows.main import MODULES, workflow

    top = argparse.ArgumentParser(prog="tessera")
    commands = top.add_subparsers()
    for name in MODULES:
        if name not in OF_METHODS:
            _add(commands, name, workflow(name).flags(f"tessera {name}"), file)
            continue
        methods = commands.add_parser(name, help=name).add_subparsers()
        for each, method in METHODS.items():
            _add(methods, each, parser(each, method.summary, method.settings, OF_METHODS[name]), file)
    return top


def _add(commands: Any, name: str, each: argparse.ArgumentParser, file: Any) -> None:
    for action in each._actions:
        if action.nargs != 0 and not action.choices:
            action.complete = file  # type: ignore[attr-defined]  (shtab reads it)
    commands.add_parser(name, parents=[each], add_help=False, help=each.description)


if __name__ == "__main__":
    entry(main)
