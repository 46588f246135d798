"""One layer of the Heterogeneous Graph Transformer (Hu, Dong, Wang & Sun, WWW 2020, arXiv 2003.01332) over blocks.

For a target t and each of its neighbours s over relation r, per head:
`att = softmax_s( (K h_s) W_att[r] (Q h_t)^T mu[r] / sqrt(d) )` over ALL neighbours of all relations together (eq. 3),
message `(V h_s) W_msg[r]` (eq. 4), `h_t' = g A(gelu(sum_s att * message)) + (1 - g) h_t`, `g = sigmoid(skip)` (eq. 5),
K, Q, V, A, skip by node type; no skip where widths differ. Equals torch_geometric's HGTConv on the same edges.

Both relation matrices are applied at the target, `(K h_s) W (Q h_t)^T = (K h_s) (Q h_t W^T)^T` and
`sum_s a_s (V h_s W) = (sum_s a_s V h_s) W`: B rows each instead of one per source and relation, and K and V of a
source are computed once for all relations that leave its type.

Axes: N nodes of a type (its first B the targets), B targets, F neighbours a target over one relation, S over all
relations, I width in, W width out = heads A times d.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ops.data.types.hetero import Relation, relation_name
from ops.rng import torch_generator
from trainers.hgt.attention import edge_scores, edge_sums
from trainers.shared import glorot_start, linear_start

Weights = Mapping[str, Tensor]  # by readable name, as in a safetensors file
Block = tuple[Int64[Tensor, "_ _"], Bool[Tensor, "_ _"]]  # [B F]: rows of the source type; False where there is no edge


def linear_weights(name: str, n_in: int, n_out: int, seed: int) -> dict[str, Tensor]:
    """`NAME.weight` [n_in n_out] and `NAME.bias` [n_out], first as in torch.nn.Linear, keyed by (seed, name)."""
    g, shapes = torch_generator(seed, f"hgt {name}"), {"weight": (n_in, n_out), "bias": (n_out,)}
    return {f"{name}.{k}": linear_start(shape, n_in, g) for k, shape in shapes.items()}


def layer_weights(
    prefix: str, types: Sequence[str], relations: Sequence[Relation], widths: tuple[int, int], heads: int, seed: int
) -> dict[str, Tensor]:
    """Every weight of a layer under `prefix` (`layer1.`), in a dict ordered by name; `widths` is (in, out).

    For each type `key|query|value|out.TYPE.weight|bias` and `skip.TYPE` [] (1 at first). For each relation, reverse
    ones too, `attention|message.RELATION` [A d d] (Glorot uniform) and `prior.RELATION` [A] (1 at first). The first
    value of each is keyed by its name, so that another type or relation changes no other weight. Raises ValueError
    unless heads divide the width.
    """
    n_in, n_out = widths
    if n_out % heads:
        raise ValueError(f"{heads} heads do not divide the width {n_out}")
    d = n_out // heads
    weights: dict[str, Tensor] = {}
    for kind in types:
        for role in ("key", "query", "value", "out"):
            weights |= linear_weights(f"{prefix}{role}.{kind}", n_out if role == "out" else n_in, n_out, seed)
        weights[f"{prefix}skip.{kind}"] = torch.tensor(1.0)
    for relation in relations:
        for role in ("attention", "message"):
            name = f"{prefix}{role}.{relation_name(relation)}"
            weights[name] = glorot_start((heads, d, d), torch_generator(seed, f"hgt {name}"))
        weights[f"{prefix}prior.{relation_name(relation)}"] = torch.ones(heads)
    return dict(sorted(weights.items()))


def linear(weights: Weights, name: str, x: Float[Tensor, "N I"]) -> Float[Tensor, "N W"]:
    """`x W + b` of the linear layer called `name`."""
    return torch.addmm(weights[f"{name}.bias"], x, weights[f"{name}.weight"])


def dropout(x: Float[Tensor, "*shape"], rate: float, generator: torch.Generator | None) -> Float[Tensor, "*shape"]:
    """Set a share `rate` of the entries to 0 and scale the others by 1 / (1 - rate).

    `generator` is on the device of `x`. Without one (in an evaluation) or with rate 0 it returns `x` and draws nothing.
    """
    if generator is None or rate == 0:
        return x
    keep = torch.rand(x.shape, generator=generator, device=x.device).ge_(rate).div_(1 - rate)
    return x * keep.to(x)


def hgt_layer(
    weights: Weights,
    prefix: str,
    h: Mapping[str, Float[Tensor, "_ _"]],
    blocks: Mapping[Relation, Block],
    n_targets: Mapping[str, int],
    rate: float = 0.0,
    generator: torch.Generator | None = None,
) -> dict[str, Float[Tensor, "_ W"]]:
    """New states [B W] of the first `n_targets[type]` rows of `h[type]` [N I], types in alphabetical order.

    The order of relations and types does not change a bit of the result. A target without neighbours gets the message
    0. `rate` and `generator` are for dropout of A's output (before the skip), as in the authors' code; HGTConv has
    none.
    """
    key, value = (
        {kind: linear(weights, f"{prefix}{role}.{kind}", h[kind]) for kind in sorted({r[0] for r in blocks} & set(h))}
        for role in ("key", "value")
    )
    out = {}
    for kind in sorted(n_targets):
        before = h[kind][: n_targets[kind]]
        into = [r for r in sorted(blocks) if r[2] == kind and r[0] in key and blocks[r][0].numel()]
        query = linear(weights, f"{prefix}query.{kind}", before)
        message = _messages(weights, prefix, query, {r: (key[r[0]], value[r[0]], blocks[r]) for r in into})
        new = linear(weights, f"{prefix}out.{kind}", torch.nn.functional.gelu(message))
        new = dropout(new, rate, generator)
        if new.shape == before.shape:
            gate = weights[f"{prefix}skip.{kind}"].sigmoid()
            new = gate * new + (1 - gate) * before
        out[kind] = new
    return out


def _by_head(x: Float[Tensor, "N W"], heads: int) -> Float[Tensor, "N A d"]:
    return x.view(len(x), heads, -1)


def _messages(
    weights: Weights,
    prefix: str,
    query: Float[Tensor, "B W"],
    sources: Mapping[Relation, tuple[Float[Tensor, "_ W"], Float[Tensor, "_ W"], Block]],
) -> Float[Tensor, "B W"]:
    """The attention-weighted sums of messages, heads side by side.

    `sources` has K, V and the block of each relation.
    """
    if not sources:
        return torch.zeros_like(query)
    scores, masks = [], []
    for relation, (key, _, (neighbours, mask)) in sources.items():
        name = relation_name(relation)
        attention, prior = weights[f"{prefix}attention.{name}"], weights[f"{prefix}prior.{name}"]
        heads, d, _ = attention.shape
        turned = torch.einsum("bhe,hde->bhd", _by_head(query, heads), attention)  # Q W^T
        turned = turned * (prior / math.sqrt(d))[:, None]
        scores.append(edge_scores(turned, _by_head(key, heads), neighbours, mask))
        masks.append(mask)
    share = _masked_softmax(torch.cat(scores, 1), torch.cat(masks, 1))
    messages = torch.zeros_like(query)
    shares = torch.split(share, [mask.shape[1] for mask in masks], 1)
    for part, (relation, (_, value, (neighbours, mask))) in zip(shares, sources.items(), strict=True):
        summed = edge_sums(part, _by_head(value, part.shape[2]), neighbours, mask)
        messages = messages + torch.einsum(
            "bhd,hde->bhe", summed, weights[f"{prefix}message.{relation_name(relation)}"]
        ).flatten(1)
    return messages


def _masked_softmax(scores: Float[Tensor, "B S A"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B S A"]:
    """Softmax over S where the mask is True, 0 elsewhere. A row without any True is 0, also in its gradient."""
    seen = mask[..., None]
    least = torch.finfo(scores.dtype).min  # not -inf: a row of it would be NaN before it is masked
    return scores.masked_fill(~seen, least).softmax(1) * seen
