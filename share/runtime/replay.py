"""CUDA graphs: the launches of one run are recorded once for each combination of sizes and replayed ever after.

A combination is first run as it is, because it may never come again. When it does, one run under `Watch` tells whether
a graph can hold it, and keeps what the host computes for the device, such as masks that are made from a size: those
tensors are the same for the same sizes, and the graph reads them where they are. The next run is recorded. All graphs
allocate from one pool, in which an intermediate takes the place of another that nobody reads any more.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from sartor.share.lowering.frame import Upload
from sartor.share.runtime.watch import Watch

Values = dict[str, Any]
Forward = Callable[[Mapping[str, Any], Upload], Values]

MOST = 32
"""Combinations of sizes that are kept; the one unused for longest goes first."""


class Recorder(Protocol):
    """What records launches; the tests have one for the CPU."""

    def on_device(self, tensor: torch.Tensor) -> bool:
        """Tell whether a tensor lies where launches work."""

    def upload(self, tensor: torch.Tensor) -> torch.Tensor:
        """Bring a tensor to the device."""

    def rehearse(self, run: Callable[[], None]) -> None:
        """Run something in the way in which it will be recorded."""

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """Record what something launches, and return what launches it again, on the current stream."""


class CudaRecorder:
    """Records CUDA graphs on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def on_device(self, tensor: torch.Tensor) -> bool:
        """Tell whether a tensor lies on the device."""
        return tensor.device.type == self._device.type

    def upload(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy a tensor to the device."""
        return tensor.to(self._device, non_blocking=True)

    def rehearse(self, run: Callable[[], None]) -> None:
        """Run something on the stream on which it will be recorded: libraries keep workspaces for each stream."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            run()
        current.wait_stream(self._stream)

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """Capture a graph; other threads may go on using the device."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            run()
        replay: Callable[[], None] = graph.replay
        return replay


@dataclass(frozen=True)
class Recorded:
    """A graph with the tensors that it reads and writes; `kept` are uploads that it reads."""

    inputs: Mapping[str, torch.Tensor]
    outputs: Values
    replay: Callable[[], None]
    kept: tuple[torch.Tensor, ...]

    def run(self, feeds: Mapping[str, Any]) -> Values:
        """Fill the inputs, replay, and return the graph's own outputs, which the next replay overwrites."""
        for name, tensor in self.inputs.items():
            if feeds[name] is not tensor:
                tensor.copy_(feeds[name], non_blocking=True)
        self.replay()
        return self.outputs


@dataclass(frozen=True)
class Obstructed:
    """What a graph can't hold at some sizes."""

    operators: tuple[str, ...]


class Replays:
    """The graphs of one model."""

    def __init__(self, forward: Forward, recorder: Recorder) -> None:
        self._forward, self._recorder = forward, recorder
        self._entries: OrderedDict[Hashable, Recorded | Obstructed | None] = OrderedDict()

    def run(self, key: Hashable, feeds: Mapping[str, Any]) -> tuple[Values, bool]:
        """Return the outputs, and whether they are a graph's own tensors."""
        known = key in self._entries
        entry = self._entries.get(key)
        if known and entry is None:
            entry = self._try(feeds)
        self._keep(key, entry)
        if isinstance(entry, Recorded):
            return entry.run(feeds), True
        return self._forward(feeds, self._recorder.upload), False

    def _try(self, feeds: Mapping[str, Any]) -> Recorded | Obstructed:
        """Record a run; where the device refuses, for instance for want of memory, the model runs without a graph."""
        try:
            return record(self._forward, feeds, self._recorder)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            warnings.warn(f"the launches could not be recorded ({reason})", RuntimeWarning, 2)
            return Obstructed((reason,))

    def _keep(self, key: Hashable, entry: Recorded | Obstructed | None) -> None:
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > MOST:
            self._entries.popitem(last=False)

    @property
    def recorded(self) -> int:
        """The graphs that are kept."""
        return sum(isinstance(entry, Recorded) for entry in self._entries.values())

    @property
    def obstacles(self) -> tuple[str, ...]:
        """The operators that keep some combination of sizes from being recorded."""
        found = [entry.operators for entry in self._entries.values() if isinstance(entry, Obstructed)]
        return tuple(dict.fromkeys(name for names in found for name in names))


def record(
    forward: Forward, feeds: Mapping[str, Any], recorder: Recorder, adopt: bool = False
) -> Recorded | Obstructed:
    """Record a run for the sizes of its feeds; `adopt` makes the feeds themselves the inputs of the graph."""
    inputs = {name: value if adopt else value.clone() for name, value in feeds.items() if recorder.on_device(value)}
    given = {**feeds, **inputs}
    uploads = _Uploads(recorder)
    with torch.no_grad():
        recorder.rehearse(lambda: uploads.watch(lambda: forward(given, uploads.keep)))
        if uploads.obstacles:
            return Obstructed(uploads.obstacles)
        outputs: Values = {}
        replay = recorder.record(lambda: outputs.update(forward(given, uploads.again())))
    return Recorded(inputs, outputs, replay, tuple(uploads.kept))


class _Uploads:
    """What the host sends to the device in a run, in order: kept in one run, given again in the next."""

    def __init__(self, recorder: Recorder) -> None:
        self.kept: list[torch.Tensor] = []
        self._recorder = recorder
        self._watch = Watch(recorder.on_device)

    @property
    def obstacles(self) -> tuple[str, ...]:
        """What a graph can't hold."""
        return tuple(self._watch.obstacles)

    def watch(self, run: Callable[[], object]) -> None:
        """Run something and see what it does."""
        with self._watch:
            run()

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """Send a tensor and keep what arrives."""
        with self._watch.known():
            self.kept.append(self._recorder.upload(tensor))
        return self.kept[-1]

    def again(self) -> Upload:
        """Return an upload that gives what was kept, in the order in which it was sent."""
        kept = iter(self.kept)
        return lambda _tensor: next(kept)
