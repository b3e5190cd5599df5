"""A second refit, layer by layer: to what the original puts out, for what the pruned network really reads.

The first refit takes the inputs of the original, so that weights do not depend on other layers; but what a layer reads
has changed by then. In topological order each layer is fitted to the original's outputs once more, behind those that
are done (He et al. 2017, section 3.2).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sartor.share.data import Split
from sartor.tools.prune.calibrate import Reading, batch_size, content_of, data_of, matrix_of, rows_of, stride_of
from sartor.tools.prune.compact import kept_of
from sartor.tools.prune.kernels.cross import Cross
from sartor.tools.prune.kernels.moments import Moments
from sartor.tools.prune.network import Network
from sartor.tools.prune.places import Place, shift_of
from sartor.tools.prune.problem import Counts
from sartor.tools.prune.refit import Refit, refit, target_statistics


def refit_again(network: Network, counts: Counts, small: ir.Model, split: Split, place: Place) -> None:
    """Refit the layers of a pruned network in place."""
    kept = kept_of(network.found, network.removed(counts))
    nodes = {str(node.outputs[0].name): node for node in small.graph}
    for one in network.readings:
        node = nodes[str(one.layer.node.outputs[0].name)]
        inputs, outputs = kept(one.labels), kept(one.layer.outputs)
        if not inputs.any() or not outputs.any():
            continue
        _put(one, node, _fitted(network.model, small, one, node, outputs, split, place))


def _fitted(
    model: ir.Model, small: ir.Model, one: Reading, node: ir.Node, outputs: NDArray[np.bool_], split: Split,
    place: Place,
) -> Refit:  # fmt: skip
    """Sum up what a layer of the pruned network reads and what it should put out, and fit it."""
    name, source = str(node.outputs[0].name), str(data_of(node).name)
    size = batch_size([one.layer], split)
    ours = place.batches(small, [source], split.inputs, size)
    theirs = place.batches(model, [name], split.inputs, size)
    total: tuple[Moments, Cross] | None = None
    for read, wanted in zip(ours, theirs, strict=True):
        x, y = rows_of(read[source], node), rows_of(wanted[name], node)
        x, y = (array[:: stride_of(x, one.window, len(split), one.statistics.gram.shape[1])] for array in (x, y))
        y = y[:, np.flatnonzero(outputs)]
        if total is None:
            shift, mean = shift_of(place, x, one.window), place.mean(y).reshape(one.window.groups, -1)
        part = place.moments(x, one.window, shift), place.cross(x, y, one.window, shift, mean)
        total = part if total is None else (total[0] + part[0], total[1] + part[1])
    assert total is not None
    statistics = target_statistics(*total, matrix_of(_held(node, 1).numpy(), one.layer, one.window), one.biased)
    return refit(statistics, np.arange(statistics.gram.shape[1]))


def _put(one: Reading, node: ir.Node, fitted: Refit) -> None:
    """Give a layer its new weight and bias; the first refit has seen to it that there is a bias where there can be."""
    contents = [content_of(fitted.weight, one.layer, one.window)]
    if one.biased and len(node.inputs) > 2:
        contents.append(fitted.bias.reshape(-1))
    for index, content in enumerate(contents, 1):
        value, held = node.inputs[index], _held(node, index)
        assert value is not None
        array = np.ascontiguousarray(content.astype(held.dtype.numpy()))
        value.const_value = ir.Tensor(array.reshape(held.shape.numpy()), name=value.name, dtype=held.dtype)


def _held(node: ir.Node, index: int) -> ir.TensorProtocol:
    value = node.inputs[index]
    assert value is not None
    assert value.const_value is not None
    return value.const_value
