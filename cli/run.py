"""The command `sartor run`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from sartor.cli._frame import command
from sartor.cli._options import Device, Model, Output, Pack, Quiet, Seed, Shapes, Threads, parse_shapes


@command("run")
def run(
    model: Model = "-",
    inputs: Annotated[str | None, typer.Option("--input", metavar="FILE", help="Inputs as an .npz file.")] = None,
    random: Annotated[bool, typer.Option("--random", help="Draw random inputs that fit the model.")] = False,
    output: Output = "-",
    runtime: Annotated[Literal["sartor", "onnxruntime"], typer.Option("--runtime", help="What runs it.")] = "sartor",
    shape: Shapes = None,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
    pack: Pack = None,
    quiet: Quiet = False,
) -> None:
    """Run a model once and write its outputs as an .npz file.

    Random floats come from the standard normal distribution, indices from the range of the axis that they index. An
    axis of unknown size gets 1 if it is the first of several, otherwise 16; --shape sets the sizes of an input
    (ids=1,128) or of an axis (batch=4).

    Example:
        sartor run model.onnx --random --seed 1 -o outputs.npz
        sartor run model.onnx --random --runtime onnxruntime > outputs.npz
    """
    from sartor.share.artifact import check_target, read_model, write_bytes
    from sartor.share.equivalence import feeds
    from sartor.share.execute import open_session, output_names, run_session
    from sartor.share.inputs import choose_source, save_arrays
    from sartor.share.threads import default_threads

    check_target(output)
    loaded = read_model(model)
    source = choose_source(loaded.ir, inputs, random)
    (feed,) = feeds(loaded, source, parse_shapes(shape), seed, samples=1)
    session = open_session(loaded, runtime, threads or default_threads(), device, pack)
    results = run_session(session, feed, loaded.source)
    write_bytes(save_arrays(dict(zip(output_names(session), results, strict=True))), output)
