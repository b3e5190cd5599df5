"""The command `sartor sparsify-rnn`."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from sartor.cli._frame import command
from sartor.cli._options import Json, Model, NoHistory, Output, Quiet, Report, Seed, Threads, Verbose
from sartor.cli._outputs import check_outputs, tell

if TYPE_CHECKING:
    from sartor.tools.sparse_rnn.plan import Options, Tuning


class ScopeChoice(StrEnum):
    """What has the density, where the pattern does not say it for every row."""

    gate = "gate"
    matrix = "matrix"
    model = "model"


class ValuesChoice(StrEnum):
    """How values are stored."""

    fp16 = "fp16"
    fp32 = "fp32"


class ScheduleChoice(StrEnum):
    """When weights are removed."""

    cubic = "cubic"
    oneshot = "oneshot"


ONE_SHOT = 0.5
"""The density below which weights that are not trained again lose much (measured on a language model)."""


@command("sparsify-rnn")
def sparsify_rnn(
    model: Model = "-",
    output: Output = "-",
    density: Annotated[
        float, typer.Option("--density", metavar="R", help="Share of the recurrent weights that stays.")
    ] = ONE_SHOT,
    pattern: Annotated[
        str, typer.Option("--pattern", metavar="NAME", help="balanced:32, unstructured, row or block:16x1.")
    ] = "balanced:32",
    scope: Annotated[ScopeChoice, typer.Option("--scope", help="What has the density.")] = ScopeChoice.gate,
    also_input: Annotated[
        bool, typer.Option("--also-input", help="Make the weights of the inputs sparse as well.")
    ] = False,
    nodes: Annotated[
        list[str] | None, typer.Option("--nodes", metavar="GLOB", help="Only recurrent nodes of these names.")
    ] = None,
    values: Annotated[ValuesChoice, typer.Option("--values", help="How values are stored.")] = ValuesChoice.fp16,
    data: Annotated[
        str | None, typer.Option("--data", metavar="FILE", help="Samples to train with, HDF5 or .npz.")
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, metavar="N", help="Epochs of training.")] = 10,
    rate: Annotated[float, typer.Option("--lr", metavar="RATE", help="Rate of Adam.")] = 0.001,
    distill: Annotated[
        bool, typer.Option("--distill", help="Train towards the outputs of the original, without labels.")
    ] = False,
    schedule: Annotated[
        ScheduleChoice, typer.Option("--schedule", help="Remove weights little by little, or all before training.")
    ] = ScheduleChoice.cubic,
    pack: Annotated[
        str | None,
        typer.Option("--pack", metavar="FILE", help="Write the weights as kernels of this machine read them, too."),
    ] = None,
    seed: Seed = 0,
    threads: Threads = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the outcome on stdout, write no model.")] = False,
    as_json: Json = False,
    report: Report = None,
    no_history: NoHistory = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make the recurrent layers of a model sparse and store them coded.

    RNN, GRU and LSTM are found in all graphs. Of their recurrent weights the largest stay, and are stored as gaps of a
    byte and values; standard operators decode them when onnxruntime loads the model, which then runs as before. With
    --data the model is trained meanwhile, on labels or with --distill towards its own outputs; without, look at the
    outputs before you go below half of the weights. A state dict of nn.LSTM, nn.GRU or nn.RNN (.safetensors, or .pt
    without code) becomes such a model, with sequence_lens. --pack keeps what sessions of ours make of the weights when
    they open the model, so that run, bench and verify --pack, or sartor.load(..., pack=...), need not.

    Example:
        sartor sparsify-rnn recurrent.onnx -o sparse.onnx
        sartor sparsify-rnn recurrent.onnx --data sequences.h5 --distill --epochs 2 --density 0.3 -o sparse.onnx
        sartor sparsify-rnn recurrent.onnx -o sparse.onnx --pack sparse.h5
        sartor bench sparse.onnx --pack sparse.h5 --shape features=64,1,32 --seconds 0.2
        sartor sparsify-rnn recurrent.onnx --density 0.3 --pattern unstructured --dry-run
    """
    from sartor.share.console import warn
    from sartor.share.errors import UsageError
    from sartor.share.threads import default_threads
    from sartor.tools.sparse_rnn.pattern import parse_pattern
    from sartor.tools.sparse_rnn.plan import Options, Tuning

    target = None if dry_run else output
    if dry_run and pack is not None:
        raise UsageError("a dry run packs nothing", subject="--pack", remedy="Leave out one of the two")
    check_outputs("model, pack, outcome and report", report, pack, target, shown=dry_run or as_json)
    options = Options(
        density=_share(density),
        pattern=parse_pattern(pattern),
        scope=scope.value,
        also_input=also_input,
        nodes=tuple(nodes or ()),
        values=values.value,
    )
    if data is None and distill:
        raise UsageError("there are no samples", subject="--distill", remedy="Give --data FILE too")
    tuning = None
    if data is not None:
        tuning = Tuning(data, epochs, _rate(rate), distill, schedule.value, seed, threads or default_threads())
    elif density < ONE_SHOT:
        warn(f"{density:g} of the weights, not trained again, change the outputs much: compare them")
    _sparsify(model, target, options, tuning, None if no_history else sys.argv[1:], report, as_json, pack)


def _share(density: float) -> float:
    """Return the density; raises UsageError where it is no share."""
    from sartor.share.errors import UsageError

    if not 0 < density <= 1:
        raise UsageError(f"{density:g} is no share", subject="--density", remedy="Give a number above 0, up to 1")
    return density


def _rate(rate: float) -> float:
    """Return the rate; raises UsageError where it is none."""
    from sartor.share.errors import UsageError

    if not 0 < rate < 1:
        raise UsageError(f"{rate:g} is no rate", subject="--lr", remedy="Give a number between 0 and 1")
    return rate


def _sparsify(
    model: str, target: str | None, options: Options, tuning: Tuning | None, argv: list[str] | None,
    report: str | None, as_json: bool, pack: str | None,
) -> None:  # fmt: skip
    """Sparsify, and say what was done."""
    from sartor.tools.sparse_rnn.report import as_data, as_text, headline
    from sartor.tools.sparse_rnn.sparsify import sparsify

    plan = sparsify(model, target, options, argv, tuning, pack)
    tell(as_data(plan), as_text(plan), headline(plan), report, as_json, target)
