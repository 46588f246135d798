"""Cluster a graph in seconds, without labels: `python workflows/auto.py --dataset graph.npz --n-clusters auto`.

The quick methods are tried over feature treatments and orders, one is chosen without labels, and how sure that is is
said; it is a run like any other. `--then METHOD` trains a method on the same data with the same K afterwards.
"""

import json
from argparse import ArgumentParser
from dataclasses import replace
from typing import Any, Literal

from ops import masking
from ops.config.cli import Request, parser, read_settings
from ops.config.console import Console
from ops.config.exit_codes import entry
from ops.config.settings import LaunchSettings, MethodSettings, build, flag, setting
from ops.errors import SettingsError
from trainers import METHODS

EXAMPLES = ("--dataset cora --then ns4gc", "--dataset table.csv --one-hot --scale standard --knn 10 --n-clusters auto")
NS4GC_SECONDS, NS4GC_NODES = 45, 2708  # CPU seconds of a training on Cora, which grow with the pairs of nodes


class AutoSettings(LaunchSettings):
    """What `workflows/auto.py` takes."""

    n_clusters: int | Literal["auto"] | None = setting(
        None, "number of clusters K; auto sweeps K without labels; default: the number of classes of the data"
    )
    then: str = setting(
        "", "a method to train afterwards, on the same data with the same K; --json then prints two lines, a run each"
    )
    workers: Literal["auto"] | int = setting(0, "workers of the chosen method; 0: in this process")


def flags(program: str) -> ArgumentParser:
    """The parser of this command."""
    return parser(program, "Cluster a graph in seconds, without labels.", AutoSettings, examples=EXAMPLES)


def main(argv: list[str], program: str = "workflows/auto.py") -> None:
    """Parse, try, choose, cluster, print; `program` is what the user typed before `argv`."""
    _, settings = read_settings(flags(program), argv, AutoSettings, "")
    if settings.then and (settings.then not in METHODS or METHODS[settings.then].kind != "graph"):
        graphs = ", ".join(name for name in METHODS if METHODS[name].kind == "graph")
        raise SettingsError(f"--then {settings.then}: is no method for graphs; allowed: {graphs}")
    console = Console(settings.quiet, settings.json_output)
    for unfit in ("config", "warm_start", "dump_config"):
        if getattr(settings, unfit):
            raise SettingsError(f"{flag(unfit)}: is for one method; auto chooses the method and its settings itself")
    prefix = "" if program.startswith("tessera") else "python "
    k, source = _cluster(settings, f"{prefix}{program} {masking.command(argv)}", console)
    if settings.then and not settings.dry_run:
        from workflows import train

        more = _without(argv, "--then", "--n-clusters", "--name")
        method, request = train.requested([settings.then, *more, "--n-clusters", str(k)])
        train.train(method, replace(request, sources=request.sources | {"n_clusters": source}))


def _cluster(settings: AutoSettings, command: str, console: Console) -> tuple[int, str]:
    """Try, choose and run the chosen method; returns K and where it is from."""
    from ops.evaluation.auto import choose
    from ops.reporting.tables import result_text
    from ops.storage import run_dir
    from ops.training.experiment import build_experiment, dry_run
    from ops.training.trainer import run_experiment, where

    launch = LaunchSettings.model_validate(settings.model_dump(by_alias=True, exclude={"then", "n_clusters"}))
    given = {} if settings.n_clusters is None else {"n_clusters": "flag"}
    first: MethodSettings = build(METHODS["ssgc"].settings, {"n_clusters": settings.n_clusters}, given)
    experiment = build_experiment(METHODS["ssgc"], Request(first, launch, dict(given), command), console)
    choice = choose(experiment.data, experiment.k, launch.first_seed)
    for line in choice.table():
        console.say(line)
    name, values = choice.chosen.setting()
    method: Any = METHODS[name]
    chosen = build(method.settings, values | {"n_clusters": experiment.k}, dict.fromkeys(values, "auto"))
    sources = experiment.request.sources | dict.fromkeys(values, "auto")
    remarks = tuple(f"the method was chosen without labels: {reason}" for reason in choice.reasons)
    experiment = replace(experiment, method=method, request=Request(chosen, launch, sources, command, remarks))
    if launch.dry_run:
        dry_run(experiment)
        return experiment.k, sources["n_clusters"]
    folder, result = run_experiment(experiment, run_dir.local_out(launch), choice=choice.plain())
    if settings.json_output:
        print(json.dumps(result.plain()))
    console.say(result_text(result), lines=True)
    of_k = [f"the number of clusters, {experiment.k}: {experiment.k_choice['reason']}"] if experiment.k_choice else []
    for line in [
        *of_k,
        *remarks,
        *([] if settings.then else [_trained(experiment.data.n_nodes, name, choice.reasons[0].startswith("sure"))]),
    ]:
        console.say(line)
    where(folder, launch, console)
    return experiment.k, experiment.request.sources["n_clusters"]


def _trained(n_nodes: int, chosen: str, sure: bool) -> str:
    """Which trained method is worth its time here, and what it takes."""
    if chosen == "degree":
        return "no trained method is worth its time here: none has been above k-means on the degree of such a graph"
    minutes = NS4GC_SECONDS * (n_nodes / NS4GC_NODES) ** 2 / 60
    takes = f"about {minutes:,.0f} CPU minutes a seed here" if minutes >= 1.5 else "about a CPU minute a seed here"
    parts = "" if minutes < 120 else "; with --parts P --blocks q it takes a small share of that"
    if sure:
        return f"a training (--then ns4gc, {takes}{parts}) is unlikely to change much: the quick methods agree"
    return f"worth a try: --then ns4gc, {takes}{parts}"


def _without(argv: list[str], *flags: str) -> list[str]:
    """The arguments without these flags and their values."""
    kept, skip = [], False
    for argument in argv:
        if not skip and argument.split("=")[0] not in flags:
            kept.append(argument)
        skip = argument in flags
    return kept


if __name__ == "__main__":
    entry(main)
