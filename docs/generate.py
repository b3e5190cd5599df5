"""Generate `commands.md`, man pages and shell completions from the commands themselves."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from sartor import __version__
from sartor.cli.main import COMMANDS

SHELLS = {"bash": "sartor.bash", "zsh": "_sartor", "fish": "sartor.fish"}
INTRODUCTION = """# Command reference

Generated from `--help` by `make docs`. Exit codes and the rules for standard streams are in the
[README](../README.md), the JSON documents in [json.md](json.md).
"""


def ask(*arguments: str, **variables: str) -> str:
    """Return what `sartor` prints for these arguments and environment variables."""
    script = Path(sys.executable).with_name("sartor")
    environment = {**os.environ, "COLUMNS": "100", "LC_ALL": "C.UTF-8", **variables}
    return subprocess.run([script, *arguments], env=environment, capture_output=True, text=True, check=True).stdout


def reference(pages: dict[str, str]) -> str:
    """Return the Markdown of all help pages by command line."""
    sections = (f"\n## {name}\n\n```text\n{page.rstrip()}\n```\n" for name, page in pages.items())
    return INTRODUCTION + "".join(sections)


def man_page(name: str, page: str) -> str:
    """Return one help page as a manual page in roff."""
    title = name.replace(" ", "-")
    usage, _, body = page.partition("\n\n")
    summary = body.strip().splitlines()[0].strip()
    lines = [
        f'.TH "{title.upper()}" 1 "" "sartor {__version__}" "sartor"',
        *(".SH NAME", f"{escape(title)} \\- {escape(summary)}"),
        *(".SH SYNOPSIS", escape(usage.removeprefix("Usage: "))),
        *(".SH DESCRIPTION", ".nf", *map(escape, body.rstrip().splitlines()), ".fi"),
    ]
    return "\n".join(lines) + "\n"


def escape(line: str) -> str:
    """Return a line of text for roff, which reads backslashes, hyphens and a leading dot or quote as its own."""
    text = line.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in {".", "'"} else text


def generate(docs: Path, build: Path) -> None:
    """Write the reference into one folder, man pages and completions into the other."""
    names = ["sartor", *(f"sartor {name}" for name in COMMANDS)]
    pages = {name: ask(*name.split()[1:], "--help") for name in names}
    files = {docs / "commands.md": reference(pages)}
    files |= {build / "man" / f"{name.replace(' ', '-')}.1": man_page(name, page) for name, page in pages.items()}
    for shell, file in SHELLS.items():
        # zsh wants `#compdef` on the first line.
        files[build / "completions" / file] = ask(_SARTOR_COMPLETE=f"source_{shell}").lstrip()
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main() -> None:
    """Run the generator from the command line."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=Path, default=here, help="folder for commands.md")
    parser.add_argument("--build", type=Path, default=here.parent / "build", help="folder for man/ and completions/")
    folders = parser.parse_args()
    generate(folders.docs, folders.build)


if __name__ == "__main__":
    main()
