"""A dry run of scale: `python tests/bench/dry_run.py [PARTS] [USERS A PART]`; 200 parts, minutes, 4 GB of disk.

A part is made, in the shards' own format, when the first question about it comes; nobody holds the graph. Four Ray
actors serve the parts. One process draws HGT's batches of three random parts, makes a step of training, and embeds,
clusters and scores the users of one: what a rank of as many workers does. The memory of every process is printed.
"""

import os
import sys
import tempfile
import time
from collections import defaultdict
from math import gcd
from pathlib import Path

import numpy as np
import torch

from ops import memory
from ops.api import PlainRun
from ops.clustering.shards import Shard
from ops.data.types.hetero import relation_name
from ops.distributed.process_group import ProcessGroup
from ops.distributed.ray_session import ray_session
from ops.evaluation.labelled import scores
from ops.graph.partition.manifest import EdgeInfo, Manifest, NodeInfo, turned
from ops.graph.partition.shards import write_part
from ops.graph.sampling.client import Client
from ops.graph.sampling.dataset import PartitionedGraph
from ops.graph.sampling.part_service import PartService

HOSTS, DRAWN, CLASSES, FEATURES = 4, 3, 8, 64
FOLLOW = ("user", "follow", "note")
SHIFTS = (0,) * 16 + (1, 1, 2, -1)  # of the part where a user's i-th note lies: a fifth of the edges are cut


def plan(parts, users):
    """The manifest of a graph of twice as many users as notes, all parts alike; its files are listed as they come."""
    users -= users % (2 * CLASSES)

    def nodes(each):
        offsets = np.arange(parts + 1) * each
        return NodeInfo(
            count=parts * each, offsets=offsets, features=FEATURES, feature_dtype="float16", id_dtype="int64"
        )

    many = parts * users * len(SHIFTS)
    edges = {
        FOLLOW: EdgeInfo(count=many, weight=False, time=False),
        turned(FOLLOW): EdgeInfo(count=many, weight=False, time=False, reverse_of=relation_name(FOLLOW)),
    }
    return Manifest(
        name="planted", digest="dry run", partitioner={"method": "planted"}, parts=parts,
        nodes={"user": nodes(users), "note": nodes(users // 2)}, edges=edges, files={}, report={},
    )  # fmt: skip


def part_arrays(manifest, part):
    """A part by itself: user u's i-th note is a_i u + b_i of a part near by, so that both ends can tell their edges."""
    users, notes = (manifest.nodes[kind].count // manifest.parts for kind in ("user", "note"))
    rng, mine = np.random.default_rng([1, part]), np.random.default_rng(0)
    centres = mine.normal(0, 1, (CLASSES, FEATURES)).astype(np.float32)
    u, v = np.arange(users), np.arange(notes)
    notes_of, users_of = [], []
    for i, shift in enumerate(SHIFTS):
        factor = int(mine.integers(notes // CLASSES)) * CLASSES + 1  # classes (u mod 8) keep to themselves ...
        while gcd(factor, notes) > 1:
            factor += CLASSES
        step = int(mine.integers(notes // CLASSES)) * CLASSES + (i % 4 == 0)  # ... but for every fourth slot
        notes_of.append((part + shift) % manifest.parts * notes + (factor * u + step) % notes)
        first = pow(factor, -1, notes) * (v - step) % notes
        users_of += [(part - shift) % manifest.parts * users + first + more for more in (0, notes)]
    arrays = {}
    for relation, ends in ((FOLLOW, users_of), (turned(FOLLOW), notes_of)):
        rows = np.sort(np.stack(ends, 1).astype(np.int32), axis=1)
        arrays[f"{relation_name(relation)}.indices"] = rows.ravel()
        arrays[f"{relation_name(relation)}.indptr"] = np.arange(len(rows) + 1) * rows.shape[1]
    for kind, rows in (("user", u), ("note", v)):
        noise = rng.standard_normal((len(rows), FEATURES), np.float32)
        arrays[f"feat.{kind}"] = (centres[rows % CLASSES] + 2 * noise).astype(np.float16)
        arrays[f"ids.{kind}"] = part * len(rows) + rows
    return arrays


class Host:
    """An actor for many parts, which are made when they are first asked for."""

    def __init__(self, folder, manifest):
        self.folder, self.manifest, self.services = folder, manifest, {}

    def call(self, name, arguments):
        return {part: getattr(self._service(part), name)(*given) for part, given in arguments.items()}

    def _service(self, part):
        if part not in self.services:
            files = write_part(Path(self.folder), part, part_arrays(self.manifest, part))
            manifest = self.manifest.model_copy(update={"files": files})
            self.services[part] = PartService(self.folder, manifest, part)
        return self.services[part]

    def state(self):
        return os.getpid(), len(self.services)


class OnDemand(PartitionedGraph):
    """Whose client asks the hosts."""

    def connect(self, *, verify=False):
        return self.client


class HostClient(Client):
    """Knows the sizes of parts that nobody has asked for."""

    def sizes(self):
        return [{r: e.count // self.manifest.parts for r, e in self.manifest.edges.items()}] * self.manifest.parts


def asking(hosts):
    """A question to several parts is one call a host."""
    import ray

    def call(name, arguments):
        by_host = defaultdict(dict)
        for part, given in arguments.items():
            by_host[part % HOSTS][part] = given
        answers = ray.get([hosts[at].call.remote(name, given) for at, given in by_host.items()])
        return {part: answer for each in answers for part, answer in each.items()}

    return call


def private(pid):
    """MiB that are neither mapped files nor Ray's object store."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def main(parts=200, users=50_000):
    import ray

    from trainers import hgt
    from trainers.hgt.loop import cluster
    from trainers.hgt.training import HgtTrainer

    memory.preload()
    torch.set_num_threads(2)
    imports, manifest = private(os.getpid()), plan(parts, users)
    print(f"{parts} parts, {sum(n.count for n in manifest.nodes.values()):,} nodes, "
          f"{sum(e.count for e in manifest.edges.values()):,} directed edges", flush=True)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, ray_session(HOSTS):
        hosts = [ray.remote(num_cpus=0)(Host).remote(folder, manifest) for _ in range(HOSTS)]
        begun, peak = [private(pid) for pid, _ in ray.get([h.state.remote() for h in hosts])], [imports]
        call = asking(hosts)
        data = OnDemand("planted", folder, manifest, (FOLLOW,))
        object.__setattr__(data, "client", HostClient(manifest, call, call))
        settings = hgt.Settings(n_clusters=CLASSES, fan_out="10,5", step_batches=DRAWN, prefetch=0, store_states=False)
        trainer = HgtTrainer(settings, data, PlainRun(0))

        def said(words, began):
            peak.append(private(os.getpid()))
            so_far = sum(count for _, count in ray.get([h.state.remote() for h in hosts]))
            print(f"  {words}: {time.monotonic() - began:.1f} s, {so_far} parts made so far", flush=True)

        chosen = np.random.default_rng(0).choice(parts, DRAWN, replace=False).tolist()
        began = time.monotonic()
        batches = trainer.prepare([(0, part, 0) for part in chosen])
        said(f"batches of parts {chosen} drawn, {sum(b.sample.edges for b in batches):,} edges", began)
        began = time.monotonic()
        link = float(trainer._learn(batches)[0])
        said(f"a step of training, loss {link:.3f}", began)
        began = time.monotonic()
        trainer.group = ProcessGroup(chosen[0], parts)  # the rank that owns this part alone
        z = trainer.embed("user")
        trainer.group = ProcessGroup()
        clusters = cluster(z, Shard.even(len(z), trainer.group), settings, 0, trainer.group)
        planted = np.arange(len(z)) % CLASSES
        said(f"{len(z):,} users of part {chosen[0]} embedded and clustered, "
             f"ARI {scores(planted, clusters.labels.numpy())['ari']:.2f}", began)  # fmt: skip
        each = [private(pid) for pid, _ in ray.get([h.state.remote() for h in hosts])]
        size = sum(f.stat().st_size for f in Path(folder).rglob("*.npy"))
    print(f"private memory: the process that trains {max(peak):.0f} MiB ({imports:.0f} of them imports), hosts "
          f"{', '.join(f'{m:.0f} MiB ({b:.0f} at their start)' for m, b in zip(each, begun, strict=True))}; "
          f"{size / 1e9:.1f} GB of parts on disk")  # fmt: skip


if __name__ == "__main__":
    main(*(int(float(a)) for a in sys.argv[1:3]))
