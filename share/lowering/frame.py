"""What a plan is made of, and how it runs: blocks of steps over one row of slots."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from sartor.share.lowering.registry import Op, Value

Call = Callable[["Frame", Sequence[Value]], Value]
"""Runs a node on its inputs; returns one value, or a tuple of values."""

Upload = Callable[[torch.Tensor], torch.Tensor]
"""Brings a tensor from the host to the device."""


class Side(enum.Enum):
    """Where an input has to be: `SCALAR` is the device but for a tensor of rank 0, which may stay on the host."""

    HOST = enum.auto()
    DEVICE = enum.auto()
    SCALAR = enum.auto()
    ANY = enum.auto()


@dataclass(frozen=True)
class Fetch:
    """An input of a step: its slot (-1 where absent), and where it has to be."""

    slot: int
    side: Side


@dataclass(frozen=True)
class Step:
    """One node: where its inputs and outputs lie, and which slots nobody reads afterwards."""

    op: Op
    call: Call
    inputs: tuple[Fetch, ...]
    outputs: tuple[int, ...]
    dead: tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """A graph; `own` are its outputs that nobody else holds, to be dropped once they are read."""

    inputs: tuple[int, ...]
    steps: tuple[Step, ...]
    outputs: tuple[Fetch, ...]
    own: tuple[int, ...]


class Frame:
    """The values of one forward pass; nested graphs share the slots of the graph around them."""

    def __init__(self, size: int, device: torch.device, upload: Upload | None = None) -> None:
        self.slots: list[Any] = [None] * size
        self.device = device
        self._upload = upload or partial(torch.Tensor.to, device=device, non_blocking=True)
        self._fetch = self._local if device.type == "cpu" else self._moved

    def run(self, block: Block, inputs: Sequence[Value]) -> list[Value]:
        """Run a block on its inputs and return its outputs."""
        slots = self.slots
        for slot, value in zip(block.inputs, inputs, strict=True):
            slots[slot] = value
        for step in block.steps:
            self._step(step)
        outputs = [self._fetch(fetch) for fetch in block.outputs]
        for slot in block.own:
            slots[slot] = None
        return outputs

    def feed(self, entry: Fetch, value: Value) -> None:
        """Put an input where the graph reads it, so that it is moved once."""
        self.slots[entry.slot] = value
        self.slots[entry.slot] = self._fetch(entry)

    def _step(self, step: Step) -> None:
        """Run one node; a note on any error tells which one."""
        slots = self.slots
        try:
            result = step.call(self, [self._fetch(fetch) for fetch in step.inputs])
        except Exception as error:
            error.add_note(f"in the node {step.op.node.name or '?'} ({step.op.node.op_type})")
            raise
        if isinstance(result, tuple):
            # A rule may return outputs that nobody asks for, and leave out optional ones at the end.
            for slot, value in zip(step.outputs, result, strict=False):
                if slot >= 0:
                    slots[slot] = value
        else:
            slots[step.outputs[0]] = result
        for slot in step.dead:
            slots[slot] = None

    def _local(self, fetch: Fetch) -> Value:
        return None if fetch.slot < 0 else self.slots[fetch.slot]

    def _moved(self, fetch: Fetch) -> Value:
        """Return a value where it is needed; what is there already is not touched."""
        value = self._local(fetch)
        if isinstance(value, list):
            return [self._placed(item, fetch) for item in value]
        return self._placed(value, fetch) if isinstance(value, torch.Tensor) else value

    def _placed(self, tensor: torch.Tensor, fetch: Fetch) -> torch.Tensor:
        on_host = tensor.device.type == "cpu"
        if fetch.side is Side.HOST:
            return tensor if on_host else tensor.cpu()
        if not on_host or fetch.side is Side.ANY or (fetch.side is Side.SCALAR and tensor.dim() == 0):
            return tensor
        return self._upload(tensor)


HOST = Frame(0, torch.device("cpu"))
"""Where operators that make small tensors make them for the host."""
