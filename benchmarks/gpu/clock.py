"""Timing on a device: what was enqueued is timed by the device's own clock, side by side, call by call in turn."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from time import perf_counter

import torch

from sartor.share.timing import LEAST_ROUNDS, Timing
from sartor.tools.fuse.gpu_clock import Call, Clock, CudaClock


class HostClock:
    """Times by the host's clock: a smoke test without a GPU; its figures mean nothing."""

    def time(self, call: Call) -> float:
        """Return the microseconds of a call."""
        started = perf_counter()
        call()
        return (perf_counter() - started) * 1e6


def clock_for(device: torch.device) -> Clock:
    """Return the clock of a device."""
    return CudaClock(device) if device.type == "cuda" else HostClock()


def race(sides: Mapping[str, Call], clock: Clock, seconds: float) -> dict[str, Timing]:
    """Time calls in turn for about `seconds`, after two rounds that do not count."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(2):
        for call in sides.values():
            clock.time(call)
    until = perf_counter() + seconds
    rounds = 0
    while rounds < LEAST_ROUNDS or perf_counter() < until:
        for name, call in sides.items():
            times[name].append(clock.time(call))
        rounds += 1
    return {name: Timing(min(found), median(found)) for name, found in times.items()}


def copy_bandwidth(moved: int, clock: Clock, device: torch.device) -> float:
    """Return the bytes a second at which `moved` bytes are copied: half of them read, half of them written."""
    source = torch.empty(moved // 2, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    best = min(clock.time(lambda: target.copy_(source)) for _ in range(20))
    return moved / best * 1e6
