"""What layers read on calibration samples: the statistics from which every pruned layer is refitted (`refit.py`).

The inputs are those of the unpruned model, so that the weights of a layer depend on nothing but what it still reads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sartor.share.data import Split
from sartor.tools.prune.channels import Channels, Layer
from sartor.tools.prune.kernels.moments import Moments
from sartor.tools.prune.kernels.window import DENSE, Window, columns_of, output_shape, sliding, weight_of
from sartor.tools.prune.places import Place, shift_of
from sartor.tools.prune.refit import Statistics, own_statistics

BATCH, BATCH_BYTES = 64, 1 << 28
"""Samples that are run at a time, and bytes that they may leave behind."""

ENOUGH_ROWS, ROWS_A_COLUMN = 1 << 16, 64
"""Rows of a design matrix beyond which more tell nothing new: in all, and for each of its columns."""

MOST_COLUMNS = 6144
"""Columns of a design matrix whose Gram fits: 300 MB. Layers that read more keep their weights."""


@dataclass(frozen=True, eq=False)
class Reading:
    """A layer with the statistics of its refit; `labels` are the atoms of the columns' channels [K]."""

    layer: Layer
    window: Window
    labels: NDArray[np.int64]
    biased: bool
    statistics: Statistics

    @property
    def energy(self) -> float:
        """The mean square of the output, about its mean where there is a bias."""
        return float(self.statistics.energy.sum())


def calibrate(model: ir.Model, found: Channels, split: Split, place: Place) -> list[Reading]:
    """Run the samples once and sum up what every layer that can be refitted reads."""
    layers = [layer for layer in found.layers if refittable(layer) and columns(layer) <= MOST_COLUMNS]
    names = list(dict.fromkeys(str(data_of(layer.node).name) for layer in layers))
    sums: dict[int, Moments] = {}
    windows = [window_of(layer) for layer in layers]
    for batch in place.batches(model, names, split.inputs, batch_size(layers, split)) if names else ():

        def add(i: int, batch: dict[str, Any] = batch) -> None:
            layer, window = layers[i], windows[i]
            x = rows_of(batch[str(data_of(layer.node).name)], layer.node)
            x = x[:: stride_of(x, window, len(split), columns(layer))]
            shift = sums[i].shift if i in sums else shift_of(place, x, window)
            part = place.moments(x, window, shift)
            sums[i] = sums[i] + part if i in sums else part

        place.each(add, len(layers))
    return [_reading(layer, windows[i], sums[i], found) for i, layer in enumerate(layers)]


def columns(layer: Layer) -> int:
    """Count the columns of a layer's design matrix in each group."""
    shape = [int(size) for size in layer.weight.shape or () if isinstance(size, int)]
    taps = math.prod(shape[2:]) if layer.node.op_type in ("Conv", "ConvTranspose") else 1
    return len(layer.inputs) // layer.groups * taps


def batch_size(layers: Sequence[Layer], split: Split) -> int:
    """Choose how many samples are run at a time, as far as sizes are known."""
    shapes = {value: value.shape for value in (data_of(layer.node) for layer in layers) if value.shape is not None}
    sample = 4 * sum(math.prod(int(n) for n in shape[1:] if isinstance(n, int)) for shape in shapes.values())
    return max(min(BATCH_BYTES // max(sample, 1), BATCH, len(split)), 1)


def stride_of(x: Any, window: Window, samples: int, width: int) -> int:
    """Return which of so many rows or maps of a batch are enough: every first, second, ..."""
    positions = math.prod(output_shape(tuple(x.shape[2:]), sliding(window)))
    share = len(x) * positions * max(samples // BATCH, 1)
    return max(min(share // max(ENOUGH_ROWS, ROWS_A_COLUMN * width), len(x)), 1)


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


def data_of(node: ir.Node) -> ir.Value:
    """Return what a layer reads."""
    value = node.inputs[0]
    assert value is not None
    return value


def rows_of(x: Any, node: ir.Node) -> Any:
    """Lay the positions of what a matrix product reads or writes out as rows; maps stay as they are."""
    return x.reshape(-1, x.shape[-1]) if node.op_type in ("Gemm", "MatMul") else x


def matrix_of(content: NDArray[Any], layer: Layer, window: Window) -> NDArray[np.float64]:
    """Turn the content of a layer's weight into W [G, K, O / G]."""
    content = content.astype(np.float64)
    return columns_of(content.T if is_turned(layer) else content, window)


def content_of(matrix: NDArray[np.float64], layer: Layer, window: Window) -> NDArray[np.float64]:
    """Turn W [G, K, O / G] back into the content of a layer's weight."""
    content = weight_of(matrix, window)
    return content.T if is_turned(layer) else content


def is_turned(layer: Layer) -> bool:
    """Tell whether a weight has its outputs first, other than a convolution's."""
    return layer.node.op_type == "Gemm" and layer.input_axis == 1


def _reading(layer: Layer, window: Window, sums: Moments, found: Channels) -> Reading:
    biased = has_room_for_bias(layer)
    assert layer.weight.const_value is not None
    weight = matrix_of(layer.weight.const_value.numpy(), layer, window)
    labels = found.axes[layer.weight][layer.input_axis]
    assert labels is not None
    bias = _bias(layer).reshape(weight.shape[0], -1) if biased else None
    return Reading(layer, window, labels.repeat(window.taps), biased, own_statistics(sums, weight, bias))


def _bias(layer: Layer) -> NDArray[np.float64]:
    """Return the bias of a layer (outputs,), zeros where it has none."""
    bias = layer.node.inputs[2] if len(layer.node.inputs) > 2 else None
    if bias is None:
        return np.zeros(len(layer.outputs))
    assert bias.const_value is not None
    return bias.const_value.numpy().astype(np.float64)
