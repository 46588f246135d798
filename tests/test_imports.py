"""The house, read from the source: who may import whom, what an import may cost, how long files and functions are."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from trainers import METHODS

PROJECT = Path(__file__).parents[1]
PACKAGES = ("ops", "trainers", "workflows")
FILES = sorted(p for package in PACKAGES for p in (PROJECT / package).rglob("*.py"))
SCORES = "ops.evaluation.labelled"
EVALUATION = {SCORES, "ops.evaluation.recall", "ops.evaluation.link_prediction"}  # what sees labels or hidden edges
USES_RAY = (
    "ops.distributed.",
    "ops.graph.partition.",
    "ops.graph.sampling.client",
    "ops.datamodules.partitioning",
    "ops.training.",
    "ops.tuning.",
    "ops.inference.",
)
HEAVY = ("ray", "mlflow", "matplotlib", "sklearn", "torch_geometric", "torchvision", "boto3", "pymetis", "numba",
         "faiss")  # fmt: skip
# The registry imports a method when it is asked for, the console command a workflow; MLflow's loader (outside of any
# workflow) asks the registry.
BY_NAME = ("trainers", "ops.inference.mlflow_pyfunc", "workflows.main", "workflows.completion")


# The rooms of ops, from the bottom up: a room imports only itself and rooms below it.
ROOMS = (
    "errors", "rng", "atomic_io", "masking", "eager", "memory", "device", "storage", "data", "config", "distributed",
    "api", "tracking", "graph", "clustering", "losses", "evaluation", "results", "reporting", "datamodules", "training",
    "inference", "tuning",
)  # fmt: skip


def module_of(path):
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(p): p for p in FILES}


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(module, at_import_only=False):
    """Every module that `module` imports, wherever in the file; names of our own modules resolved fully."""
    result = set()

    def visit(node):
        for child in ast.iter_child_nodes(node):
            if at_import_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if at_import_only and isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Import):
                result.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{module}: relative import"
                names = {f"{child.module}.{alias.name}" for alias in child.names}
                result.update(names)
                if names - set(MODULES):  # else only modules of a package are imported
                    result.add(child.module)
            elif isinstance(child, ast.Call) and module not in BY_NAME:
                name = getattr(child.func, "attr", getattr(child.func, "id", ""))
                assert name not in ("import_module", "__import__"), f"{module}:{child.lineno}: imports by name"
            visit(child)

    visit(tree(MODULES[module]))
    return frozenset(result)


def ours(names):
    """Our own modules among `names`, with the packages they lie in (which Python imports too)."""
    return {".".join(n.split(".")[: i + 1]) for n in names for i in range(n.count(".") + 1)} & set(MODULES)


def closure(module, at_import_only=False):
    """`module` and all of ours that it imports, at once or (unless `at_import_only`) later, directly or not."""
    reached, waiting = set(), [module]
    while waiting:
        here = waiting.pop()
        if here not in reached:
            reached.add(here)
            waiting += ours(imports(here, at_import_only))
    return reached


def tops(names):
    return {name.split(".")[0] for name in names}


def test_the_source_is_found():
    assert {"ops.config.settings", "trainers.hsan", "workflows.train", SCORES} <= set(MODULES)
    assert SCORES in closure("ops.training.trainer")
    assert "ops.reporting.html" in closure("ops.training.trainer")  # also what is imported inside a function


def test_imports_go_one_way():
    allowed = {"ops": {"ops"}, "trainers": {"ops", "trainers"}, "workflows": set(PACKAGES)}
    wrong = {m: (tops(imports(m)) & {*PACKAGES, "tests"}) - allowed[m.split(".")[0]] for m in MODULES}
    assert {m: names for m, names in wrong.items() if names} == {}


def room_of(module):
    return module.split(".")[1]


def test_a_room_imports_only_rooms_below_it():
    arrows = {(m, n) for m in MODULES for n in ours(imports(m)) if m.startswith("ops.") and n.startswith("ops.")}
    assert {(m, n) for m, n in arrows if ROOMS.index(room_of(n)) > ROOMS.index(room_of(m))} == set()


def circles(arrows):
    """The groups of names that reach each other along `arrows` (name -> names)."""

    def reached(name):
        seen, waiting = set(), list(arrows[name])
        while waiting:
            here = waiting.pop()
            if here not in seen:
                seen.add(here)
                waiting += arrows.get(here, ())
        return seen

    closures = {name: reached(name) for name in arrows}
    return {frozenset(n for n in closures[name] if name in closures.get(n, ())) for name in arrows} - {frozenset()}


def test_no_circle_of_files():
    files = {m: {n for n in imports(m) & set(MODULES) if n != m} for m in MODULES}
    assert circles(files) == set()


def test_no_circle_of_folders():
    folder = {m: str(MODULES[m].parent.relative_to(PROJECT)) for m in MODULES}
    arrows = {}
    for module, path in folder.items():
        others = {folder[n] for n in imports(module) & set(MODULES)} - {path, "ops", "trainers"}
        arrows.setdefault(path, set()).update(others if path not in ("ops", "trainers") else ())
    assert circles(arrows) == set()


def test_ray_and_mlflow_stay_where_they_belong():
    mlflow = "ops.tracking.", "ops.inference.mlflow_pyfunc", "ops.inference.registry"
    assert [m for m in MODULES if "ray" in tops(imports(m)) and not m.startswith(USES_RAY)] == []
    assert [m for m in MODULES if "mlflow" in tops(imports(m)) and not m.startswith(mlflow)] == []


def test_settings_reach_neither_ray_nor_mlflow():
    assert not {"ray", "mlflow"} & {top for module in closure("ops.config.settings") for top in tops(imports(module))}


def test_no_trainer_reaches_the_scores():
    assert [m for m in MODULES if m.startswith("trainers") and EVALUATION & closure(m)] == []


def test_every_method_is_a_folder_that_the_registry_names():
    folders = {p.parent.name for p in (PROJECT / "trainers").glob("*/__init__.py")}
    assert set(METHODS) == folders


def test_importing_a_trainer_or_a_workflow_imports_nothing_heavy():
    reached = {n for m in MODULES if m.startswith(("trainers", "workflows")) for n in closure(m, at_import_only=True)}
    heavy = {module: tops(imports(module, at_import_only=True)) & set(HEAVY) for module in reached}
    assert {module: names for module, names in heavy.items() if names} == {}


def loaded_by(code, tmp_path):
    """The top-level modules that a fresh Python has loaded after `code`."""
    code += "\nimport sys; print('LOADED', *{m.split('.')[0] for m in sys.modules}, file=sys.stderr)"
    completed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    line = next(line for line in completed.stderr.splitlines() if line.startswith("LOADED"))
    assert list(tmp_path.iterdir()) == [], "an import wrote files"
    return set(line.split()[1:]), completed.stdout


def test_importing_a_trainer_does_no_work(tmp_path):
    loaded, _ = loaded_by("import trainers.hsan", tmp_path)
    assert "torch" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.slow
def test_help_needs_nothing_heavy(tmp_path):
    """All by one process: what any of them loads is loaded at its end."""
    code = "import contextlib\nfrom workflows import train, tune_caegcn, tune_hgt, tune_hsan\n"
    calls = ("train.main(['hsan', '--help'])", "train.main(['--help'])", "tune_hsan.main(['--help'])",
             "tune_hgt.main(['--help'])", "tune_caegcn.main(['--help'])")  # fmt: skip
    code += "".join(f"with contextlib.suppress(SystemExit): {call}\n" for call in calls)
    loaded, out = loaded_by(code, tmp_path)
    assert out.count("usage: ") == len(calls)
    assert not loaded & set(HEAVY)


def test_files_and_functions_are_short():
    assert [p for p in FILES if len(p.read_text(encoding="utf-8").splitlines()) > 300] == []
    long = {
        f"{path.relative_to(PROJECT)}: {node.name}": node.end_lineno - node.lineno + 1
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno + 1 > 40
    }
    assert long == {}


def public_functions(node, inside_class=False):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield child, inside_class
        elif isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public_functions(child, True)


def unannotated(function, inside_class):
    """What a reader misses of a public function: its docstring, its result's type, its arguments' types."""
    given = function.args
    names = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    static = any(getattr(d, "id", "") == "staticmethod" for d in function.decorator_list)
    missing = [a.arg for a in (names[1:] if inside_class and not static else names) if a.annotation is None]
    return missing + ["->"] * (function.returns is None) + ["docstring"] * (not ast.get_docstring(function))


def test_public_functions_say_what_they_do_and_take():
    assert [p for p in FILES if p.read_text().strip() and not ast.get_docstring(tree(p))] == []
    functions = [(path, f, inside) for path in FILES for f, inside in public_functions(tree(path))]
    missing = {f"{p.relative_to(PROJECT)}: {f.name}": unannotated(f, inside) for p, f, inside in functions}
    assert {name: what for name, what in missing.items() if what} == {}


def test_the_page_of_the_rooms_names_files_that_there_are():
    page = (PROJECT / "ops" / "README.md").read_text()
    names = re.findall(r"`((?:\w+/)*\w+\.py)(?::[^`]*)?`", page)
    assert len(names) > 25
    missing = [n for n in names if not any((PROJECT / root / n).is_file() for root in ("", "ops", "ops/evaluation"))]
    assert missing == []
    assert all(f"`{room}`" in page or f"`{room}.py`" in page for room in ROOMS)


def test_any_is_rare_where_records_pass():
    rooms = {"datamodules", "inference", "reporting", "results", "storage", "tracking", "training", "tuning"}
    texts = [path.read_text(encoding="utf-8") for path in FILES if path.parent.name in rooms]
    assert sum(bool(re.search(r"\bAny\b", line)) for text in texts for line in text.splitlines()) <= 60
