"""What tests of sparse layers share."""

from __future__ import annotations

import pytest

from sartor.tools.sparse_rnn import executor


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every layer its kernel, also where this processor would be faster without."""
    monkeypatch.setattr(executor, "is_faster", lambda *_: True)
