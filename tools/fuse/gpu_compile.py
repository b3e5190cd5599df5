"""From the source of a Triton kernel to a function, and ahead of time to machine code whose resources are read."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from sartor.share.cache import path_of, put_file

FUSE_MULTIPLY_ADD = True
"""Whether `a * b + c` may round once, as it may on the CPU."""


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


@cache
def load(source: str) -> ModuleType:
    """Import the module of a kernel from the cache, because Triton reads source from files."""
    name = f"k_{sha256(source.encode()).hexdigest()[:32]}"
    path = path_of(f"{name}.py") or put_file(f"{name}.py", source.encode()) or _temporary(name, source)
    spec = importlib.util.spec_from_file_location(f"sartor_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


def _temporary(name: str, source: str) -> Path:
    """Write a module that the cache does not take."""
    path = Path(tempfile.mkdtemp(prefix="sartor-")) / f"{name}.py"
    path.write_text(source)
    return path


def compiles() -> bool:
    """Tell whether Triton is installed and compiles, instead of interpreting."""
    if importlib.util.find_spec("triton") is None:
        return False
    import triton

    return not triton.knobs.runtime.interpret


def kernel_function(source: str) -> Callable[..., Any]:
    """Return the function of Triton that a source defines."""
    function: Callable[..., Any] = load(source).kernel
    return function


def compile_ahead(
    source: str, signature: Mapping[str, str], constants: Mapping[str, Any], options: Mapping[str, Any], target: Target
) -> Any:
    """Compile a kernel for a GPU that need not be here; `signature` gives the types of tensors and sizes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = kernel_function(source)
    kinds = {**signature, **dict.fromkeys(constants, "constexpr")}
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(kinds.values()) if kind.startswith("*")}
    described = ASTSource(function, kinds, dict(constants), aligned)
    settings = {"enable_fp_fusion": FUSE_MULTIPLY_ADD, **options}
    return triton.compile(described, target=GPUTarget("cuda", target.capability, 32), options=settings)


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
