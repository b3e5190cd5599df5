"""A session without the custom-op library: stock sessions for the segments between kernel calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor as Pool
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from sartor.share.runtime.interface import (
    ModelMetadata,
    NodeArg,
    check_names,
    checked_array,
    contiguous,
    model_metadata,
    tensor_arg,
)  # fmt: skip
from sartor.share.runtime.invoke import Array, Invocation, invoke, prepare
from sartor.share.runtime.kernel import Kernel
from sartor.share.runtime.partition import KernelCall, Partition, Segment, partition

if TYPE_CHECKING:
    import onnxruntime

SessionMaker = Callable[[ir.Model], "onnxruntime.InferenceSession"]
_Key = tuple[tuple[int, ...], ...]
_MOST_FRAMES = 4


_Run = Callable[["onnxruntime.RunOptions | None"], None]


@dataclass(frozen=True)
class _Frame:
    """Arrays for all values at fixed sizes, and the steps bound to them; serves one run at a time."""

    key: _Key
    arrays: Mapping[str, Array]
    steps: tuple[_Run, ...]


class SegmentedSession:
    """The part of onnxruntime's InferenceSession that needs no library: metadata and `run`."""

    def __init__(
        self, model: ir.Model, kernels: tuple[Kernel, ...], parts: Partition, make: SessionMaker, threads: int
    ) -> None:
        self.kernels = kernels
        self._model = model
        self._parts = parts
        self._sessions = {step: make(step.model) for step in parts.steps if isinstance(step, Segment)}
        self._constants = {name: contiguous(tensor.numpy()) for name, tensor in parts.constants}
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, "sartor") if threads > 1 else None
        self._lock = threading.Lock()
        self._frames: list[_Frame] = []
        self._sizes_follow_inputs = True

    def get_inputs(self) -> list[NodeArg]:
        """Return the inputs."""
        return [tensor_arg(name, type_) for name, type_ in self._parts.inputs]

    def get_outputs(self) -> list[NodeArg]:
        """Return the outputs."""
        return [tensor_arg(name, type_) for name, type_ in self._parts.outputs]

    def get_overridable_initializers(self) -> list[NodeArg]:
        """Return none: the segments hold the initializers."""
        return []

    def get_providers(self) -> list[str]:
        """Return the execution provider of the segments."""
        return ["CPUExecutionProvider"]

    def get_modelmeta(self) -> ModelMetadata:
        """Return the metadata of the whole model."""
        return model_metadata(self._model)

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, object],
        run_options: onnxruntime.RunOptions | None = None,
    ) -> list[Array]:
        """Compute the outputs, all of them or those named; raises what InferenceSession does."""
        names = list(output_names) if output_names else [name for name, _ in self._parts.outputs]
        inputs = dict(self._parts.inputs)
        check_names(inputs, [name for name, _ in self._parts.outputs], input_feed, names)
        feed = {name: checked_array(name, type_, input_feed[name]) for name, type_ in inputs.items()}
        frame = self._take(_key(feed))
        if frame is None:
            return self._run_first(names, feed, run_options)
        try:
            return _run_bound(frame, names, feed, run_options)
        except Exception:
            # Either a size depends on the data and does not fit the frame, or this fails in the same way again.
            values = self._run_unbound(feed, run_options)
            self._sizes_follow_inputs = False
            return [values[name] for name in names]
        finally:
            self._give_back(frame)

    def _run_first(
        self, names: Sequence[str], feed: Mapping[str, Array], run_options: onnxruntime.RunOptions | None
    ) -> list[Array]:
        """Run at sizes that no free frame has, and make one for the next run."""
        values = self._run_unbound(feed, run_options)
        if self._sizes_follow_inputs:
            self._give_back(self._make_frame(_key(feed), values))
        return [values[name] for name in names]

    def _run_unbound(self, feed: Mapping[str, Array], run_options: onnxruntime.RunOptions | None) -> dict[str, Array]:
        """Run the steps one after the other and return all values."""
        values = {**self._constants, **feed}
        for step in self._parts.steps:
            if isinstance(step, Segment):
                inputs = {name: values[name] for name in step.inputs}
                results = self._sessions[step].run(list(step.outputs), inputs, run_options)
            else:
                invocation = self._prepare(step, values)
                invoke(invocation, self._pool)
                results = invocation.outputs
            values.update(zip(step.outputs, results, strict=True))
        return values

    def _make_frame(self, key: _Key, values: Mapping[str, Array]) -> _Frame:
        """Allocate arrays like these values and bind the steps to them."""
        arrays = {name: np.empty(array.shape, array.dtype) for name, array in values.items()} | self._constants
        steps: list[_Run] = []
        for step in self._parts.steps:
            if isinstance(step, Segment):
                steps.append(_bound(self._sessions[step], step, arrays))
            else:
                invocation = self._prepare(step, arrays)
                arrays.update(zip(step.outputs, invocation.outputs, strict=True))
                steps.append(partial(_invoke, invocation, self._pool))
        return _Frame(key, arrays, tuple(steps))

    def _prepare(self, call: KernelCall, values: Mapping[str, Array]) -> Invocation:
        """Bind a kernel to its inputs."""
        inputs = [None if name is None else values[name] for name in call.inputs]
        return prepare(call.kernels, inputs, self._threads)

    def _take(self, key: _Key) -> _Frame | None:
        """Take a free frame for these sizes."""
        with self._lock:
            frame = next((frame for frame in self._frames if frame.key == key), None)
            if frame is not None:
                self._frames.remove(frame)
            return frame

    def _give_back(self, frame: _Frame) -> None:
        """Keep a frame for a later run, instead of the one unused for longest."""
        with self._lock:
            self._frames = [*self._frames, frame][-_MOST_FRAMES:] if self._sizes_follow_inputs else []


def open_segments(
    model: ir.Model, kernels: tuple[Kernel, ...], make: SessionMaker, threads: int
) -> SegmentedSession | None:
    """Return a session over the segments of a model, or None where it can't be cut; `make` opens a segment."""
    parts = partition(model, kernels)
    if parts is None or not any(isinstance(step, KernelCall) for step in parts.steps):
        return None
    return SegmentedSession(model, kernels, parts, make, threads)


def _run_bound(
    frame: _Frame, names: Sequence[str], feed: Mapping[str, Array], run_options: onnxruntime.RunOptions | None
) -> list[Array]:
    """Run in the arrays of a frame and copy the outputs out of them."""
    for name, array in feed.items():
        np.copyto(frame.arrays[name], array)
    for step in frame.steps:
        step(run_options)
    return [frame.arrays[name].copy() for name in names]


def _invoke(invocation: Invocation, pool: Pool | None, run_options: onnxruntime.RunOptions | None) -> None:
    """Run a kernel, which has no use for run options."""
    invoke(invocation, pool)


def _bound(session: onnxruntime.InferenceSession, segment: Segment, arrays: Mapping[str, Array]) -> _Run:
    """Bind a segment to its arrays."""
    binding = session.io_binding()
    for name in segment.inputs:
        array = arrays[name]
        binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    for name in segment.outputs:
        array = arrays[name]
        binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    return partial(session.run_with_iobinding, binding)


def _key(feed: Mapping[str, Array]) -> _Key:
    """Return the sizes of the inputs."""
    return tuple(array.shape for array in feed.values())
