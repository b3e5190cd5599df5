"""The command `sartor fold-predict`."""

from __future__ import annotations

from typing import Annotated

import typer

from sartor.cli._frame import command
from sartor.cli._options import Device, Json, Quiet, Report, Threads, Verbose
from sartor.cli._outputs import check_outputs, tell


@command("fold-predict")
def fold_predict(
    weights: Annotated[str, typer.Argument(metavar="WEIGHTS", help="Weights: safetensors, .pt, or params_*.npz.")],
    shards: Annotated[str, typer.Argument(metavar="SHARDS", help="Shard, or folder of shards.")],
    output: Annotated[str, typer.Option("-o", "--output", metavar="FOLDER", help="Where the structures go.")],
    recycles: Annotated[
        int | None,
        typer.Option("--recycles", min=0, metavar="N", help="How often the model runs again; 3 unless given."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="What made the weights, where they do not tell.")
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="Settings of the run that made them, in TOML.")
    ] = None,
    device: Device = "cpu",
    as_json: Json = False,
    report: Report = None,
    threads: Threads = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Predict the structure of every chain of shards and write it as mmCIF, with pLDDT for B factors.

    Weights that fold-train wrote tell their settings; others, such as AlphaFold's and OpenFold's, need --preset. Where
    the shards know the structure, its lDDT-Ca is told too.

    Example:
        sartor fold-train --synthetic --steps 1 --run-dir run -o weights.safetensors
        sartor fold-predict weights.safetensors run/shards -o structures --recycles 1
    """
    from pathlib import Path

    from sartor.share.device import require
    from sartor.share.threads import default_threads
    from sartor.tools.fold.predict import Options, as_data, as_text, headline, predict

    require(device)
    check_outputs("structures and report", report, shown=as_json)
    options = Options(weights, shards, Path(output), recycles, preset, config, device, threads or default_threads())
    found = predict(options)
    tell(as_data(found), as_text(found), headline(found), report, as_json, output)
