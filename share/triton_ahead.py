"""Triton kernels compiled ahead of time, for GPUs that need not be here, to machine code whose resources are read."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Target:
    """A GPU to compile for: compute capability times ten."""

    capability: int


@dataclass(frozen=True)
class Resources:
    """What a compiled kernel takes: registers and bytes of them spilt a thread, bytes of shared memory a program."""

    registers: int
    spills: int
    shared: int


def compile_ahead(
    function: Callable[..., Any],
    signature: Mapping[str, str],
    constants: Mapping[str, Any],
    options: Mapping[str, Any],
    target: Target,
) -> Any:
    """Compile a kernel, of Gluon too; `signature` gives the types of its tensors, which are aligned, and sizes."""
    import triton
    from triton.backends.compiler import GPUTarget

    kinds = {**signature, **dict.fromkeys(constants, "constexpr")}
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(kinds.values()) if kind.startswith("*")}
    described = _source_class(function)(function, kinds, dict(constants), aligned)
    return triton.compile(described, target=GPUTarget("cuda", target.capability, 32), options=dict(options))


def _source_class(function: Any) -> Any:
    """Return what describes a function of Triton, or of Gluon, to the compiler."""
    if function.is_gluon():
        from triton.experimental.gluon._runtime import GluonASTSource

        return GluonASTSource
    from triton.compiler import ASTSource

    return ASTSource


def disassembled(compiled: Any) -> str:
    """Return the machine code of a compiled kernel as text (SASS)."""
    import triton

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "code")
        path.write_bytes(compiled.asm["cubin"])
        reader = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
        return subprocess.run([reader, "-c", path], capture_output=True, text=True, check=True).stdout


def resources_of(compiled: Any) -> Resources:
    """Read the resources of a compiled kernel with the programs that Triton brings along."""
    import triton

    reader = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    text = _run(reader, "--dump-resource-usage", compiled.asm["cubin"])
    found = {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    local = found["STACK"] + found["LOCAL"]
    return Resources(found["REG"], _spilled(compiled) if local else 0, int(compiled.metadata.shared))


def _spilled(compiled: Any) -> int:
    """Ask the assembler how much of the local memory is spills; the rest is arrays, such as those of the sine."""
    from triton.backends.nvidia.compiler import get_ptxas

    (target,) = re.findall(r"^\.target (\w+)", compiled.asm["ptx"], re.MULTILINE)
    assembler = get_ptxas(compiled.metadata.target.arch).path
    text = _run(assembler, f"--verbose --gpu-name={target}", compiled.asm["ptx"].encode())
    return sum(int(number) for number in re.findall(r"(\d+) bytes spill stores", text))


def _run(program: str | Path, options: str, code: bytes) -> str:
    """Run a program on a file of code and return what it says."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "code").write_bytes(code)
        command = [program, *options.split(), "code"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    return done.stdout + done.stderr
