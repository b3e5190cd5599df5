"""Finding out in one run what a CUDA graph can't hold: whatever makes the host wait for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

OnDevice = Callable[[torch.Tensor], bool]

_WAITS = (torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output)
_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects in `obstacles` the operators that a CUDA graph can't hold.

    Those are operators whose result on the host, or whose output shape, depends on data of the device, and copies
    between host and device, whose memory on the host a graph would read again at every replay.
    """

    def __init__(self, on_device: OnDevice) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.obstacles: dict[str, None] = {}
        self._on_device = on_device
        self._known = False

    @contextmanager
    def known(self) -> Iterator[None]:
        """Let pass what the caller takes care of."""
        self._known = True
        try:
            yield
        finally:
            self._known = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator and look at what went in and what came out."""
        result = func(*args, **(kwargs or {}))
        if not self._known:
            values = tree_leaves((args, kwargs, result))
            sides = {self._on_device(one) for one in values if isinstance(one, torch.Tensor)}
            waits = True in sides and any(tag in func.tags for tag in _WAITS)
            if waits or (len(sides) == 2 and func in _COPIES):
                self.obstacles[str(func)] = None
        return result
