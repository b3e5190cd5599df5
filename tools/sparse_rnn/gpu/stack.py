"""Layers at the same time: each works on a stretch of steps while the one above works on the stretch before.

Every layer has an equal part of the multiprocessors and a stream of its own; events tell when a stretch is ready.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from sartor.share.errors import InputRefusedError
from sartor.tools.sparse_rnn.gpu.limits import Settings
from sartor.tools.sparse_rnn.gpu.machine import Machine
from sartor.tools.sparse_rnn.gpu.operands import Resident, prepare, resident
from sartor.tools.sparse_rnn.gpu.plan import Source, plan

if TYPE_CHECKING:
    import torch

STRETCH = 64
"""Steps of a launch: enough to make up for loading the weights again."""


@dataclass(frozen=True)
class Stage:
    """A launch: a layer, and the steps that it makes."""

    layer: int
    first: int
    end: int


def schedule(layers: int, steps: int, stretch: int) -> tuple[Stage, ...]:
    """Return the launches in the order of enqueuing: those that may run at the same time follow one another."""
    count = -(-steps // stretch)
    return tuple(
        Stage(layer, (turn - layer) * stretch, min((turn - layer + 1) * stretch, steps))
        for turn in range(layers + count - 1)
        for layer in range(layers)
        if 0 <= turn - layer < count
    )


class Stack:
    """Forward layers, each the input of the next.

    Raises InputRefusedError where they don't fit next to each other, and UnavailableError where there is no code.
    """

    def __init__(
        self, sources: Sequence[Source], inputs: Sequence[NDArray[Any]], settings: Settings, machine: Machine,
        device: torch.device, stretch: int = STRETCH,
    ) -> None:  # fmt: skip
        if len(sources) > machine.facts.processors or any(one.cell.direction != "forward" for one in sources):
            raise InputRefusedError("only forward layers, one a multiprocessor at most, run at the same time")
        self._machine, self._device, self._stretch = machine, device, stretch
        self._held: list[Resident] = []
        for source, w in zip(sources, inputs, strict=True):
            (launch,) = plan(source, settings, machine.facts, len(sources))
            machine.load(launch.packed.shape)
            self._held.append(resident(launch.packed, w, device))
        self._streams = [_stream(device) for _ in sources]

    def run(self, x: torch.Tensor, status: torch.Tensor) -> torch.Tensor:
        """Enqueue all layers over x [T, B, I] and return the hidden states [T, B, H] of the last one."""
        import torch

        found: list[list[torch.Tensor]] = [[] for _ in self._held]
        states: list[tuple[torch.Tensor, torch.Tensor] | None] = [None] * len(self._held)
        begun = _mark(None, self._device)
        ready: dict[tuple[int, int], Any] = {}
        for stage in schedule(len(self._held), x.shape[0], self._stretch):
            stream = self._streams[stage.layer]
            with _on(stream):
                _wait(stream, ready.get((stage.layer - 1, stage.first), begun))
                # What the layer below made is alive until all have ended, whatever stream it is of.
                below = stage.first // self._stretch
                given = found[stage.layer - 1][below] if stage.layer else x[stage.first : stage.end]
                hidden, cell = states[stage.layer] or (None, None)
                call = prepare(self._held[stage.layer], given, None, hidden, cell, status)
                self._machine.run(self._held[stage.layer], call)
                found[stage.layer].append(call.y[:, 0])
                states[stage.layer] = call.hidden, call.cell
                ready[stage.layer, stage.first] = _mark(stream, self._device)
        for mark in ready.values():
            _wait(None, mark)
        return torch.cat(found[-1])


def _stream(device: torch.device) -> Any:
    """Return a stream of a CUDA device, None for others."""
    import torch

    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def _on(stream: Any) -> AbstractContextManager[Any]:
    import torch

    return nullcontext() if stream is None else torch.cuda.stream(stream)


def _mark(stream: Any, device: torch.device) -> Any:
    """Return an event after what a stream, or the current one, has been given so far; None without a GPU."""
    import torch

    if device.type != "cuda":
        return None
    return (stream or torch.cuda.current_stream(device)).record_event()


def _wait(stream: Any, mark: Any) -> None:
    """Let a stream, or the current one, wait for an event."""
    import torch

    if mark is not None:
        (stream or torch.cuda.current_stream()).wait_event(mark)
