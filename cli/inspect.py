"""The command `sartor inspect`."""

from __future__ import annotations

from typing import Annotated

import typer

from sartor.cli._frame import command
from sartor.cli._options import Json


@command("inspect")
def inspect(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="Model, HDF5 or a folder of it, safetensors, run directory; - is stdin."),
    ],
    json: Json = False,
) -> None:
    """Show what a file is: inputs and outputs, operators, fused groups, share of zero weights, table, history.

    Example:
        sartor inspect model.onnx
        sartor inspect model.onnx --json > facts.json
    """
    from json import dumps

    from sartor.share.describe import describe, tables
    from sartor.share.tables import show

    description = describe(file)
    if json:
        print(dumps(description.as_json(), indent=2))
    else:
        show(tables(file, description))
