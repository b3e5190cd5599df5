"""The command `sartor fuse`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sartor.cli._frame import command
from sartor.cli._options import (
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


@command("fuse")
def fuse(
    model: Model = "-",
    output: Output = "-",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan on stdout, write no model.")] = False,
    as_json: Json = False,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="GLOB", help="Fuse only these nodes.")] = None,
    skip: Annotated[list[str] | None, typer.Option("--skip", metavar="GLOB", help="Leave these nodes alone.")] = None,
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
    shape: Shapes = None,
    report: Report = None,
    seed: Seed = 0,
    threads: Threads = None,
    no_history: NoHistory = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Stitch the memory-intensive operators of a model into few large kernels.

    The output is plain ONNX: each group of operators becomes a local function, which any runtime executes as before and
    sartor.load runs as one compiled kernel. A group is kept only if it measured faster than onnxruntime on the same
    operators, at the sizes that --shape gives to the model's named axes. Globs match names of nodes or operator types.

    Example:
        sartor fuse model.onnx -o fused.onnx
        sartor fuse model.onnx --dry-run
        sartor fuse model.onnx --dry-run --json --shape batch=4 > plan.json
        sartor fuse --skip Softmax --no-measure < model.onnx > fused.onnx
    """
    from json import dumps

    from sartor.share.artifact import check_target, write_bytes
    from sartor.share.console import detail, note
    from sartor.share.errors import UsageError
    from sartor.share.threads import default_threads
    from sartor.tools.fuse.fuse import Options
    from sartor.tools.fuse.fuse import fuse as run
    from sartor.tools.fuse.group import Selection
    from sartor.tools.fuse.report import as_data, as_text, headline
    from sartor.tools.fuse.require import require_met

    target = None if dry_run else output
    if [target, "-" if dry_run or as_json else None, report].count("-") > 1:
        raise UsageError("model, plan and report can't share stdout", remedy="Name files by -o and --report")
    for path in (report, target):
        if path is not None:
            check_target(path)
    selection = Selection(tuple(only or ()), tuple(skip or ()))
    options = Options(
        selection,
        measure,
        verify,
        tuple(require_single_kernel or ()),
        threads=threads or default_threads(),
        seed=seed,
        shapes=parse_shapes(shape),
    )
    plan = run(model, target, options, None if no_history else sys.argv[1:])
    if report is not None:
        write_bytes((dumps(as_data(plan), indent=2) + "\n").encode(), report)
    if as_json:
        print(dumps(as_data(plan), indent=2))
    elif dry_run:
        print(as_text(plan))
    else:
        note(headline(plan))
        detail(as_text(plan))
    require_met(plan, model)
