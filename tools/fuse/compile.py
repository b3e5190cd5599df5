"""From the text of a generated kernel to machine code."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from sartor.share.kernels import machine
from sartor.share.kernels.machine import Source
from sartor.share.runtime.kernel import ObjectCode


def compile_object(text: str) -> ObjectCode:
    """Return the object file of a kernel, from the cache or freshly compiled."""
    return machine.compile_object(_source(text))


def object_name(text: str) -> str:
    """Name the cache entry of a kernel."""
    return machine.object_name(_source(text))


def llvm_ir(text: str) -> str:
    """Return the optimised LLVM IR of a kernel."""
    return machine.llvm_ir(_source(text))


def assembly(text: str) -> str:
    """Return the machine code of a kernel as text (for tests and for the curious)."""
    return machine.assembly(_source(text))


def _source(text: str) -> Source:
    def make() -> Callable[..., int]:
        scope = dict(_namespace())
        exec(compile(text, "<kernel>", "exec"), scope)
        function: Callable[..., int] = scope["kernel"]
        return function

    return Source(text + _intrinsics(), make)


@cache
def _intrinsics() -> str:
    return machine.digest_of([Path(__file__).parent / "render" / "intrinsics.py", Path(__file__)])


@cache
def _namespace() -> dict[str, Any]:
    from sartor.tools.fuse.render.intrinsics import namespace

    return namespace()
