import numpy as np

from benchmarks.common import measure


def test_a_call_is_timed_and_its_result_kept():
    done = measure.timed(lambda: sum(range(200_000)))
    assert done.result == 199_999 * 100_000
    assert done.wall > 0
    assert done.cpu > 0


def test_the_median_ignores_the_first_call_and_keeps_to_its_repeats():
    calls = []
    measure.median_seconds(lambda: calls.append(1), repeats=5, at_most=60.0)
    assert len(calls) == 6


def test_the_median_of_slow_calls_rests_on_one(monkeypatch):
    calls = []
    measure.median_seconds(lambda: calls.append(1), repeats=5, at_most=0.0)
    assert len(calls) == 2


def test_the_peak_sees_memory_that_was_given_back():
    before = measure.peak_memory_mib()
    block = np.ones(40 << 17)  # 40 MiB, written to
    del block
    after = measure.peak_memory_mib()
    assert after >= before
    rest = 400 << 17
    block = np.ones(rest)
    assert measure.peak_memory_mib() - after > 200
    del block
    assert measure.peak_memory_mib() - after > 200


def test_children_get_every_thread_variable():
    environment = measure.child_environment(3)
    assert {environment[name] for name in measure.THREAD_VARIABLES} == {"3"}
