"""A recorder for the CPU, as strict as a CUDA graph: a replay does the recorded operators on the recorded memory.

What the host computed while recording is as fixed as it is in a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):
    """Collects operators with the tensors that they read and wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and keep it."""
        result = func(*args, **(kwargs or {}))
        self.entries.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        """Run the operators again, into the memory of their first results."""
        with torch.no_grad():
            for func, args, kwargs, result in self.entries:
                memory = {one.untyped_storage().data_ptr() for one in _tensors((args, kwargs))}
                again = func(*args, **kwargs)
                for old, new in zip(_tensors(result), _tensors(again), strict=True):
                    if old.untyped_storage().data_ptr() not in memory:
                        old.copy_(new)


class CpuRecorder:
    """Records on the CPU; `uploads` counts what was sent to the device."""

    def __init__(self) -> None:
        self.uploads = 0

    def on_device(self, tensor: torch.Tensor) -> bool:
        """Take every tensor for one of the device, but for single integers, which are sizes."""
        return tensor.dtype is not torch.int64 or tensor.numel() > 1

    def upload(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy a tensor."""
        self.uploads += 1
        return tensor.clone()

    def rehearse(self, run: Callable[[], None]) -> None:
        """Run something."""
        run()

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """Record something."""
        tape = Tape()
        with tape:
            run()
        return tape.replay


def _tensors(values: Any) -> list[torch.Tensor]:
    return [one for one in tree_leaves(values) if isinstance(one, torch.Tensor)]
