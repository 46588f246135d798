"""The pipeline for Kubeflow (kfp 2): partition -> tune -> train -> compare, every step a job on a Ray cluster.

  python k8s/kubeflow/pipeline.py                  write pipeline.yaml beside this file (upload it to Kubeflow)
  python k8s/kubeflow/pipeline.py --local key=value ...   run it here, against the Ray cluster of RAY_API_SERVER_ADDRESS

TESSERA_IMAGE is the image of the steps and of their RayJobs' submitters, TESSERA_NAMESPACE the RayJobs' namespace;
without them what pipeline.yaml has stays.
Needs an environment with kfp (`make kubeflow` makes it); the steps themselves need the image only.
"""

# no `from __future__ import annotations`: kfp reads the types themselves
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kfp import compiler, dsl, local

FILE = Path(__file__).with_name("pipeline.yaml")
RETRIES = 2  # each goes on from the checkpoints of the one before


def written(pattern: str, default: str) -> str:
    """What pipeline.yaml has: compiling again keeps what was written into it."""
    match = re.search(pattern, FILE.read_text(encoding="utf-8"), re.MULTILINE) if FILE.is_file() else None
    return match[1] if match else default


IMAGE = os.environ.get("TESSERA_IMAGE") or written(r"^ *image: (\S+)$", "registry.example.com/tessera:0.1.0")
NAMESPACE = os.environ.get("TESSERA_NAMESPACE") or written(r"^ *- --namespace\n *- (\S+)$", "tessera")


@dsl.container_component
def on_kubernetes(
    step: str, name: str, graph: str, out: str, method: str, clusters: int, parts: int, trials: int, seeds: int,
    flags: str,
):  # fmt: skip
    """A step in a Pod of the image, which makes a RayJob and follows it."""
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["python", "/tessera/tessera_jobs.py"],
        args=[step, "--name", name, "--graph", graph, "--out", out, "--method", method, "--clusters", clusters,
              "--parts", parts, "--trials", trials, "--seeds", seeds, "--flags", flags,
              "--image", IMAGE, "--namespace", NAMESPACE],  # of the RayJob: a Pod does not know its image
    )  # fmt: skip


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def on_ray(
    step: str, name: str, graph: str, out: str, method: str, clusters: int, parts: int, trials: int, seeds: int,
    flags: str,
):  # fmt: skip
    """A step in a process here, which submits a job to a running Ray cluster and follows it."""
    import tessera_jobs  # beside this file, on PYTHONPATH

    numbers = {"clusters": clusters, "parts": parts, "trials": trials, "seeds": seeds}
    job = tessera_jobs.Job(
        f"{name}-{step}", tessera_jobs.entrypoint(step, name, graph, out, method, flags=flags, **numbers)
    )
    tessera_jobs.submit(job, "ray", every=1.0)


def pipeline(component: Callable[..., Any]) -> Any:
    """The pipeline with its steps run by `component`."""

    @dsl.pipeline(name="tessera", description="partition -> tune -> train -> compare")
    def tessera(
        name: str = "pipeline", graph: str = "s3://tessera/data/graph", out: str = "s3://tessera/runs",
        method: str = "hgt", clusters: int = 20, parts: int = 4, trials: int = 8, seeds: int = 3, flags: str = "",
    ):  # fmt: skip
        def step(title: str, *after: Any) -> Any:
            task = component(step=title, name=name, graph=graph, out=out, method=method, clusters=clusters, parts=parts,
                             trials=trials, seeds=seeds, flags=flags)  # fmt: skip
            task.set_display_name(title)
            task.set_caching_options(False)  # a finished run answers at once by itself
            task.set_retry(RETRIES, backoff_duration="30s")
            return task.after(*after)

        partition = step("partition")
        tune = step("tune", partition)
        train = step("train", tune)
        whole = step("parts", tune)
        step("compare", train, whole)

    return tessera


def main(argv: list[str]) -> int:
    """Compile, or run here; returns the exit code."""
    if "--local" not in argv:
        compiler.Compiler().compile(pipeline(on_kubernetes), argv[0] if argv else str(FILE))
        return 0
    given: dict[str, Any] = dict(pair.split("=", 1) for pair in argv if "=" in pair)
    given |= {key: int(given[key]) for key in ("clusters", "parts", "trials", "seeds") if key in given}
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=given.pop("root", "./kfp"))
    try:
        pipeline(on_ray)(**given)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
