"""The executor of the domain `sartor.sparse_rnn` on GPUs: from a call with constant coded weights to launches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sartor.share.errors import SartorError
from sartor.share.runtime.kernel import FunctionCall
from sartor.tools.sparse_rnn.encode import Coded, decode
from sartor.tools.sparse_rnn.executor import INITIAL_CELL, INITIAL_HIDDEN, LENGTHS, Bound, X, bind
from sartor.tools.sparse_rnn.find import BIAS, PEEPHOLES, R, W
from sartor.tools.sparse_rnn.gpu.body import Body
from sartor.tools.sparse_rnn.gpu.layout import entries_of
from sartor.tools.sparse_rnn.gpu.limits import LARGEST_BATCH, Settings
from sartor.tools.sparse_rnn.gpu.machine import Machine, cuda_machine
from sartor.tools.sparse_rnn.gpu.operands import Resident, prepare, resident
from sartor.tools.sparse_rnn.gpu.plan import Launch, Source, plan
from sartor.tools.sparse_rnn.gpu.shape import Values, lanes_for
from sartor.tools.sparse_rnn.oracle import GATES, Cell

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]
MachineFor = Callable[["torch.device"], Machine]

BOUNDED = {"sigmoid", "tanh", "hardsigmoid", "softsign"}
"""Activations after which float16 holds any state."""


@dataclass(frozen=True)
class _Loaded:
    """A launch with its weights on a device."""

    launch: Launch
    held: Resident


class GpuLayer:
    """A layer: packed when a batch is first met that needs other lanes.

    Where no kernel runs, for want of room or of a compiler, the function's body does, and a warning says why.
    """

    def __init__(self, call: FunctionCall, bound: Bound, machine_for: MachineFor) -> None:
        self._bound, self._body, self._machine_for = bound, Body(call), machine_for
        self._source = source_of(call.function.name, bound)
        self._loaded: dict[tuple[torch.device, int], tuple[_Loaded, ...] | None] = {}

    def run(self, inputs: Sequence[torch.Tensor | None], status: torch.Tensor) -> list[torch.Tensor]:
        """Enqueue the launches on the current stream and return the outputs; nothing waits for the device.

        `status` becomes STALLED where programs wait for one another in vain.
        """
        x, lengths, hidden, cell = (self._input(inputs, place) for place in (X, LENGTHS, INITIAL_HIDDEN, INITIAL_CELL))
        assert x is not None
        loaded = self._ready(x.shape[1], status.device)
        if loaded is None:
            return self._body.run(inputs, status.device)
        found: dict[int, list[torch.Tensor]] = {place: [] for place in range(3)}
        for one in loaded:
            part = slice(one.launch.directions[0], one.launch.directions[-1] + 1)
            before, memory = (None if state is None else state[part] for state in (hidden, cell))
            call = prepare(one.held, x, lengths, before, memory, status)
            self._machine_for(status.device).run(one.held, call)
            for place, tensor in enumerate((call.y, call.hidden, call.cell)):
                found[place].append(tensor)
        return self._outputs(found)

    def _input(self, inputs: Sequence[torch.Tensor | None], place: int) -> torch.Tensor | None:
        at = self._bound.places.get(place)
        return None if at is None else inputs[at]

    def _outputs(self, found: dict[int, list[torch.Tensor]]) -> list[torch.Tensor]:
        """Join directions, and return the outputs that the call has."""
        import torch

        joined = {
            place: parts[0] if len(parts) == 1 else torch.cat(parts, 1 if place == 0 else 0)
            for place, parts in found.items()
        }
        order = sorted(self._bound.outputs.items(), key=lambda item: item[1])
        return [joined[place] for place, _ in order]

    def _ready(self, batch: int, device: torch.device) -> tuple[_Loaded, ...] | None:
        """Pack and load for a batch, or remember why not."""
        lanes = lanes_for(batch) if batch <= LARGEST_BATCH else batch
        key = (device, lanes)
        if key not in self._loaded:
            try:
                self._loaded[key] = self._load(lanes, device)
            except SartorError as error:
                _warn(self._source.name, f"{error.reason}. {error.remedy}")
                self._loaded[key] = None
        return self._loaded[key]

    def _load(self, lanes: int, device: torch.device) -> tuple[_Loaded, ...]:
        machine = self._machine_for(device)
        launches = plan(self._source, Settings(lanes, values_for(self._source.cell)), machine.facts)
        w = dense_inputs(self._bound)
        loaded = []
        for launch in launches:
            machine.load(launch.packed.shape)
            loaded.append(_Loaded(launch, resident(launch.packed, w[list(launch.directions)], device)))
        return tuple(loaded)


def kernel_for_call(call: FunctionCall) -> GpuLayer | None:
    """Take a call; None where its body has to run, with a warning on machines with a GPU."""
    import torch

    bound = bind(call)
    if bound is None or not torch.cuda.is_available():
        return None
    reason = _obstacle(call, bound)
    if reason:
        _warn(call.function.name, reason)
        return None
    return GpuLayer(call, bound, cuda_machine)


def _obstacle(call: FunctionCall, bound: Bound) -> str:
    """Return what is known to keep a kernel from running before anything runs, or nothing."""
    kind, r = call.inputs[bound.places[X]], bound.operands[R]
    batch = None if kind is None else kind.shape[1]
    if isinstance(batch, int) and batch > LARGEST_BATCH:
        return f"{batch} samples at a time, and a kernel takes at most {LARGEST_BATCH}"
    assert isinstance(r, Coded)
    return "" if r.values.dtype == np.float16 else "its weights are stored in float32, and a kernel has 16 bits"


def _warn(name: str, reason: str) -> None:
    text = f"{name}: no persistent kernel ({reason}); torch runs it with dense weights"
    warnings.warn(text, RuntimeWarning, stacklevel=4)


def source_of(name: str, bound: Bound) -> Source:
    """Return what a layer is packed from."""
    r, bias, peepholes = (bound.operands.get(place) for place in (R, BIAS, PEEPHOLES))
    assert isinstance(r, Coded)
    assert not isinstance(bias, Coded)
    assert not isinstance(peepholes, Coded)
    return Source(name, bound.cell, entries_of(r, len(GATES[bound.cell.kind])), bias, peepholes)


def dense_inputs(bound: Bound) -> Array:
    """Return W [D, G H, I]: inputs are multiplied for all steps at once, which is no work for sparse kernels."""
    w = bound.operands[W]
    return decode(w) if isinstance(w, Coded) else w


def values_for(cell: Cell) -> Values:
    """Return how values and states are stored between programs: in bfloat16 where states may be large."""
    decisive = {"LSTM": (0, 2), "GRU": (1,), "RNN": (0,)}[cell.kind]
    states = [cell.of(direction)[i] for direction in range(cell.directions) for i in decisive]
    return "fp16" if all(one.name in BOUNDED for one in states) else "bf16"
