"""The command `sartor prune`."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from sartor.cli._frame import command
from sartor.cli._options import (
    Device,
    Json,
    Model,
    NoHistory,
    Output,
    Quiet,
    Report,
    Seed,
    Shard,
    Threads,
    Verbose,
    parse_shard,
)
from sartor.cli._outputs import check_outputs, tell
from sartor.share.errors import UsageError

if TYPE_CHECKING:
    from sartor.tools.prune.plan import Budget, Options, Resource


class StrategyChoice(StrEnum):
    """How counts of channels are searched for."""

    auto = "auto"
    ddpg = "ddpg"
    hill_climb = "hill-climb"
    random = "random"


class StartChoice(StrEnum):
    """Where a search starts."""

    prior = "prior"
    uniform = "uniform"


class TransferChoice(StrEnum):
    """What an agent takes over from earlier searches."""

    none = "none"
    weights = "weights"
    augmented = "augmented"


@command("prune")
def prune(
    model: Model = "-",
    output: Output = "-",
    data: Annotated[str, typer.Option("--data", metavar="FILE", help="Samples in HDF5 or .npz.")] = "",
    flops: Annotated[
        float | None, typer.Option("--flops", metavar="R", help="Share of multiplications to keep.")
    ] = None,
    params: Annotated[float | None, typer.Option("--params", metavar="R", help="Share of parameters to keep.")] = None,
    latency: Annotated[
        float | None, typer.Option("--latency", metavar="R", help="Share of the time of one sample to keep.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", metavar="NAME", help="accuracy, top5 (any number) or likeness.")
    ] = None,
    strategy: Annotated[StrategyChoice, typer.Option("--strategy", help="How to search.")] = StrategyChoice.auto,
    start: Annotated[StartChoice, typer.Option("--start", help="Where to start.")] = StartChoice.prior,
    episodes: Annotated[
        int, typer.Option("--episodes", min=0, metavar="N", help="Evaluations; 0 takes the start.")
    ] = 100,
    history: Annotated[
        list[str] | None, typer.Option("--history", metavar="PATH", help="Histories of earlier searches, or folders.")
    ] = None,
    save_history: Annotated[
        str | None, typer.Option("--save-history", metavar="FILE", help="Keep the history of this search.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="FILE", help="Go on with the search of this history.")
    ] = None,
    transfer: Annotated[
        TransferChoice, typer.Option("--transfer", help="What the agent of ddpg takes over from --history.")
    ] = TransferChoice.augmented,
    assistant: Annotated[
        bool,
        typer.Option("--assistant/--no-assistant", help="Let a model of the reward pick among many walks of ddpg."),
    ] = True,
    round_to: Annotated[
        int | None, typer.Option("--round", min=1, metavar="N", help="Keep multiples of N channels.")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option("--keep", metavar="GLOB", help="Layers, by node, that keep all outputs.")
    ] = None,
    min_ratio: Annotated[
        float, typer.Option("--min-ratio", min=0.0, max=1.0, metavar="R", help="Least share of a layer's channels.")
    ] = 0.1,
    samples: Annotated[
        int, typer.Option("--samples", min=1, metavar="N", help="Samples of a split to calibrate and to judge on.")
    ] = 512,
    finetune: Annotated[
        int, typer.Option("--finetune", min=0, metavar="EPOCHS", help="Epochs of training after the search.")
    ] = 0,
    distill: Annotated[
        bool, typer.Option("--distill", help="Fine-tune towards the outputs of the original, without labels.")
    ] = False,
    shard: Shard = "1/1",
    device: Device = "cpu",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the outcome on stdout, write no model.")] = False,
    as_json: Json = False,
    report: Report = None,
    seed: Seed = 0,
    threads: Threads = None,
    no_history: NoHistory = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Remove channels from a model until it meets a budget, and refit what is left.

    The output has the inputs and outputs of the model, and runs anywhere. Data holds samples x, and labels y, of train
    (weights are refitted on them), val (they judge) and test (they only report). Without labels the outputs of the
    original are the goal. A search starts from an allocation in closed form, which --episodes 0 takes as it is, and
    evaluates one allocation an episode: hill-climb changes the best so far, ddpg learns and takes over what earlier
    searches learned; auto takes ddpg where there is a history. A history holds every finished episode, whenever the run
    is killed. Shards of a search are told apart by their numbers; with --history of all shards, --episodes 0 takes the
    best of their episodes. With --device cuda layers are calibrated on a GPU, and everything else on the CPU.

    Example:
        sartor prune net.onnx --data images.h5 --flops 0.5 --episodes 0 -o small.onnx
        sartor prune net.onnx --data images.h5 --flops 0.5 --episodes 5 --save-history run.h5 -o small.onnx
        sartor prune net.onnx --data images.h5 --params 0.6 --episodes 2 --dry-run
        sartor prune net.onnx --data images.h5 --latency 0.7 --episodes 0 --finetune 1 --distill -o small.onnx
        sartor prune net.onnx --data images.h5 --flops 0.5 --episodes 6 --shard 2/3 --save-history part2.h5 --dry-run
        sartor prune net.onnx --data images.h5 --flops 0.5 --episodes 0 --history part2.h5 -o small.onnx
        sartor prune --data images.h5 --flops 0.5 --episodes 0 < net.onnx | sartor fuse --no-measure > both.onnx
    """
    from sartor.share.device import require
    from sartor.share.threads import default_threads
    from sartor.tools.prune.plan import Options

    if not data:
        raise UsageError("there is no data", subject="--data", remedy="Give samples in HDF5 or .npz")
    require(device)
    target = None if dry_run else output
    kept = save_history or resume
    check_outputs("model, outcome, report and history", report, kept, target, shown=dry_run or as_json)
    if distill and not finetune:
        raise UsageError("there is nothing to distil", subject="--distill", remedy="Give --finetune EPOCHS too")
    options = Options(
        budget=_budget({"flops": flops, "params": params, "latency": latency}),
        metric=metric,
        histories=tuple(history or ()),
        save_history=save_history,
        transfer=transfer.value,
        assistant=assistant,
        strategy=strategy.value,
        start=start.value,
        episodes=episodes,
        round_to=round_to,
        keep=tuple(keep or ()),
        least_ratio=min_ratio,
        samples=samples,
        seed=seed,
        threads=threads or default_threads(),
        device=device,
        resume=resume,
        shard=parse_shard(shard),
        finetune=finetune,
        distill=distill,
    )
    _prune(model, target, data, options, None if no_history else sys.argv[1:], report, as_json)


def _budget(ratios: dict[Resource, float | None]) -> Budget:
    """Return the budget; raises UsageError unless exactly one is given, as a share."""
    from sartor.tools.prune.plan import Budget

    given = [(resource, ratio) for resource, ratio in ratios.items() if ratio is not None]
    if len(given) != 1:
        raise UsageError("one budget is needed", remedy="Give --flops 0.5, --params 0.5 or --latency 0.5")
    ((resource, ratio),) = given
    if not 0 < ratio <= 1:
        raise UsageError(f"{ratio:g} is no share", subject=f"--{resource}", remedy="Give a number above 0, up to 1")
    return Budget(resource, ratio)


def _prune(
    model: str, target: str | None, data: str, options: Options, argv: list[str] | None, report: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Prune, and say what was done."""
    from sartor.share.console import warn
    from sartor.tools.prune.prune import prune as run
    from sartor.tools.prune.report import as_data, as_text, headline

    plan = run(model, target, data, options, argv)
    tell(as_data(plan), as_text(plan), headline(plan), report, as_json, target)
    if target is not None and not as_json:
        for line in plan.notes:
            warn(line)
