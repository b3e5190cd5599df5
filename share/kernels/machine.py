"""From a kernel in Python to machine code: numba writes LLVM IR once, an object file in the cache serves ever after.

The cache holds plain ELF objects under a name that covers the source, the processor, and the versions of everything
that had a hand in it; a warm cache needs llvmlite to link them, but never imports numba.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from sartor.share.cache import get, put
from sartor.share.runtime.kernel import ObjectCode

FASTMATH = {"reassoc", "contract", "nsz"}


@dataclass(frozen=True)
class Source:
    """A kernel to be compiled: `make` gives the function of Python, and `key` says all that its code depends on."""

    key: str
    make: Callable[[], Callable[..., int]]


_ENTRY = """\
define i64 @{symbol}(ptr %inputs, ptr %outputs, ptr %dims, ptr %scratch, i64 %begin, i64 %end) {{
  %result = alloca i64
  %error = alloca ptr
  %status = call i32 @"{inner}"(ptr %result, ptr %error, ptr %inputs, ptr %outputs, ptr %dims, ptr %scratch, \
i64 %begin, i64 %end)
  %failed = icmp ne i32 %status, 0
  %value = load i64, ptr %result
  %answer = select i1 %failed, i64 1, i64 %value
  ret i64 %answer
}}
"""
"""The entry point, instead of numba's: that one calls Python and numba's runtime, which a warm cache never loads.

The linker of LLVM resolves all of an object's symbols or none.
"""


@cache
def _target() -> tuple[Any, str]:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    _load_mathematics()
    cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu=cpu, features=features, opt=3, reloc="pic", codemodel="small")
    return machine, f"{target.triple} {cpu} {features}"


def _load_mathematics() -> None:
    """Let kernels find the C library's mathematics; numba would, but a warm cache never imports it."""
    # The module either links that library or is, as the library then is, part of the interpreter.
    path = getattr(math, "__file__", None)
    if path is not None:
        llvm.load_library_permanently(path)


@cache
def has_feature(name: str) -> bool:
    """Tell whether this processor has an extension, by LLVM's name."""
    return bool(llvm.get_host_cpu_features().get(name, False))


@cache
def _processor() -> tuple[str, tuple[str, ...]]:
    """Return the processor that code is compiled for, and those of its extensions that may be used."""
    features = llvm.get_host_cpu_features()
    return llvm.get_host_cpu_name(), tuple(sorted(name for name, present in features.items() if present))


def digest_of(paths: Iterable[Path]) -> str:
    """Digest files that machine code depends on, to be part of a key."""
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths)).hexdigest()


@cache
def _toolchain() -> str:
    """Digest everything but the source that machine code depends on."""
    parts = [version("numba"), version("llvmlite"), _target()[1], digest_of(sorted(Path(__file__).parent.glob("*.py")))]
    return "\n".join(parts)


def object_name(source: Source) -> str:
    """Name the cache entry of a kernel."""
    return f"k_{hashlib.sha256((source.key + _toolchain()).encode()).hexdigest()[:32]}.o"


def entry_point(name: str) -> str:
    """Return the only symbol that the object of this name defines: no two kernels share one."""
    return f"sartor_{name.removesuffix('.o')}"


def compile_object(source: Source) -> ObjectCode:
    """Return the object file of a kernel, from the cache or freshly compiled."""
    name = object_name(source)
    found = get(name)
    if found is None:
        found = _emit(llvm_ir(source), entry_point(name))
        put(name, found)
    return object_code(name, found)


def object_code(name: str, data: bytes) -> ObjectCode:
    """Say what a cached object defines, and for which processor."""
    return ObjectCode(entry_point(name), data, *_processor())


def llvm_ir(source: Source) -> str:
    """Compile a kernel with numba and return optimised LLVM IR with our entry point."""
    from numba import cfunc, types

    pointers = types.CPointer(types.voidptr)  # type: ignore[no-untyped-call]
    sizes = types.CPointer(types.int64)  # type: ignore[no-untyped-call]
    signature = types.int64(pointers, pointers, sizes, types.voidptr, types.int64, types.int64)
    compiled = cfunc(signature, fastmath=FASTMATH, error_model="numpy")(source.make())
    wrapper = rf'^define [^\n]*@"?{re.escape(compiled.native_name)}"?\([^\n]*\n.*?^\}}\n'
    entry = _ENTRY.format(symbol=entry_point(object_name(source)), inner=compiled.native_name.removeprefix("cfunc."))
    text, count = re.subn(wrapper, lambda _: entry, compiled.inspect_llvm(), flags=re.DOTALL | re.MULTILINE)
    assert count == 1, "numba's wrapper of a C function is not where it was"
    return text


def _emit(text: str, symbol: str) -> bytes:
    module = llvm.parse_assembly(text)
    for item in (*module.functions, *module.global_variables):
        if not item.is_declaration and item.name != symbol:
            item.linkage = "internal"
    module.verify()
    machine = _target()[0]
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    return bytes(machine.emit_object(module))


def link(code: ObjectCode) -> tuple[int, object]:
    """Load an object file into the process; return the kernel's address and what keeps it alive."""
    _target()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.data))
    engine.finalize_object()
    return int(engine.get_function_address(code.symbol)), engine


def assembly(source: Source) -> str:
    """Return the machine code of a kernel as text (for tests and for the curious)."""
    text: str = _target()[0].emit_assembly(llvm.parse_assembly(llvm_ir(source)))
    return text
