"""The command `sartor fold-train`."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sartor.cli._frame import command
from sartor.cli._options import Device, Json, NoHistory, Quiet, Report, Threads, Verbose
from sartor.cli._outputs import check_outputs, tell
from sartor.share.errors import UsageError

if TYPE_CHECKING:
    from sartor.tools.fold.config import Config
    from sartor.tools.fold.options import Options


SYNTHETIC_RUN = "fold-synthetic"
"""The folder of a run on proteins that are made up, unless one is named."""


class ResumeChoice(StrEnum):
    """What is done where the folder of a run holds one already."""

    auto = "auto"
    never = "never"


@command("fold-train")
def fold_train(
    shards: Annotated[str | None, typer.Argument(metavar="[SHARDS]", help="Shard, or folder of shards.")] = None,
    run_dir: Annotated[
        str | None,
        typer.Option("--run-dir", metavar="RUN", help=f"Folder of the run; {SYNTHETIC_RUN} for --synthetic."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="Write the weights as safetensors.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="initial_training, finetuning or tiny; the first for SHARDS, the last for --synthetic.",
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="Settings in TOML that differ from the preset.")
    ] = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print all settings and stop.")] = False,
    steps: Annotated[int | None, typer.Option("--steps", min=1, metavar="N", help="Steps in all.")] = None,
    eval_every: Annotated[
        int | None, typer.Option("--eval-every", min=1, metavar="N", help="Steps a judgement.")
    ] = None,
    eval_shards: Annotated[
        str | None,
        typer.Option("--eval-shards", metavar="PATH", help="Chains to judge on; those of training unless given."),
    ] = None,
    resume: Annotated[
        ResumeChoice, typer.Option("--resume", help="Go on with the run in the folder, if there is one.")
    ] = ResumeChoice.never,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Make up a few small proteins in the run's folder and train on them.")
    ] = False,
    export: Annotated[str | None, typer.Option("--export", metavar="FILE", help="Write the Evoformer as ONNX.")] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Print what a step needs and stop.")] = False,
    mlperf_log: Annotated[bool, typer.Option("--mlperf-log", help="Write lines of MLPerf too.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", min=0, metavar="N", help="Seed of everything random.")] = None,
    device: Device = "cpu",
    as_json: Json = False,
    report: Report = None,
    threads: Threads = None,
    no_history: NoHistory = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a model of the AlphaFold 2 kind on shards that fold-pack made.

    The folder of a run holds its settings, a line of JSON for every step, checkpoints and its history. Everything drawn
    is a function of the seed and the step: a run that was killed and goes on takes the same steps as one that was not.
    SIGTERM and SIGUSR1 end the step, write a checkpoint and exit with 75. The average of the weights is judged by
    lDDT-Ca over whole chains and is what -o writes, under OpenFold's names.

    Example:
        sartor fold-train --preset tiny --print-config > tiny.toml
        sartor fold-train --synthetic --steps 2 --run-dir run -o weights.safetensors
        sartor fold-train --synthetic --steps 3 --run-dir run --resume auto --export trunk.onnx
        sartor fold-train run/shards --config tiny.toml --estimate
    """
    from pathlib import Path

    from sartor.share.artifact import make_folder
    from sartor.share.device import require
    from sartor.share.threads import default_threads
    from sartor.tools.fold.config import make_config
    from sartor.tools.fold.options import Options

    changes: dict[str, dict[str, Any]] = {"training": {}, "evaluation": {}}
    for part, name, value in (
        ("training", "steps", steps),
        ("training", "seed", seed),
        ("evaluation", "every", eval_every),
    ):
        if value is not None:
            changes[part][name] = value
    settings = make_config(preset or ("tiny" if synthetic else "initial_training"), config, changes)
    if print_config:
        from sartor.tools.fold.settings import as_toml

        print(as_toml(settings), end="")
        return
    require(device)
    if estimate:
        check_outputs("report", report, shown=as_json)
        _estimate(settings, device, report, as_json)
        return
    if (shards is not None) == synthetic:
        raise UsageError("it is to be said once what to train on", remedy="Give SHARDS or --synthetic")
    if run_dir is None and synthetic:
        run_dir = SYNTHETIC_RUN
    if run_dir is None:
        raise UsageError(
            "there is no folder for the run", subject="--run-dir", remedy="Name one; it is made if need be"
        )
    # Weights may well go into the folder of the run.
    make_folder(Path(run_dir))
    check_outputs("weights, trunk and report", report, output, export, shown=as_json)
    options = Options(
        source=shards,
        judged=eval_shards,
        run=Path(run_dir),
        weights=output,
        trunk=export,
        resume=resume.value,
        mlperf=mlperf_log,
        device=device,
        threads=threads or default_threads(),
    )
    _train(settings, options, None if no_history else sys.argv[1:], report, as_json)


def _estimate(config: Config, device: str, report: str | None, as_json: bool) -> None:
    """Say what a step needs."""
    from sartor.tools.fold.estimate import as_text, make_estimate

    found = make_estimate(config, device)
    tell(found.as_json(), as_text(found), "", report, as_json, None)


def _train(config: Config, options: Options, argv: list[str] | None, report: str | None, as_json: bool) -> None:
    """Train, and say what came of it."""
    from sartor.tools.fold.outcome import as_data, as_text, headline
    from sartor.tools.fold.train import train

    outcome = train(config, options, argv)
    tell(as_data(outcome), as_text(outcome), headline(outcome), report, as_json, str(options.run))
