"""The lowered model: a torch module with the model's initialisers as parameters and buffers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sartor.share.errors import UsageError
from sartor.share.lowering.constants import Constant, Constants
from sartor.share.lowering.dtypes import from_numpy
from sartor.share.lowering.frame import Frame, Side, Upload
from sartor.share.lowering.plan import Plan
from sartor.share.lowering.registry import Value


class Lowered(torch.nn.Module):
    """A model in torch: `lowered(**feeds)` takes inputs by name and returns outputs by name, in the graph's order.

    Floating initialisers are parameters, without gradients until asked for; others are buffers. Values run on the
    device of the parameters and buffers, or of the inputs where there are none; small integers that steer operators
    stay on the host.
    """

    def __init__(self, plan: Plan, constants: Constants) -> None:
        super().__init__()
        self.initializers, self.constants = _Store(), _Store()
        self._plan = plan
        self._host: dict[int, Value] = {}
        self._device: list[tuple[int, _Store, str]] = []
        for index, (value, constant) in enumerate(constants.items()):
            where = dict(plan.constants.get(value, {}))
            if constant.tunable or where:
                self._add(index, constant, where)
        self._required = frozenset(plan.inputs) - {item.name for item in constants.values() if item.tunable}

    def _add(self, index: int, constant: Constant, where: Mapping[bool, int]) -> None:
        """Keep a constant on the sides on which it is read."""
        array = constant.content.numpy()
        if array.dtype.kind in "OUS":
            self._host.update(dict.fromkeys(where.values(), array))
            return
        tensor = from_numpy(array)
        if True in where:
            self._host[where[True]] = tensor.clone()
        if constant.tunable or False in where:
            store = self.initializers if constant.tunable else self.constants
            name = constant.name if constant.tunable else str(index)
            store.add(name, tensor, constant.tunable)
            self._device += [(where[False], store, name)] if False in where else []

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs in the graph's order."""
        return tuple(self._plan.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs in the graph's order."""
        return self._plan.outputs

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the parameters and buffers by the names of the initialisers."""
        return {name: self.initializers.get(name) for name in self.initializers.keys}

    @property
    def steering(self) -> frozenset[str]:
        """The names of the inputs that are read on the host: their values, not only their sizes, steer operators."""
        entries = self._plan.inputs.items()
        return frozenset(name for name, places in entries if any(place.side is Side.HOST for place in places))

    def forward(self, /, **feeds: Value) -> dict[str, Value]:
        """Run the model; raises UsageError for names that are not its inputs and for missing ones."""
        return self.compute(feeds)

    def compute(self, feeds: Mapping[str, Value], upload: Upload | None = None) -> dict[str, Value]:
        """Run the model as `forward` does; `upload` brings what the host computes to the device."""
        self._check(feeds.keys())
        frame = Frame(self._plan.size, self._find_device(feeds), upload)
        for slot, store, name in self._device:
            frame.slots[slot] = store.get(name)
        for slot, value in self._host.items():
            frame.slots[slot] = value
        for name, value in feeds.items():
            for entry in self._plan.inputs[name]:
                frame.feed(entry, from_numpy(value) if _is_numeric(value) else value)
        outputs = frame.run(self._plan.block, [frame.slots[slot] for slot in self._plan.block.inputs])
        return dict(zip(self._plan.outputs, outputs, strict=True))

    def _check(self, given: Any) -> None:
        for names, fault in ((given - self._plan.inputs.keys(), "no input of"), (self._required - given, "missing in")):
            if names:
                raise UsageError(f"{fault} the model", subject=", ".join(sorted(names)))

    def _find_device(self, feeds: Mapping[str, Value]) -> torch.device:
        if self._device:
            _, store, name = self._device[0]
            return store.get(name).device
        given = [value.device for value in feeds.values() if isinstance(value, torch.Tensor)]
        return next((device for device in given if device.type != "cpu"), torch.device("cpu"))


class _Store(torch.nn.Module):
    """Parameters and buffers under any name: what torch does not allow in a name is escaped."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[str, str] = {}

    def add(self, name: str, tensor: torch.Tensor, tunable: bool) -> None:
        """Register a tensor: as a parameter without gradients if it is tunable and floating."""
        key = self.keys[name] = "=" + name.replace("%", "%25").replace(".", "%2E")
        if tunable and tensor.is_floating_point():
            self.register_parameter(key, torch.nn.Parameter(tensor, requires_grad=False))
        else:
            self.register_buffer(key, tensor, persistent=tunable)

    def get(self, name: str) -> torch.Tensor:
        """Return a tensor as it is now, after moves and replacements."""
        key = self.keys[name]
        found = self._parameters.get(key)
        tensor = self._buffers[key] if found is None else found
        assert tensor is not None
        return tensor


def _is_numeric(value: Value) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind not in "OUS"
