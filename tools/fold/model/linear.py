"""Linear layers with AlphaFold's initial weights; several that read one input are one product.

The arithmetic is that of the input: weights are cast to its type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Init = Literal["default", "relu", "glorot", "gating", "final"]

_TRUNCATED_DEVIATION = 0.87962566103423978
"""The standard deviation of a standard normal distribution that is cut off at -2 and 2."""


def initialise(weight: Tensor, init: Init) -> None:
    """Fill a weight [out, in] in place (section 1.11.4)."""
    if init in ("gating", "final"):
        nn.init.zeros_(weight)
    elif init == "glorot":
        nn.init.xavier_uniform_(weight)
    else:
        deviation = math.sqrt((2.0 if init == "relu" else 1.0) / weight.shape[1]) / _TRUNCATED_DEVIATION
        nn.init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation)


class Linear(nn.Module):
    """A linear layer; biases start at 0, those of gates at 1."""

    def __init__(self, c_in: int, c_out: int, bias: bool = True, init: Init = "default") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(c_out, c_in))
        self.bias = nn.Parameter(torch.full((c_out,), float(init == "gating"))) if bias else None
        with torch.no_grad():
            initialise(self.weight, init)

    def forward(self, x: Tensor) -> Tensor:
        """Map [*, in] to [*, out]."""
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


@dataclass(frozen=True)
class Part:
    """One of several layers that read the same input: its name in a state dict, its width, and how it starts."""

    name: str
    width: int
    bias: bool = True
    init: Init = "default"


class JointLinear(nn.Module):
    """Linear layers that read one input, as one product; parts without a bias come first.

    The module that owns it calls `split_on_export`, so that state dicts hold every part under its own name.
    """

    def __init__(self, c_in: int, parts: Sequence[Part]) -> None:
        super().__init__()
        biased = [part for part in parts if part.bias]
        assert tuple(parts[len(parts) - len(biased) :]) == tuple(biased)
        self.parts = tuple(parts)
        self.weight = nn.Parameter(torch.empty(sum(part.width for part in parts), c_in))
        values = [torch.full((part.width,), float(part.init == "gating")) for part in biased]
        self.bias = nn.Parameter(torch.cat(values)) if values else None
        with torch.no_grad():
            for part, weight in zip(parts, self.weight.split(self.widths), strict=True):
                initialise(weight, part.init)

    @property
    def widths(self) -> list[int]:
        """Return the width of every part."""
        return [part.width for part in self.parts]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map [*, in] to one [*, width] a part."""
        bias = None
        if self.bias is not None:
            bias = F.pad(self.bias.to(x.dtype), (self.weight.shape[0] - self.bias.shape[0], 0))
        parts: tuple[Tensor, ...] = F.linear(x, self.weight.to(x.dtype), bias).split(self.widths, dim=-1)
        return parts

    def pieces(self) -> list[tuple[str, str, int]]:
        """Return parameter, name in a state dict, and width of all pieces, in the order of the parameter."""
        weights = [("weight", f"{part.name}.weight", part.width) for part in self.parts]
        return weights + [("bias", f"{part.name}.bias", part.width) for part in self.parts if part.bias]


def split_on_export(owner: nn.Module, child: str) -> None:
    """Let the state dict of `owner` hold the parts of its joint layer `child`, saving and loading."""

    def save(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
        layer = module.get_submodule(child)
        assert isinstance(layer, JointLinear)
        for parameter in ("weight", "bias"):
            pieces = [(name, width) for kind, name, width in layer.pieces() if kind == parameter]
            if pieces:
                joint = state.pop(f"{prefix}{child}.{parameter}")
                parts = joint.split([width for _, width in pieces])
                state.update({prefix + name: part for (name, _), part in zip(pieces, parts, strict=True)})

    def load(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        layer = module.get_submodule(child)
        assert isinstance(layer, JointLinear)
        for parameter in ("weight", "bias"):
            names = [prefix + name for kind, name, _ in layer.pieces() if kind == parameter]
            if names and all(name in state for name in names):
                state[f"{prefix}{child}.{parameter}"] = torch.cat([state.pop(name) for name in names])

    owner.register_state_dict_post_hook(save)
    owner.register_load_state_dict_pre_hook(load)
