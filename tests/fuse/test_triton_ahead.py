"""Triton kernels compiled for GPUs that are not here: they compile, and fit registers and shared memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper
from tests.fuse import test_rules as rules
from tests.kits import fuse_kit as kit

from sartor.share.triton_ahead import Resources, Target
from sartor.tools.fuse.align import gpu_program
from sartor.tools.fuse.gpu_facts import A100, H100
from sartor.tools.fuse.gpu_kernel import (
    Config,
    GpuKernel,
    bind,
    configurations,
    fits,
    gpu_kernels,
    plan_launch,
)  # fmt: skip
from sartor.tools.fuse.gpu_launch import Planned, compiled, resources
from sartor.tools.fuse.gpu_tune import ranked

F = np.float32
SM80, SM90 = Target(80), Target(90)
FACTS = {SM80: A100, SM90: H100}
SHARED_LIMIT = {SM80: 163 * 1024, SM90: 227 * 1024}
"""Bytes of shared memory that a program may have (CUDA C++ Programming Guide, table of compute capabilities)."""

pytestmark = pytest.mark.skipif(bool(os.environ.get("TRITON_INTERPRET")), reason="nothing is compiled there")


def kernels(call: Any) -> tuple[GpuKernel, ...]:
    """Write all kernels of a function."""
    return gpu_kernels(gpu_program(call.function, call.inputs))


def planned(kernel: GpuKernel, names: dict[str, int], target: Target) -> Any:
    """Plan a launch with the default configuration."""
    return plan_launch(kernel, configurations(kernel, names)[0], names, FACTS[target].multiprocessors)


def chosen(written: tuple[GpuKernel, ...], names: dict[str, int], target: Target) -> Planned:
    """Choose among all candidates by the estimate."""
    return ranked(written, names, FACTS[target])[0].planned


def check(found: Resources, target: Target) -> None:
    """Fail where a kernel spills or does not fit."""
    assert found.spills == 0
    assert 0 < found.registers <= 255
    assert found.shared <= SHARED_LIMIT[target]


@pytest.fixture(scope="module")
def groups(root: Path) -> Iterator[Any]:
    """Import the groups of the benchmarks, which lie outside the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root / "benchmarks")
        from models import groups as module

        yield module
    sys.modules.pop("models", None)


@pytest.mark.parametrize("target", [SM80, SM90], ids=["sm_80", "sm_90"])
@pytest.mark.parametrize("size", ["SMALL", "LARGE"])
def test_groups_fit(groups: Any, size: str, target: Target, tmp_path: Path) -> None:
    """The groups of the benchmarks become one phase each that spills nothing, a whole row at a time."""
    for group in groups.groups(getattr(groups, size)):
        _, call = kit.whole(onnx.load(groups.export_group(group, tmp_path)))
        best = chosen(kernels(call), {}, target)
        assert len(best.kernel.schedule.phases) == 1
        assert best.kernel.schedule.form.whole == 2
        assert not best.kernel.schedule.scratch
        check(resources(best.kernel, best.launch, target), target)


NODES = {
    "long rows": (
        [helper.make_node("LayerNormalization", ["x", "g"], ["v"]), helper.make_node("Softmax", ["v"], ["y"])],
        {"x": (F, [4, 100000]), "g": (F, [100000])},
        {},
    ),
    "columns": ([helper.make_node("ReduceMax", ["x", "a"], ["y"])], {"x": (F, [5000, 900])}, {"a": np.array([0])}),
    "everything": ([helper.make_node("ReduceSum", ["x"], ["y"])], {"x": (np.float16, [3000, 700])}, {}),
    "rows then columns": (
        [helper.make_node("Softmax", ["x"], ["v"]), helper.make_node("ReduceMean", ["v", "a"], ["y"])],
        {"x": (F, ["n", 768])},
        {"a": np.array([0])},
    ),
    "doubles": ([helper.make_node("Gelu", ["x"], ["y"])], {"x": (np.float64, ["n", 768])}, {}),
    "gather": ([helper.make_node("Gather", ["x", "i"], ["y"])], {"x": (F, [90, 768]), "i": (np.int64, ["n"])}, {}),
    "rare": (
        [helper.make_node("Asinh", ["x"], ["v"]), helper.make_node("Pow", ["v", "x"], ["y"])],
        {"x": (F, ["n", 768])},
        {},
    ),
    "bool": ([helper.make_node("ReduceMin", ["x", "a"], ["y"])], {"x": (np.bool_, ["n", 6])}, {"a": np.array([1])}),
    "int64": ([helper.make_node("ReduceMax", ["x", "a"], ["y"])], {"x": (np.int64, ["n", 99])}, {"a": np.array([0])}),
    "bfloat16": ([helper.make_node("Softmax", ["x"], ["y"])], {"x": (ml_dtypes.bfloat16, ["n", 768])}, {}),
    "joined": (
        [
            helper.make_node("Concat", ["x", "x"], ["u"], axis=1),
            helper.make_node("Transpose", ["u"], ["v"], perm=[1, 0]),
            helper.make_node("Softmax", ["v"], ["y"]),
        ],
        {"x": (np.float16, ["n", 60])},
        {},
    ),
    "bits": (
        [
            helper.make_node("BitShift", ["x", "x"], ["v"], direction="RIGHT"),
            helper.make_node("Mod", ["v", "x"], ["y"]),
        ],
        {"x": (np.uint8, ["n", 768])},
        {},
    ),
}


@pytest.mark.parametrize("name", NODES)
def test_all_compositions_compile(name: str) -> None:
    """Whatever a kernel is composed of, barriers included, it compiles and spills nothing."""
    nodes, inputs, weights = NODES[name]
    _, call = kit.whole(kit.model(nodes, inputs, ["y"], weights))
    written = kernels(call)
    sizes = [[2048 if size == "n" else int(size) for size in kind.shape] for kind in call.inputs if kind is not None]
    names = bind(written[0].program, sizes)
    able = [kernel for kernel in written if fits(kernel, names)]
    assert able
    for kernel in able:
        plan = planned(kernel, names, SM80)
        assert plan.cooperative == (len(kernel.schedule.phases) > 1)
        check(resources(kernel, plan, SM80), SM80)


def test_few_long_rows_are_shared_among_processors() -> None:
    """Four rows keep four programs busy; with barriers all work on them."""
    nodes, inputs, weights = NODES["long rows"]
    written = kernels(kit.whole(kit.model(nodes, inputs, ["y"], weights))[1])
    best = chosen(written, {}, SM90)
    assert len(best.kernel.schedule.phases) > 1
    assert best.launch.grid == H100.multiprocessors


def test_spills_are_noticed() -> None:
    """Rows of 16384 fit the registers of sixteen warps and not those of two."""
    nodes, inputs = [helper.make_node("Softmax", ["x"], ["y"])], {"x": (F, ["n", 16384])}
    kernel = kernels(kit.whole(kit.model(nodes, inputs, ["y"]))[1])[0]
    few, many = (plan_launch(kernel, Config(((1, 16384),), warps), {"n": 100}, 108) for warps in (2, 16))
    assert resources(kernel, few, SM80).spills > 0
    check(resources(kernel, many, SM80), SM80)


def test_fused_multiply_add_is_asked_for() -> None:
    """Whether products and sums may be contracted does not depend on the version of Triton."""
    written = kernels(kit.whole(kit.model([helper.make_node("Erf", ["x"], ["y"])], {"x": (F, [4096])}, ["y"]))[1])
    made = compiled(written[0], planned(written[0], {}, SM80), SM80)
    assert made.metadata.enable_fp_fusion is True
    assert "fma.rn.f32" in made.asm["ptx"]


@pytest.mark.slow
@pytest.mark.parametrize(("sample", "dtype"), rules._pairs())
def test_rules_compile(sample: Any, dtype: Any) -> None:
    """What the interpreter computes with, the compiler takes too; the least restrained composition of every rule."""
    outlined, call = kit.whole(rules.build(sample, dtype))
    shapes = {
        name: [{"n": 63, "m": 1000}.get(str(size), size) for size in shape]
        for name, (_, shape) in sample.inputs.items()
    }
    shapes |= {name: list(array.shape) for name, array in sample.weights.items()}
    written = kernels(call)
    names = bind(written[0].program, [shapes[str(value.name)] for value in outlined.inputs])
    best = chosen(written, names, SM90)
    check(resources(best.kernel, best.launch, SM90), SM90)
