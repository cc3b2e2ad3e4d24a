"""The table of methods. The name is what a results file and a table row are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.tabular.boosted import fit_catboost, fit_hgb, fit_lightgbm, fit_xgboost
from benchmarks.tabular.linear import fit_linear
from benchmarks.tabular.method import Fitted, Job, Method
from benchmarks.tabular.ours import fit_ours
from core.errors import InputError, nearest

#: Rounds are bounded only so that a run ends; patience is in rounds without a better validation loss.
TREES: dict[str, Any] = {"rounds": 2000, "patience": 50}

#: The example of pytorch-frame 0.3.0, at its own defaults.
FRAME_RECIPE: dict[str, Any] = {
    "channels": 256,
    "layers": 5,
    "heads": 4,
    "attention_dropout": 0.3,
    "learning_rate": 1e-3,
    "gamma": 0.95,
    "batch": 512,
    "epochs": 100,
    "mixup": None,
}

HARNESS = "benchmarks/tabular/"
OURS = ("apps/tabular", "core", HARNESS + "ours.py")

#: Gradient-boosted trees: the family "best GBDT" is chosen from.
BOOSTED = ("hgb", "xgboost", "lightgbm", "catboost")
#: The simple baseline that every gain is counted from.
BASELINE = "linear"
#: The arm that is compared with the peers pair by pair.
HEADLINE = "excelformer"


def _fit_frame(job: Job, settings: Mapping[str, Any]) -> Fitted:
    from benchmarks.tabular.frame_peer import fit_frame  # brings torch, which a run of trees should not pay for

    return fit_frame(job, settings)


def _trees(name: str, fit: Callable[[Job, Mapping[str, Any]], Fitted], *, package: str, module: str) -> Method:
    sources = (HARNESS + "boosted.py",)
    return Method(name=name, fit=fit, settings=TREES, packages=(package,), modules=(module,), sources=sources)


def _ours(name: str, **settings: Any) -> Method:
    modules = ("apps.tabular.prediction.estimator",)
    return Method(name=name, fit=fit_ours, settings=settings, packages=("torch",), modules=modules, sources=OURS)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name=BASELINE,
            fit=fit_linear,
            settings={"iterations": 1000},
            packages=("scikit-learn",),
            modules=("sklearn.linear_model",),
            sources=(HARNESS + "linear.py",),
        ),
        _trees("hgb", fit_hgb, package="scikit-learn", module="sklearn.ensemble"),
        _trees("xgboost", fit_xgboost, package="xgboost", module="xgboost"),
        _trees("lightgbm", fit_lightgbm, package="lightgbm", module="lightgbm"),
        _trees("catboost", fit_catboost, package="catboost", module="catboost"),
        Method(
            name="pytorch_frame",
            fit=_fit_frame,
            settings=FRAME_RECIPE,
            packages=("pytorch-frame", "torch"),
            modules=("benchmarks.tabular.frame_peer",),
            sources=(HARNESS + "frame_peer.py",),
        ),
        _ours(HEADLINE),
        _ours("excelformer_one", members=1),
        # The released program refuses missing numbers; filling them in is the other policy it offers.
        _ours("excelformer_official", preset="official", overrides={"encoding.missing": "impute"}),
    )
}


def method_names(wanted: str | None = None) -> list[str]:
    """All names, or those of the comma-separated ``wanted``, checked."""
    if wanted is None:
        return list(METHODS)
    for name in (names := wanted.split(",")):
        if name not in METHODS:
            raise InputError(f"no method {name!r}", mend=nearest(name, [*METHODS]))
    return names
