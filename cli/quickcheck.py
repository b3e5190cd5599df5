"""The command `sartor quickcheck`."""

from __future__ import annotations

from typing import Annotated

import typer

from sartor.cli._frame import command


@command("quickcheck")
def quickcheck(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Models, HDF5, safetensors, run directories.")],
) -> None:
    """Check that files are whole, without reading their weights; name the bad ones and exit with 65 if there are any.

    Example:
        sartor quickcheck model.onnx
    """
    from sartor.share.artifact import quickcheck as reason_against
    from sartor.share.console import error
    from sartor.share.errors import InputRefusedError

    refusals = [InputRefusedError(reason, subject=file) for file in files if (reason := reason_against(file))]
    for refusal in refusals[:-1]:
        error(str(refusal))
    if refusals:
        raise refusals[-1]
