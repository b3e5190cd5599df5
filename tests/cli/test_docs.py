"""What the documents show: the command reference is up to date, README blocks and examples run."""

from __future__ import annotations

import ast
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
from tests.kits import protein_kit

from sartor.cli.main import COMMANDS, load_command, split_example

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300
NAMES = {"encoder": "encoder", "model": "encoder", "cnn": "cnn", "net": "cnn", "recurrent": "recurrent"}
"""The models that documents name, and what they are copies of."""


@pytest.fixture
def workplace(models: Path, tmp_path: Path) -> Path:
    """Return a folder with the models and the data that examples name."""
    for name, source in NAMES.items():
        shutil.copy(models / f"{source}.onnx", tmp_path / f"{name}.onnx")
    for name in ("images.h5", "sequences.h5"):
        shutil.copy(models / name, tmp_path)
    return write_proteins(tmp_path)


def write_proteins(folder: Path) -> Path:
    """Write the structures and alignments that examples name, of three entries."""
    sequences = {"1abc": "MKVLAGHTWYRSPDEQNCIF", "2def": "GGHHKKWWMMLL", "3ghi": "MKVLAGHTWYRSPDEQNCIF"}
    for code, sequence in sequences.items():
        hits = protein_kit.a3m({"query": sequence, "hit": sequence[:-1] + "W"})
        entry = protein_kit.mmcif(code, [protein_kit.Polymer("A", protein_kit.residues_of(sequence))])
        protein_kit.write(folder, {f"mmcif/{code}.cif": entry, f"alignments/{code}_A/uniref90_hits.a3m": hits})
    return folder


def run_python(script: str, folder: Path) -> str:
    """Run a block of Python and return what it prints."""
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, f"{script}\n{done.stderr}"
    return done.stdout


def run_shell(script: str, folder: Path) -> None:
    """Run shell lines as a careful user would, with the installed command first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", script]
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, f"{script}\n{done.stderr}"


def blocks_of(document: Path, language: str) -> list[str]:
    """Return the code blocks of a Markdown file in a language; those of a library take a C compiler."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    compiler = any(map(shutil.which, ("cc", "gcc", "clang")))
    return [block for block in blocks if compiler or "fused.so" not in block]


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
    run_python(python, workplace)


@pytest.mark.parametrize("document", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_blocks_of_documents_run(document: str, workplace: Path) -> None:
    run_shell("\n".join(blocks_of(ROOT / "docs" / document, "sh")), workplace)
    for block in blocks_of(ROOT / "docs" / document, "python"):
        run_python(block, workplace)


def test_the_plan_in_the_guide_is_real(workplace: Path) -> None:
    plan, *_ = blocks_of(ROOT / "docs" / "fuse.md", "text")
    command, _, shown = plan.partition("\n")
    real = subprocess.run(
        [*command.removeprefix("$ ").split(), "--no-measure"],
        executable=Path(sys.executable).with_name("sartor"), cwd=workplace, capture_output=True, text=True, check=True
    ).stdout.splitlines()  # fmt: skip
    # What was measured differs from machine to machine.
    lines = [re.sub(r"(fused|left out): .*", "", line) for line in shown.splitlines()[1:]]
    measured = ("  kernel ", "rank correlation ")
    fixed = [line for line in lines if not line.startswith(measured) and " runs against " not in line]
    assert len(fixed) > 15
    assert [line for line in fixed if line not in [re.sub(r"(fused|left out): .*", "", known) for known in real]] == []


def test_the_kernel_in_the_guide_is_real(workplace: Path) -> None:
    *_, snippet = blocks_of(ROOT / "docs" / "fuse.md", "python")
    (shown,) = [block for block in blocks_of(ROOT / "docs" / "fuse.md", "text") if "for task in" in block]
    # Numbers only tell names apart.
    assert re.sub(r"\b([a-z])\d+", r"\1", shown) in re.sub(r"\b([a-z])\d+", r"\1", run_python(snippet, workplace))


def test_the_scores_in_the_guide_are_real(workplace: Path) -> None:
    (snippet,) = blocks_of(ROOT / "docs" / "fusion.md", "python")
    assert run_python(snippet, workplace) in blocks_of(ROOT / "docs" / "fusion.md", "text")


def reasons_against_kernels() -> set[str]:
    """Return the messages of every NotEmittableError that fuse raises, with an ellipsis for what is filled in."""
    reasons = set()
    for path in (ROOT / "tools" / "fuse").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "NotEmittableError":
                parts = node.args[0].values if isinstance(node.args[0], ast.JoinedStr) else node.args
                reasons.add("".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts))
    return reasons


def test_the_guide_explains_every_reason_against_a_kernel() -> None:
    guide = (ROOT / "docs" / "fuse.md").read_text(encoding="utf-8")
    reasons = reasons_against_kernels()
    assert len(reasons) > 30
    assert sorted(reason for reason in reasons if f"`{reason}`" not in guide) == []


def test_the_rule_in_the_guide_is_real() -> None:
    rules = (ROOT / "tools" / "fuse" / "rules" / "elementwise.py").read_text(encoding="utf-8")
    (shown,) = re.findall(
        r"```text\n(   @rule.*?)```", (ROOT / "docs" / "fuse.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert dedent(shown).strip() in rules


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


def test_the_picture_is_up_to_date(models: Path) -> None:
    fresh = load_script(ROOT / "docs" / "picture.py").picture(models / "encoder.onnx")
    assert fresh == (ROOT / "docs" / "plan.svg").read_text(encoding="utf-8"), "run `make docs`"


def test_the_plot_of_convergence_is_up_to_date() -> None:
    module = load_script(ROOT / "docs" / "convergence.py")
    assert module.picture(module.latest()) == (ROOT / "docs" / "convergence.svg").read_text(encoding="utf-8")


def test_completion_offers_every_command() -> None:
    script = Path(sys.executable).with_name("sartor")
    asked = {"_SARTOR_COMPLETE": "complete_bash", "COMP_WORDS": "sartor ", "COMP_CWORD": "1"}
    done = subprocess.run([script], env={**os.environ, **asked}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(COMMANDS)


def test_man_pages_escape_what_roff_reads() -> None:
    escape = load_script(ROOT / "docs" / "generate.py").escape
    assert escape(".x") == "\\&.x"
    assert escape("--a\\b") == "\\-\\-a\\eb"


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(document: str) -> None:
    page = ROOT / document
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []
