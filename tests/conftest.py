"""What all tests share: example models, a private kernel cache, and the installed command."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import pytest

ROOT = Path(__file__).resolve().parents[1]


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Shells start what runs in the background deaf to Ctrl-C, and whatever it starts would be so too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


class RunSartor(Protocol):
    """Runs the installed command in a process of its own."""

    def __call__(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]: ...


def load_script(path: Path) -> ModuleType:
    """Import a Python file that lies outside the package."""
    spec = importlib.util.spec_from_file_location(f"sartor_script_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the run a kernel cache of its own, shared by its workers, unless SARTOR_CACHE_DIR names one."""
    base = tmp_path_factory.getbasetemp()
    own = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "kernel-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SARTOR_CACHE_DIR", os.environ.get("SARTOR_CACHE_DIR", str(own)))
        yield Path(os.environ["SARTOR_CACHE_DIR"])


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real models and data; skip where there is none."""
    folder = os.environ.get("SARTOR_DATA")
    if not folder:
        pytest.skip("SARTOR_DATA names no folder of real models")
    return Path(folder)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what `examples/make_models.py` writes; read only by agreement."""
    folder = tmp_path_factory.mktemp("models")
    script = ROOT / "examples" / "make_models.py"
    subprocess.run([sys.executable, script, folder], check=True)
    return folder


@pytest.fixture(scope="session")
def sartor() -> RunSartor:
    """Return a function that runs `sartor` with these arguments and captures what it writes."""
    script = Path(sys.executable).with_name("sartor")

    def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
        given = {"stdin": subprocess.DEVNULL} if not options.keys() & {"stdin", "input"} else {}
        outputs = {name: subprocess.PIPE for name in ("stdout", "stderr") if name not in options}
        return subprocess.run([script, *arguments], **given, **outputs, **options)

    return run
