"""The command `sartor fuse`."""

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
    Shapes,
    Threads,
    Verbose,
    parse_shapes,
)  # fmt: skip
from sartor.cli._outputs import check_outputs
from sartor.share.errors import UsageError

if TYPE_CHECKING:
    from sartor.tools.fuse.options import Options


class PlanChoice(StrEnum):
    """How groups are chosen."""

    search = "search"
    stitch_all = "stitch-all"
    off = "off"


@command("fuse")
def fuse(
    model: Model = "-",
    output: Output = "-",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan on stdout, write no model.")] = False,
    as_json: Json = False,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="GLOB", help="Fuse only these nodes.")] = None,
    skip: Annotated[list[str] | None, typer.Option("--skip", metavar="GLOB", help="Leave these nodes alone.")] = None,
    plan: Annotated[PlanChoice, typer.Option("--plan", help="How groups are chosen.")] = PlanChoice.search,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Keep a group only if it is faster than onnxruntime.")
    ] = True,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Leave out a group whose kernel gives other results.")
    ] = True,
    require_single_kernel: Annotated[
        list[str] | None,
        typer.Option("--require-single-kernel", metavar="GLOB", help="Exit with 1 unless these nodes are one kernel."),
    ] = None,
    inline: Annotated[
        bool, typer.Option("--inline", help="Do the opposite: make a plain model of a fused one.")
    ] = False,
    emit_library: Annotated[
        str | None,
        typer.Option("--emit-library", metavar="FILE", help="Write the kernels for programs without sartor."),
    ] = None,
    shape: Shapes = None,
    report: Report = None,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
    no_history: NoHistory = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Stitch the memory-intensive operators of a model into few large kernels.

    The output is plain ONNX: each group of operators becomes a local function, which any runtime executes as before and
    sartor.load runs as one compiled kernel. A group is kept only if it measured faster than onnxruntime on the same
    operators, at the sizes that --shape gives to the model's named axes, and if its kernel gives the same results.
    Globs match names of nodes or operator types. The library of --emit-library runs the kernels in any program with
    stock onnxruntime, on processors like this one. With --device cuda groups are planned for a GPU, and timed against
    torch and compared there; with --no-measure --no-verify that needs no GPU.

    Example:
        sartor fuse model.onnx -o fused.onnx
        sartor fuse model.onnx --dry-run
        sartor fuse model.onnx --dry-run --json --shape batch=4 > plan.json
        sartor fuse --skip Softmax --no-measure < model.onnx > fused.onnx
        sartor fuse --inline fused.onnx -o plain.onnx
    """
    from sartor.share.threads import default_threads
    from sartor.tools.fuse.options import Options, Selection

    argv = None if no_history else sys.argv[1:]
    if inline:
        given = {"--dry-run": dry_run, "--json": as_json, "--only": only, "--skip": skip, "--no-measure": not measure,
                 "--no-verify": not verify, "--require-single-kernel": require_single_kernel,
                 "--emit-library": emit_library, "--shape": shape, "--report": report, "--seed": seed,
                 "--device": device != "cpu", "--threads": threads,
                 "--plan": plan is not PlanChoice.search}  # fmt: skip
        _restore(model, output, [option for option, value in given.items() if value], argv)
        return
    if dry_run and emit_library is not None:
        raise UsageError("--dry-run writes nothing that a library fits", remedy="Leave out one of the two")
    target = None if dry_run else output
    check_outputs("model, plan, report and library", report, emit_library, target, shown=dry_run or as_json)
    selection = Selection(tuple(only or ()), tuple(skip or ()))
    demands = tuple(require_single_kernel or ())
    sizes, count = parse_shapes(shape), threads or default_threads()
    _check_device(device, measure or verify, emit_library)
    options = Options(selection, measure, verify, demands, emit_library, device, count, seed, sizes, plan.value)
    _fuse(model, target, options, argv, report, as_json)


def _restore(model: str, output: str, others: list[str], argv: list[str] | None) -> None:
    """Inline the groups of a fused model; raises UsageError for options that have no part in it."""
    from sartor.share.artifact import check_target
    from sartor.share.console import note
    from sartor.tools.fuse.restore import restore

    if others:
        raise UsageError(f"--inline excludes {', '.join(others)}", remedy="Leave out one or the other")
    check_target(output)
    note(str(restore(model, output, argv)))


def _check_device(device: str, needed: bool, library: str | None) -> None:
    """Raise for a device that is not at hand although kernels are to run on it, and for a library of its kernels."""
    from sartor.share.device import parse, require

    parse(device)
    if device != "cpu" and library is not None:
        raise UsageError("--emit-library holds kernels for the CPU", remedy="Leave out --device")
    if needed:
        require(device)


def _fuse(
    model: str, target: str | None, options: Options, argv: list[str] | None, report: str | None, as_json: bool
) -> None:
    """Fuse, and say what was done; raises GoalNotMetError if nothing was, because a demand is not met."""
    from json import dumps

    from sartor.share.artifact import write_bytes
    from sartor.share.console import detail, note
    from sartor.tools.fuse.fuse import fuse as run
    from sartor.tools.fuse.report import as_data, as_text, headline
    from sartor.tools.fuse.require import require_met

    plan = run(model, target, options, argv)
    if report is not None:
        write_bytes((dumps(as_data(plan), indent=2) + "\n").encode(), report)
    if as_json:
        print(dumps(as_data(plan), indent=2))
    elif target is None:
        print(as_text(plan))
    elif not plan.unmet:
        note(headline(plan))
        detail(as_text(plan))
    require_met(plan, model)
