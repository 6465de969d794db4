"""The bounds: against what textbooks give in closed form, and against simulated motions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_ndtr

from optiinfra_pipelines.quality.evidence import alpha_spent, holm, log_likelihood_ratio, mixture, reject_bound


def test_of_passes_and_failures_the_likelihood_ratio_is_the_binomial_one() -> None:
    scores, expected = np.asarray([[1.0] * 75 + [0.0] * 25]), 0.87
    found = log_likelihood_ratio(expected - scores, np.asarray([expected - 1]))
    binomial = 75 * math.log(0.75 / 0.87) + 25 * math.log(0.25 / 0.13)
    assert found[0] == pytest.approx(binomial, rel=1e-6)


def test_scores_that_are_all_perfect_tell_as_much_as_their_number_and_no_more() -> None:
    found = log_likelihood_ratio(np.full((1, 100), 1 - 0.82), np.asarray([-0.82]))
    assert found[0] == pytest.approx(-100 * math.log(0.82), rel=1e-6)  # the chance of it is .82 to the 100th


def test_without_a_lowest_score_there_is_no_likelihood_ratio() -> None:
    assert log_likelihood_ratio(np.ones((1, 9)), np.asarray([-math.inf]))[0] == 0


@given(st.lists(st.integers(0, 4), min_size=2, max_size=40), st.floats(0.05, 0.95))
def test_no_bet_wins_more_than_the_likelihood_ratio(levels: list[int], expected: float) -> None:
    deviations = expected - np.asarray(levels) / 4
    found = log_likelihood_ratio(deviations[None], np.asarray([expected - 1]))[0]
    bets = np.linspace(0, (1 - 1e-9) / (1 - expected), 200)
    best = np.log1p(np.outer(bets, deviations)).sum(axis=1).max()
    assert found >= best - 1e-6


def motion(steps: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of a growing sample of standard normal scores, and the variance of each mean."""
    sizes = np.arange(1, steps + 1)
    return np.random.default_rng(4).normal(size=(rows, steps)).cumsum(axis=1) / sizes, 1 / sizes


@pytest.mark.parametrize("design", [0.15, 0.3])
def test_the_line_is_crossed_as_often_as_it_says_by_a_mean_that_does_not_change(design: float) -> None:
    means, variances = motion(2_000, 4_000)
    crossed = reject_bound(means, variances, design, 0.05) > 0
    by_100, ever = crossed[:, :100].any(axis=1).mean(), crossed.any(axis=1).mean()
    assert ever <= 0.05
    assert ever == pytest.approx(0.04, abs=0.01)  # looks between which something happens miss some crossings
    assert by_100 <= alpha_spent(np.asarray(1 / 100), design, 0.05) + 0.005


def test_all_of_alpha_is_spent_in_the_end_and_none_at_the_start() -> None:
    spent = alpha_spent(np.asarray([1.0, 1e-2, 1e-3, 1e-8]), 0.1, 0.01)
    assert (np.diff(spent) > 0).all()
    assert spent[0] < 1e-9
    assert spent[-1] == pytest.approx(0.01)


def test_the_mixture_s_closed_form_is_just_outside_the_exact_boundary() -> None:
    variance, alpha = np.geomspace(1e-5, 1e-2, 30), 0.025
    tuning = (3.5 / 0.05) ** 2 / (2 * math.log(20) + math.log1p(2 * math.log(20)))
    moved, time = mixture(variance, 0.05, alpha) / variance, 1 / variance
    root = np.sqrt(time + tuning)
    log_wealth = math.log(2) + np.log(math.sqrt(tuning) / root) + moved**2 / (2 * root**2) + log_ndtr(moved / root)
    assert (log_wealth >= math.log(1 / alpha)).all()
    assert (log_wealth < math.log(1 / alpha) + 0.1).all()


def test_holm_rejects_what_the_textbook_rejects() -> None:
    assert holm(np.asarray([0.01, 0.04, 0.03, 0.005]), 0.05).tolist() == [True, False, False, True]
    assert holm(np.asarray([0.001, 0.002]), 0.05).tolist() == [True, True]
    assert holm(np.asarray([0.9, 0.04]), 0.05).tolist() == [False, False]
