"""The command `sartor bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from sartor.cli._frame import command
from sartor.cli._options import Device, Json, Model, Pack, Quiet, Seed, Shapes, Threads, parse_shapes


@command("bench")
def bench(
    model: Model,
    against: Annotated[
        str | None, typer.Option("--against", metavar="MODEL", help="The reference; by default the model itself.")
    ] = None,
    inputs: Annotated[str | None, typer.Option("--input", metavar="FILE", help="Inputs as an .npz file.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.01, metavar="S", help="Time to spend.")] = 3.0,
    shape: Shapes = None,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
    pack: Pack = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time a model in sartor's session (a) against a reference in stock onnxruntime (b), call by call in turn.

    First checks that both give the same results, and exits with 1 without a figure if not. Ratios are b over a: above
    1 means that the model is faster than its reference. The reference runs on the CPU, whatever --device says.

    Example:
        sartor bench model.onnx --seconds 0.2
        sartor bench model.onnx --against model.onnx --shape batch=2 --seconds 0.2 --json > bench.json
    """
    from json import dumps

    from sartor.share import equivalence as eq
    from sartor.share.benchmark import measure, table
    from sartor.share.console import note
    from sartor.share.threads import default_threads

    a, b = eq.open_pair(model, against, threads or default_threads(), device, pack)
    (feed,) = eq.feeds(b.model, inputs, parse_shapes(shape), seed, samples=1)
    result = measure(a, b, feed, seconds)
    if json:
        print(dumps(result.as_json(), indent=2))
    else:
        note(table(result, a.model.source, b.model.source))
