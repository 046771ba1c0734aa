"""Pictures: a method has one colour, at most eight are named, and axes can be read however narrow their range."""

import math

import pytest
from matplotlib.figure import Figure

from gradatim.comparison.palette import METHODS, color_of, style_of, words_of
from gradatim.comparison.plots import GREY, NAMED, Curve, _draw, dots, lines, panels
from gradatim.methods import METHODS as REGISTERED


def axes_of(*curves, log_y=True):
    axes = Figure().add_subplot()
    _draw(axes, curves, log_y, [curve.words for curve in curves])
    return axes


def curve(x, y, method="ridge"):
    return Curve(method, x, y, y, y)


@pytest.fixture
def canvases(monkeypatch):
    """Figures that would have been written."""
    figures = []
    monkeypatch.setattr("gradatim.comparison.plots.save", lambda canvas, png: figures.append(canvas))
    return figures


@pytest.mark.parametrize(
    ("x", "marked"),
    [
        ((1, 5, 10), (1, 5, 10)),
        ((110, 120, 150), (110, 120, 150)),
        ((100, 101, 150), (100, 150)),
        ((2, 4, 6, 8, 10), (2, 4, 6, 8, 10)),
        ((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 50), (1, 2, 5, 10, 20, 50)),
        ((1, 2, 5, 10, 20, 50, 100, 200, 500, 1000), (1, 5, 20, 50, 200, 1000)),
        (
            (1000, 2000, 4000, 8000, 16384, 32000, 64000, 100000),
            (1000, 2000, 4000, 8000, 16384, 32000, 100000),
        ),
        ((3,), (3,)),
    ],
)
def test_every_place_that_has_room_on_the_axis_is_marked(x, marked):
    axes = axes_of(curve(x, [1.0] * len(x)))
    assert sorted(axes.get_xticks()) == pytest.approx(marked)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e12])
@pytest.mark.parametrize("most", [0.28, 0.3, 0.35, 0.5, 0.8, 2.0, 30.0, 900.0, 1e5, 1e20])
def test_at_least_three_values_are_marked_whatever_the_range(most, scale):
    axes = axes_of(curve((1, 10), (0.26 * scale, most * scale)))
    low, high = axes.get_ylim()
    marks = axes.get_yticks()
    assert 3 <= len(marks) <= 12 and all(low <= mark <= high for mark in marks)
    assert [float(mark.get_text()) for mark in axes.get_yticklabels()] == pytest.approx(marks)


def test_a_single_answer_is_a_larger_mark_above_the_lines():
    axes = axes_of(curve((1, 10), (2.0, 1.0)), Curve("lbfgs", (1,), (2.0,), (1.5,), (2.5,)))
    line, point = axes.lines
    assert axes.dataLim.y1 == 2.5, "its interval is drawn"
    assert point.get_markersize() > line.get_markersize() and point.get_zorder() > line.get_zorder()


def test_what_cannot_be_drawn_is_said(tmp_path):
    with pytest.raises(ValueError, match="x must be above 0, its axis is logarithmic; got 0"):
        axes_of(curve((0, 1), (1.0, 1.0)))
    assert panels(tmp_path / "none.png", "none", "x", "y", {}) == "no picture drawn: there are no curves"
    assert dots(tmp_path / "none.png", "none", "x", [], []) == "no picture drawn: there are no dots"


def test_a_method_has_its_colour_in_every_picture_and_with_every_variant(canvases):
    both = [curve((1, 2), (2.0, 1.0), name) for name in ("ridge", "parametric-both-decaying")]
    lines("a.png", "a", "x", "error", both)
    lines("b.png", "b", "x", "error", both[::-1])
    colors = [{line.get_label(): line.get_color() for line in c.axes[0].lines} for c in canvases]
    assert colors[0] == colors[1]
    assert colors[0][words_of("ridge")] == METHODS["ridge"][0]
    assert color_of("parametric-both") == color_of("parametric-both-one-step-whole@mnist")
    assert style_of("parametric-both") != style_of("parametric-both-one-step")
    assert color_of("of-mine") == color_of("of-mine")


def test_eight_methods_are_named_and_the_others_are_grey(canvases):
    names = [f"method {place}" for place in range(NAMED + 3)]
    lines("many.png", "many", "x", "error", [curve((1, 2), (2.0, 1.0), name) for name in names])
    (canvas,) = canvases
    (legend,) = canvas.legends
    assert [text.get_text() for text in legend.get_texts()] == names[:NAMED]
    assert [line.get_color() for line in canvas.axes[0].lines[NAMED:]] == [GREY] * 3


@pytest.mark.parametrize(
    ("label", "scale"), [("accuracy", "linear"), ("Accuracy, %", "linear"), ("error", "log")]
)
def test_accuracy_is_never_on_a_logarithmic_axis(canvases, label, scale):
    lines("a.png", "a", "x", label, [curve((1, 10), (0.5, 0.9))])
    assert canvases[0].axes[0].get_yscale() == scale


def test_every_registered_method_has_words_without_hyphens_between_options():
    for name in REGISTERED:
        words = words_of(name)
        assert words and "-" not in words.replace("L-BFGS", "").replace("Meta-SGD", "").replace("k-", "")
        assert not math.isnan(int(color_of(name)[1:], 16))
