"""CaEGCN's two branches: the content auto-encoder, and graph layers between which the fused rows attend to each other.

Axes: N nodes, n of them on this worker, F features, D a layer's width, Z width of the content code, K clusters.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from ops.device import send
from ops.distributed.process_group import ProcessGroup
from ops.graph.adjacency import SparseRows, normalised, sparse_rows
from ops.losses.link_bce import Links, links_of
from ops.losses.tiled_attention import attend
from ops.rng import torch_generator
from trainers.caegcn.settings import Settings
from trainers.shared import aggregate, glorot_start, linear_start

_WIDEST_HEAD = 64  # width of a head by `head_dim` auto, at most
_ROWS = 16384  # rows on the device at a time where no gradient is needed


@dataclass(frozen=True)
class GraphRows:
    """What one worker sees in a step: its rows of X, of A~ = D^-1/2 (A + I) D^-1/2, of A~ X, and of A + I."""

    x: Float[Tensor, "n F"]
    mixed: Float[Tensor, "n F"]
    a: SparseRows
    links: Links
    total: int


@dataclass(frozen=True)
class BranchOutputs:
    """What the branches compute for this worker's rows; `decoded` is None without a graph decoder."""

    content: Float[Tensor, "n F"]
    code: Float[Tensor, "n Z"]
    columns: Float[Tensor, "n K"]
    decoded: Float[Tensor, "n F"] | None


@dataclass(frozen=True)
class LayerPlan:
    """One graph layer: its widths, the content layer that is fused with its input, and whether there is attention.

    `fused` is None for the first layer of a branch.
    """

    inputs: int
    outputs: int
    fused: int | None
    attends: bool = False
    last: bool = False


def encoder_layers(settings: Settings, n_features: int) -> list[LayerPlan]:
    """The graph encoder's layers, from F to K; `fused` is the number of a layer of the content encoder."""
    inner = [*settings.layers, settings.code_dim]
    kept = list(range(len(inner))) if settings.depth == "full" else [0, len(inner) - 1]
    widths = [n_features, *(inner[i] for i in kept), settings.k]
    plans = [LayerPlan(widths[0], widths[1], None)]
    for number, i in enumerate(kept):
        ends = number in (0, len(kept) - 1)
        attends = settings.attention_at == "all" or (settings.attention_at == "released" and ends)
        plans.append(LayerPlan(inner[i], widths[number + 2], i, attends, last=number == len(kept) - 1))
    return plans


def decoder_layers(settings: Settings, n_features: int) -> list[LayerPlan]:
    """The graph decoder's layers, from K to F; `fused` is a layer of the content decoder, or -1, the code."""
    inner = list(reversed(settings.layers))
    full = settings.depth == "full"
    kept = list(range(-1, len(inner))) if full else [0, len(inner) - 1]
    width = {-1: settings.code_dim} | dict(enumerate(inner))
    widths = [settings.k, *(width[i] for i in kept), n_features]
    plans = [LayerPlan(widths[0], widths[1], None)]
    for number, i in enumerate(kept):
        attends = settings.attention_at == "all"
        plans.append(LayerPlan(width[i], widths[number + 2], i, attends, last=number == len(kept) - 1))
    return plans


def head_width(settings: Settings, width: int) -> int:
    """The width of one attention head on rows of `width`."""
    if isinstance(settings.head_dim, int):
        return settings.head_dim
    return width if settings.head_dim == "layer" else min(_WIDEST_HEAD, width)


class Content(torch.nn.Module):
    """The content auto-encoder: F - hidden layers - Z - hidden layers - F, with ReLU between them.

    First weights are those of torch.nn.Linear, keyed by the seed.
    """

    def __init__(self, n_features: int, settings: Settings, seed: int) -> None:
        super().__init__()
        widths = [n_features, *settings.layers, settings.code_dim]
        g = torch_generator(seed, "caegcn/content")
        self.encoder = torch.nn.ModuleList(_linear(*pair, g) for pair in pairwise(widths))
        self.decoder = torch.nn.ModuleList(_linear(*pair, g) for pair in pairwise(widths[::-1]))

    def encode(self, x: Float[Tensor, "n F"]) -> list[Float[Tensor, "n D"]]:
        """Every layer's output, the code last."""
        return _through(self.encoder, x)

    def decode(self, code: Float[Tensor, "n Z"]) -> list[Float[Tensor, "n D"]]:
        """Every layer's output, the features last."""
        return _through(self.decoder, code)

    @torch.no_grad()
    def codes(self, x: Float[np.ndarray, "n F"]) -> Float[Tensor, "n Z"]:
        """The codes of rows in main memory, computed in pieces on the model's device."""
        device = next(self.parameters()).device
        rows = (send(x[at : at + _ROWS], device) for at in range(0, max(len(x), 1), _ROWS))
        return torch.cat([self.encode(some)[-1] for some in rows])


class GraphLayers(torch.nn.Module):
    """Graph layers one after the other; the input of each but the first is fused with the content branch."""

    def __init__(self, plans: Sequence[LayerPlan], settings: Settings, seed: int, name: str) -> None:
        super().__init__()
        self.plans, self.settings = plans, settings
        g = torch_generator(seed, f"caegcn/{name}")
        self.weights = torch.nn.ParameterList(_glorot(p.inputs, p.outputs, g) for p in plans)
        self.attention = torch.nn.ParameterDict()
        for number, plan in enumerate(plans):
            if plan.attends:
                inside = settings.heads * head_width(settings, plan.inputs)
                for role in ("query", "key", "value"):
                    self.attention[f"{number}_{role}"] = _glorot(plan.inputs, inside, g)
                out = _glorot(inside, plan.inputs, g)
                if settings.residual:  # attention starts at 0: a random start would add one mean to all rows
                    out.data.zero_()
                self.attention[f"{number}_out"] = out

    def forward(
        self, first: Float[Tensor, "n F"] | None, z: Tensor | None, content: dict[int, Tensor], rows: GraphRows,
        group: ProcessGroup, *, head: bool = True,
    ) -> Float[Tensor, "n D"]:  # fmt: skip
        """The last layer's output for this worker's rows; `first` is A~ X where the layers begin at the features.

        Without `head` the last layer passes rows along the edges without its weights: the result is what they are
        multiplied with.
        """
        gamma = self.settings.gamma
        for number, plan in enumerate(self.plans):
            weight: Tensor = self.weights[number]
            if plan.last and not head:
                weight = torch.eye(plan.inputs, device=weight.device)
            if z is None:
                assert first is not None
                z = first @ weight
            else:
                if plan.fused is not None:
                    z = torch.lerp(content[plan.fused], z, gamma)
                z = propagate(self.attend(number, z, rows, group), weight, rows, group)
            z = z if plan.last else z.relu()
        assert z is not None
        return z

    def attend(
        self, number: int, y: Float[Tensor, "n D"], rows: GraphRows, group: ProcessGroup
    ) -> Float[Tensor, "n D"]:
        """R: the fused rows Y with what they attend to, or Y itself where the layer has no attention."""
        if not self.plans[number].attends:
            return y
        width = head_width(self.settings, y.shape[1])
        scale = 1 / math.sqrt(width) if self.settings.attention_scale == "width" else 1.0
        q, k, v = (y @ self.attention[f"{number}_{role}"] for role in ("query", "key", "value"))
        attended = attend(q, k, v, self.settings.heads, rows.total, scale=scale, group=group)
        out: Tensor = attended @ self.attention[f"{number}_out"]
        return y + out if self.settings.residual else out


class Model(torch.nn.Module):
    """Both branches, and the K centres of q, which are zero until they are set."""

    def __init__(self, n_features: int, settings: Settings, seed: int) -> None:
        super().__init__()
        self.content = Content(n_features, settings, seed)
        self.encoder = GraphLayers(encoder_layers(settings, n_features), settings, seed, "encoder")
        self.decoder: GraphLayers | None = None
        if settings.decoder:
            self.decoder = GraphLayers(decoder_layers(settings, n_features), settings, seed, "decoder")
        self.centres = torch.nn.Parameter(torch.zeros(settings.k, settings.code_dim))

    def forward(self, rows: GraphRows, group: ProcessGroup) -> BranchOutputs:
        """Both branches on this worker's rows."""
        hidden = self.content.encode(rows.x)
        code = hidden[-1]
        opened = self.content.decode(code)
        columns = self.encoder(rows.mixed, None, dict(enumerate(hidden)), rows, group)
        decoded = None
        if self.decoder is not None:
            decoded = self.decoder(None, columns, {-1: code} | dict(enumerate(opened)), rows, group)
        return BranchOutputs(opened[-1], code, columns, decoded)


@torch.no_grad()
def fit_head(model: Model, steps: Iterable[tuple[GraphRows, Float[Tensor, "n K"]]], group: ProcessGroup) -> None:
    """Set the weights of the K columns by ridge regression: the columns come nearest to log p, row means apart.

    `steps` has rows with their target p. A softmax does not change with a row's mean, and a softmax that equals p has
    no KL to p.
    """
    weight = model.encoder.weights[-1]
    size, k = weight.shape
    sums = torch.zeros(size, size + k, dtype=torch.float64, device=weight.device)
    for rows, p in steps:
        content = dict(enumerate(model.content.encode(rows.x)))
        passed = model.encoder(rows.mixed, None, content, rows, group, head=False).double()
        wanted = p.double().clamp_min(1e-12).log()
        sums += passed.T @ torch.cat((passed, wanted - wanted.mean(1, keepdim=True)), 1)
    group.sum_(sums)
    gram, product = sums.split([size, k], 1)  # type: ignore[no-untyped-call]
    ridge = 1e-3 * gram.diagonal().mean() * torch.eye(size, dtype=torch.float64, device=weight.device)
    weight.copy_(torch.linalg.solve(gram + ridge, product))
    group.broadcast_(weight.data)


def propagate(
    z: Float[Tensor, "n D"], weight: Float[Tensor, "D E"], rows: GraphRows, group: ProcessGroup
) -> Float[Tensor, "n E"]:
    """`A~ Z U` for this worker's rows; the product with U comes first where it makes the rows narrower."""
    if weight.shape[0] <= weight.shape[1]:
        return aggregate(z, rows.a, rows.total, group) @ weight
    return aggregate(z @ weight, rows.a, rows.total, group)


def rows_of(x: NDArray[np.float32], a: sp.csr_array, group: ProcessGroup, device: torch.device) -> GraphRows:
    """This worker's share of features `x` [N, F] and of the symmetric `a` [N, N], and what is computed from both."""
    shard = group.shard(len(x))
    local_a = sp.csr_array(normalised(a)[shard])
    mixed = send(np.asarray(local_a @ x, dtype=np.float32), device)
    local_x = send(x[shard] if group.world > 1 else x, device)
    return GraphRows(local_x, mixed, sparse_rows(local_a, device), links_of(a, group, device), len(x))


def clusters(columns: Float[Tensor, "N K"]) -> tuple[Int64[Tensor, "N"], Float[Tensor, "N"]]:
    """The graph branch's cluster of every row and its probability."""
    confidence, labels = columns.softmax(1).max(1)
    return labels, confidence


def _through(layers: torch.nn.ModuleList, x: Tensor) -> list[Tensor]:
    outputs = []
    for number, layer in enumerate(layers):
        x = layer(x)
        outputs.append(x if number == len(layers) - 1 else x.relu_())
    return outputs


def _linear(inputs: int, outputs: int, g: torch.Generator) -> torch.nn.Linear:
    layer: torch.nn.Linear = torch.nn.utils.skip_init(torch.nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in (layer.weight, layer.bias):
            parameter.copy_(linear_start(parameter.shape, inputs, g))
    return layer


def _glorot(inputs: int, outputs: int, g: torch.Generator) -> torch.nn.Parameter:
    return torch.nn.Parameter(glorot_start((inputs, outputs), g))
