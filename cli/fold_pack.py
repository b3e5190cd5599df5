"""The command `sartor fold-pack`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sartor.cli._frame import command
from sartor.cli._options import Json, NoHistory, Quiet, Report, Shard, Threads, Verbose, parse_shard
from sartor.cli._outputs import check_outputs, tell
from sartor.share.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from sartor.tools.fold.plan import Options


@command("fold-pack")
def fold_pack(
    structures: Annotated[str, typer.Argument(metavar="MMCIF_DIR", help="Folder of structures, *.cif or *.cif.gz.")],
    alignments: Annotated[
        str, typer.Argument(metavar="ALIGNMENT_DIR", help="Folder of alignments and template hits: a3m, sto, hhr.")
    ],
    output: Annotated[str, typer.Option("-o", "--output", metavar="SHARDS", help="Folder to write shards into.")],
    max_templates: Annotated[
        int, typer.Option("--max-templates", min=0, max=1000, metavar="N", help="Templates to keep for a chain.")
    ] = 20,
    max_template_date: Annotated[
        str | None, typer.Option("--max-template-date", metavar="DATE", help="Last release of templates: 2021-09-30.")
    ] = None,
    max_resolution: Annotated[
        float, typer.Option("--max-resolution", min=0.0, metavar="A", help="Leave out chains with a worse resolution.")
    ] = 9.0,
    clusters: Annotated[
        str | None, typer.Option("--clusters", metavar="FILE", help="Similar chains, one cluster of names a line.")
    ] = None,
    shard: Shard = "1/1",
    as_json: Json = False,
    report: Report = None,
    threads: Threads = None,
    no_history: NoHistory = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Pack protein structures and alignments into HDF5 shards, from which a model is trained without parsing text.

    A chain's files are in ALIGNMENT_DIR/1abc_A/, right there or in folders below, or are called 1abc_A.a3m and so on; A
    is the name of the chain by its authors, or by the archive. Chains of one sequence share them, and a chain without
    any is packed alone. Templates come from the structures that an hhr file names, if they are in MMCIF_DIR, were
    released 60 days before the chain, and are no part of its entry.

    A chain that can't be used is left out with a reason; a damaged file is named in a warning, and its chains are left
    out while the rest goes on. The exit code is 0 where anything was packed. A run that is started again keeps shards
    that are whole and newer than their files. Each of the N parts of --shard goes its own way, into the same folder.

    Example:
        sartor fold-pack mmcif alignments -o shards
        sartor fold-pack mmcif alignments -o parts --shard 1/2 --max-templates 4 --report packed.json
        sartor fold-pack mmcif alignments -o parts --shard 2/2 --max-templates 4 --json > more.json
        sartor inspect shards
    """
    from pathlib import Path

    from sartor.share.threads import default_threads
    from sartor.tools.fold.plan import Options

    check_outputs("report and document", report, shown=as_json)
    options = Options(
        templates=max_templates,
        latest=_date(max_template_date),
        worst=max_resolution,
        clusters=clusters,
        part=parse_shard(shard),
        processes=threads or default_threads(),
    )
    argv = None if no_history else sys.argv[1:]
    _pack(Path(structures), Path(alignments), Path(output), options, argv, report, as_json)


def _date(text: str | None) -> str:
    """Return an ISO date as it is; raises UsageError for anything else."""
    from datetime import date

    if text is None:
        return ""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        remedy = "Write it as --max-template-date 2021-09-30"
        raise UsageError("it is no date", subject=f"--max-template-date {text}", remedy=remedy) from None


def _pack(
    structures: Path, alignments: Path, target: Path, options: Options, argv: list[str] | None, report: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Pack, and say what was done."""
    from sartor.tools.fold.pack import pack
    from sartor.tools.fold.report import as_data, as_text, headline

    packed = pack(structures, alignments, target, options, argv)
    tell(as_data(packed), as_text(packed), headline(packed), report, as_json, str(target))
