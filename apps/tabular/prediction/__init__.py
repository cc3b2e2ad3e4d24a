"""Table prediction with ExcelFormer: classes and values from rows of mixed columns.

``from apps.tabular.prediction import ExcelFormerClassifier, ExcelFormerRegressor``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apps.tabular.prediction.estimator import ExcelFormerClassifier, ExcelFormerRegressor

__all__ = ["ExcelFormerClassifier", "ExcelFormerRegressor"]


def __getattr__(name: str) -> Any:
    # The estimators need pandas; the verbs say so in one line, and importing this package must not need it.
    if name in __all__:
        from apps.tabular.prediction import estimator

        return getattr(estimator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
