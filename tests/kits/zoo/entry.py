"""What the zoo says of a network, and the weights that it gives one.

Shape suffixes in all files of the zoo: B batch, C channels, H and W height and width, T time, N tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

IMAGE = (1, 3, 32, 32)
CLASSES = 10
Inputs = tuple[Tensor, ...]
Shapes = Mapping[str, tuple[int, ...]]
"""The inputs of a network by name; the first axis of each is the batch."""


@dataclass(frozen=True)
class Entry:
    """A network: its builder, the names and shapes of inputs, and what its export looks like.

    `opset` is the one that tests take unless told otherwise, `oldest` the first that its exporter can write, and
    `operators` what the network is in the zoo for: its export at `opset` has them.
    """

    build: Callable[[], nn.Module]
    operators: frozenset[str]
    opset: int = 18
    oldest: int = 9
    inputs: Shapes = field(default_factory=lambda: {"image": IMAGE})
    outputs: tuple[str, ...] = ("logits",)


def operators(names: str) -> frozenset[str]:
    """Return the operators that a text lists."""
    return frozenset(names.split())


def make(entry: Entry, seed: int = 0) -> nn.Module:
    """Build a network for inference with seeded weights that give every layer an output of unit variance."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        module = entry.build().eval().requires_grad_(False)
        _draw(module)
        _scale(module, sample(entry.inputs, batch=16, seed=seed))
    return module


def sample(shapes: Shapes, batch: int, seed: int) -> Inputs:
    """Draw inputs of these shapes but for the batch, between -2 and 2.

    Each channel of each item has a mean of its own, which pooling does not average away.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*sizes: int) -> Tensor:
        return 2 * torch.rand(sizes, generator=generator) - 1

    sizes = [(batch, *shape[1:]) for shape in shapes.values()]
    return tuple(uniform(*size) + uniform(*size[:2], *(1 for _ in size[2:])) for size in sizes)


def _draw(module: nn.Module) -> None:
    """Give normalisations and slopes numbers that differ from channel to channel."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(part.running_mean, 0.0, 0.3)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
        if isinstance(part, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0.0, 0.2)
        elif isinstance(part, nn.PReLU):
            nn.init.uniform_(part.weight, 0.1, 0.5)


def _scale(module: nn.Module, inputs: Inputs) -> None:
    """Give each layer an output of unit variance, around a small mean where it has a bias.

    Layer by layer along a forward pass (Mishkin and Matas 2016, algorithm 1; Salimans and Kingma 2016, section 3). A
    layer that is used several times is scaled for its first use.
    """
    seen: set[nn.Module] = set()

    def adjust(layer: nn.Module, given: Inputs, output: Tensor) -> Tensor:
        if layer in seen:
            return output
        seen.add(layer)
        channel = output.ndim - 1 if isinstance(layer, nn.Linear) else 1
        mean = output.mean([axis for axis in range(output.ndim) if axis != channel], keepdim=True)
        deviation = (output - mean).std()
        layer.weight.div_(deviation)
        if layer.bias is not None:
            layer.bias.sub_(mean.flatten()).div_(deviation).add_(0.2 * torch.randn(layer.bias.shape))
        return layer.forward(*given)

    layers = [part for part in module.modules() if isinstance(part, nn.modules.conv._ConvNd | nn.Linear)]
    hooks = [layer.register_forward_hook(adjust) for layer in layers]
    module(*inputs)
    for hook in hooks:
        hook.remove()
