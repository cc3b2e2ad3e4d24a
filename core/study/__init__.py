"""Questions answered by many runs: does a switch help, which settings are best."""

from core.study.compare import compare
from core.study.records import Arm, RunRecord, Status
from core.study.tune import tune

__all__ = ["Arm", "RunRecord", "Status", "compare", "tune"]
