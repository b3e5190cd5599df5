"""Gradual pruning: weights are removed while the model is trained, so that those that stay make up for them.

The share that stays falls from all to the wanted one along a cubic curve over the first part of the steps (Zhu and
Gupta 2017, equation 1); what has been removed stays zero. The loss is that of labels, or what is off from the outputs
of the original model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from sartor.share.data import Axes, Split
from sartor.share.errors import InputRefusedError
from sartor.share.lowering import lower, write_back
from sartor.share.training import Recipe, cross_entropy, distillation, steps_of, train
from sartor.tools.sparse_rnn.choose import Matrices, choose
from sartor.tools.sparse_rnn.emit import remove_unused
from sartor.tools.sparse_rnn.find import BIAS, PEEPHOLES, Layer, R, W
from sartor.tools.sparse_rnn.names import free_name, taken_names
from sartor.tools.sparse_rnn.oracle import Weights
from sartor.tools.sparse_rnn.plan import Options, Tuning

RAMP = 2 / 3
"""The part of the steps in which weights are removed."""

REMOVALS = 50
"""How often weights are removed on the way."""

FIELDS = {W: "w", R: "r", BIAS: "bias", PEEPHOLES: "peepholes"}


@dataclass(frozen=True)
class Tuned:
    """What came of it: the layers with their new weights, what stays of them, and the mean loss of every epoch."""

    kept: Matrices
    losses: tuple[float, ...]


def tune(
    model: ir.Model, layers: Sequence[Layer], options: Options, tuning: Tuning, split: Split,
    wanted: Mapping[str, NDArray[Any]] | None, axes: Axes, step: Callable[[int], None],
) -> Tuned:  # fmt: skip
    """Train a model in place while its recurrent weights are removed; `wanted` replaces the labels.

    Raises InputRefusedError where there is nothing to learn from or a loss is not finite.
    """
    goals = wanted or split.labels
    if not goals:
        raise InputRefusedError("it has no labels train/y", remedy="Add them, or use --distill")
    names = settle(model, layers)
    lowered = lower(model)
    tensors = lowered.tensors()
    parameters = [one for one in tensors.values() if one.is_floating_point() and one.dim() > 0]
    gradual = _Gradual(
        tuple(layers), names, tensors, options, tuning.schedule == "cubic", steps_of(split, tuning.epochs)
    )
    recipe = Recipe(
        tuning.epochs, tuning.seed, tuning.threads, distillation if wanted else cross_entropy(-1),
        lambda ones: torch.optim.Adam(ones, tuning.rate), axes,
    )  # fmt: skip

    def after(done: int) -> None:
        gradual.remove(done)
        step(1)

    gradual.remove(-1)
    losses = train(lowered, parameters, split, goals, recipe, after)
    write_back(model, {name: one.detach() for name, one in tensors.items() if one.requires_grad})
    return Tuned(gradual.finish(), tuple(losses))


def settle(model: ir.Model, layers: Sequence[Layer]) -> dict[Layer, dict[int, str]]:
    """Give every layer its weights as initialisers, in place of constants that nodes compute; name them.

    Layers of the same weights, such as those of two branches of an `If`, go on sharing them.
    """
    taken = taken_names(model)
    found: dict[Layer, dict[int, str]] = {}
    known: dict[tuple[str, int], ir.Value] = {}
    for layer in layers:
        found[layer] = {}
        digest = _digest(layer.weights)
        for place, field in FIELDS.items():
            array = getattr(layer.weights, field)
            if array is None:
                continue
            if (digest, place) not in known:
                known[digest, place] = _initialiser(model, free_name(f"{layer.name}_{field}", taken), array)
            value = known[digest, place]
            old = layer.node.inputs[place]
            assert old is not None
            layer.node.replace_input_with(place, value)
            remove_unused([old])
            found[layer][place] = str(value.name)
    return found


def _digest(weights: Weights) -> str:
    """Tell layers apart by all of their weights: equal biases alone, zeros for instance, mean nothing."""
    digest = hashlib.sha256()
    for field in FIELDS.values():
        array = getattr(weights, field)
        digest.update(b"absent" if array is None else f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _initialiser(model: ir.Model, name: str, array: NDArray[Any]) -> ir.Value:
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    model.graph.register_initializer(value)
    return value


@dataclass
class _Gradual:
    """Removes weights from the tensors of a model as training goes on."""

    layers: tuple[Layer, ...]
    names: Mapping[Layer, Mapping[int, str]]
    tensors: Mapping[str, Tensor]
    options: Options
    cubic: bool
    steps: int
    kept: Matrices | None = None

    def remove(self, done: int) -> None:
        """Remove what the schedule asks for after a step, -1 before the first, and what has come back."""
        ramp = max(int(self.steps * RAMP), 1)
        if not self.cubic:
            if done < 0:
                self._choose(self.options.density)
        elif 0 <= done <= ramp and (done == ramp or done % max(ramp // REMOVALS, 1) == 0):
            left = (1 - done / ramp) ** 3
            self._choose(self.options.density + (1 - self.options.density) * left)
        self._apply()

    def finish(self) -> Matrices:
        """Return what stays of the layers as they were found, whose weights are now the trained ones."""
        self._choose(self.options.density)
        self._apply()
        assert self.kept is not None
        return dict(zip(self._current(), self.kept.values(), strict=True))

    def _choose(self, density: float) -> None:
        chosen = choose(self._current(), replace(self.options, density=density))
        self.kept = dict(zip(self.layers, chosen.values(), strict=True))

    def _apply(self) -> None:
        with torch.no_grad():
            for layer, matrices in (self.kept or {}).items():
                for place, mask in matrices.items():
                    self.tensors[self.names[layer][place]].mul_(torch.from_numpy(mask))

    def _current(self) -> list[Layer]:
        """Return the layers with their weights of now."""
        found = []
        for layer in self.layers:
            arrays = {
                FIELDS[place]: self.tensors[name].detach().numpy().copy() for place, name in self.names[layer].items()
            }
            found.append(replace(layer, weights=Weights(**arrays)))
        return found
