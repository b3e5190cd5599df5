"""Lower an ONNX model to torch: inline its functions, find its constants, plan its graph, keep its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import onnx_ir as ir
import torch

from sartor.share.errors import InputRefusedError, UsageError
from sartor.share.lowering import operators
from sartor.share.lowering.constants import find_constants, named_initializers
from sartor.share.lowering.dtypes import to_numpy
from sartor.share.lowering.module import Lowered
from sartor.share.lowering.plan import Implementation, make_plan

Override = Callable[[ir.Node, ir.Function], Implementation | None]
"""Makes the callable that replaces one call of a function; None lets the function's body run."""

Overrides = Mapping[tuple[str, str], Override]

_NONE: Overrides = MappingProxyType({})
_DECLINED = "body"


def lower(model: ir.Model, overrides: Overrides = _NONE) -> Lowered:
    """Return a torch module that computes what the model does; the model stays as it is.

    `overrides` gives, by domain and name of a function, what makes the callable of one call: it is told the node and
    the function, and gets and returns tensors on the device. Raises InputRefusedError for what can't be lowered.
    """
    operators.load()
    copy = model.clone()
    names = list(named_initializers(model))
    initializers = dict(zip(names, named_initializers(copy).values(), strict=True))
    calls = _inline(copy, overrides)
    constants = find_constants(copy, initializers)
    return Lowered(make_plan(copy, constants, calls), constants)


def write_back(model: ir.Model, tensors: Mapping[str, torch.Tensor]) -> None:
    """Replace initialisers of a model by tensors; raises UsageError for an unknown name or another shape."""
    known = named_initializers(model)
    for name, tensor in tensors.items():
        value = known.get(name)
        if value is None or value.const_value is None:
            raise UsageError("no initialiser of the model", subject=name)
        old = value.const_value
        if tuple(tensor.shape) != tuple(old.shape.dims):
            raise UsageError(f"has the shape {list(tensor.shape)} instead of {list(old.shape.dims)}", subject=name)
        array = to_numpy(tensor, old.dtype).astype(old.dtype.numpy(), copy=False)
        value.const_value = ir.Tensor(array.copy(), dtype=old.dtype, name=value.name)


def _inline(model: ir.Model, overrides: Overrides) -> dict[ir.Node, Implementation]:
    """Inline all functions but the calls that are overridden; return the callables of those."""
    calls: dict[ir.Node, Implementation] = {}
    while model.functions:
        _inline_others(model, set(overrides))
        fresh = [node for node in model.graph.all_nodes() if node.op_identifier() in model.functions]
        declined = []
        for node in (node for node in fresh if node not in calls):
            made = overrides[node.domain, node.op_type](node, model.functions[node.op_identifier()])
            if made is None:
                declined.append(node)
            else:
                calls[node] = made
        if not declined:
            break
        # The body that takes the place of a call may hold other calls: look again.
        _decline(model, declined)
    return calls


def _inline_others(model: ir.Model, keep: set[tuple[str, str]]) -> None:
    """Inline the functions that nobody overrides, and the declined calls of the others."""
    from onnx_ir.passes import PassError
    from onnx_ir.passes.common import InlinePass

    try:
        InlinePass(criteria=lambda one: (one.domain, one.name) not in keep or one.overload == _DECLINED)(model)
    except (PassError, ValueError) as error:
        raise InputRefusedError(f"its functions can't be inlined ({error})", subject="model") from error


def _decline(model: ir.Model, nodes: list[ir.Node]) -> None:
    """Let calls mean an overload of their function, which is then inlined."""
    for node in nodes:
        function = model.functions[node.op_identifier()]
        twin = (function.domain, function.name, _DECLINED)
        if twin not in model.functions:
            body = function.clone()
            body.overload = _DECLINED
            model.functions[twin] = body
        node.overload = _DECLINED
