"""What the annotations of ops and trainers say holds while the tests run, or these fail."""

import dataclasses

import pytest
import torch
from annotations import checked
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float
from torch import Tensor

from ops.losses.normalize import unit_rows


@checked
def scaled(rows: Float[Tensor, "n d"], by: Float[Tensor, " d"], cut: int = 0) -> Float[Tensor, "n d"]:
    return (rows * by)[cut:]


@checked
def seeded(generator: "torch.Generator | None") -> int:
    return generator.manual_seed(0).initial_seed()


@checked
@dataclasses.dataclass
class Pair:
    rows: Float[Tensor, "n d"]
    of: Float[Tensor, " n"]


@checked
def drawn(rows: Float[Tensor, "n d"], by: Float[Tensor, " d"]):
    yield rows * by


def test_a_check_that_is_built_on_the_pretended_accelerator_is_the_same_afterwards(monkeypatch):
    monkeypatch.setattr(torch, "Generator", type("Generator", (torch.Generator,), {}))
    assert seeded(torch.Generator()) == 0
    monkeypatch.undo()
    assert seeded(torch.Generator()) == 0


def test_types_and_shapes_of_arguments_results_and_fields_are_checked():
    rows = torch.ones(3, 2)
    assert scaled(rows, torch.ones(2)).shape == (3, 2)
    assert len(Pair(rows, torch.ones(3)).of) == len(next(drawn(rows, torch.ones(2))))
    for wrong in (lambda: scaled(rows, torch.ones(3)), lambda: scaled(rows, torch.ones(2), 1), lambda: scaled(rows, 1),
                  lambda: Pair(rows, torch.ones(2)), lambda: unit_rows([1.0])):  # fmt: skip
        with pytest.raises(BeartypeCallHintViolation):
            wrong()
    with pytest.raises(TypeError, match="checking the parameters"):
        drawn(rows, torch.ones(3))
