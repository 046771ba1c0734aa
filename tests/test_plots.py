"""Pictures: axes that can be read however narrow their range, and a single answer that can be seen beside lines."""

import math

import pytest
from matplotlib.figure import Figure

from gradatim.compare.plots import Curve, _draw, grid


def drawn(*lines):
    axes = Figure().add_subplot()
    _draw(axes, lines, True)
    return axes


def curve(x, y):
    return Curve("ours", x, y, y, y)


@pytest.mark.parametrize(
    ("x", "marked"),
    [
        ((1, 5, 10), (1, 5, 10)),
        ((110, 120, 150), (110, 120, 150)),
        ((100, 101, 150), (100, 150)),
        ((2, 4, 6, 8, 10), (2, 4, 6, 8, 10)),
        ((1, 2, 5, 10, 20, 50, 100, 200, 500, 1000), (1, 5, 20, 50, 200, 1000)),
        (
            (1000, 2000, 4000, 8000, 16384, 32000, 64000, 100000),
            (1000, 2000, 4000, 8000, 16384, 32000, 100000),
        ),
        ((3,), (3,)),
    ],
)
def test_every_place_that_has_room_on_the_axis_is_marked(x, marked):
    axes = drawn(curve(x, [1.0] * len(x)))
    assert sorted(axes.get_xticks()) == pytest.approx(marked)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e12])
@pytest.mark.parametrize("most", [0.28, 0.3, 0.35, 0.5, 0.8, 2.0, 30.0, 900.0, 1e5, 1e20])
def test_at_least_three_values_are_marked_whatever_the_range(most, scale):
    axes = drawn(curve((1, 10), (0.26 * scale, most * scale)))
    low, high = axes.get_ylim()
    marks = axes.get_yticks()
    assert 3 <= len(marks) <= 12 and all(low <= mark <= high for mark in marks)
    assert [float(mark.get_text()) for mark in axes.get_yticklabels()] == pytest.approx(marks)


def test_a_single_answer_is_a_larger_mark_above_the_lines():
    axes = drawn(curve((1, 10), (2.0, 1.0)), Curve("once", (1,), (2.0,), (1.5,), (2.5,)))
    line, point = axes.lines
    assert axes.dataLim.y1 == 2.5, "its interval is drawn"
    assert point.get_markersize() > line.get_markersize() and point.get_zorder() > line.get_zorder()


def test_what_cannot_be_drawn_is_said(tmp_path):
    with pytest.raises(ValueError, match="x must be above 0, its axis is logarithmic; got 0"):
        drawn(curve((0, 1), (1.0, 1.0)))
    assert grid(tmp_path / "none.png", "none", "x", {}) == "no picture drawn: there are no plots"


def test_a_curve_that_diverges_comes_before_all_others():
    ends = [3.0, math.nan, 5.0, 4.0, math.nan]
    lines = sorted((curve((1, 2), (1.0, end)) for end in ends), key=lambda line: -line.end)
    assert [line.y[-1] for line in lines][2:] == [5.0, 4.0, 3.0]
