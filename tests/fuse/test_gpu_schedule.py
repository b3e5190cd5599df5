"""Schedules for a GPU: compositions, the checker against broken ones, and the table of Triton expressions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import helper
from tests.kits import fuse_kit as kit

from sartor.tools.fuse import ops
from sartor.tools.fuse.align import gpu_program
from sartor.tools.fuse.gpu_check import BrokenScheduleError, check_schedule, check_tiles
from sartor.tools.fuse.gpu_kernel import configurations, gpu_kernels, plan_launch, scratch_bytes
from sartor.tools.fuse.gpu_schedule import Form, GpuSchedule, Phase, gpu_schedule
from sartor.tools.fuse.program import Program
from sartor.tools.fuse.render import triton_ops
from sartor.tools.fuse.render.triton import helper_names, module

F = np.float32
WHOLE, SHARED = Form(False, 2), Form(True, 2)


def program(*nodes: Any, shape: tuple[Any, ...] = (48, 20), dtype: Any = F) -> Program:
    """Lower a chain of nodes from x to y; constants are the axes 0 and 1."""
    weights = {"rows": np.array([0]), "columns": np.array([1])}
    read = {name for node in nodes for name in node.input}
    used = {name: array for name, array in weights.items() if name in read}
    _, call = kit.whole(kit.model(nodes, {"x": (dtype, shape)}, ["y"], used))
    return gpu_program(call.function, call.inputs)


def softmax(axis: int) -> Program:
    """Lower a softmax."""
    return program(helper.make_node("Softmax", ["x"], ["y"], axis=axis))


def stitched() -> Program:
    """Lower a softmax of rows and the means of its columns."""
    mean = helper.make_node("ReduceMean", ["v", "rows"], ["y"], keepdims=0)
    return program(helper.make_node("Softmax", ["x"], ["v"], axis=1), mean)


def axes(schedule: GpuSchedule) -> list[list[tuple[str, int | None, bool, bool]]]:
    """Say of every phase what its axes are: size, tile dimension, spread, whole."""
    return [[(str(a.size), a.dim, a.spread, a.whole) for a in phase.axes] for phase in schedule.phases]


def test_compositions() -> None:
    """Element-wise kernels are flat, rows lie along columns, and reduced columns along rows."""
    flat = gpu_schedule(program(helper.make_node("Erf", ["x"], ["y"])), WHOLE)
    assert axes(flat) == [[("960", 1, True, False)]]
    assert axes(gpu_schedule(softmax(1), WHOLE)) == [[("48", 0, True, False), ("20", 1, False, True)]]
    assert axes(gpu_schedule(softmax(0), WHOLE)) == [[("48", 0, False, True), ("20", 1, True, False)]]


def test_a_stitched_reduction_takes_two_phases() -> None:
    """Programs share the rows, keep a part of the columns' sums each, and share the columns after the barrier."""
    schedule = gpu_schedule(stitched(), SHARED)
    assert axes(schedule) == [[("48", 0, True, False), ("20", 1, False, True)], [("20", 1, True, False)]]
    (kept,) = schedule.scratch
    assert schedule.partial(kept)


def test_scratch_memory() -> None:
    """Each of the programs that run at the same time keeps 20 sums."""
    kernel = next(k for k in gpu_kernels(stitched()) if k.schedule.form == SHARED)
    planned = plan_launch(kernel, configurations(kernel, {})[0], {}, 2)
    assert (planned.grid, scratch_bytes(kernel, planned)) == (2, 160)


def test_mean_and_difference_share_a_loop() -> None:
    """A row that is read twice, once to be reduced, is one axis."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "columns"], ["m"], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ]
    assert len(axes(gpu_schedule(program(*nodes), WHOLE))[0]) == 2


def broken(schedule: GpuSchedule, message: str) -> None:
    """Expect the checker to refuse a schedule."""
    with pytest.raises(BrokenScheduleError, match=message):
        check_schedule(schedule)


def test_a_missing_root() -> None:
    """Every root is computed once."""
    schedule = gpu_schedule(stitched(), SHARED)
    broken(replace(schedule, phases=schedule.phases[:1]), "missing or done twice")
    broken(replace(schedule, phases=(*schedule.phases, schedule.phases[1])), "missing or done twice")


def test_a_value_read_before_it_is_made() -> None:
    """Phases in the wrong order, and a phase's leaves in the wrong order, are refused."""
    schedule = gpu_schedule(stitched(), SHARED)
    broken(replace(schedule, phases=schedule.phases[::-1]), "read before it is made")
    looped = gpu_schedule(softmax(1), Form(False, 0))
    (phase,) = looped.phases
    broken(replace(looped, phases=(replace(phase, tree=phase.tree[::-1]),)), "read before it is made")


def test_a_value_that_nobody_holds() -> None:
    """What crosses a barrier needs memory."""
    broken(replace(gpu_schedule(stitched(), SHARED), scratch=()), "where it is not held")


def test_a_reduction_read_without_a_barrier() -> None:
    """A part of a reduction is not its result."""
    schedule = gpu_schedule(program(helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)), SHARED)
    first, second = schedule.phases
    joined = Phase(first.axes, first.spread, (*first.tree, *second.tree), (*first.roots, *second.roots))
    broken(replace(schedule, phases=(joined,)), "before a barrier")


def test_a_partial_tile_without_a_mask() -> None:
    """20 columns do not fill a tile of 32."""
    schedule = gpu_schedule(softmax(1), WHOLE)
    phase = schedule.phases[0]
    bare = tuple(replace(axis, masked=False) if axis.whole else axis for axis in phase.axes)
    broken(replace(schedule, phases=(replace(phase, axes=bare),)), "no mask")


def test_axes_that_collide() -> None:
    """A tile dimension takes one axis, a loop lies on one axis, and a root sees all of an axis or nothing."""
    schedule = gpu_schedule(softmax(1), WHOLE)
    phase = schedule.phases[0]
    both = tuple(replace(axis, dim=1) for axis in phase.axes)
    broken(replace(schedule, phases=(replace(phase, axes=both),)), "share a tile dimension")
    broken(replace(schedule, phases=(replace(phase, axes=(*phase.axes, phase.axes[0])),)), "on two axes")
    atoms = tuple(atom for axis in phase.axes for atom in axis.atoms)
    fused = replace(phase.axes[0], atoms=atoms)
    broken(replace(schedule, phases=(replace(phase, axes=(fused,), spread=fused),)), "differently")


@pytest.mark.parametrize(
    ("tile", "message"),
    [
        ((3, 32), "no power of two"),
        ((0, 32), "no power of two"),
        ((1 << 16, 32), "too large"),
        ((4, 16), "does not fit"),
    ],
)
def test_tiles(tile: tuple[int, int], message: str) -> None:
    """Tiles are powers of two, not too large, and hold whole axes."""
    schedule = gpu_schedule(softmax(1), WHOLE)
    check_tiles(schedule, ((4, 32),), {})
    with pytest.raises(BrokenScheduleError, match=message):
        check_tiles(schedule, (tile,), {})


def test_every_scalar_operator_has_a_triton_expression() -> None:
    """The table has the rows of `ops.SCALARS`, for the same families of types."""
    for name, row in ops.SCALARS.items():
        logic = name in ("and", "or", "xor")
        assert (name in triton_ops.FLOATING) == (bool(row.floating) and not logic), name
        assert (name in triton_ops.INTEGRAL) == bool(row.integral), name


def test_a_module_imports_what_it_calls() -> None:
    """Helpers are found by name, formulas are written out."""
    assert {"barrier", "fold_max", "rint_f32", "atan_f64"} <= set(helper_names())
    text = module("@triton.jit\ndef kernel(x):\n    return rint_f32(exp_f32(x))\n")
    assert "import rint_f32\n" in text
    assert "def exp_f32(x):" in text
    assert "gelu_f32" not in text
