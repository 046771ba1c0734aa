"""Pictures: axes that can be read however narrow their range, and a single answer that can be seen beside lines."""

import pytest
from matplotlib.figure import Figure

from gradatim.probing.plots import Curve, _draw


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


@pytest.mark.parametrize("most", [0.28, 0.3, 0.35, 0.5, 0.8, 2.0, 30.0, 900.0])
def test_at_least_three_values_are_marked_whatever_the_range(most):
    axes = drawn(curve((1, 10), (0.26, most)))
    low, high = axes.get_ylim()
    marks = axes.get_yticks()
    assert 3 <= len(marks) <= 12 and all(low <= mark <= high for mark in marks)
    assert [float(mark.get_text()) for mark in axes.get_yticklabels()] == pytest.approx(marks)


def test_a_single_answer_is_a_larger_mark_above_the_lines():
    axes = drawn(curve((1, 10), (2.0, 1.0)), Curve("once", (1,), (2.0,), (1.5,), (2.5,)))
    line, point = axes.lines
    assert axes.dataLim.y1 == 2.5, "its interval is drawn"
    assert point.get_markersize() > line.get_markersize() and point.get_zorder() > line.get_zorder()
