"""What the documents show: the command reference is up to date, README blocks and examples run."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from tests.conftest import load_script

from sartor.cli.main import COMMANDS, load_command, split_example

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300


@pytest.fixture
def workplace(models: Path, tmp_path: Path) -> Path:
    """Return a folder with the models that examples name."""
    for name, source in {"encoder": "encoder", "model": "encoder", "cnn": "cnn", "net": "cnn"}.items():
        shutil.copy(models / f"{source}.onnx", tmp_path / f"{name}.onnx")
    return tmp_path


def run_shell(script: str, folder: Path) -> None:
    """Run shell lines as a careful user would, with the installed command first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", script]
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, f"{script}\n{done.stderr}"


def blocks_of(document: Path, language: str) -> list[str]:
    """Return the code blocks of a Markdown file that are marked with a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def example_lines(name: str) -> str:
    """Return the shell lines of a command's `Example:` block."""
    _, example = split_example(inspect.getdoc(load_command(name)) or "")
    return dedent(example.removeprefix("Example:\n"))


@pytest.mark.parametrize("name", COMMANDS)
def test_example_runs(name: str, workplace: Path) -> None:
    lines = example_lines(name)
    assert f"sartor {name}" in lines
    run_shell(lines, workplace)


def test_readme_blocks_run(workplace: Path) -> None:
    blocks = blocks_of(ROOT / "README.md", "sh")
    assert len(blocks) >= 5
    run_shell("\n".join(blocks), workplace)
    (python,) = blocks_of(ROOT / "README.md", "python")
    subprocess.run([sys.executable, "-c", python], cwd=workplace, check=True, timeout=SECONDS)


def test_a_failing_block_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no such command"):
        run_shell("sartor stitch | cat", tmp_path)


def test_reference_is_up_to_date(tmp_path: Path) -> None:
    docs, build = tmp_path / "docs", tmp_path / "build"
    load_script(ROOT / "docs" / "generate.py").generate(docs, build)
    fresh = (docs / "commands.md").read_text(encoding="utf-8")
    assert fresh == (ROOT / "docs" / "commands.md").read_text(encoding="utf-8"), "run `make docs`"
    names = {"sartor", *(f"sartor-{name}" for name in COMMANDS)}
    assert {page.name for page in (build / "man").iterdir()} == {f"{name}.1" for name in names}
    completions = {path.name: path.read_text(encoding="utf-8") for path in (build / "completions").iterdir()}
    assert completions.keys() == {"sartor.bash", "_sartor", "sartor.fish"}
    assert completions["_sartor"].startswith("#compdef sartor\n")


def test_completion_offers_every_command() -> None:
    script = Path(sys.executable).with_name("sartor")
    asked = {"_SARTOR_COMPLETE": "complete_bash", "COMP_WORDS": "sartor ", "COMP_CWORD": "1"}
    done = subprocess.run([script], env={**os.environ, **asked}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(COMMANDS)


def test_man_pages_escape_what_roff_reads() -> None:
    escape = load_script(ROOT / "docs" / "generate.py").escape
    assert escape(".x") == "\\&.x"
    assert escape("--a\\b") == "\\-\\-a\\eb"


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/commands.md", "docs/json.md"])
def test_links_lead_somewhere(document: str) -> None:
    page = ROOT / document
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []
