"""Triton kernels of pruning, in the interpreter and compiled for GPUs that are not here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sartor.share.triton_ahead import Resources, Target, compile_ahead, resources_of

FOLDER = Path(__file__).parent / "interpreted"
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024}
"""Bytes of shared memory that a program may have (CUDA C++ Programming Guide, table of compute capabilities)."""


@pytest.mark.parametrize("name", ["moments", "places", "saliency"])
def test_interpreted(name: str) -> None:
    """Triton asks for the interpreter once, when it is imported, hence a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", FOLDER / f"{name}.py"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=FOLDER.parents[2])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


REGISTERS = 224
"""Registers that a thread may have: a multiprocessor then runs one program of eight warps, of less two and more."""


def check(found: Resources, capability: int) -> None:
    """Fail where a kernel spills or takes more than its share."""
    assert found.spills == 0
    assert 0 < found.registers <= REGISTERS
    assert found.shared <= SHARED_LIMIT[capability]


def resources(kernel: Any, types: str, constants: dict[str, Any], warps: int, capability: int) -> Resources:
    """Compile a kernel whose parameters, but for the constants, have these types."""
    names = [name for name in kernel.arg_names if name not in constants]
    signature = dict(zip(names, types.split(), strict=True))
    compiled = compile_ahead(
        kernel,
        signature,
        constants,
        {"num_warps": warps, "num_stages": 1, "enable_fp_fusion": True},
        Target(capability),
    )
    return resources_of(compiled)


@pytest.mark.skipif(bool(os.environ.get("TRITON_INTERPRET")), reason="nothing is compiled there")
@pytest.mark.parametrize("capability", SHARED_LIMIT)
@pytest.mark.parametrize("block", [16, 32, 64])
def test_gram_and_cross_fit(capability: int, block: int) -> None:
    from sartor.tools.prune.kernels import moments_triton as module

    constants = {"BLOCK": block, "STEP": module.STEP, "FLUSH": module.FLUSH}
    read = "*fp32 *i32 *i32 *fp32"
    for kernel, types in (
        (module.gram_kernel, f"{read} *fp64 *fp64 i32 i32"),
        (module.cross_kernel, f"{read} *fp32 *fp32 *fp64 i32 i32 i32 i32"),
    ):
        check(resources(kernel, types, constants, module.WARPS, capability), capability)


@pytest.mark.skipif(bool(os.environ.get("TRITON_INTERPRET")), reason="nothing is compiled there")
@pytest.mark.parametrize("capability", SHARED_LIMIT)
def test_saliency_fits(capability: int) -> None:
    from sartor.tools.prune.kernels import saliency_triton as module

    constants = {name: getattr(module, name) for name in ("BEFORE", "CHANNELS", "BEHIND")}
    found = resources(module.saliency_kernel, "*i64 *i64 *fp32 i32", constants, module.WARPS, capability)
    check(found, capability)
    assert found.registers <= 96
