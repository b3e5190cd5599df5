"""A session on a GPU: onnxruntime's interface over torch operators, kernels of ours, and CUDA graphs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from torch.utils._pytree import tree_map_only

from sartor.share.errors import InputRefusedError, StalledError
from sartor.share.lowering.dtypes import from_numpy, to_numpy, torch_type
from sartor.share.runtime.calls import tensor_type
from sartor.share.runtime.device_calls import DeviceCalls, lower_with_kernels
from sartor.share.runtime.interface import (
    ModelMetadata,
    NodeArg,
    check_names,
    check_shape,
    contiguous,
    invalid,
    model_metadata,
    value_arg,
)  # fmt: skip
from sartor.share.runtime.kernel import STALLED
from sartor.share.runtime.replay import CudaRecorder, Obstructed, Recorder, Replays, Values, record

if TYPE_CHECKING:
    import onnxruntime

    from sartor.share.runtime.kernel import DeviceKernel


class Binding:
    """A model recorded for fixed tensors: write `inputs` in place, `run`, read `outputs`; nothing is copied.

    `outputs` are overwritten by the next run. Inputs that steer operators are fixed at what they were.
    """

    def __init__(self, inputs: Mapping[str, torch.Tensor], outputs: Values, replay: Callable[[], None]) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.run = replay
        """Enqueues one run on the current stream."""


class DeviceSession:
    """A model on a CUDA device.

    Takes and gives numpy arrays by onnxruntime's `run`, and tensors of torch by `run_tensors` and `bind`. Runs of the
    same sizes are replayed as one CUDA graph from the third on. Several threads may use a session, one runs at a time.
    Without a recorder every run launches all kernels one by one.
    """

    def __init__(
        self, model: ir.Model, device: torch.device, recorder: Recorder | None, skip: frozenset[str] = frozenset()
    ) -> None:
        self._model, self._device, self._recorder = model, device, recorder
        self._inputs = {str(value.name): value for value in _fed(model)}
        self._outputs = {str(value.name): value for value in model.graph.outputs}
        self._calls = DeviceCalls(torch.zeros(1, dtype=torch.int32, device=device))
        self._lowered = lower_with_kernels(model, self._calls, skip).to(device).eval()
        self._replays = None if recorder is None else Replays(self._lowered.compute, recorder)
        self._lock = threading.Lock()

    @property
    def kernels(self) -> tuple[DeviceKernel, ...]:
        """The kernels that the session runs."""
        return self._calls.found

    @property
    def graphs(self) -> int:
        """How many CUDA graphs the session keeps."""
        return 0 if self._replays is None else self._replays.recorded

    @property
    def obstacles(self) -> tuple[str, ...]:
        """What keeps runs from being replayed as CUDA graphs."""
        return () if self._replays is None else self._replays.obstacles

    def get_inputs(self) -> list[NodeArg]:
        """Return the inputs that have to be fed."""
        return [value_arg(value) for value in self._inputs.values()]

    def get_outputs(self) -> list[NodeArg]:
        """Return the outputs."""
        return [value_arg(value) for value in self._outputs.values()]

    def get_overridable_initializers(self) -> list[NodeArg]:
        """Return none: the weights stay on the device."""
        return []

    def get_providers(self) -> list[str]:
        """Return what runs the model, in the manner of onnxruntime."""
        return ["SartorCudaExecutionProvider", "CPUExecutionProvider"]

    def get_modelmeta(self) -> ModelMetadata:
        """Return the metadata of the model."""
        return model_metadata(self._model)

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, object],
        run_options: onnxruntime.RunOptions | None = None,
    ) -> list[Any]:
        """Compute the outputs, all of them or those named, as arrays; raises what InferenceSession does.

        Run options have no meaning here.
        """
        names = list(output_names) if output_names else list(self._outputs)
        check_names(self._inputs, self._outputs, input_feed, names)
        feeds = {name: self._tensor(name, input_feed[name]) for name in self._inputs}
        with self._lock:
            outputs, shared = self._compute(feeds)
            found = [self._array(name, outputs[name], shared) for name in names]
            self.check()
        return found

    def run_tensors(self, feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Compute all outputs as tensors on the device, on the current stream, without waiting for them.

        The outputs are the caller's own. Raises as `run`, but for an index out of range, which is only known when the
        device has come so far: ask `check`.
        """
        check_names(self._inputs, self._outputs, feeds, ())
        checked = {name: self._checked(name, feeds[name]) for name in self._inputs}
        with self._lock:
            outputs, shared = self._compute(checked)
            found: Values = tree_map_only(torch.Tensor, torch.clone, outputs) if shared else outputs
        return found

    def bind(self, feeds: Mapping[str, torch.Tensor]) -> Binding:
        """Record the model for these tensors themselves, which lie on the device.

        Raises InputRefusedError where a CUDA graph can't hold the model at these sizes.
        """
        check_names(self._inputs, self._outputs, feeds, ())
        checked = {name: self._checked(name, feeds[name]) for name in self._inputs}
        with self._lock:
            self._lowered(**checked)
            if self._recorder is None:
                raise InputRefusedError("this session records nothing", subject=self._subject)
            found = record(self._lowered.compute, checked, self._recorder, adopt=True)
        if isinstance(found, Obstructed):
            raise InputRefusedError(
                f"a CUDA graph can't hold {', '.join(found.operators)}", subject=self._subject, remedy="Use run_tensors"
            )
        return Binding(found.inputs, found.outputs, found.replay)

    def check(self) -> None:
        """Wait for the device and raise InputRefusedError if any run so far met an index outside its axis.

        Raises StalledError if programs of a kernel waited for one another in vain.
        """
        status = int(self._calls.status.item())
        if status:
            self._calls.status.zero_()
        if status == STALLED:
            remedy = "See that nothing else keeps the device busy, and run again"
            raise StalledError(
                "a kernel's programs waited for one another in vain", subject=self._subject, remedy=remedy
            )
        if status:
            raise InputRefusedError("an index lies outside the axis that it picks from", subject=self._subject)

    @property
    def _subject(self) -> str:
        return self._model.graph.name or "model"

    def _compute(self, feeds: Mapping[str, Any]) -> tuple[Values, bool]:
        """Return the outputs, and whether the next run overwrites them."""
        key = self._key(feeds)
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, benchmark=True):
            if self._replays is None or key is None:
                return self._lowered.compute(feeds), False
            return self._replays.run(key, feeds)

    def _key(self, feeds: Mapping[str, Any]) -> Hashable | None:
        """Return what a recorded run depends on besides data on the device; None where it can't be recorded."""
        parts: list[object] = []
        for name, value in feeds.items():
            if not isinstance(value, torch.Tensor):
                return None
            steers = name in self._lowered.steering
            parts.append((value.shape, value.dtype, to_numpy(value).tobytes() if steers else None))
        return tuple(parts)

    def _tensor(self, name: str, value: object) -> Any:
        """Return what is fed as a tensor where the model reads it; strings and sequences as they are."""
        if tensor_type(self._inputs[name]) is None:
            return value
        array = contiguous(value)
        type_ = tensor_type(self._inputs[name])
        assert type_ is not None
        if array.dtype != type_.dtype.numpy():
            raise invalid(name, type_, array.dtype, array.shape)
        check_shape(name, type_, array.dtype, array.shape)
        tensor = from_numpy(array)
        return tensor if name in self._lowered.steering else tensor.to(self._device, non_blocking=True)

    def _checked(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor where the model reads it."""
        type_ = tensor_type(self._inputs[name])
        if type_ is not None:
            if tensor.dtype is not torch_type(type_.dtype):
                raise invalid(name, type_, tensor.dtype, tuple(tensor.shape))
            check_shape(name, type_, tensor.dtype, tuple(tensor.shape))
        return tensor.cpu() if name in self._lowered.steering else tensor.to(self._device, non_blocking=True)

    def _array(self, name: str, value: Any, shared: bool) -> Any:
        """Return an output as onnxruntime does, in memory of its own."""
        if isinstance(value, list):
            return [self._array(name, item, shared) for item in value]
        if not isinstance(value, torch.Tensor):
            return value
        # What lies on the device is copied anyway.
        own = value.clone() if shared and value.device.type == "cpu" else value
        return to_numpy(own, self._outputs[name].dtype)


def open_device_session(model: ir.Model, device: str, skip: frozenset[str]) -> DeviceSession:
    """Open a session on `cuda` or `cuda:N`."""
    place = torch.device(device)
    with torch.cuda.device(place):
        return DeviceSession(model, place, CudaRecorder(place), skip)


def _fed(model: ir.Model) -> list[ir.Value]:
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]
