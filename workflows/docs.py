"""Write the settings of every workflow as Markdown tables: `python workflows/docs.py > workflows/SETTINGS.md`.

With a folder (`python workflows/docs.py build/pages`) it gathers all pages there, with one of the Python interface, for
the site that `make docs` builds.
"""

import re
import shutil
import sys
from pathlib import Path

from ops.config.settings import LaunchSettings, PartitionSettings, PredictSettings, SearchSettings, docs_table
from trainers import METHODS
from workflows.auto import AutoSettings
from workflows.features import FeatureSettings
from workflows.generate_graph import GenerateSettings


def page() -> str:
    """The page; a test holds `workflows/SETTINGS.md` against it."""
    parts = ["# Settings\n\nMade by `make docs` from the declarations in `trainers/` and `ops/config/settings.py`.\n"]
    parts += [f"## {name}\n\n{docs_table(method.settings)}\n" for name, method in METHODS.items()]
    parts.append(f"## Launching (every workflow)\n\n{docs_table(LaunchSettings)}\n")
    parts.append(f"## Searching (tune workflows)\n\n{_beyond_launch(SearchSettings)}\n")
    parts.append(f"## Choosing (auto.py)\n\n{_beyond_launch(AutoSettings)}\n")
    parts.append(f"## Predicting (predict.py RUN)\n\n{docs_table(PredictSettings)}\n")
    parts.append(f"## Features of images (features.py)\n\n{docs_table(FeatureSettings)}\n")
    parts.append(f"## Generating (generate_graph.py)\n\n{docs_table(GenerateSettings)}\n")
    parts.append(f"## Partitioning (partition_graph.py)\n\n{docs_table(PartitionSettings)}\n")
    return "\n".join(parts)


def _beyond_launch(model: type[LaunchSettings]) -> str:
    """The table of the settings that `model` has beyond those of every launch."""
    keys = {k for k in model.model_fields if k not in LaunchSettings.model_fields}
    table = docs_table(model).splitlines()
    return "\n".join(
        line for line in table if not line.startswith("| `") or line.split("`")[1][2:].replace("-", "_") in keys
    )


def gather(folder: Path) -> None:
    """Copy every page and the pictures that it shows to `folder`, at the same paths, and write the page of the API."""
    root = Path(__file__).parents[1]
    pages = [root / name for name in ("README.md", "CHANGELOG.md")]
    pages += sorted(each for room in ("ops", "trainers", "workflows", "k8s") for each in (root / room).rglob("*.md"))
    pages += sorted((root / "workflows/examples").glob("*.ipynb"))
    for path in pages:
        target = folder / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8")
        target.write_text(text, encoding="utf-8")
        for picture in re.findall(r"!\[[^\]]*\]\(([^):]+)\)", text):
            (target.parent / picture).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path.parent / picture, target.parent / picture)
    classes = [f"trainers.{name}" for name in METHODS]
    modules = ["tessera", "ops.inference.sklearn", "ops.inference.user_estimator", *classes, "ops.api"]
    (folder / "api.md").write_text("# Python\n\n" + "\n".join(f"::: {module}\n" for module in modules))


if __name__ == "__main__":
    if sys.argv[1:]:
        gather(Path(sys.argv[1]))
    else:
        print(page(), end="")
