"""Whether a kernel is faster than onnxruntime: where it is not, the node is left to onnxruntime.

On processors with AVX-512 a look-up product that takes less than a part of the slots of a dense one always was, at any
batch (benchmarks/sparse_rnn.py); all others are timed once on this machine, and the answer is kept in the cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import onnx_ir as ir
import onnxruntime

from sartor.share.cache import get, put
from sartor.share.runtime.invoke import Array, invoke, prepare
from sartor.share.runtime.kernel import FunctionCall, Kernel
from sartor.share.runtime.memory import serialized
from sartor.share.runtime.session import stock_options
from sartor.share.timing import race
from sartor.tools.sparse_rnn.emit import LEAST_IR_VERSION
from sartor.tools.sparse_rnn.kernels.form import Machine
from sartor.tools.sparse_rnn.pack import Packed

ALWAYS_FASTER = 0.4
"""The share of a dense product's slots up to which nothing has to be timed."""

STEPS, BATCHES, SECONDS = 4, (1, 4, 16, 64), 0.2
MARGIN = 1.02
"""How many times faster a kernel has to be."""


def share_of(packed: Packed) -> float:
    """Return the slots of the recurrent products, fillers included, over the columns of dense ones."""
    dense = sum(len(matrix.counts) * matrix.width for matrix in packed.parts) * packed.hidden
    return sum(matrix.places for matrix in packed.parts) / dense


def is_faster(call: FunctionCall, kernel: Kernel, packed: Packed, machine: Machine, x: int, key: str) -> bool:
    """Tell whether a kernel beats onnxruntime at the batch of a call, or at all of `BATCHES` where that is open.

    `x` is the position of X in the call; `key` says what the kernel's code depends on.
    """
    if machine.name == "avx512" and share_of(packed) <= ALWAYS_FASTER:
        return True
    sizes = _sizes(call, x)
    name = f"j_{hashlib.sha256(f'{key}{sizes}{packed.bytes}{_versions()}'.encode()).hexdigest()[:32]}.json"
    found = get(name)
    if found is None:
        found = json.dumps(min(_ratio(call, kernel, x, size) for size in sizes)).encode()
        put(name, found)
    return float(json.loads(found)) >= MARGIN


def _versions() -> str:
    return f"{version('onnxruntime')} {version('sartor')}"


def _sizes(call: FunctionCall, x: int) -> tuple[int, ...]:
    """Return the batches to time at."""
    kind = call.inputs[x]
    assert kind is not None
    batch = kind.shape[1]
    return (batch,) if isinstance(batch, int) else BATCHES


def _ratio(call: FunctionCall, kernel: Kernel, x: int, batch: int) -> float:
    """Return the time of onnxruntime over that of a kernel for a few steps of a batch, one thread each."""
    inputs = [_input(call, place, place == x, batch) for place in range(len(call.inputs))]
    session, feed = _session(call, inputs)
    invocation = prepare([kernel], inputs, 1)
    return race(lambda: invoke(invocation, None), lambda: session.run(None, feed), SECONDS).ratio_min


def _input(call: FunctionCall, place: int, is_x: bool, batch: int) -> Array | None:
    """Make an input: the constant that it is, or zeros, of which only the lengths and X have to be others."""
    constant, kind = call.constants[place], call.inputs[place]
    if constant is not None:
        return np.ascontiguousarray(constant.numpy())
    if kind is None:
        return None
    if kind.dtype == ir.DataType.INT32:
        return np.full(batch, STEPS, np.int32)
    shape = (STEPS, batch, kind.shape[2]) if is_x else (kind.shape[0], batch, kind.shape[2])
    return np.random.default_rng(0).normal(0, 1, [int(size or 0) for size in shape]).astype(np.float32)


def _session(
    call: FunctionCall, inputs: Sequence[Array | None]
) -> tuple[onnxruntime.InferenceSession, dict[str, Array]]:
    """Open a stock session of a model that consists of a call, and return it with what it is fed."""
    values: list[ir.Value | None] = []
    graph_inputs, initializers, feed = [], [], {}
    for place, array in enumerate(inputs):
        if array is None:
            values.append(None)
            continue
        tensor = ir.tensor(array, name=f"i{place}")
        value = ir.Value(name=f"i{place}", type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
        values.append(value)
        if call.constants[place] is None:
            graph_inputs.append(value)
            feed[f"i{place}"] = array
        else:
            value.const_value = tensor
            initializers.append(value)
    function = call.function
    outputs = [ir.Value(name=f"o{i}", type=ir.TensorType(kind.dtype)) for i, kind in enumerate(call.outputs)]
    node = ir.Node(function.domain, function.name, values, outputs=outputs)
    opsets = {**function.opset_imports, function.domain: 1}
    graph = ir.Graph(graph_inputs, outputs, nodes=[node], initializers=initializers, opset_imports=opsets, name="one")
    model = ir.Model(graph, ir_version=LEAST_IR_VERSION, functions=[function])
    content, _ = serialized(model)
    options = stock_options(1)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]), feed
