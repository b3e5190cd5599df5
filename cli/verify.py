"""The command `sartor verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from sartor.cli._frame import command
from sartor.cli._options import Device, Json, Model, Pack, Quiet, Seed, Shapes, Threads, parse_shapes

Bound = Annotated[float | None, typer.Option(min=0, metavar="X", help="By default a bound that suits the type.")]


@command("verify")
def verify(
    model: Model,
    against: Annotated[str, typer.Option("--against", metavar="MODEL", help="The reference; - is stdin.")],
    inputs: Annotated[str | None, typer.Option("--input", metavar="FILE", help="Inputs as an .npz file.")] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, metavar="N", help="Random inputs to try.")] = 3,
    atol: Bound = None,
    rtol: Bound = None,
    shape: Shapes = None,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
    pack: Pack = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check that a model computes what a reference computes; says nothing if so, and exits with 1 if not.

    The model runs in sartor's session, on the CPU or a GPU, the reference in stock onnxruntime on the CPU, both on the
    same inputs. An element agrees
    when |a - b| <= atol + rtol |b|. Defaults of (atol, rtol): float16 (1e-3, 1e-2), float32 (1e-5, 1e-4), float64
    (1e-12, 1e-9); integers, booleans and strings must be equal.

    Example:
        sartor fuse model.onnx -o fused.onnx
        sartor verify fused.onnx --against model.onnx
        sartor verify fused.onnx --against model.onnx --samples 10 --seed 1 --json > verdict.json
    """
    from json import dumps

    from sartor.share import equivalence as eq
    from sartor.share.compare import Tolerance
    from sartor.share.threads import default_threads

    a, b = eq.open_pair(model, against, threads or default_threads(), device, pack)
    trials = eq.feeds(b.model, inputs, parse_shapes(shape), seed, samples)
    verdict = eq.verify(a, b, trials, Tolerance(atol, rtol))
    if json:
        print(dumps(verdict.as_json(), indent=2))
    verdict.require(a.model, b.model)
