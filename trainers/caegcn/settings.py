"""Hyperparameters of CaEGCN; with attention and graph decoder switched off (`--preset sdcn`) it is SDCN."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from ops.config.settings import setting
from trainers.shared import TileSettings


class Settings(TileSettings):
    """Hyperparameters of CaEGCN, under the paper's names where it has any."""

    epochs: int = setting(700, "epochs of joint training", ge=1, le=1_000_000)
    lr: float = setting(5e-4, "learning rate of Adam", gt=0, le=1, search={"loguniform": [1e-5, 1e-2]})
    warmup_epochs: int | None = setting(
        None,
        "first epochs, in which the learning rate rises in equal steps; default: a tenth, 10 at most; 0: none (papers)",
        ge=0,
        le=1_000_000,
    )
    widths: str = setting("500,500,2000", "widths of the content encoder's hidden layers; its decoder mirrors them")
    code_dim: int = setting(10, "width n_z of the content code", ge=1, le=4096, search={"randint": [5, 33]})
    depth: Literal["released", "full"] = setting(
        "released", "graph layers: released F-W1-n_z-K and back, full: all of the content branch's"
    )
    gamma: float = setting(
        0.5, "share of the graph branch where branches are fused", ge=0, le=1, search={"uniform": [0, 1]}
    )
    attention_at: Literal["released", "all", "none"] = setting(
        "released", "where fused rows attend to each other: first and last fusion of the encoder, every fusion, nowhere"
    )
    heads: int = setting(8, "attention heads", ge=1, le=64, search={"randint": [1, 9]})
    head_dim: Literal["auto", "layer"] | int = setting(
        "auto", "width of a head; auto: min(64, the layer's), layer: the layer's (released code)"
    )
    attention_scale: Literal["width", "none"] = setting(
        "width", "scores over the root of the head's width (released code), or as they are (the text)"
    )
    residual: bool = setting(
        True, "attended rows are added to the fused ones; --no-residual (the text): they replace them"
    )
    head_start: Literal["fit", "random"] = setting(
        "fit", "first weights of the graph branch's K columns; fit: least squares to the target, random: the papers'"
    )
    decoder: bool = setting(True, "the graph branch's decoder back to the features")
    content_kl: float = setting(
        0.1, "weight a of KL(p || q), the content branch's", ge=0, search={"loguniform": [1e-3, 1]}
    )
    graph_kl: float = setting(
        0.01, "weight b of KL(p || z), the graph branch's", ge=0, search={"loguniform": [1e-3, 1]}
    )
    graph_mse: float = setting(0.01, "weight c of the graph decoder's error", ge=0, search={"loguniform": [1e-3, 1]})
    structure: float = setting(0.01, "weight d of the structure loss", ge=0, search={"loguniform": [1e-3, 1]})
    structure_from: Literal["bottleneck", "last"] = setting(
        "bottleneck",
        "what A^ is decoded from: the K columns before the softmax, or the decoder's last layer (the text)",
    )
    pos_weight: Literal["balanced"] | float = setting(
        1.0, "weight of a linked pair in the structure loss; balanced: (N^2 - |A + I|) / |A + I|"
    )
    freedom: float = setting(
        1.0, "degrees of freedom of the Student-t of q", gt=0, le=100, search={"uniform": [0.5, 5]}
    )
    centre_starts: int = setting(20, "k-means++ starts of the first centres", ge=1, le=1000)
    pretrain_epochs: int = setting(50, "epochs of the content branch alone; 0: none", ge=0, le=100_000)
    pretrain_keep: Literal["modularity", "last"] = setting(
        "modularity", "which of these epochs is kept; modularity: k-means of its codes agrees best with the edges"
    )
    pretrain_lr: float = setting(3e-4, "learning rate of these", gt=0, le=1)
    pretrain_batch: int = setting(128, "rows of a step of these", ge=1)
    evaluate_every: int = setting(10, "epochs between looks at the clusters", ge=1)

    @property
    def layers(self) -> tuple[int, ...]:
        """The hidden widths, as numbers."""
        return tuple(int(word) for word in self.widths.split(","))

    @property
    def warmup(self) -> int:
        """The number of epochs in which the learning rate rises."""
        return min(10, self.epochs // 10) if self.warmup_epochs is None else self.warmup_epochs

    @property
    def batch_nodes(self) -> int:
        """0: batches consist of whole parts, since attention and structure loss need nodes with their neighbours."""
        return 0

    @model_validator(mode="after")
    def _sizes(self) -> Settings:
        words = self.widths.split(",")
        if not all(w.strip().isdecimal() and 1 <= int(w) <= 65536 for w in words):
            raise ValueError(f"--widths {self.widths}: give whole numbers from 1 to 65536, as in 500,500,2000")
        if isinstance(self.head_dim, int) and not 1 <= self.head_dim <= 65536:
            raise ValueError(f"--head-dim {self.head_dim}: allowed are auto, layer or a whole number in [1, 65536]")
        if isinstance(self.pos_weight, float) and self.pos_weight <= 0:
            raise ValueError(f"--pos-weight {self.pos_weight:g}: allowed are balanced or a number above 0")
        if self.warmup >= self.epochs:
            raise ValueError(f"--warmup-epochs {self.warmup} must be below --epochs, which is {self.epochs}: lower it")
        return self

    @model_validator(mode="after")
    def _decoded(self) -> Settings:
        from_last = self.structure > 0 and self.structure_from == "last"
        if not self.decoder and (self.graph_mse > 0 or from_last):
            what = "--graph-mse above 0" if self.graph_mse > 0 else "--structure-from last"
            raise ValueError(f"--no-decoder: {what} needs the decoder; give --graph-mse 0 --structure 0, or keep it")
        return self
