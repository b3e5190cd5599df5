"""Local functions of other tools are inlined, as onnxruntime does when it loads a model, so that fusion sees through
them.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import PassError
from onnx_ir.passes.common import InlinePass

from sartor.share import console

OURS = "sartor."
"""Functions of domains that begin so have kernels and stay."""


def inline_functions(model: ir.Model) -> None:
    """Inline every local function but those with kernels, in place."""
    if all(domain.startswith(OURS) for domain, _, _ in model.functions):
        return
    try:
        InlinePass(criteria=lambda function: not function.domain.startswith(OURS))(model)
    except (PassError, ValueError) as error:
        console.warn(f"local functions can't be inlined and stay as they are ({error})")
