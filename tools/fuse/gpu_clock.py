"""Timing on a GPU, call by call, by the device's own clock and with cold caches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

Call = Callable[[], object]

FLUSH_BYTES = 256 << 20
"""Written before each call, more than any cache holds: inputs come from memory, and launches cost no time."""


class Clock(Protocol):
    """Times one call."""

    def time(self, call: Call) -> float:
        """Return the microseconds of a call."""


class CudaClock:
    """Times by events of the current stream, with cold caches."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self._flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=device)

    def time(self, call: Call) -> float:
        """Return the microseconds that the device spends."""
        import torch

        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        self._flush.zero_()
        begin.record()
        call()
        end.record()
        end.synchronize()
        return 1e3 * float(begin.elapsed_time(end))
