"""An analysis in words: one sentence a comparison, and tables in Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from core.evaluation.bootstrap import Estimate, decimals
from core.evaluation.report import number
from core.study.results import ArmResult, Comparison, Cost

_MINUS, _DASH, _TIMES = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"


def labels(names: Sequence[str]) -> dict[str, str]:
    """Shorter names, without the groups of the fields, where they stay apart.

    >>> labels(["model.norm=layernorm, optim.lr=0.1", "model.norm=rmsnorm, optim.lr=0.1"])[
    ...     "model.norm=rmsnorm, optim.lr=0.1"
    ... ]
    'norm=rmsnorm, lr=0.1'
    >>> labels(["encoder.norm=a", "decoder.norm=a"])["decoder.norm=a"]
    'decoder.norm=a'
    """
    short = {name: re.sub(r"(^|, )[\w.]+\.(\w+=)", r"\1\2", name) for name in names}
    return short if len(set(short.values())) == len(short) else {name: name for name in names}


def sentence(found: Comparison, primary: str, named: Mapping[str, str] | None = None) -> str:
    """What a comparison says, and what it cannot.

    Args:
        found: the comparison.
        primary: the metric that decides.
        named: shorter names.
    """
    effect, (name, against) = found.effects[primary], _sides(found, named)
    place = "" if found.settings == 1 else f", averaged over {found.settings} settings of the rest,"
    if found.verdict == "not comparable":
        return f"{name} cannot be compared with {against}{place}: {_why_not(found, name, against, effect.seeds)}."
    said = f"{primary} {signed(effect.value, effect.low, effect.high)} {interval(effect.low, effect.high, '+')}"
    tested = f"adjusted p {p_value(found.p_adjusted, '= ')}"
    if found.verdict == "no effect seen":
        text = f"{name}{place} shows no effect against {against}: {said}, {tested}. A true effect below "
        text += f"{number(found.smallest)} would have been missed more than one time in five."
    else:
        text = f"{name}{place} is {found.verdict} than {against}: {said}, {tested}."
    if effect.seeds == 1:
        text += " That is one training of each: another one may turn it."
    return warning(found, named) + text


def _sides(found: Comparison, named: Mapping[str, str] | None) -> tuple[str, str]:
    """Both names; the arm that all arms are compared with is the baseline."""
    name = (named or {}).get(found.name, found.name)
    return name, "the baseline" if found.settings == 1 else (named or {}).get(found.against, found.against)


def _why_not(found: Comparison, name: str, against: str, seeds: int) -> str:
    if seeds:
        return "the metric is not defined on such units, or there is only one"
    parts = [
        f"{side} {endings.trouble or f'ended in {endings.finished} seeds'}"
        for side, endings in ((name, found.endings), (against, found.endings_against))
    ]
    return "no seed ended in both; " + ", ".join(parts)


def warning(found: Comparison, named: Mapping[str, str] | None = None) -> str:
    """That trainings did not finish, in a sentence to be read first; empty where all did."""
    sides = list(zip(_sides(found, named), (found.endings, found.endings_against), strict=True))
    parts = [f"{name} {endings.trouble}" for name, endings in sides if endings.trouble]
    if not parts:
        return ""
    clean = [f"{name} in none" for name, endings in sides if not endings.trouble]
    return f"Beware: {', '.join([*parts, *clean])}. Of the seeds that ended in both: "


def signed(value: float, low: float, high: float) -> str:
    """A difference, with as many decimals as its interval warrants.

    >>> signed(-0.01234, -0.02, 0.01)
    '−0.012'
    """
    return decimals(low, high, "+,")(value).replace("-", _MINUS)


def interval(low: float, high: float, sign: str = "") -> str:
    """An interval in brackets; a dash where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return _DASH
    show = decimals(low, high, sign + ",")
    return f"[{show(low)}, {show(high)}]".replace("-", _MINUS)


def estimate(found: Estimate) -> str:
    """A value with its interval; a dash where there is none."""
    if not math.isfinite(found.value):
        return _DASH
    return str(found).replace("-", _MINUS) if math.isfinite(found.low) else number(found.value)


def p_value(p: float, sign: str = "") -> str:
    """Two digits; below 0.0001 no more than that is said.

    >>> p_value(0.0312), p_value(0.0312, "= "), p_value(1e-9, "= ")
    ('0.031', '= 0.031', '< 0.0001')
    """
    if not math.isfinite(p):
        return _DASH
    return "< 0.0001" if p < 1e-4 else f"{sign}{p:.2g}"


def cost(found: Cost, *, counted: bool = False) -> str:
    """The mean and the ratio to the baseline, with its interval where runs differed.

    >>> cost(Cost(mean=12.34, ratio=1.2, low=1.1, high=1.3))
    '12.3 (×1.20 [1.10, 1.30])'
    >>> cost(Cost(mean=1500.0, ratio=1.0, low=1.0, high=1.0), counted=True)
    '1,500 (×1)'
    """
    if not math.isfinite(found.mean):
        return _DASH
    mean = f"{found.mean:,.0f}" if counted else number(found.mean)
    if not math.isfinite(found.ratio):
        return mean
    if math.isfinite(found.low) and found.high > found.low * (1 + 1e-9):
        return f"{mean} ({_TIMES}{found.ratio:.2f} [{found.low:.2f}, {found.high:.2f}])"
    return f"{mean} ({_TIMES}{found.ratio:.3g})"


def arrow(greater_is_better: bool) -> str:
    """Which way a metric should go."""
    return "↑" if greater_is_better else "↓"


def markdown(
    arms: Sequence[ArmResult],
    comparisons: Sequence[Comparison],
    greater_is_better: Mapping[str, bool],
    confidence: float,
) -> str:
    """The tables of the arms and of the comparisons; the first metric decides.

    >>> print(_table(["a", "b"], [["1|2", "3"]]))
    | a | b |
    | :-- | :-- |
    | 1\\|2 | 3 |
    """
    primary = next(iter(greater_is_better))
    heads = [f"{name} {arrow(greater)}" for name, greater in greater_is_better.items()]
    first = _table(
        ["arm", *heads, "seconds", "peak MiB", "parameters", "seeds"],
        ([arm.name, *map(estimate, arm.levels.values()), *_costs(arm), _ended(arm)] for arm in arms),
    )
    level = f"{100 * confidence:g} %"
    second = _table(
        ["arm", "against", f"{heads[0]} effect [{level}]", f"[{level} together]", "adjusted p", "verdict", "visible"],
        (
            [
                found.name,
                found.against,
                f"{signed(e.value, e.low, e.high)} {interval(e.low, e.high, '+')}" if e.seeds else _DASH,
                interval(found.low, found.high, "+"),
                p_value(found.p_adjusted),
                verdict_of(found),
                number(found.smallest) if math.isfinite(found.smallest) else _DASH,
            ]
            for found in comparisons
            for e in [found.effects[primary]]
        ),
    )
    return f"{first}\n\n{second}"


def verdict_of(found: Comparison) -> str:
    """The verdict, and what it leaves out."""
    trouble = "; ".join(
        f"{whose}{endings.trouble}"
        for whose, endings in (("", found.endings), ("baseline ", found.endings_against))
        if endings.trouble
    )
    return f"{found.verdict} ({trouble})" if trouble else str(found.verdict)


def _costs(arm: ArmResult) -> list[str]:
    return [cost(arm.costs[name], counted=name == "parameters") for name in arm.costs]


def _ended(arm: ArmResult) -> str:
    return arm.endings.trouble or f"{arm.endings.finished}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, [":--"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
