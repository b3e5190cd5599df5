"""The errors that users meet; each class carries its exit code (BSD sysexits where one fits)."""

from __future__ import annotations

from typing import ClassVar


class SartorError(Exception):
    """An error with one clear line for the user: `subject: reason. remedy`."""

    exit_code: ClassVar[int] = 70

    def __init__(self, reason: str, *, subject: str = "", remedy: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.subject = subject
        self.remedy = remedy

    def __str__(self) -> str:
        head = f"{self.subject}: {self.reason}" if self.subject else self.reason
        return f"{head}. {self.remedy}" if self.remedy else head


class GoalNotMetError(SartorError):
    """The command ran, but what it was asked to reach or to confirm does not hold."""

    exit_code = 1


class UsageError(SartorError):
    """The command line does not fit together."""

    exit_code = 2


class InputRefusedError(SartorError):
    """An input file is damaged, unsafe or of a kind that we do not read."""

    exit_code = 65


class UnavailableError(SartorError):
    """A device, library or optional package is missing."""

    exit_code = 69


class StalledError(UnavailableError):
    """A kernel gave up because its programs waited for one another longer than they may."""


class OutputError(SartorError):
    """The output can't be created."""

    exit_code = 73


class WriteError(SartorError):
    """Writing the output failed half way; nothing was left behind."""

    exit_code = 74


class CheckpointedError(SartorError):
    """The run stopped at a checkpoint and wants to be started again."""

    exit_code = 75
