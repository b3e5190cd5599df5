"""Machine code for GPUs, compiled on any machine; it runs on nodes without a compiler and with any Triton.

A `Cubin` is one array of bytes, so that it can be kept in the cache, or in a file beside the packed weights.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sartor.share import cache
from sartor.share.errors import UnavailableError
from sartor.share.kernels.machine import digest_of
from sartor.tools.sparse_rnn.gpu.shape import Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

REGISTERS = 65536
"""Those of a multiprocessor, which one program has to itself."""

MOST_REGISTERS = 255
HEADER_BYTES = 4

SIGNATURE = {
    "weights": "*i32", "begins": "*i32", "threads": "*i32", "bias": "*fp32", "peepholes": "*fp32", "places": "*i32",
    "projected": "*fp32", "lengths": "*i32", "initial_hidden": "*fp32", "initial_cell": "*fp32", "exchange": "*i64",
    "arrivals": "*i32", "y": "*fp32", "last_hidden": "*fp32", "last_cell": "*fp32", "status": "*i32", "steps": "i32",
    "samples": "i32", "patience": "i64",
}  # fmt: skip
"""The arguments of the kernel in order. Triton adds two pointers to scratch memory, of which the kernel uses none."""

SCRATCH_POINTERS = 2

SOURCES = ("kernel", "product", "exchange", "cells", "sync", "views", "shape", "operands", "cubin")
"""The files that code depends on."""


@dataclass(frozen=True)
class Cubin:
    """Code of one kernel: its name, capability times ten, threads, bytes of shared memory; `key` tells what for."""

    key: str
    name: str
    capability: int
    threads: int
    shared: int
    code: bytes

    def as_array(self) -> NDArray[np.uint8]:
        """Return everything as bytes."""
        facts = asdict(self)
        del facts["code"]
        header = json.dumps(facts).encode()
        return np.frombuffer(len(header).to_bytes(HEADER_BYTES, "little") + header + self.code, np.uint8)


def from_array(array: NDArray[np.uint8]) -> Cubin:
    """Return the code that `as_array` gave."""
    data = array.tobytes()
    end = HEADER_BYTES + int.from_bytes(data[:HEADER_BYTES], "little")
    return Cubin(**json.loads(data[HEADER_BYTES:end]), code=data[end:])


def key_of(shape: Shape, capability: int) -> str:
    """Return what code depends on, as a hash: shape, target, and the sources of the kernel."""
    here = Path(__file__).parent
    sources = [here / f"{name}.py" for name in SOURCES]
    return hashlib.sha256(f"{shape!r} {capability} {digest_of(sources)}".encode()).hexdigest()[:32]


def cubin_for(shape: Shape, capability: int) -> Cubin:
    """Return the code for a shape from the cache, or compile it; raises UnavailableError where neither is possible."""
    key = key_of(shape, capability)
    kept = cache.get(f"g_{key}.cubin")
    if kept is not None:
        return from_array(np.frombuffer(kept, np.uint8))
    made = compile_cubin(shape, capability)
    cache.put(f"g_{key}.cubin", made.as_array().tobytes())
    return made


def compile_cubin(shape: Shape, capability: int) -> Cubin:
    """Compile the kernel of a shape; raises UnavailableError for a Triton without what it needs."""
    compiled = compile_shape(shape, capability)
    facts = compiled.metadata
    assert facts.global_scratch_size == facts.profile_scratch_size == 0
    code = bytes(compiled.asm["cubin"])
    return Cubin(key_of(shape, capability), facts.name, capability, shape.threads, facts.shared, code)


def compile_shape(shape: Shape, capability: int) -> Any:
    """Compile the kernel of a shape and return what Triton does."""
    problem = compiler_problem()
    if problem:
        raise UnavailableError(problem, subject="persistent kernels", remedy="Install triton 3.9")
    import triton

    from sartor.share.triton_ahead import Target, compile_ahead
    from sartor.tools.sparse_rnn.gpu.kernel import recurrence

    signature = SIGNATURE | {"exchange": "*i64" if shape.word_lanes == 4 else "*i32"}
    options = {
        "num_warps": shape.warps, "num_stages": 1, "enable_fp_fusion": True, "launch_cooperative_grid": True,
        "maxnreg": min(REGISTERS // shape.threads, MOST_REGISTERS),
    }  # fmt: skip
    with triton.knobs.compilation.scope():
        # Triton's cache knows a shape by its fields only, not by what is computed from them.
        triton.knobs.compilation.always_compile = True
        return compile_ahead(recurrence, signature, {"S": shape}, options, Target(capability))


def compiler_problem() -> str:
    """Return why the kernel can't be compiled here, or nothing."""
    try:
        from triton.experimental.gluon import language
        from triton.experimental.gluon.language.nvidia.ampere import async_copy
    except ImportError as error:
        return f"Triton has no Gluon ({error})"
    missing = [name for name in ("inline_asm", "atomic_store") if not hasattr(language, name)]
    missing += [] if hasattr(async_copy, "async_load") else ["async_load"]
    return f"Triton's Gluon lacks {', '.join(missing)}" if missing else ""
