"""A library of kernels for programs without sartor or Python: objects and their table, linked with ops.c.

Stock onnxruntime loads it through `RegisterCustomOps` of any of its languages. It holds machine code of the processor
that compiled it, and refuses to be registered on one that lacks an extension.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from sartor.share.errors import UnavailableError
from sartor.share.runtime.kernel import Kernel, ObjectCode
from sartor.share.runtime.library import SOURCE, find_compiler, run_compiler
from sartor.share.runtime.operators import Operator, operators_of, ranks_of

_TABLE, _EXPORTS = "kernels.h", "exports.map"
# The code stays when onnxruntime closes the library: a thread may still hold scratch memory that it has to free.
_FLAGS = (
    *("-std=gnu11", "-O2", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden", f'-DSARTOR_KERNELS="{_TABLE}"'),
    *("-I.", f"-Wl,--version-script={_EXPORTS}", "-Wl,-z,defs", "-Wl,-z,nodelete", "-Wl,--strip-all"),
)

CHECKED = (
    *("avx", "avx2", "bmi", "bmi2", "fma", "popcnt", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    *("avx512ifma", "avx512vbmi", "avx512vbmi2", "avx512vnni", "avx512bitalg", "avx512vpopcntdq", "avx512bf16", "gfni"),
)
"""The extensions of x86-64 that every C compiler of use can ask for at run time."""


def build_library(kernels: Sequence[Kernel]) -> bytes:
    """Link kernels into a shared library; raises UnavailableError without a C compiler or an object for a kernel."""
    compiler = find_compiler(os.environ.get("CC", ""), os.environ.get("PATH", ""))
    if compiler is None:
        raise UnavailableError("a library takes a C compiler", remedy="Install gcc or clang, or set CC")
    objects = objects_of(kernels)
    with tempfile.TemporaryDirectory(prefix="sartor-cc-") as name:
        folder = Path(name)
        (folder / SOURCE.name).write_bytes(SOURCE.read_bytes())
        (folder / _TABLE).write_text(table(operators_of(kernels), required_features(objects)), encoding="ascii")
        (folder / _EXPORTS).write_text("{ global: RegisterCustomOps; local: *; };\n", encoding="ascii")
        for code in objects:
            (folder / f"{code.symbol}.o").write_bytes(code.data)
        files = [SOURCE.name, *(f"{code.symbol}.o" for code in objects)]
        problem = run_compiler([*compiler, *_FLAGS, "-o", "library.so", *files, "-lm"], name)
        if problem:
            raise UnavailableError(problem, remedy="Check that it links shared libraries, or set CC to another")
        return (folder / "library.so").read_bytes()


def objects_of(kernels: Iterable[Kernel]) -> list[ObjectCode]:
    """Return the distinct objects of kernels in the order of their symbols; raises UnavailableError for one without."""
    found: dict[str, ObjectCode] = {}
    for kernel in kernels:
        if kernel.code is None:
            raise UnavailableError("it can't be linked into a library", subject=f"{kernel.domain}::{kernel.name}")
        found[kernel.code.symbol] = kernel.code
    return [found[symbol] for symbol in sorted(found)]


def required_features(objects: Iterable[ObjectCode]) -> list[str]:
    """Return the extensions that a processor is asked for before any of the code may run on it."""
    used = {feature for code in objects for feature in code.features}
    return [feature for feature in CHECKED if feature in used]


def table(operators: Sequence[Operator], features: Sequence[str]) -> str:
    """Write what ops.c includes: the operators with their kernels, and the question for extensions."""
    symbols = sorted({_symbol(kernel) for operator in operators for kernel in operator.kernels})
    types = "void **, void **, const int64_t *, char *, int64_t, int64_t"
    asked = [f'    if (!__builtin_cpu_supports("{name}")) return "{name}";' for name in features]
    lines = [
        *(f"extern int64_t {symbol}({types});" for symbol in symbols),
        "static const struct ready_op OPS[] = {",
        *(f"    {_row(operator)}," for operator in operators),
        "    {0}};",
        *("static const char *lacking_feature(void) {", *asked, "    return NULL;", "}"),
    ]
    return "\n".join(lines) + "\n"


def _row(operator: Operator) -> str:
    variants = [
        f"{{{_symbol(kernel)}, {kernel.phases}, {_array('int32_t', ranks_of(kernel))}}}" for kernel in operator.kernels
    ]
    parts = [
        *(json.dumps(operator.domain), json.dumps(operator.name), str(operator.inputs), str(operator.outputs)),
        *(_array("int32_t", operator.types), _array("uint8_t", operator.optional)),
        f"(const struct ready_variant[]){{{', '.join(variants)}, {{0}}}}",
    ]
    return f"{{{', '.join(parts)}}}"


def _array(kind: str, numbers: Iterable[int]) -> str:
    # One more, because C has no empty arrays.
    return f"(const {kind}[]){{{', '.join(str(int(number)) for number in numbers)}, 0}}"


def _symbol(kernel: Kernel) -> str:
    assert kernel.code is not None
    return kernel.code.symbol
