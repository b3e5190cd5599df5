"""What stock onnxruntime makes of a model: the nodes it still runs after its own optimisations, and what it fuses
into compute.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from sartor.share.cache import get, put
from sartor.share.errors import InputRefusedError
from sartor.share.runtime import kernels_of, load
from sartor.share.runtime.library import library_path
from sartor.share.runtime.session import first_line
from sartor.tools.fuse.rules import RULES

COMPUTE_WORDS = ("Conv", "MatMul", "Gemm", "Attention", "LSTM", "GRU", "RNN", "Einsum", "MoE")
"""An operator whose name holds one of these is compute-intensive, in the standard as in onnxruntime's own domains."""

_NAME = "sartor node "
_HEAVY, _LIMIT = 1 << 26, 1 << 30
_LARGE_TENSOR = 1 << 16


@dataclass(frozen=True)
class StockView:
    """The number of non-compute nodes, and the values that a compute node makes after fusion with what followed it.

    Where onnxruntime refuses the model nothing is known but the reason.
    """

    dispatches: int | None = None
    absorbed: frozenset[str] = frozenset()
    refusal: str | None = None


def is_compute(op_type: str) -> bool:
    """Tell whether an operator spends its time on arithmetic rather than on memory."""
    return any(word in op_type for word in COMPUTE_WORDS)


def remembered_view(model: ir.Model, facts: Sequence[object]) -> StockView:
    """Look at a model as `view` does, but once for the same facts: they tell what the model holds."""
    name = _entry(facts)
    found = get(name)
    if found is None:
        seen = view(model)
        if seen.refusal is not None:
            return seen
        found = json.dumps([seen.dispatches, sorted(seen.absorbed)]).encode()
        put(name, found)
    dispatches, absorbed = json.loads(found)
    return StockView(dispatches, frozenset(absorbed))


def _entry(facts: Sequence[object]) -> str:
    import onnxruntime

    # What is done to a model before it is looked at matters as much as how.
    files = [Path(__file__), Path(__file__).with_name("transposes.py")]
    code = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    text = json.dumps([onnxruntime.__version__, str(library_path()), code, sorted(RULES), *facts])
    return f"v_{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def view(model: ir.Model) -> StockView:
    """Let onnxruntime optimise a model (with our kernels, where it calls any) and look at the result."""
    named = light(model.clone())
    for i, node in enumerate(_all_nodes(named)):
        node.name = f"{_NAME}{i}"
    try:
        nodes = _optimised(named)
    except InputRefusedError as error:
        return StockView(refusal=error.reason)
    count = sum(not is_compute(node.op_type) for node in nodes)
    absorbed = _made_by_compute(named, nodes)
    if any(node.domain == "com.microsoft.nchwc" for node in nodes):
        absorbed |= _vanished_behind_convolutions(named, {node.name for node in nodes})
    return StockView(count, frozenset(absorbed))


def require_valid(model: ir.Model, subject: str) -> None:
    """Raise InputRefusedError unless a model is valid ONNX, whoever may run it."""
    import onnx

    try:
        onnx.checker.check_model(ir.serde.serialize_model(light(model)), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = f"it is not valid ONNX ({first_line(error)})"
        raise InputRefusedError(reason, subject=subject, remedy="Export it again") from error


def _made_by_compute(model: ir.Model, nodes: list[ir.Node]) -> set[str]:
    """Return the values of fusable nodes that compute nodes make now, and those between, which exist no more."""
    made = {out.name for node in nodes if is_compute(node.op_type) for out in node.outputs}
    remaining = {out.name for node in nodes for out in node.outputs}
    rows = {out.name: node for node in _all_nodes(model) if node.op_type in RULES for out in node.outputs}
    absorbed = {name for name in rows if name in made}
    pending = list(absorbed)
    while pending:
        for value in rows[pending.pop()].inputs:
            if value is not None and value.name in rows and value.name not in remaining | absorbed:
                absorbed.add(value.name)
                pending.append(value.name)
    return {name for name in absorbed if name}


def _vanished_behind_convolutions(model: ir.Model, alive: set[str | None]) -> set[str]:
    """Return the values of nodes that are gone and follow a convolution: in the blocked layout values are renamed."""
    behind: set[ir.Value] = set()
    for node in _all_nodes(model):
        vanished = node.op_type in RULES and node.name not in alive
        if node.op_type == "Conv" or (vanished and any(value in behind for value in node.inputs)):
            behind.update(node.outputs)
    return {value.name for value in behind if value.name}


def _all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from ir.traversal.RecursiveGraphIterator(model.graph)


def _optimised(model: ir.Model) -> list[ir.Node]:
    """Return the nodes that run, constants left out; without the custom-op library kernels run between sessions."""
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="sartor-") as folder:
        paths: list[Path] = []

        def options(session_options: onnxruntime.SessionOptions) -> None:
            paths.append(Path(folder) / f"{len(paths)}.onnx")
            session_options.optimized_model_filepath = str(paths[-1])

        session = load(model, threads=1, session_options=options)
        # A session cut into segments has no binding; of any other the last is left, after attempts that failed.
        written = paths[-1:] if hasattr(session, "io_binding") else paths
        nodes = [node for path in written for node in _all_nodes(_read(path))]
    kernels = {(kernel.domain, kernel.name) for kernel in kernels_of(session)}
    inside = {(node.domain, node.op_type) for node in nodes}
    between = [node for node in _all_nodes(model) if (node.domain, node.op_type) in kernels - inside]
    return [node for node in (*nodes, *between) if node.op_type != "Constant"]


def _read(path: Path) -> ir.Model:
    """Read into memory, because the file goes away; external data, named relative to the original, is of no use."""
    import onnx

    return ir.serde.deserialize_model(onnx.load(str(path), load_external_data=False))


def light(model: ir.Model) -> ir.Model:
    """Return the model itself or, where it is heavy, a copy in which large weights are inputs.

    Weights of convolutions stay as long as they fit, because batch normalisation is folded into them.
    """
    total = sum(_bytes(value) for value in model.graph.initializers.values())
    if total <= _HEAVY:
        return model
    copy = model.clone()
    for value in list(copy.graph.initializers.values()):
        convolved = any(use.node.op_type.startswith("Conv") for use in value.uses())
        if _bytes(value) > _LARGE_TENSOR and not (convolved and total <= _LIMIT):
            value.const_value = None
            del copy.graph.initializers[str(value.name)]
            if not value.is_graph_input():
                copy.graph.inputs.append(value)
    return copy


def _bytes(value: ir.Value) -> int:
    return 0 if value.const_value is None else value.const_value.nbytes
