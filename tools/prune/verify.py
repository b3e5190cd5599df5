"""Proof that removing channels changed nothing but what was removed."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sartor.share.data import Split
from sartor.share.errors import SartorError
from sartor.tools.prune.channels import Channels, Kept
from sartor.tools.prune.compact import compact, kept_of
from sartor.tools.prune.evaluate import Runner
from sartor.tools.prune.network import Network
from sartor.tools.prune.problem import Counts

CLOSE = 1e-4
SAMPLES = 8


class DifferentError(SartorError):
    """The compacted model is not the masked one: an error of ours."""


def require_same(network: Network, counts: Counts, split: Split, subject: str) -> float:
    """Compare the compacted model with the original in which nothing reads what is removed, both without refit.

    Returns the largest difference relative to the largest output; raises DifferentError where it is more than `CLOSE`.
    """
    removed = network.removed(counts)
    feed = {name: array[:SAMPLES] for name, array in split.inputs.items()}
    small = Runner(compact(network.model, network.found, removed)).outputs(feed)
    wanted = Runner(masked(network.model, network.found, kept_of(network.found, removed))).outputs(feed)
    error = max((_difference(small[name], array) for name, array in wanted.items()), default=0.0)
    if not error <= CLOSE:
        reason = f"without its channels the model is off by {error:.2g} of its largest output"
        raise DifferentError(reason, subject=subject, remedy="This is an error in sartor: please report it")
    return error


def masked(model: ir.Model, found: Channels, kept: Kept) -> ir.Model:
    """Return a copy of a model in which nothing reads what is removed: the weights of readers are zero there."""
    copy = model.clone()
    for layer in found.layers:
        weight = copy.graph.initializers.get(str(layer.weight.name))
        labels = found.axes[layer.weight][layer.input_axis]
        if weight is None or weight.const_value is None or labels is None or kept(labels).all():
            continue
        content = weight.const_value.numpy().copy()
        np.moveaxis(content, layer.input_axis, 0)[~kept(labels)] = 0
        weight.const_value = ir.Tensor(content, name=str(weight.name), dtype=weight.const_value.dtype)
    return copy


def _difference(left: np.ndarray, right: np.ndarray) -> float:
    apart = np.abs(left.astype(np.float64) - right.astype(np.float64)).max(initial=0)
    return float(apart / max(np.abs(right).max(initial=0), 1e-6))
