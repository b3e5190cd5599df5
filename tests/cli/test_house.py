"""The rules of the house: who imports whom, what never appears, what `--help` may cost."""

from __future__ import annotations

import ast
import inspect
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sartor.cli.main import COMMANDS, load_command, split_example

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("cli", "tools", "share")
HEAVY = {"torch", "numba", "triton", "onnx", "onnx_ir", "onnxruntime", "h5py", "numpy", "rich", "pydantic"}
NEVER = {"click", "pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
HELP_MILLISECONDS = 100


def sources() -> list[Path]:
    """Return every Python file of the package."""
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names that a file imports anywhere; relative imports begin with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def room_of(path: Path) -> tuple[str, ...]:
    """Return (`cli`,), (`share`,) or (`tools`, name) for a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:2] if parts[0] == "tools" else parts[:1]


def breach(room: tuple[str, ...], name: str) -> str | None:
    """Say which rule an import of this name breaks in this room, if any."""
    if name.startswith("."):
        return "relative import"
    parts = tuple(name.split("."))
    if parts[0] in NEVER or parts[:2] == ("numpy", "pickle") or re.match(r"typer\._", name):
        return "never imported here"
    if parts[0] in ROOMS:
        return "imported without `sartor.`"
    if parts[0] != "sartor" or len(parts) < 2 or parts[1] not in ROOMS:
        return None
    if ROOMS.index(parts[1]) < ROOMS.index(room[0]):
        return "imports point one way: cli -> tools -> share"
    if room[0] == "tools" and parts[1] == "tools" and parts[1:3] != room:
        return "no tool imports another"
    return None


def unsafe_call(node: ast.AST) -> str | None:
    """Say why a call may unpickle something or lets typer check paths, if it does."""
    if not isinstance(node, ast.Call):
        return None
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    for name in ("allow_pickle", "exists"):
        value = keywords.get(name)
        if isinstance(value, ast.Constant) and value.value is True:
            return f"{name}=True"
    safe = keywords.get("weights_only")
    if ast.unparse(node.func) == "torch.load" and not (isinstance(safe, ast.Constant) and safe.value is True):
        return "torch.load without weights_only=True"
    return None


@pytest.mark.parametrize(
    ("room", "name"),
    [
        (("share",), "sartor.tools.fuse.plan.Plan"),
        (("share",), "sartor.cli._options"),
        (("tools", "fuse"), "sartor.cli.main"),
        (("tools", "fuse"), "sartor.tools.prune"),
        (("tools", "fuse"), "tools.fuse"),
        (("cli",), "..share"),
        (("cli",), "click"),
        (("cli",), "typer._click.types"),
        (("share",), "pickle.loads"),
    ],
)
def test_checker_sees_breaches(room: tuple[str, ...], name: str) -> None:
    assert breach(room, name)


@pytest.mark.parametrize(
    ("room", "name"),
    [
        (("cli",), "sartor.tools.fuse.fuse"),
        (("cli",), "typer.Exit"),
        (("tools", "fuse"), "sartor.tools.fuse.plan"),
        (("tools", "fuse"), "sartor.share.errors"),
        (("share",), "sartor.share.errors"),
        (("share",), "sartor.__version__"),
    ],
)
def test_checker_lets_the_rest_pass(room: tuple[str, ...], name: str) -> None:
    assert breach(room, name) is None


@pytest.mark.parametrize("code", ["torch.load(p)", "np.load(p, allow_pickle=True)", "typer.Option(exists=True)"])
def test_checker_sees_unsafe_calls(code: str) -> None:
    assert unsafe_call(ast.parse(code, mode="eval").body)


def test_imports_point_one_way() -> None:
    found = []
    for path in sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = ((name, breach(room_of(path), name)) for name in imported(tree))
        found += [f"{path.relative_to(ROOT)}: {name}: {rule}" for name, rule in names if rule]
    assert len(sources()) > 10
    assert found == []


def test_nothing_unpickles() -> None:
    found = []
    for path in sources():
        calls = map(unsafe_call, ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        found += [f"{path.relative_to(ROOT)}: {reason}" for reason in calls if reason]
    assert found == []


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_relative_links(room: str) -> None:
    link = ROOT / "src" / "sartor" / room
    assert link.is_symlink()
    assert os.readlink(link) == f"../../{room}"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_git_keeps_the_links() -> None:
    command = ["git", "ls-files", "--stage", *(f"src/sartor/{room}" for room in ROOMS)]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["120000"] * len(ROOMS)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"import sys; from sartor.cli.main import run; code = run({arguments!r}); print(code, *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    code_line, *modules = done.stdout.splitlines()[-1].split()
    assert code_line == "0"
    assert "typer" in modules
    assert HEAVY & {module.split(".")[0] for module in modules} == set()


def child_milliseconds(command: list[str]) -> float:
    """Return the CPU time of one child process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1e3 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def test_help_costs_little() -> None:
    command = [str(Path(sys.executable).with_name("sartor")), "--help"]
    alone = [sys.executable, "-c", "import typer"]
    # The least of many runs, because other processes slow a run down; it stops at the first one that is fast enough.
    # Where a processor is so slow that half the time goes into typer, twice the time of typer counts.
    limits = (max(HELP_MILLISECONDS, 2 * child_milliseconds(alone)) for _ in range(30))
    assert any(child_milliseconds(command) < limit for limit in limits)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_follows_the_form(name: str) -> None:
    function = load_command(name)
    attribute = name.replace("-", "_")
    assert function.__name__ == attribute
    assert function.__module__ == f"sartor.cli.{attribute}"
    assert hasattr(function, "__wrapped__"), "not decorated with @command"
    text, example = split_example(inspect.getdoc(function) or "")
    assert text.splitlines()[0].endswith(".")
    assert f"sartor {name}" in example
    # A blank line would end the part of the help that keeps its line breaks.
    assert "" not in example.splitlines()
