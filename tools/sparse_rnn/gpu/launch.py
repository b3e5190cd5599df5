"""Cooperative launches of machine code through the CUDA driver: all programs of a launch run at the same time."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from sartor.share.errors import UnavailableError
from sartor.tools.sparse_rnn.gpu.cubin import SCRATCH_POINTERS, Cubin

if TYPE_CHECKING:
    import torch

LIBRARY = "libcuda.so.1"
DYNAMIC_SHARED = 8
"""CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: kernels have to ask for more than 48 KiB."""


@cache
def _driver() -> Any:
    return ctypes.CDLL(LIBRARY)


def _call(function: str, *arguments: Any) -> None:
    """Call the driver; raises UnavailableError with its reason."""
    driver = _driver()
    result = getattr(driver, function)(*arguments)
    if result:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(result, ctypes.byref(text))
        reason = text.value.decode() if text.value else f"error {result}"
        raise UnavailableError(f"{function} fails ({reason})", subject="CUDA driver", remedy="See `sartor doctor`")


class Program:
    """Loaded machine code; belongs to the device that was current when it was loaded."""

    def __init__(self, cubin: Cubin) -> None:
        self._cubin = cubin
        self._module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        _call("cuModuleLoadData", ctypes.byref(self._module), cubin.code)
        _call("cuModuleGetFunction", ctypes.byref(self._function), self._module, cubin.name.encode())
        _call("cuFuncSetAttribute", self._function, DYNAMIC_SHARED, ctypes.c_int(cubin.shared))

    def launch(self, programs: int, values: Sequence[ctypes._SimpleCData[Any]], stream: int) -> None:
        """Enqueue a cooperative launch; raises UnavailableError where so many programs can't run at the same time."""
        pointers = pack(values)
        one = ctypes.c_uint(1)
        _call(
            "cuLaunchCooperativeKernel", self._function, ctypes.c_uint(programs), one, one,
            ctypes.c_uint(self._cubin.threads), one, one, ctypes.c_uint(self._cubin.shared), ctypes.c_void_p(stream),
            pointers,
        )  # fmt: skip


def values_of(
    tensors: Sequence[torch.Tensor], steps: int, samples: int, patience: int
) -> list[ctypes._SimpleCData[Any]]:
    """Return the arguments of the kernel, Triton's scratch pointers last."""
    addresses: list[Any] = [ctypes.c_uint64(one.data_ptr()) for one in tensors]
    numbers = [ctypes.c_int32(steps), ctypes.c_int32(samples), ctypes.c_int64(patience)]
    return [*addresses, *numbers, *(ctypes.c_uint64(0) for _ in range(SCRATCH_POINTERS))]


def pack(values: Sequence[ctypes._SimpleCData[Any]]) -> Any:
    """Return an array of pointers to values, as launches take it; the values have to outlive it."""
    return (ctypes.c_void_p * len(values))(*(ctypes.addressof(one) for one in values))
