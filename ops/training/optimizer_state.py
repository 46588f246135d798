"""Packing a model and its optimiser into the flat tensors of a checkpoint, and back."""

from collections.abc import Mapping

import torch
from torch import Tensor

Model = torch.nn.Module | Mapping[str, Tensor]  # or its parameters by name


def pack_training(model: Model, optimizer: torch.optim.Optimizer, *, gradients: bool) -> dict[str, Tensor]:
    """Parameters, optimiser state and, where they are carried over from step to step, gradients, by parameter name."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in _parameters(model).items():
        tensors[f"model.{name}"] = parameter.detach()
        for key, value in optimizer.state[parameter].items():
            tensors[f"optimizer.{name}.{key}"] = torch.as_tensor(value)
        if gradients and parameter.grad is not None:
            tensors[f"gradient.{name}"] = parameter.grad
    return tensors


def unpack_training(tensors: Mapping[str, Tensor], model: Model, optimizer: torch.optim.Optimizer) -> None:
    """The inverse of `pack_training`, in place; copies, so that training does not write into `tensors`."""
    for name, parameter in _parameters(model).items():
        with torch.no_grad():
            parameter.copy_(tensors[f"model.{name}"])
        prefix = f"optimizer.{name}."
        optimizer.state[parameter] = {
            key.removeprefix(prefix): value.to(parameter.device, copy=True)
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
        gradient = tensors.get(f"gradient.{name}")
        parameter.grad = None if gradient is None else gradient.to(parameter.device, copy=True)


def _parameters(model: Model) -> Mapping[str, Tensor]:
    return dict(model.named_parameters()) if isinstance(model, torch.nn.Module) else model
