"""Peak memory of one contender at one size, in a process of its own. Started by :mod:`benchmarks.tabular.steptime`.

Reads the request as JSON on standard input; prints MiB above what the process held with rows and model in place.
"""

from __future__ import annotations

import json
import sys

from benchmarks.common.measure import peak_memory_mib
from benchmarks.tabular.step_models import Point, build

STEPS = 3


def main() -> int:
    """Print the growth of the peak over a few steps."""
    request = json.load(sys.stdin)
    candidate = build(request["contender"], Point(**request["point"]), request["precision"])
    before = peak_memory_mib()
    for _ in range(STEPS):
        candidate.step()
    print(peak_memory_mib() - before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
