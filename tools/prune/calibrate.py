"""What layers read on calibration samples: second moments, from which every pruned layer is refitted in closed form.

A layer computes Y = A W + b from its design matrix A. When only the columns S of A are left, the least-squares weights
are (G_SS + ridge)^-1 G_S: W, where G = A^T A is centred if the layer has a bias, which then takes up the rest. The
inputs are those of the unpruned model, so that the weights of a layer depend on nothing but what it still reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular

from sartor.tools.prune.channels import Channels, Layer
from sartor.tools.prune.data import Split
from sartor.tools.prune.evaluate import Runner
from sartor.tools.prune.kernels.moments import Moments, moments, shift_of
from sartor.tools.prune.kernels.window import DENSE, Window, columns_of

Floats = NDArray[np.float64]
RIDGE = 1e-5
"""Added to the diagonal of a Gram, as a share of its mean."""

BATCH = 64


@dataclass(frozen=True, eq=False)
class Statistics:
    """A layer with the Gram of its design matrix [G, K, K], its column means [G, K] and its weight W [G, K, O / G].

    The Gram is divided by the number of rows, and centred where the layer has room for a bias. `labels` are the atoms
    of the columns' channels [K].
    """

    layer: Layer
    window: Window
    gram: Floats
    means: Floats
    weight: Floats
    labels: NDArray[np.int64]
    biased: bool

    @cached_property
    def energy(self) -> float:
        """The mean square of the output, about its mean where there is a bias."""
        return float(np.einsum("gko,gkl,glo->", self.weight, self.gram, self.weight))

    def refit(self, kept: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Return the weights of kept columns (K,), zero elsewhere, and what is added to the bias [G, O / G]."""
        found = np.zeros_like(self.weight)
        for group, (gram, weight) in enumerate(zip(self.gram, self.weight, strict=True)):
            left = gram[np.ix_(kept, kept)] + self._ridge(group) * np.eye(int(kept.sum()))
            found[group, kept] = cho_solve(cho_factor(left, lower=True), gram[kept] @ weight)
        moved = np.einsum("gk,gko->go", self.means, self.weight - found)
        return found, moved if self.biased else np.zeros_like(moved)

    def residuals(self, blocks: Sequence[NDArray[np.bool_]], always: NDArray[np.bool_]) -> Floats:
        """Return the share of the output's energy that is lost when the first k blocks of columns stay, k from 0 on.

        The columns `always` (K,) stay in any case. One Cholesky factor serves all k: what the first columns explain
        does not depend on later ones.
        """
        order = np.concatenate([np.flatnonzero(block) for block in (always, *blocks)])
        ends = np.cumsum([block.sum() for block in (always, *blocks)])
        explained = np.zeros(len(order) + 1)
        for group, (gram, weight) in enumerate(zip(self.gram, self.weight, strict=True)):
            ordered = gram[np.ix_(order, order)] + self._ridge(group) * np.eye(len(order))
            factor = cholesky(ordered, lower=True)
            parts = solve_triangular(factor, (gram @ weight)[order], lower=True)
            explained[1:] += np.cumsum(np.square(parts).sum(1))
        lost = 1 - explained[ends] / max(self.energy, 1e-30)
        return np.minimum.accumulate(np.clip(lost, 0, 1))

    def _ridge(self, group: int) -> float:
        return float(RIDGE * np.trace(self.gram[group]) / self.gram.shape[1] + 1e-12)


def calibrate(model: ir.Model, found: Channels, split: Split, threads: int) -> list[Statistics]:
    """Run the samples once and sum up what every layer that can be refitted reads."""
    layers = [layer for layer in found.layers if refittable(layer)]
    names = list(dict.fromkeys(str(_data(layer).name) for layer in layers))
    sums: dict[int, Moments] = {}
    windows = [window_of(layer) for layer in layers]
    runner = Runner(model, threads, names) if names else None
    for batch in runner.batches(split.inputs, BATCH) if runner else ():
        for i, (layer, window) in enumerate(zip(layers, windows, strict=True)):
            x = _rows(batch[str(_data(layer).name)], layer)
            shift = sums[i].shift if i in sums else shift_of(x, window)
            part = moments(x, window, shift)
            sums[i] = sums[i] + part if i in sums else part
    return [_statistics(layer, windows[i], sums[i], found) for i, layer in enumerate(layers)]


def refittable(layer: Layer) -> bool:
    """Tell whether a layer has a weight of its own, of real numbers, and reads rows or maps."""
    weight = layer.weight
    if weight.const_value is None or len(weight.uses()) != 1 or weight.dtype is not ir.DataType.FLOAT:
        return False
    node = layer.node
    if node.op_type == "Gemm":
        plain = node.attributes.get("transA", ir.AttrInt64("transA", 0)).as_int() == 0
        return plain and all(abs(_factor(node, name) - 1) < 1e-12 for name in ("alpha", "beta"))
    if node.op_type == "MatMul":
        return node.inputs[1] is weight and len(weight.shape or ()) == 2
    return "auto_pad" not in node.attributes or node.attributes["auto_pad"].as_string() == "NOTSET"


def has_room_for_bias(layer: Layer) -> bool:
    """Tell whether a layer has a bias of its own, or could have one."""
    node = layer.node
    if node.op_type == "MatMul":
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return True
    alone = bias.is_initializer() and bias.const_value is not None and len(bias.uses()) == 1
    return alone and bias.shape is not None and list(bias.shape) == [len(layer.outputs)]


def _factor(node: ir.Node, name: str) -> float:
    return node.attributes[name].as_float() if name in node.attributes else 1.0


def window_of(layer: Layer) -> Window:
    """Return the window of a layer."""
    node = layer.node
    if node.op_type not in ("Conv", "ConvTranspose"):
        return DENSE
    kernel = tuple(int(size) for size in (layer.weight.shape or ())[2:] if isinstance(size, int))
    ones = (1,) * len(kernel)
    pads = _ints(node, "pads", (0,) * 2 * len(kernel))
    transposed = node.op_type == "ConvTranspose"
    padding = _ints(node, "output_padding", (0,) * len(kernel)) if transposed else ()
    return Window(
        kernel, _ints(node, "strides", ones), _ints(node, "dilations", ones),
        pads[: len(kernel)], pads[len(kernel) :], layer.groups, transposed, padding,
    )  # fmt: skip


def _ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(node.attributes[name].as_ints()) if name in node.attributes else default


def _data(layer: Layer) -> ir.Value:
    value = layer.node.inputs[0]
    assert value is not None
    return value


def _rows(x: NDArray[Any], layer: Layer) -> NDArray[Any]:
    return x.reshape(-1, x.shape[-1]) if layer.node.op_type in ("Gemm", "MatMul") else x


def _statistics(layer: Layer, window: Window, sums: Moments, found: Channels) -> Statistics:
    rows = max(sums.rows, 1)
    shifts = np.repeat(sums.shift.astype(np.float64), window.taps).reshape(layer.groups, -1)
    small = sums.sums / rows
    biased = has_room_for_bias(layer)
    gram = sums.gram / rows - small[:, :, None] * small[:, None]
    means = small + shifts
    if not biased:
        gram = gram + means[:, :, None] * means[:, None]
    assert layer.weight.const_value is not None
    content = layer.weight.const_value.numpy().astype(np.float64)
    if layer.node.op_type == "Gemm" and layer.input_axis == 1:
        content = content.T
    labels = found.axes[layer.weight][layer.input_axis]
    assert labels is not None
    return Statistics(layer, window, gram, means, columns_of(content, window), labels.repeat(window.taps), biased)
