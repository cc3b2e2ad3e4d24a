"""Published numbers of Demšar (2006), scipy, and ties by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from core.errors import InputError
from core.evaluation.bootstrap import holm
from core.evaluation.ranks import average_ranks, cliques, critical_difference, friedman, pairwise_wilcoxon, ranks


def test_ties_share_their_rank_and_direction_matters() -> None:
    scores = np.array([[0.9, 0.8, 0.8, 0.1], [0.5, 0.5, 0.5, 0.9]])
    assert ranks(scores).tolist() == [[1, 2.5, 2.5, 4], [3, 3, 3, 1]]
    assert ranks(-scores, greater_is_better=False).tolist() == ranks(scores).tolist()
    assert average_ranks(scores).tolist() == [2, 2.75, 2.75, 2.5]
    assert average_ranks(scores).sum() == 10


@pytest.mark.parametrize(
    ("methods", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (8, 3.031), (10, 3.164)]
)
def test_critical_differences_are_those_of_the_published_table(methods: int, q: float) -> None:
    expected = q * math.sqrt(methods * (methods + 1) / (6 * 14))
    assert critical_difference(methods, 14) == pytest.approx(expected, rel=3e-4)


def test_the_worked_example() -> None:
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert critical_difference(4, 14, alpha=0.1) == pytest.approx(1.12, abs=0.005)  # q = 2.291


def test_friedman_is_scipys_statistic_with_the_f_of_iman_and_davenport() -> None:
    scores = np.random.default_rng(0).normal(size=(14, 4)) + np.array([0, 0.5, 1.0, 0.2])
    result = friedman(scores)
    chi2 = stats.friedmanchisquare(*scores.T).statistic
    assert result.chi2 == pytest.approx(chi2)
    mean = average_ranks(scores)
    assert chi2 == pytest.approx(12 * 14 / 20 * (np.sum(mean**2) - 4 * 25 / 4))
    assert result.f == pytest.approx(13 * chi2 / (14 * 3 - chi2))
    assert result.p == pytest.approx(stats.f(3, 39).sf(result.f))
    assert friedman(-scores).p == pytest.approx(result.p)


def test_friedman_at_its_ends() -> None:
    assert friedman(np.ones((5, 3))).p == 1.0
    certain = friedman(np.tile([1.0, 2.0, 3.0], (5, 1)))
    assert math.isinf(certain.f)
    assert certain.p == 0.0


def test_pairwise_wilcoxon_is_holm_over_scipys_pairs() -> None:
    scores = np.random.default_rng(1).normal(size=(20, 3)) + np.array([0, 0.8, 0])
    raw = [stats.wilcoxon(scores[:, i], scores[:, j]).pvalue for i, j in ((0, 1), (0, 2), (1, 2))]
    table = pairwise_wilcoxon(scores)
    np.testing.assert_allclose([table[0, 1], table[0, 2], table[1, 2]], holm(raw))
    np.testing.assert_array_equal(table, table.T)
    assert (np.diag(table) == 1).all()


def test_equal_methods_never_differ() -> None:
    scores = np.random.default_rng(1).normal(size=(9, 1)).repeat(2, axis=1)
    assert pairwise_wilcoxon(scores)[0, 1] == 1.0


def test_cliques_join_what_cannot_be_told_apart_and_no_part_of_it_again() -> None:
    assert cliques(np.array([3.0, 1.0, 2.0]), 5.0) == [(0, 2)]
    assert cliques(np.array([1.0, 2.0, 3.0]), 1.0) == []  # at the critical difference they do differ
    assert cliques(np.array([1.0, 1.9, 2.8, 3.7]), 1.0) == [(0, 1), (1, 2), (2, 3)]


def test_incomplete_tables_are_refused() -> None:
    for scores in (np.array([[1.0, math.nan]]), np.ones((0, 2))):
        with pytest.raises(InputError):
            ranks(scores)
    with pytest.raises(InputError, match="three methods"):
        friedman(np.ones((4, 2)))
    with pytest.raises(InputError, match="two methods"):
        critical_difference(1, 3)
