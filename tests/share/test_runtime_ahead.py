"""Libraries compiled ahead: the table that ops.c includes, and what can't be linked."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import onnx_ir as ir
import pytest

from sartor.share.errors import UnavailableError
from sartor.share.runtime import ahead, library
from sartor.share.runtime.kernel import Kernel, ObjectCode, TensorType
from sartor.share.runtime.operators import operators_of

FLOAT, INT = ir.DataType.FLOAT, ir.DataType.INT64
needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler")


def kernel(name: str, symbol: str | None, *ranks: int | None, dtype: ir.DataType = FLOAT) -> Kernel:
    """Make a kernel with one output of rank 2; a rank of None stands for an absent input."""
    inputs = tuple(None if rank is None else TensorType(dtype, (None,) * rank) for rank in ranks)
    code = None if symbol is None else ObjectCode(symbol, b"", "zen", ("fma", "avx2", "sha"))
    return Kernel("sartor.fuse", name, 0, inputs, (TensorType(dtype, (None, None)),), None, code)


KERNELS = (
    kernel("g_b", "sartor_k_1", 2, None),
    kernel("g_b", "sartor_k_2", 3, 1),
    kernel("g_b", "sartor_k_3", 3, 1, dtype=INT),
    kernel("g_a", "sartor_k_1", 0),
)


def test_operators_are_functions_with_their_types() -> None:
    found = operators_of(KERNELS)
    assert [(op.name, op.types, op.optional, op.kernels) for op in found] == [
        ("g_a", (FLOAT, FLOAT), (False,), KERNELS[3:]),
        ("g_b", (FLOAT, FLOAT, FLOAT), (False, True), KERNELS[:2]),
        ("g_b", (INT, INT, INT), (False, True), KERNELS[2:3]),
    ]


def test_the_table_holds_everything() -> None:
    text = ahead.table(operators_of(KERNELS), ["fma"])
    assert text.count("extern int64_t sartor_k_") == 3
    assert (
        '{"sartor.fuse", "g_b", 2, 1, (const int32_t[]){1, 1, 1, 0}, (const uint8_t[]){0, 1, 0}, '
        "(const struct ready_variant[]){{sartor_k_1, 1, (const int32_t[]){2, -1, 2, 0}}, "
        "{sartor_k_2, 1, (const int32_t[]){3, 1, 2, 0}}, {0}}}"
    ) in text
    assert 'if (!__builtin_cpu_supports("fma")) return "fma";' in text


def test_extensions_that_can_be_asked_for() -> None:
    objects = ahead.objects_of(KERNELS)
    assert [code.symbol for code in objects] == ["sartor_k_1", "sartor_k_2", "sartor_k_3"]
    assert ahead.required_features(objects) == ["avx2", "fma"]


def test_a_kernel_without_an_object_is_named() -> None:
    with pytest.raises(UnavailableError, match=r"sartor\.fuse::g_c: it can't be linked into a library"):
        ahead.objects_of([kernel("g_c", None, 1)])


@needs_compiler
@pytest.mark.parametrize("kernels", [(), KERNELS], ids=["empty", "full"])
def test_the_source_compiles_without_warnings(kernels: tuple[Kernel, ...], tmp_path: Path) -> None:
    features = ahead.CHECKED if kernels and os.uname().machine == "x86_64" else ()
    (tmp_path / "kernels.h").write_text(ahead.table(operators_of(kernels), features))
    flags = [flag for flag in ahead._FLAGS if not flag.startswith("-Wl,") and flag != "-shared"]
    command = ["cc", *flags, f"-I{tmp_path}", "-Wall", "-Wextra", "-Werror", "-c", library.SOURCE, "-o", tmp_path / "o"]
    subprocess.run(command, check=True)
