"""Pictures that several applications draw, in one style that colour-blind readers can read.

Every function returns a matplotlib ``Figure`` built without pyplot: no global state, no display, safe in threads.
"""

from core.evaluation.plots.classification import confusion_matrix, precision_recall, reliability_diagram, roc
from core.evaluation.plots.comparison import ForestRow, Point, forest, pareto
from core.evaluation.plots.effects import Dependence, importance, partial_dependence
from core.evaluation.plots.ranking import plot_critical_difference
from core.evaluation.plots.rates import rates_by_group
from core.evaluation.plots.regression import predicted_against_true, residuals
from core.evaluation.plots.seeds import seed_scores
from core.evaluation.plots.style import svg
from core.evaluation.plots.training import learning_curves

__all__ = [
    "Dependence",
    "ForestRow",
    "Point",
    "confusion_matrix",
    "forest",
    "importance",
    "learning_curves",
    "pareto",
    "partial_dependence",
    "plot_critical_difference",
    "precision_recall",
    "predicted_against_true",
    "rates_by_group",
    "reliability_diagram",
    "residuals",
    "roc",
    "seed_scores",
    "svg",
]
