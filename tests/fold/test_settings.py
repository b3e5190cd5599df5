"""Settings as strict TOML: what is written is read back, what is wrong is named with the nearest right name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest

from sartor.share.errors import InputRefusedError
from sartor.tools.fold.settings import as_toml, differences, overlay, read_toml


@dataclass(frozen=True)
class Inner:
    """Settings below others."""

    rate: float = 0.5
    widths: tuple[int, ...] = (1, 2)
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    """Settings of every type."""

    steps: int = 3
    fast: bool = False
    name: str = 'a "b" \\ c'
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        """Raise ValueError for what does not fit together."""
        if self.steps < 1:
            raise ValueError("'steps' is less than 1")


def write(folder: Path, text: str) -> str:
    """Write a file of settings and return its path."""
    (folder / "c.toml").write_text(text)
    return str(folder / "c.toml")


def test_written_settings_are_read_back(tmp_path: Path) -> None:
    changed = Outer(7, True, "x", Inner(1e-9, (), "b"))
    for settings in (Outer(), changed):
        assert overlay(Outer(), read_toml(write(tmp_path, as_toml(settings))), "c.toml") == settings


def test_only_what_is_named_changes() -> None:
    assert overlay(Outer(), {"inner": {"rate": 2}}, "c.toml") == replace(Outer(), inner=Inner(rate=2.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stps = 1", "c.toml: there is no setting 'stps'. Did you mean 'steps'?"),
        ("inner.rates = 1", "c.toml: there is no setting 'inner.rates'. Did you mean 'rate'?"),
        ("zzz = 1", "c.toml: there is no setting 'zzz'. There are steps, fast, name, inner"),
        ("steps = 1.5", "c.toml: 'steps' is 1.5. Give a whole number"),
        ("steps = true", "c.toml: 'steps' is True. Give a whole number"),
        ("fast = 1", "c.toml: 'fast' is 1. Give true or false"),
        ("inner = 3", "c.toml: 'inner' is 3. Give a table"),
        ("[inner]\nkind = 'c'", "c.toml: 'inner.kind' is 'c'. Give 'a' or 'b'"),
        ("[inner]\nwidths = [1, 'x']", "c.toml: 'inner.widths' is 'x'. Give a whole number"),
        ("[inner]\nwidths = 4", "c.toml: 'inner.widths' is 4. Give a list of a whole number"),
        ("steps = 0", "c.toml: 'steps' is less than 1. Change it there"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputRefusedError) as caught:
        overlay(Outer(), read_toml(write(tmp_path, text)), "c.toml")
    assert str(caught.value) == message


def test_what_is_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRefusedError, match="it is not TOML"):
        read_toml(write(tmp_path, "a = = 1"))
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputRefusedError, match="it is not text"):
        read_toml(tmp_path / "b.toml")
    with pytest.raises(InputRefusedError, match="it can't be read"):
        read_toml(tmp_path / "none.toml")


def test_differences_are_named_by_their_path() -> None:
    assert differences(Outer(), Outer(steps=4, inner=Inner(kind="b"))) == ["steps", "inner.kind"]
