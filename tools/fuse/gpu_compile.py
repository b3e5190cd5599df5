"""From the source of a Triton kernel to a function."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from sartor.share.cache import path_of, put_file

FUSE_MULTIPLY_ADD = True
"""Whether `a * b + c` may round once, as it may on the CPU."""


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
