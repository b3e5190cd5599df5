"""What fits, and what is said of the rest."""

from __future__ import annotations

import pytest
from tests.kits import sparse_rnn_gpu_kit as kit

from sartor.share.errors import InputRefusedError
from sartor.tools.sparse_rnn.gpu.limits import KNOWN, Gpu, Settings, largest_hidden, programs_for
from sartor.tools.sparse_rnn.gpu.plan import plan
from sartor.tools.sparse_rnn.gpu.shape import Shape, lanes_for

LSTM = kit.cell_of("LSTM")


@pytest.mark.parametrize(
    ("batch", "density", "hidden"),
    [(4, 0.3, 2376), (4, 0.1, 3925), (4, 0.05, 5488), (1, 0.3, 2376), (1, 0.1, 4205), (1, 0.05, 5544), (8, 0.3, 2232)],
)
def test_largest_lstm_on_132_multiprocessors(batch: int, density: float, hidden: int) -> None:
    assert largest_hidden(LSTM, density, Settings(batch, "fp16"), KNOWN["H200"]) == hidden


def test_what_is_told_to_fit_does_and_more_does_not() -> None:
    gpu, settings = Gpu(90, 4, 232_448), Settings(4, "fp16")
    for kind, density in (("LSTM", 0.3), ("GRU", 0.2), ("RNN", 0.5)):
        cell = kit.cell_of(kind)
        most = largest_hidden(cell, density, settings, gpu)
        (launch,) = plan(kit.source(kit.layer_of(cell, most, 1, density, "row")), settings, gpu)
        assert launch.packed.shape.shared_bytes <= gpu.shared
        with pytest.raises(InputRefusedError, match=f"{most} units would"):
            plan(kit.source(kit.layer_of(cell, most + most // 10, 1, density, "row")), settings, gpu)


def test_the_message_of_a_refusal() -> None:
    layer = kit.layer_of(LSTM, 256, 1, 0.5, "row")
    with pytest.raises(InputRefusedError) as caught:
        plan(kit.source(layer), Settings(4, "fp16"), Gpu(90, 2, 65_536))
    assert str(caught.value) == (
        "layer: 256 units at 50.0% with 4 samples do not fit into the shared memory of 2 multiprocessors. "
        "110 units would, or fewer weights"
    )
    assert caught.value.exit_code == 65
    with pytest.raises(InputRefusedError, match=r"17 samples at a time do not fit on one GPU\. Run at most 16"):
        plan(kit.source(layer), Settings(17, "fp16"), KNOWN["H200"])


@pytest.mark.parametrize(("batch", "lanes"), [(1, 2), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16), (16, 16)])
def test_lanes(batch: int, lanes: int) -> None:
    assert lanes_for(batch) == lanes


def test_programs_write_whole_sectors() -> None:
    assert programs_for(64, 4, 132) == 16
    assert programs_for(2304, 4, 132) == 132
    assert programs_for(3, 2, 132) == 1


def bidirectional_shape() -> Shape:
    layer = kit.layer_of(kit.cell_of("LSTM", "bidirectional"), 128, 1, 0.3, "row")
    (launch,) = plan(kit.source(layer), Settings(4, "fp16"), KNOWN["H200"])
    return launch.packed.shape


def test_directions_share_the_multiprocessors() -> None:
    shape = bidirectional_shape()
    assert (shape.directions, shape.programs) == (2, 32)
    assert [shape.first_unit(program) for program in (0, 1, 32)] == [0, 4, 128]
