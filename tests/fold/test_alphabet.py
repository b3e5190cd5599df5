"""Letters and numbers."""

from __future__ import annotations

from sartor.tools.fold.alphabet import decode, encode


def test_letters_and_numbers() -> None:
    assert encode("ARNDCQEGHILKMFPSTWYVX-").tolist() == list(range(22))
    assert encode("BJOUZ*\u00fc").tolist() == [20] * 7
    assert decode(encode("MKV-X")) == "MKV-X"
    assert encode("").tolist() == []
