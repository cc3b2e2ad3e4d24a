"""Honest evaluation: metrics with intervals, paired tests, calibration, ranks, pictures and the HTML report.

Import from the modules, so that prediction never pays for what only evaluation needs:
:mod:`~core.evaluation.metrics`, :mod:`~core.evaluation.bootstrap`, :mod:`~core.evaluation.calibration`,
:mod:`~core.evaluation.ranks`, :mod:`~core.evaluation.results`, :mod:`~core.evaluation.plots`,
:mod:`~core.evaluation.report`.
"""
