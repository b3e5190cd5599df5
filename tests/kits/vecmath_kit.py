"""Kernels in the style of the code generator around one function, and what tests ask of them."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding
from numba import cfunc, types

Array = np.ndarray[Any, Any]
KERNEL_FLAGS = {"reassoc", "contract", "nsz", "arcp"}
SMALLEST_NORMAL, SMALLEST_SUBNORMAL = 2.0**-126, 2.0**-149
ELEMENT = {np.dtype(np.float32): types.float32, np.dtype(np.float64): types.float64}
LIBRARY_CALL = re.compile(
    r"\b(?:exp|expm1|log|log1p|tanh|erf|erfc|sqrt|ldexp|fma|rint|floor|trunc|copysign|sin|cos|tan|asin|acos|atan|sinh|cosh"
    r"|asinh|acosh|atanh|pow|fmod)f?\b"
)


def compile_kernel(source: str, dtype: Any = np.float32, **names: Any) -> Any:
    """Compile `def kernel(x, y, z, n)` over pointers in the style of the code generator."""
    scope: dict[str, Any] = {"np": np, **names}
    exec(source, scope)
    pointer = types.CPointer(ELEMENT[np.dtype(dtype)])
    signature = types.void(pointer, pointer, pointer, types.int64)
    return cfunc(signature, fastmath=KERNEL_FLAGS, error_model="numpy")(scope["kernel"])


def loop(expression: str) -> str:
    """Spell a kernel that evaluates an expression of x[i] and y[i] for all elements."""
    return f"def kernel(x, y, z, n):\n    for i in range(n):\n        z[i] = {expression}\n"


def call(kernel: Any, x: Array, y: Array | None = None) -> Array:
    """Run a kernel."""
    second = x if y is None else y
    result = np.full_like(x, np.nan)
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int64)(kernel.address)
    function(x.ctypes.data, second.ctypes.data, result.ctypes.data, x.size)
    return result


def kernel_of(family: Any, name: str, dtype: Any = np.float32) -> Any:
    """Compile a loop over a function of one or two arguments of a module."""
    suffix = {4: "f32", 8: "f64"}[np.dtype(dtype).itemsize]
    arguments = "x[i], y[i]" if name in ("pow", "fmod") else "x[i]"
    return compile_kernel(loop(f"f({arguments})"), dtype, f=getattr(family, f"{name}_{suffix}"))


def assembly(kernel: Any) -> str:
    """Return the machine code of a kernel for this processor as text."""
    module = binding.parse_assembly(kernel.inspect_llvm())
    target = binding.Target.from_default_triple()
    features = binding.get_host_cpu_features().flatten()
    machine = target.create_target_machine(cpu=binding.get_host_cpu_name(), features=features, opt=3)
    return str(machine.emit_assembly(module))


def every_exponent() -> Array:
    """Give about a million float32: every exponent of both signs, and the edges between them."""
    every = np.arange(0, 2**32, 4093, dtype=np.uint64)
    edges = [2**31 * sign + (power << 23) + step for sign in (0, 1) for power in range(256) for step in (0, 1, 2)]
    below = [edge - 1 for edge in edges if edge % 2**31]
    return np.concatenate([every, np.array(edges + below, dtype=np.uint64)]).astype(np.uint32).view(np.float32)


def ulps(actual: Array, expected: Array) -> Array:
    """Return how many units in the last place of float32 results are off; `expected` are float64 and finite."""
    unit = np.maximum(np.spacing(np.abs(expected).astype(np.float32)).astype(np.float64), SMALLEST_SUBNORMAL)
    return np.asarray(np.abs(actual.astype(np.float64) - expected) / unit)


def by_numpy(function: Callable[..., Array], *arguments: Array) -> Array:
    """Evaluate in float64."""
    with np.errstate(all="ignore"):
        return np.asarray(function(*(argument.astype(np.float64) for argument in arguments)))
