"""What a GPU holds: the facts that occupancy and memory time follow from, of devices here and of three others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from sartor.share.device import parse

if TYPE_CHECKING:
    import torch

WARP = 32
"""Threads of a warp."""

PARTITIONS = 4
"""Parts of a multiprocessor, each with its own registers and scheduler (cuda_occupancy.h)."""

REGISTER_UNIT, SHARED_UNIT = 256, 128
"""Registers of a warp and bytes of a program are allocated in such units (cuda_occupancy.h, from capability 8.0 on)."""

RESERVED_SHARED = 1024
"""Bytes of shared memory that the driver takes for each program (CUDA C++ Programming Guide, capability 8.0 on)."""


@dataclass(frozen=True)
class DeviceFacts:
    """A GPU, by name and compute capability times ten.

    What a multiprocessor has: registers, bytes of shared memory, warps and programs at a time, lanes for float32; how
    much shared memory a program may have; bytes of the second cache, bytes of memory a second, cycles a second.
    """

    name: str
    capability: int
    multiprocessors: int
    registers: int
    shared: int
    program_shared: int
    warps: int
    programs: int
    lanes: int
    cache: int
    bandwidth: float
    clock: float


A100 = DeviceFacts(
    "NVIDIA A100-SXM4-80GB", 80, 108, 65536, 164 << 10, 163 << 10, 64, 32, 64, 40 << 20, 2.039e12, 1.41e9
)  # fmt: skip
H100 = DeviceFacts(
    "NVIDIA H100 80GB HBM3", 90, 132, 65536, 228 << 10, 227 << 10, 64, 32, 128, 50 << 20, 3.352e12, 1.98e9
)  # fmt: skip
H200 = DeviceFacts("NVIDIA H200", 90, 132, 65536, 228 << 10, 227 << 10, 64, 32, 128, 50 << 20, 4.8e12, 1.98e9)
"""From the data sheets (bandwidth, boost clock), the whitepapers of A100 and H100 (multiprocessors, caches), and the
table of compute capabilities in the CUDA C++ Programming Guide (what a multiprocessor holds)."""

INTERPRETER = DeviceFacts("interpreter", 0, 1, 65536, 228 << 10, 227 << 10, 64, 1, 1, 1, 1e18, 1e15)
"""Triton's interpreter, which runs one program after the other: how many steps they take counts, not their size."""


def planned_for(device: str) -> DeviceFacts:
    """Return the facts of a CUDA device by name; those of an H100 where this machine has no such device."""
    import torch

    number = parse(device) or 0
    return facts_of(torch.device("cuda", number)) if number < torch.cuda.device_count() else H100


def facts_of(device: torch.device) -> DeviceFacts:
    """Return the facts of a device of torch; on the CPU kernels run in the interpreter."""
    return _read(device) if device.type == "cuda" else INTERPRETER


@cache
def _read(device: torch.device) -> DeviceFacts:
    import torch

    return from_properties(torch.cuda.get_device_properties(device))


def from_properties(found: Any) -> DeviceFacts:
    """Translate the device properties of torch; clocks come in kHz, the memory moves data twice a cycle."""
    capability = 10 * int(found.major) + int(found.minor)
    return DeviceFacts(
        name=found.name,
        capability=capability,
        multiprocessors=found.multi_processor_count,
        registers=found.regs_per_multiprocessor,
        shared=found.shared_memory_per_multiprocessor,
        program_shared=found.shared_memory_per_block_optin,
        warps=found.max_threads_per_multi_processor // WARP,
        programs=_PROGRAMS.get(capability, 32),
        lanes=_LANES.get(capability, 128),
        cache=found.L2_cache_size,
        bandwidth=2e3 * found.memory_clock_rate * found.memory_bus_width / 8,
        clock=1e3 * found.clock_rate,
    )


_PROGRAMS = {86: 16, 87: 16, 89: 24, 101: 24, 110: 24, 120: 24, 121: 24}
"""Programs of a multiprocessor where they are not 32 (cuda_occupancy.h)."""

_LANES = {80: 64}
"""Float32 lanes of a multiprocessor where they are not 128 (CUDA C++ Programming Guide, arithmetic instructions)."""
