import numpy as np
import pytest

from benchmarks.common.rounds import WARM_UP, ratio, take_turns


def test_everybody_is_first_equally_often():
    calls = []
    seconds = take_turns({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=3, seconds=60)
    assert "".join(calls[3 * WARM_UP :]) == "abcbcacab"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_rounds_end_when_the_time_is_gone():
    assert len(take_turns({"a": lambda: None}, rounds=50, seconds=0, least=4)["a"]) == 4


def test_ratios_are_of_the_same_round():
    found = ratio([2.0, 20.0, 6.0], [1.0, 10.0, 2.0])
    assert (found.value, found.low, found.high) == (2.0, 2.0, 3.0)


@pytest.mark.parametrize(("count", "depth", "coverage"), [(3, 0, 0.75), (6, 0, 0.96875), (9, 1, 0.9609375)])
def test_the_interval_is_the_one_of_the_sign_test(count, depth, coverage):
    values = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
    found = ratio(values, np.ones(count))
    assert (found.low, found.high) == (1 + depth, count - depth)
    assert found.coverage == pytest.approx(coverage)


def test_the_interval_covers_the_median_as_often_as_it_says():
    draws = np.random.default_rng(1).lognormal(size=(2000, 15))
    found = [ratio(row, np.ones(15)) for row in draws]
    share = np.mean([interval.low <= 1 <= interval.high for interval in found])
    assert share == pytest.approx(found[0].coverage, abs=0.02)
    assert 0.95 <= found[0].coverage < 0.97
