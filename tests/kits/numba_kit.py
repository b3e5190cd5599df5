"""What numba makes of a function."""

from __future__ import annotations

from typing import Any

from numba import njit


def assembly(kernel: Any) -> list[str]:
    """Return the machine code of a function for all types that it was called with; code from the cache shows none."""
    fresh = njit(**{name: value for name, value in kernel.targetoptions.items() if name != "nopython"})(kernel.py_func)
    for signature in kernel.signatures:
        fresh.compile(signature)
    return list(fresh.inspect_asm().values())
