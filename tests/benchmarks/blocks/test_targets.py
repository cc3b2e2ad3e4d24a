"""The arithmetic of the targets on rows that are written down."""

import pytest

from benchmarks.blocks.points import FITTED, HEADS, LINEAR, MOST_PAIRS, contenders, is_run, plain_of, points
from benchmarks.blocks.tables import document
from benchmarks.blocks.targets import verdicts


def row(family, member, middle, *, low=None, high=None, **point):
    at = {"tokens": 512, "batch": 4, "width": 256, "precision": "fp32", "mode": "forward", **point}
    ratio = {"low": middle if low is None else low, "middle": middle, "high": middle if high is None else high}
    facts = {"plain": plain_of(family, member), "rounds": 5, "seconds": middle, "plain_seconds": 1.0, "weights": 7}
    return {"family": family, "member": member, **at, "ratio": ratio, **facts, "memory_mib": 2.0}


def only(rows):
    (verdict,) = verdicts(rows)
    return verdict


def test_packed_attention_is_judged_by_its_worst_point():
    rows = [
        row("packed", "nala packed", ratio, tokens=tokens) for tokens, ratio in ((64, 0.75), (256, 0.6), (512, 0.71))
    ]
    found = only(rows)
    assert (found.met, found.missed, found.points, found.found) == (False, 2, 3, 0.75)
    assert found.told().startswith("packed / padded at 60 % fill, nala: short by 0.05 (0.75, at most 0.7; 64 tokens")
    assert only(rows[1:2]).met
    assert only([row("packed", "nala packed", 0.7)]).met


def test_what_is_no_attention_packs_without_a_target():
    assert verdicts([row("packed", "pooling packed", 1.5), row("packed", "softmax padded", 1.0)]) == []


def lengths(member, power, precision="fp32", middle=0.5):
    def at(tokens):
        return row("mixer", member, middle, tokens=tokens, batch=1, precision=precision)

    return [{**at(tokens), "times": [1e-6 * tokens**power] * 5} for tokens in FITTED]


def test_linear_mixers_are_held_to_their_exponent_and_to_softmax():
    growth, faster = verdicts([*lengths("nala", 1.05), *lengths("nala", 1.2, "bf16", middle=1.25)])
    assert (growth.missed, growth.points, growth.bound) == (1, 2, 1.1)
    assert growth.found == pytest.approx(1.2)
    assert growth.where == "forward, bf16, 1024 to 8192 tokens"
    assert (faster.missed, faster.points, faster.found) == (3, 6, 1.25)


def test_no_exponent_where_a_length_is_missing_and_none_asked_of_the_others():
    assert [verdict.target for verdict in verdicts(lengths("nala", 1.0)[:3])] == ["time / softmax from 2048 tokens on"]
    assert verdicts(lengths("softmax", 2.0)) == []


def test_a_folded_norm_is_measurable_where_even_the_lower_quartile_is_above_one():
    cheap = row("folded", "batchnorm folded", 1.02, low=0.99, high=1.05)
    dear = row("folded", "batchnorm folded", 1.05, low=1.02, high=1.08, width=64)
    rest = [row("folded", "linear", 1.0), row("folded", "batchnorm unfolded", 1.4)]
    assert only([cheap, *rest]).met
    assert (only([cheap, dear]).missed, only([cheap, dear]).found) == (1, 1.02)


def test_a_lack_too_small_to_print_is_not_called_nothing():
    assert "short by less than 0.01" in only([row("packed", "softmax packed", 0.7004)]).told()


def test_who_is_held_against_whom():
    assert plain_of("mixer", "nala causal") == plain_of("mixer", "stickbreaking") == "softmax causal"
    assert plain_of("mixer", "nala") == plain_of("mixer", "softmax") == "softmax"
    for family in ("mixer", "norm", "feedforward", "packed", "folded"):
        assert {plain_of(family, name) for name in contenders(family)} <= set(contenders(family))
        assert all(plain_of(family, plain_of(family, name)) == plain_of(family, name) for name in contenders(family))
    assert set(LINEAR) <= set(contenders("mixer"))


def test_linear_mixers_meet_softmax_at_every_length_and_the_others_within_bounds():
    for point in points("mixer"):
        assert all(is_run(point, name) for name in ("softmax", "softmax causal", *LINEAR))
        assert is_run(point, "normlin") == (HEADS * point.batch * point.tokens**2 <= MOST_PAIRS)
    assert {point.tokens for point in points("mixer") if is_run(point, "topk")} == {128, 512, 1024, 2048}


def test_the_document_has_a_section_a_family_and_says_what_was_not_run():
    folded = [row("folded", name, 1.0) for name in ("linear", "batchnorm folded", "batchnorm unfolded")]
    packed = [row("packed", f"softmax {how}", 0.6, tokens=256, batch=16) for how in ("packed", "padded")]
    mixers = [*lengths("softmax", 2.0), *lengths("nala", 1.0), *lengths("topk", 2.0)[:2]]
    text = document([*mixers, row("norm", "rmsnorm", 0.8), *folded, *packed], verdicts([*mixers, *packed]))
    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        *("Mixers", "Norms", "Packed rows", "Folded norms", "Targets", "Memory of mixers", "Memory of norms")
    ]
    assert "| nala | - | - | 0.50 | 0.50 | 0.50 | 0.50 | - | - | 1.00 [1.00, 1.00] |" in text
    assert "| topk | - | - | 0.50 | 0.50 | - | - | - | - | - |" in text
    assert "| softmax | - | 0.60 (1.00) | - | - | - | - |" in text
    assert "| batchnorm | 4 x 512 x 256 | float32 | 1e+03 ms | 1.00 [1.00, 1.00] | 1.00 [1.00, 1.00] |" in text
    assert max(line.count("|") for line in text.splitlines()) - 1 <= 12
