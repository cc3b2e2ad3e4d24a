"""What the pictures of a comparison show, read back from the figures."""

import math

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from core.evaluation.effects import Verdict
from core.evaluation.plots import ForestRow, Point, forest, pareto, seed_scores, svg

NAN = math.nan
HOSTILE = ["$x^$", "a\nb\tc", "<script>alert(1)</script>", "100 % $", "_under\\score_{", "x" * 200, "年齢", ""]


def row(name: str, value: float, verdict: Verdict, half: float = 0.1) -> ForestRow:
    ends = {"low": value - half, "high": value + half, "wide_low": value - 2 * half, "wide_high": value + 2 * half}
    return ForestRow(name=name, value=value, smallest=0.3, verdict=verdict, beside=f"{verdict}\nand more", **ends)


ROWS = [
    row("one", 0.5, "better"),
    row("two", -0.4, "worse"),
    row("three", 0.0, "no effect seen"),
    row("four", NAN, "not comparable", NAN),
]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(mpl.text.Text)]


def test_the_forest_draws_both_intervals_and_what_could_not_be_seen() -> None:
    axes = forest(ROWS, label="AUC").axes[0]
    drawn = {
        (line.get_linewidth(), *np.round(line.get_xdata(), 9)) for line in axes.lines if len(line.get_xdata()) == 2
    }
    assert {(4.5, 0.4, 0.6), (1.2, 0.3, 0.7), (4.5, -0.5, -0.3), (1.2, -0.6, -0.2)} <= drawn
    shades = [(patch.get_x(), patch.get_width()) for patch in axes.patches]
    assert shades == [(-0.3, 0.6)] * 4
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two", "three", "four"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first is on top


def test_verdicts_differ_in_marker_and_not_in_colour_alone() -> None:
    axes = forest(ROWS[:3], label="AUC").axes[0]
    looks = {(line.get_marker(), line.get_markerfacecolor()) for line in axes.lines if line.get_marker() != "None"}
    assert len(looks) == 3
    assert len({marker for marker, _ in looks}) == 3


@pytest.mark.parametrize("greater", [True, False])
def test_better_is_always_to_the_right(greater: bool) -> None:
    figure = forest(ROWS, label="loss", greater_is_better=greater)
    low, high = figure.axes[0].get_xlim()
    assert (low < high) == greater
    places = {t.get_text(): t.xy[0] for t in figure.axes[0].texts if isinstance(t, mpl.text.Annotation)}
    assert (places["better →"], places["← worse"]) == (1.0, 0.0)
    assert ("reversed" in figure.axes[0].get_xlabel()) == (not greater)


def test_a_thin_line_without_end_does_not_squeeze_the_rest() -> None:
    wide = ForestRow(
        name="n", value=0.1, low=0.0, high=0.2, wide_low=-99.0, wide_high=99.0, smallest=0.2, verdict="no effect seen"
    )
    assert forest([wide], label="AUC").axes[0].get_xlim()[1] < 0.5


POINTS = [
    Point(
        name=f"an arm with a long name {i}",
        cost=c,
        value=v,
        low=v - 0.1,
        high=v + 0.1,
        front=i in (0, 3),
        hollow=i == 2,
    )
    for i, (c, v) in enumerate([(10.0, 0.7), (10.2, 0.69), (10.4, 0.71), (20.0, 0.9), (20.1, 0.89), (19.9, 0.88)])
]


def test_the_front_is_joined_and_trouble_is_hollow() -> None:
    axes = pareto(
        [*POINTS, Point(name="lost", cost=NAN, value=NAN, low=NAN, high=NAN, front=False)], label="AUC", cost="s"
    ).axes[0]
    (front,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert front.get_xydata().tolist() == [[10.0, 0.7], [20.0, 0.9]]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() == "white" for line in dots] == [i == 2 for i in range(6)]


def test_no_name_covers_another_name_or_a_point() -> None:
    figure = pareto(POINTS, label="AUC", cost="Seconds")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [mpl.text.Text.get_window_extent(text) for text in axes.texts]  # without the leading line
    assert len(boxes) == 6
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert not any(box.contains(*axes.transData.transform((point.cost, point.value))) for point in POINTS)
        assert axes.get_window_extent().x0 <= box.x0 <= box.x1 <= axes.get_window_extent().x1


def test_less_is_better_turns_the_axis_of_quality() -> None:
    low, high = pareto(POINTS, label="loss", cost="s", greater_is_better=False).axes[0].get_ylim()
    assert low > high
    low, high = seed_scores({"a": [1.0, 2.0]}, label="loss", greater_is_better=False).axes[0].get_xlim()
    assert low > high


def test_every_training_is_a_dot_and_every_arm_has_its_mean() -> None:
    figure = seed_scores(
        {"base": [0.5, 0.7], "other": [0.9, NAN], "none": [NAN]}, label="AUC", beside=["", "", "diverged"]
    )
    lines = figure.axes[0].lines
    assert [list(line.get_xdata()) for line in lines if line.get_marker() == "o"] == [[0.5, 0.7], [0.9], []]
    assert [list(line.get_xdata()) for line in lines if line.get_linewidth() == 2 and line.get_marker() == "None"] == [
        [pytest.approx(0.6)] * 2,
        [0.9, 0.9],
    ]
    assert "diverged" in texts(figure)


def test_hostile_names_draw_the_same_bytes_twice() -> None:
    def pictures() -> list[str]:
        rows = [row(name, i / 10, "better") for i, name in enumerate(HOSTILE)]
        points = [Point(name=n, cost=i, value=i, low=i - 1, high=i + 1, front=True) for i, n in enumerate(HOSTILE, 1)]
        drawn = forest(rows, label=HOSTILE[0]), pareto(points, label=HOSTILE[0], cost=HOSTILE[3])
        return [svg(figure) for figure in (*drawn, seed_scores({n: [1.0] for n in HOSTILE}, label=HOSTILE[0]))]

    assert pictures() == pictures()
