"""Nested frozen dataclasses as strict TOML: unknown keys and wrong types are refused, with the nearest name."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from sartor.share.errors import InputRefusedError

Settings = TypeVar("Settings")


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file; raises InputRefusedError."""
    try:
        text = Path(path).read_text("utf-8")
    except OSError as error:
        reason = f"it can't be read ({(error.strerror or str(error)).lower()})"
        raise InputRefusedError(reason, subject=str(path), remedy="Check the path and its permissions") from error
    except UnicodeDecodeError:
        raise InputRefusedError("it is not text", subject=str(path), remedy="Give TOML in UTF-8") from None
    return parse_toml(text, str(path))


def parse_toml(text: str, subject: str) -> dict[str, Any]:
    """Parse TOML; raises InputRefusedError."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        remedy = "Correct it; --print-config shows a whole one"
        raise InputRefusedError(f"it is not TOML ({error})", subject=subject, remedy=remedy) from None


def overlay(base: Settings, table: Mapping[str, Any], subject: str, path: str = "") -> Settings:
    """Return settings with the values of a table in place of their own; raises InputRefusedError naming the key."""
    kinds = get_type_hints(type(base))
    names = [field.name for field in fields(base)]  # type: ignore[arg-type]
    changed: dict[str, Any] = {}
    for key, value in table.items():
        whole = f"{path}{key}"
        if key not in names:
            raise _unknown(whole, key, names, subject)
        before = getattr(base, key)
        if is_dataclass(before) and isinstance(value, dict):
            changed[key] = overlay(before, value, subject, f"{whole}.")
        else:
            changed[key] = _typed(value, kinds[key], whole, subject)
    try:
        return replace(base, **changed)  # type: ignore[type-var]
    except ValueError as error:
        raise InputRefusedError(str(error), subject=subject, remedy="Change it there") from None


def _unknown(whole: str, key: str, names: list[str], subject: str) -> InputRefusedError:
    near = get_close_matches(key, names, 1)
    remedy = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(names)}"
    return InputRefusedError(f"there is no setting {whole!r}", subject=subject, remedy=remedy)


def _typed(value: Any, kind: Any, whole: str, subject: str) -> Any:
    """Return a value as the type that a field is declared with."""
    wanted = _name(kind)
    if get_origin(kind) is tuple and isinstance(value, list):
        inner = get_args(kind)
        several = inner[-1] is Ellipsis or len(inner) == len(value)
        if several:
            return tuple(_typed(one, inner[0], whole, subject) for one in value)
    elif get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
    elif kind is float and type(value) in (int, float):
        return float(value)
    elif isinstance(kind, type) and not is_dataclass(kind) and type(value) is kind:
        return value
    raise InputRefusedError(f"{whole!r} is {value!r}", subject=subject, remedy=f"Give {wanted}")


def _name(kind: Any) -> str:
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        return f"a list of {_name(inner[0])}" if inner[-1] is Ellipsis else f"a list of {len(inner)}: {_name(inner[0])}"
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    known = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
    return known.get(kind, "a table")


def as_toml(settings: Any) -> str:
    """Write settings as TOML that `overlay` reads back to the same."""
    return "\n".join(_lines(settings, "")).strip() + "\n"


def _lines(settings: Any, path: str) -> Iterator[str]:
    below = []
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            below.append((f"{path}{field.name}", value))
        else:
            yield f"{field.name} = {_literal(value)}"
    for name, value in below:
        yield f"\n[{name}]"
        yield from _lines(value, f"{name}.")


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """List the keys at which two settings of one type differ."""
    found: list[str] = []
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if is_dataclass(a) and is_dataclass(b):
            found += differences(a, b, f"{path}{field.name}.")
        elif a != b:
            found.append(f"{path}{field.name}")
    return found
