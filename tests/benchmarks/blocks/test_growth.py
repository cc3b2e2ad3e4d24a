import numpy as np
import pytest

from benchmarks.blocks.growth import exponent

LENGTHS = (1024, 2048, 4096, 8192)


@pytest.mark.parametrize("power", [0.0, 1.0, 1.7, 2.0])
def test_a_power_law_is_found_exactly(power):
    found = exponent({length: [3e-5 * length**power] * 5 for length in LENGTHS})
    assert (found.value, found.low, found.high) == pytest.approx((power, power, power), abs=1e-6)


def test_it_is_the_line_of_least_squares_through_the_medians():
    generator = np.random.default_rng(0)
    seconds = {length: list(generator.lognormal(np.log(length), 0.3, 9)) for length in LENGTHS}
    medians = [np.median(seconds[length]) for length in LENGTHS]
    slope, _ = np.polyfit(np.log(LENGTHS), np.log(medians), 1)
    assert exponent(seconds).value == pytest.approx(slope, abs=1e-6)


def test_one_slow_round_does_not_move_it():
    seconds = {length: [1e-6 * length] * 9 for length in LENGTHS}
    seconds[8192][4] = 60.0
    assert exponent(seconds).value == pytest.approx(1.0)


def test_the_interval_covers_the_exponent_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        seconds = {length: list(generator.lognormal(1.2 * np.log(length), 0.1, 15)) for length in LENGTHS}
        found = exponent(seconds)
        hits += found.low <= 1.2 <= found.high
    assert 0.88 <= hits / 200 <= 1.0
