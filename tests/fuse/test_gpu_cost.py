"""The accurate evaluator of the GPU: occupancy as NVIDIA counts it, waves, and estimates that follow the work."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import triton
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from tests.fuse import test_random_chains as random
from tests.kits import fuse_kit as kit
from tests.kits import random_chains as chains

from sartor.share.triton_ahead import Resources
from sartor.tools.fuse import ops
from sartor.tools.fuse.align import gpu_program
from sartor.tools.fuse.axes import NotEmittableError
from sartor.tools.fuse.gpu_cost import Estimate, evaluate, expected, occupancy, together
from sartor.tools.fuse.gpu_facts import A100, H100, H200, DeviceFacts, from_properties
from sartor.tools.fuse.gpu_kernel import Config, GpuKernel, configurations, gpu_kernels
from sartor.tools.fuse.gpu_launch import Planned, plan
from sartor.tools.fuse.gpu_tune import ranked
from sartor.tools.fuse.gpu_walk import INSTRUCTIONS
from sartor.tools.fuse.program import parts

F = np.float32
HEADER = Path(triton.__file__).parent / "backends" / "nvidia" / "include" / "cuda_occupancy.h"


def kernels(nodes: list[Any], inputs: dict[str, Any], weights: dict[str, Any] | None = None) -> tuple[GpuKernel, ...]:
    """Write all kernels of a graph that ends in y."""
    call = kit.whole(kit.model(nodes, inputs, ["y"], weights))[1]
    return gpu_kernels(gpu_program(call.function, call.inputs))


def softmax(columns: int | str = 768, dtype: Any = F) -> tuple[GpuKernel, ...]:
    """Write the kernels of a softmax of n rows."""
    return kernels([helper.make_node("Softmax", ["x"], ["y"])], {"x": (dtype, ["n", columns])})


def total(columns: int) -> tuple[GpuKernel, ...]:
    """Write the kernels of the sum of one row."""
    return kernels([helper.make_node("ReduceSum", ["x"], ["y"])], {"x": (F, [1, columns])})


@pytest.mark.parametrize(
    ("registers", "shared", "warps", "programs"),
    [
        # 32 registers a thread are 1024 a warp: 16 warps in each of the four parts, 64 in all, as many as there may be.
        (32, 0, 8, 8),
        # 76 x 32 = 2432 round up to 2560: 6 warps in each part, 24 in all.
        (76, 0, 4, 6),
        # 64 registers: 8 warps in each part, 32 in all; three at a time leave two over.
        (64, 0, 3, 10),
        # No more than 32 programs, however small.
        (24, 0, 1, 32),
        # 48 KiB and the driver's 1 KiB fit 228 KiB four times.
        (32, 48 << 10, 4, 4),
        # 255 round up to 256 a thread: two warps in each part.
        (255, 0, 8, 1),
        # 16 such warps do not fit at all, nor does a program with all of a multiprocessor's shared memory.
        (255, 0, 16, 0),
        (32, 228 << 10, 4, 0),
    ],
)
def test_occupancy_by_hand(registers: int, shared: int, warps: int, programs: int) -> None:
    assert occupancy(Resources(registers, 0, shared), warps, H100) == programs


def test_shared_memory_differs() -> None:
    """164 KiB hold three programs of 48 KiB."""
    assert occupancy(Resources(32, 0, 48 << 10), 4, A100) == 3


CALCULATOR = """
#include <stdio.h>
#include "cuda_occupancy.h"
int main(void) {
    int major, lanes, registers, shared, warps;
    while (scanf("%d %d %d %d %d", &major, &lanes, &registers, &shared, &warps) == 5) {
        size_t all = lanes * 1024;
        cudaOccDeviceProp device = {major, 0, 1024, 2048, 65536, 65536, 32, 49152, all, 132, all - 1024, 1024};
        cudaOccFuncAttributes function = {1024, registers, 0, PARTITIONED_GC_OFF, FUNC_SHMEM_LIMIT_OPTIN, all - 1024,
                                          1};
        cudaOccDeviceState state = {CACHE_PREFER_NONE, SHAREDMEM_CARVEOUT_DEFAULT};
        cudaOccResult found = {0};
        int error = cudaOccMaxActiveBlocksPerMultiprocessor(&found, &device, &function, &state, 32 * warps, shared);
        printf("%d\\n", error ? -1 : found.activeBlocksPerMultiprocessor);
    }
}
"""


@pytest.mark.skipif(not HEADER.exists() or shutil.which("cc") is None, reason="no calculator to compare with")
def test_occupancy_is_that_of_the_calculator(tmp_path: Path) -> None:
    """NVIDIA's own function gives the same numbers for everything that a kernel of ours may take."""
    (tmp_path / "main.c").write_text(CALCULATOR)
    subprocess.run(["cc", f"-I{HEADER.parent}", "main.c", "-o", "main"], cwd=tmp_path, check=True, capture_output=True)
    cases = [
        (facts, registers, shared, warps)
        for facts in (A100, H100)
        for registers in range(8, 256, 13)
        for shared in (0, 16, 4096, 16384, 50_000, 70_000, 110_000, 166_000, 232_448)
        for warps in (1, 2, 3, 4, 8, 16, 32)
    ]
    lines = [f"{f.capability // 10} {f.shared >> 10} {r} {s} {w}" for f, r, s, w in cases]
    done = subprocess.run([tmp_path / "main"], input="\n".join(lines), capture_output=True, text=True, check=True)
    wanted = [int(line) for line in done.stdout.split()]
    assert [occupancy(Resources(r, 0, s), w, f) for f, r, s, w in cases] == wanted


def test_facts_are_read_from_a_device() -> None:
    """What torch says of an H100 gives the facts that are written down."""
    found = SimpleNamespace(
        name="NVIDIA H100 80GB HBM3", major=9, minor=0, multi_processor_count=132, regs_per_multiprocessor=65536,
        shared_memory_per_multiprocessor=233472, shared_memory_per_block_optin=232448,
        max_threads_per_multi_processor=2048, L2_cache_size=52428800, memory_clock_rate=2619000,
        memory_bus_width=5120, clock_rate=1980000,
    )  # fmt: skip
    read = from_properties(found)
    assert read.bandwidth == pytest.approx(H100.bandwidth, rel=1e-3)
    assert {**vars(read), "bandwidth": 0} == {**vars(H100), "bandwidth": 0}


def best(written: tuple[GpuKernel, ...], names: dict[str, int], facts: DeviceFacts = H100) -> Planned:
    """Choose by the estimate."""
    return ranked(written, names, facts)[0].planned


@pytest.mark.parametrize("facts", [A100, H100, H200], ids=["A100", "H100", "H200"])
def test_many_rows_stay_in_registers(facts: DeviceFacts) -> None:
    chosen = best(softmax(), {"n": 16384}, facts)
    assert len(chosen.kernel.schedule.phases) == 1
    assert chosen.kernel.schedule.form.whole == 2
    assert chosen.config.tiles[0][1] == 1024


@pytest.mark.parametrize("facts", [A100, H100, H200], ids=["A100", "H100", "H200"])
def test_one_long_row_is_shared_among_multiprocessors(facts: DeviceFacts) -> None:
    chosen = best(total(1 << 22), {}, facts)
    assert len(chosen.kernel.schedule.phases) == 2
    assert chosen.launch.grid == facts.multiprocessors


def test_one_short_row_is_not_worth_a_barrier() -> None:
    assert len(best(total(4096), {}).kernel.schedule.phases) == 1


def test_rows_too_long_for_registers_are_walked_over() -> None:
    chosen = best(softmax(1 << 17), {"n": 4096})
    assert (len(chosen.kernel.schedule.phases), chosen.kernel.schedule.form.whole) == (1, 0)


def first(written: tuple[GpuKernel, ...], names: dict[str, int], facts: DeviceFacts = H100) -> Planned:
    """Plan the first kernel in its default configuration."""
    return plan(written[0], names, facts.multiprocessors)


def test_fewer_waves_are_faster() -> None:
    """A kernel that takes more registers waits longer, because fewer programs run at a time."""
    planned = first(softmax(512), {"n": 4096})
    light, heavy = (evaluate(planned, Resources(registers, 0, 16), H100) for registers in (32, 255))
    assert light.waves < heavy.waves
    assert light.us < heavy.us
    assert light.waves == pytest.approx(planned.launch.grid / (light.occupancy * 132))


def test_a_last_wave_takes_as_long_as_a_program() -> None:
    written = softmax(512)
    tile = Config(((1, 512),), 4)
    full = evaluate(plan(written[0], {"n": 132}, 132, tile), Resources(200, 0, 16), H100)
    assert full.occupancy == 2
    steps = [
        evaluate(plan(written[0], {"n": n}, 132, tile), Resources(200, 0, 16), H100).us for n in (264, 265, 528, 529)
    ]
    assert steps[0] == full.us < steps[1] == steps[2] < steps[3]


def test_memory_bounds_what_is_large() -> None:
    """A read and a write of 256 MiB at the bandwidth of the data sheet, and the same twice as fast."""
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    planned = first(kernels(nodes, {"x": (F, ["n", 64])}), {"n": 1 << 20})
    time = evaluate(planned, None, H100).us
    assert time == pytest.approx(2 * (1 << 28) / H100.bandwidth * 1e6, rel=0.05)
    twice = DeviceFacts(**{**vars(H100), "bandwidth": 2 * H100.bandwidth})
    assert evaluate(planned, None, twice).us == pytest.approx(time / 2, rel=0.1)


def test_rows_that_are_read_again_cost_more() -> None:
    """A row held whole is read once, one that is walked over three times."""
    whole, looped = (
        next(kernel for kernel in softmax(4096) if kernel.schedule.form.whole == held and len(kernel.work) == 1)
        for held in (2, 0)
    )
    times = [evaluate(plan(one, {"n": 8192}, 132), Resources(32, 0, 64), H100).us for one in (whole, looped)]
    assert times[0] < times[1]


def test_small_tensors_stay_on_a_multiprocessor() -> None:
    """A bias that every program reads costs next to nothing, one as large as the rows costs as much as these."""
    chain = [helper.make_node("Add", ["x", "b"], ["y"])]
    times = [
        evaluate(first(kernels(chain, {"x": (F, ["n", 512]), "b": (F, shape)}), {"n": 65536}), None, H100).us
        for shape in ([1, 512], ["n", 512])
    ]
    alone = first(kernels([helper.make_node("Abs", ["x"], ["y"])], {"x": (F, ["n", 512])}), {"n": 65536})
    assert times[0] == pytest.approx(evaluate(alone, None, H100).us, rel=0.02)
    assert times[1] == pytest.approx(1.5 * times[0], rel=0.05)


def test_reads_by_the_stride_cost_whole_sectors() -> None:
    """What a transpose reads by the stride brings eight numbers for one, unless a tile has its neighbours."""
    turned = [helper.make_node("Transpose", ["x"], ["v"], perm=[1, 0]), helper.make_node("Abs", ["v"], ["y"])]
    plain = [helper.make_node("Abs", ["x"], ["y"])]
    across, along = (first(kernels(nodes, {"x": (F, [1024, 1024])}), {}) for nodes in (turned, plain))
    assert evaluate(across, None, H100).busy_us > evaluate(along, None, H100).busy_us


def estimate(us: float, busy_us: float) -> Estimate:
    """Make an estimate of a part."""
    return Estimate(us, 1.5, busy_us, 1, 1.0, Resources(32, 0, 0))


def test_parts_of_one_launch_share_the_device() -> None:
    """Apart each is launched; together they wait for the slowest, or for memory."""
    assert together([estimate(4.0, 0.5), estimate(3.0, 0.5)], packed=False) == 7.0
    assert together([estimate(4.0, 0.5), estimate(3.0, 0.5)], packed=True) == 4.0
    assert together([estimate(4.0, 2.5), estimate(3.0, 1.5)], packed=True) == 5.5


SOFTMAX = {dtype: softmax(768, dtype) for dtype in (np.float16, F, np.float64)}
SUM = {columns: total(columns) for columns in (1 << 14, 1 << 20)}
rows = st.integers(0, 200_000)


@given(
    fewer=rows, more=rows, facts=st.sampled_from((A100, H100, H200)), number=st.integers(0, 5), turn=st.integers(0, 99)
)
@settings(max_examples=150, deadline=None)
def test_estimates_are_finite_and_grow_with_bytes(
    fewer: int, more: int, facts: DeviceFacts, number: int, turn: int
) -> None:
    """In one configuration more rows, and wider ones, never cost less."""
    fewer, more = sorted((fewer, more))
    narrow, wide = SOFTMAX[np.float16], SOFTMAX[F]
    number %= len(narrow)
    tried = configurations(narrow[number], {"n": more})
    config = tried[turn % len(tried)]
    found = Resources(32, 0, 64)
    times = [
        evaluate(plan(written[number], {"n": n}, facts.multiprocessors, config), found, facts).us
        for written, n in ((narrow, fewer), (narrow, more), (wide, more))
    ]
    assert all(math.isfinite(time) and time > 0 for time in times)
    assert times[0] <= times[1] + 1e-9
    assert times[1] <= times[2] + 1e-9


@pytest.mark.parametrize("facts", [A100, H100, H200], ids=["A100", "H100", "H200"])
@pytest.mark.parametrize("columns", SUM)
def test_every_candidate_has_an_estimate(columns: int, facts: DeviceFacts) -> None:
    choices = ranked(SUM[columns], {}, facts)
    assert len(choices) > 10
    for choice in choices:
        found = choice.estimate
        assert all(math.isfinite(one) and one > 0 for one in (found.us, found.launch_us, found.busy_us, found.waves))
        assert found.us >= found.launch_us + found.busy_us


def test_expected_registers_follow_the_tile() -> None:
    """More elements a thread need more registers, up to what the warps leave."""
    (kernel,) = kernels([helper.make_node("Gelu", ["x"], ["y"])], {"x": (F, [1 << 20])})
    taken = [expected(plan(kernel, {}, 132, Config(((1, 4096),), warps)), H100) for warps in (32, 16, 8, 2)]
    registers = [one.registers for one in taken]
    assert registers == sorted(registers)
    assert registers[0] <= 64
    assert taken[-1].spills > 0


@pytest.mark.parametrize("seed", range(60))
def test_loads_and_stores_are_those_of_the_source(seed: int) -> None:
    """The walk over a schedule finds every load and store that the renderer writes, in every composition."""
    chain, outputs = chains.random_chain(seed)
    call = kit.whole(random.build(chain, outputs, F))[1]
    try:
        written = [one for part in parts(gpu_program(call.function, call.inputs)) for one in gpu_kernels(part)]
    except NotEmittableError:
        return
    for kernel in written:
        body = kernel.source.partition("def kernel(")[2]
        accesses = [access for work in kernel.work for access in work.accesses]
        assert len(accesses) == len(re.findall(r"tl\.load\(|tl\.store\((?!status)", body))
        assert sum(one.tensor[0] == "x" for one in accesses) == len(re.findall(r"tl\.load\(x", body))


def test_instructions_are_those_of_the_formulas() -> None:
    """The table has no operator that is not one of `ops.SCALARS`."""
    assert set(INSTRUCTIONS) <= set(ops.SCALARS)
    assert all(re.fullmatch(r"\w+", name) and count > 1 for name, count in INSTRUCTIONS.items())
