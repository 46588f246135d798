"""Print what pyproject.toml asks for, one requirement a line: `python requirements.py [--only] [EXTRA ...]`.

For an image's layer of dependencies, which must not change with the code; `--only`: the extras without Tessera's own.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = [a for a in sys.argv[1:] if a != "--only"]
wanted = [] if "--only" in sys.argv else project["dependencies"]
print(*wanted, *(line for extra in extras for line in project["optional-dependencies"][extra]), sep="\n")
