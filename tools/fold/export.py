"""The Evoformer of a trained model as ONNX, so that the other tools and any runtime can take it."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.export import Dim

from sartor.share import history
from sartor.share.artifact import write_model
from sartor.share.errors import UnavailableError
from sartor.tools.fold.checkpoint import State
from sartor.tools.fold.config import Config
from sartor.tools.fold.model.evoformer import EvoformerStack
from sartor.tools.fold.run import Run

OPSET = 20
NAMES = ("msa", "pair", "msa_mask", "pair_mask")
RESULTS = ("msa_out", "pair_out", "single")


class Trunk(nn.Module):
    """All Evoformer blocks as a function of one sample's tensors."""

    def __init__(self, stack: EvoformerStack) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, msa: Tensor, pair: Tensor, msa_mask: Tensor, pair_mask: Tensor) -> tuple[Tensor, ...]:
        """Return msa (S, N, c_m), pair (N, N, c_z) and single (N, c_s)."""
        found: tuple[Tensor, ...] = self.stack(msa[None], pair[None], msa_mask[None], pair_mask[None])
        return tuple(one[0] for one in found)


def export_trunk(state: State, config: Config, run: Run, target: str) -> None:
    """Write the Evoformer with the average of the weights, for any number of rows and residues.

    Raises UnavailableError where torch's exporter lacks onnxscript, OutputError and WriteError.
    """
    with state.average.applied():
        model = as_onnx(state.model.evoformer, config)
    for one in history.read_run_directory(run.folder):
        history.append_onnx(model, one)
    write_model(model, target)


def as_onnx(stack: EvoformerStack, config: Config) -> ir.Model:
    """Export a stack as torch does, with names for the sizes that are open."""
    model = config.model
    rows, size = config.data.clusters, config.data.crop_size
    shapes = ((rows, size, model.c_m), (size, size, model.c_z), (rows, size), (size, size))
    inputs = tuple(torch.ones(shape) for shape in shapes)
    count, length = Dim("rows", min=2), Dim("residues", min=2)
    open_sizes = ({0: count, 1: length}, {0: length, 1: length}, {0: count, 1: length}, {0: length, 1: length})
    trunk = Trunk(stack).cpu().eval()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "trunk.onnx")
        try:
            torch.onnx.export(
                trunk, inputs, path, input_names=list(NAMES), output_names=list(RESULTS), opset_version=OPSET,
                dynamo=True, dynamic_shapes=open_sizes, verbose=False, external_data=False,
            )  # fmt: skip
        except ModuleNotFoundError as error:
            remedy = "Install it: pip install onnxscript"
            raise UnavailableError(f"torch's exporter needs {error.name}", subject="--export", remedy=remedy) from None
        return ir.load(path)
