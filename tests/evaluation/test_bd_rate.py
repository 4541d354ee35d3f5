from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_world import BlockCodec, RawCodec, run

from gosvae.errors import ConfigError
from gosvae.evaluation import CodecEntry
from gosvae.evaluation.bd_rate import bd_rate, bd_rate_of_points, bytes_at_quality, upper_envelope
from gosvae.evaluation.rows import Row

RATES = (100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0)
ANCHOR = [(rate, 0.1 * np.log2(rate)) for rate in RATES]


@pytest.mark.parametrize("factor", [0.1, 0.5, 1.0, 1.3])
def test_a_codec_that_needs_a_fixed_share_of_the_bytes_has_that_bd_rate(factor: float) -> None:
    result = bd_rate_of_points([(factor * rate, quality) for rate, quality in ANCHOR], ANCHOR)
    assert result.percent == pytest.approx(100 * (factor - 1), abs=1e-6)
    assert (result.quality_from, result.quality_to) == (ANCHOR[0][1], ANCHOR[-1][1])
    assert result.notes == ()


def test_only_the_common_range_of_quality_counts() -> None:
    half = [(rate / 2, quality) for rate, quality in ANCHOR[2:]] + [(1e6, 9.0)]  # far above the anchor's best
    result = bd_rate_of_points(half, ANCHOR)
    assert result.percent < -45
    assert (result.quality_from, result.quality_to) == (ANCHOR[2][1], ANCHOR[-1][1])
    assert any("share" in note for note in result.notes)
    assert any("5 points" in note for note in result.notes)


def test_bytes_at_a_quality_lie_between_the_points_of_the_curve() -> None:
    rows = [Row(f"{rate}", "c", 1, total_bytes=rate, miou=quality) for rate, quality in ANCHOR]
    assert bytes_at_quality(rows, 0.1 * np.log2(300.0)) == pytest.approx(300.0, rel=0.01)
    assert bytes_at_quality(rows, ANCHOR[0][1]) == pytest.approx(100.0)
    assert bytes_at_quality(rows[:1], ANCHOR[0][1]) == 100.0
    assert bytes_at_quality(rows, 0.5) is None  # nothing is extrapolated
    assert bytes_at_quality(rows, 2.0) is None
    with pytest.raises(ConfigError, match="no finite agreement_miou"):
        bytes_at_quality(rows, 0.5, quality="agreement_miou")


def test_points_that_nobody_would_use_are_left_out_and_noted() -> None:
    worse = [*ANCHOR, (500.0, 0.0), (3200.0, 0.5)]
    result = bd_rate_of_points(worse, ANCHOR, names=("A", "B"))
    assert result.percent == pytest.approx(0, abs=1e-6)
    assert result.notes == ("2 of 8 points of A lie below its envelope.",)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (ANCHOR[:3], "needs 4 rate points at least, 'A' has 3"),
        ([(rate, 1.0) for rate in RATES], "'A' has 1 on its upper envelope"),
        ([(rate, quality + 5) for rate, quality in ANCHOR], "common range of quality"),
        ([(0.0, 0.1), *ANCHOR], "positive rates"),
    ],
)
def test_what_means_nothing_is_refused(test: list[tuple[float, float]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bd_rate_of_points(test, ANCHOR, names=("A", "B"))


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 1)), max_size=12))
def test_the_envelope_is_what_no_other_point_beats(points: list[tuple[float, float]]) -> None:
    def beaten(point: tuple[float, float]) -> bool:
        return any(other != point and other[0] <= point[0] and other[1] >= point[1] for other in points)

    assert upper_envelope(points) == sorted({point for point in points if not beaten(point)})


def test_curves_of_an_evaluation_are_compared_by_name() -> None:
    blocks = (1, 2, 3, 4, 6, 8)
    entries = [CodecEntry(f"{name} {block}", BlockCodec(block), curve=name) for name in "AB" for block in blocks]
    evaluation = run([*entries, CodecEntry("Raw", RawCodec())], sizes=[(24, 24)])
    assert bd_rate(evaluation, "A", "B", quality="agreement_miou").percent == pytest.approx(0, abs=1e-6)
    with pytest.raises(ConfigError, match="unknown curve 'C'"):
        bd_rate(evaluation, "C", "B")
    with pytest.raises(ConfigError, match="unknown quality 'mIoU'; did you mean 'miou'"):
        bd_rate(evaluation, "A", "B", quality="mIoU")
    with pytest.raises(ConfigError, match="'Raw' has no finite psnr_db"):
        bd_rate(evaluation, "Raw", "B", quality="psnr_db")
