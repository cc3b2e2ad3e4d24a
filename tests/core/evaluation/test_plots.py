"""What the pictures show, read back from the figures; that hostile names draw; that nothing global is touched."""

import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from core.errors import InputError
from core.evaluation import plots
from core.evaluation.bootstrap import Estimate
from core.evaluation.calibration import reliability
from core.evaluation.ranks import critical_difference

HOSTILE = ["$x^$", "a\nb\tc", "<script>alert(1)</script>", "100 % $", "_under\\score_{", "x" * 200, "年齢", ""]


def texts(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.findobj(mpl.text.Text)]


def scored(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, n)
    return truth, np.clip(0.3 * truth + 0.7 * rng.random(n), 0, 1)


def every_picture(names: list[str]) -> dict[str, Figure]:
    rng = np.random.default_rng(0)
    size = len(names)
    truth, p = scored()
    x = rng.normal(size=200)
    values = rng.random(size)
    panel = plots.Dependence(names[0], np.arange(5.0), np.arange(5.0), np.arange(5.0) - 1, np.arange(5.0) + 1, x)
    categories = plots.Dependence(names[1], np.array(names), values, values - 0.1, values + 0.1)
    codes = rng.integers(0, size, 100)
    return {
        "roc": plots.roc(dict.fromkeys(names, (truth, p))),
        "precision_recall": plots.precision_recall(dict.fromkeys(names[:1], (truth, p))),
        "reliability": plots.reliability_diagram(
            {names[0]: reliability(truth, p), names[1]: reliability(truth, p, bins=4)}
        ),
        "confusion": plots.confusion_matrix(codes, codes[::-1].copy(), names),
        "predicted": plots.predicted_against_true(x, x + 1, target=names[0], interval=(x - 1, x + 3), coverage=0.9),
        "residuals": plots.residuals(x, x + 1, target=names[0]),
        "curves": plots.learning_curves(
            [{"epoch": i, names[0]: 1.0 / i} for i in range(1, 9)], {names[2]: [names[0]]}, best=3
        ),
        "importance": plots.importance(names, values, values - 0.2, values + 0.2, label=names[0]),
        "dependence": plots.partial_dependence([panel, categories, panel, panel], label=names[0]),
        "ranks": plots.plot_critical_difference(np.arange(1.0, size + 1), names, critical_difference(size, 12)),
    }


def test_hostile_names_draw_the_same_bytes_twice_and_leave_no_trace() -> None:
    before = dict(mpl.rcParams)
    first = {name: plots.svg(figure) for name, figure in every_picture(HOSTILE).items()}
    assert {name: plots.svg(figure) for name, figure in every_picture(HOSTILE).items()} == first
    assert dict(mpl.rcParams) == before
    for drawn in first.values():
        marks = {element.tag.rsplit("}")[-1] for element in ElementTree.fromstring(drawn).iter()}
        assert not marks & {"script", "text", "foreignObject"}  # letters are outlines


def test_pyplot_is_never_imported() -> None:
    code = "import sys, core.evaluation.plots, core.evaluation.report; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_legends_carry_the_areas() -> None:
    truth, p = scored()
    assert "model, AUC 1.000" in texts(plots.roc({"model": (truth, truth + 0.0)}))
    assert "model, AP 0.500" in texts(plots.precision_recall({"model": (np.array([0, 1]), np.array([0.5, 0.5]))}))
    curve = reliability(truth, p)
    assert f"m, ECE {curve.error:.3f}" in texts(plots.reliability_diagram({"m": curve}))


def test_a_curve_of_one_class_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="rare: a curve needs rows of both classes"):
        plots.roc({"rare": (np.zeros(3, int), np.zeros(3))})


def test_the_confusion_matrix_counts_rows_as_truth() -> None:
    figure = plots.confusion_matrix(np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1]), ["no", "yes"])
    cells = {t.get_position(): t.get_text() for t in figure.axes[0].texts}
    assert cells == {(0, 0): "1\n33%", (1, 0): "2\n67%", (0, 1): "0\n0%", (1, 1): "1\n100%"}
    many = plots.confusion_matrix(np.arange(15), np.arange(15), list(range(15)))
    assert not many.axes[0].texts


def test_the_interval_says_how_many_rows_it_holds() -> None:
    x = np.arange(10.0)
    truth = x + np.array([0, 0, 0, 0, 0, 0, 0, 0, 5, 5])
    figure = plots.predicted_against_true(truth, x, interval=(x - 1, x + 1), coverage=0.9)
    assert "interval, 80% of rows inside (nominal 90%)" in texts(figure)


def test_residual_bins_are_the_means_of_tenths() -> None:
    x = np.arange(100.0)
    figure = plots.residuals(x + np.where(x < 10, 7.0, 0.0), x)
    line = figure.axes[0].lines[1]
    np.testing.assert_allclose(line.get_ydata(), [7.0] + [0.0] * 9)
    np.testing.assert_allclose(line.get_xdata(), np.arange(4.5, 100, 10))


@pytest.mark.parametrize("error", [0.0, 1.0])
def test_residuals_that_are_all_alike_draw(error: float) -> None:
    x = np.random.default_rng(0).normal(size=50)
    side = plots.residuals(x + error, x).axes[1]
    assert sum(bar.get_width() for bar in side.patches) == 50


def test_learning_curves_skip_what_is_missing() -> None:
    history = [{"epoch": 1, "a": 1.0}, {"epoch": 2}, {"epoch": 3, "a": float("nan")}, {"epoch": 4, "a": 4, "b": 2}]
    figure = plots.learning_curves(history, {"A": ["a", "b"], "B": ["b"]})
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xydata(), [[1, 1], [4, 4]])
    with pytest.raises(InputError, match="none of c"):
        plots.learning_curves(history, {"C": ["c"]})


def test_importance_is_ordered_cut_and_pale_where_unsure() -> None:
    values = np.array([0.1, 0.5, 0.3])
    figure = plots.importance(["a", "b", "c"], values, np.array([-0.1, 0.4, 0.2]), values + 0.1, top=3)
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["b", "c", "a"]
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert colours[0] == colours[1] != colours[2]
    assert len(plots.importance(["a", "b", "c"], values, top=2).axes[0].patches) == 2


def test_names_that_shorten_alike_stay_apart() -> None:
    names = ["x" * 40 + "1", "x" * 40 + "2"]
    labels = [t.get_text() for t in plots.importance(names, np.array([2.0, 1.0])).axes[0].get_yticklabels()]
    assert len(set(labels)) == 2


def test_the_critical_difference_picture_shows_every_method_and_clique() -> None:
    ranks = np.array([1.5, 4.0, 2.0, 7.8, 5.0, 3.3, 6.4, 6.0])
    names = [f"method {i}" for i in range(8)]
    figure = plots.plot_critical_difference(ranks, names, 1.0)
    shown = " ".join(texts(figure))
    assert all(f"{rank:.2f}" in shown and name in shown for rank, name in zip(ranks, names, strict=True))
    thick = [line.get_xdata() for line in figure.axes[0].lines if line.get_linewidth() > 4]
    margin = 0.02 * 7
    np.testing.assert_allclose(
        thick,
        [[a - margin, b + margin] for a, b in ((1.5, 2.0), (3.3, 4.0), (6.0, 6.4))],
    )


def test_labels_do_not_overlap_in_the_ranking_of_eight() -> None:
    figure = plots.plot_critical_difference(np.linspace(3, 4, 8), [f"a rather long name {i}" for i in range(8)], 0.5)
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in figure.axes[0].texts if "name" in t.get_text()]
    assert len(boxes) == 8
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width


def test_rates_of_groups_stand_in_order_with_their_counts_and_intervals() -> None:
    def rate(value: float, low: float, high: float) -> Estimate:
        return Estimate(value, low, high, 0.95, 1.0, 1000, 1000, 40)

    groups = {"anna $1": rate(20.0, 15.0, 30.0), "ben": rate(5.0, np.nan, np.nan)}
    axes = plots.rates_by_group(groups, label="WER, %", whole=12.0, counts={"anna $1": 1200, "ben": 3}).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [r"anna \$1  (1,200)", "ben  (3)"]
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    assert drawn == [([15.0, 30.0], [0, 0]), ([20.0], [0]), ([5.0], [1]), ([12.0, 12.0], [0, 1])]
    assert axes.get_xlim()[0] == 0
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first is on top
