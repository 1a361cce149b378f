"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from dynlora.tasks.labels import calibration_metrics, classification_metrics, confusion, regression_metrics

# Truth and prediction of ten rows: 4 right of class 1, 1 missed, 2 false alarms, 3 right of class 0.
TRUTH = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
SAID = np.array([1, 1, 1, 1, 0, 1, 1, 0, 0, 0])


def test_two_classes() -> None:
    scores = classification_metrics(TRUTH, SAID, 2)
    precision, recall = 4 / 6, 4 / 5
    f1 = 2 * precision * recall / (precision + recall)
    other = 2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5)
    assert scores == {
        "accuracy": pytest.approx(0.7),
        "f1": pytest.approx(f1),
        "macro_f1": pytest.approx((f1 + other) / 2),
        "matthews": pytest.approx((4 * 3 - 2 * 1) / math.sqrt(6 * 5 * 5 * 4)),
    }


def test_three_classes() -> None:
    scores = classification_metrics(np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 1, 2, 0]), 3)
    assert set(scores) == {"accuracy", "macro_f1", "matthews"}
    assert scores["accuracy"] == pytest.approx(4 / 6)
    assert scores["macro_f1"] == pytest.approx((0.5 + 0.8 + 2 / 3) / 3)
    # Gorodkin's R_K: (c s - Σ p_k t_k) / √((s² - Σ p_k²)(s² - Σ t_k²)), c = 4 right of s = 6.
    assert scores["matthews"] == pytest.approx((4 * 6 - (2 * 2 + 3 * 2 + 1 * 2)) / math.sqrt((36 - 14) * (36 - 12)))


@pytest.mark.parametrize("prediction", [np.zeros(10, int), np.ones(10, int)])
def test_one_prediction_for_all_has_no_correlation(prediction: np.ndarray) -> None:
    scores = classification_metrics(TRUTH, prediction, 2)
    assert (scores["accuracy"], scores["matthews"]) == (0.5, 0.0)
    assert scores["f1"] == pytest.approx(2 / 3 if prediction[0] else 0.0)


def test_one_class_in_truth_is_no_error() -> None:
    """A group of the held-out rows may hold one class only."""
    scores = classification_metrics(np.ones(4, int), np.array([1, 1, 0, 1]), 2)
    assert (scores["accuracy"], scores["matthews"]) == (0.75, 0.0)
    assert classification_metrics(np.ones(1, int), np.ones(1, int), 2)["accuracy"] == 1.0


@given(rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2), n_labels=st.integers(4, 5))
def test_they_are_those_of_scikit_learn(rows: list[tuple[int, int]], n_labels: int) -> None:
    truth, predicted = np.array(rows).T
    scores = classification_metrics(truth, predicted, n_labels)
    f1 = metrics.f1_score(truth, predicted, labels=range(n_labels), average=None, zero_division=0)
    assert scores["macro_f1"] == np.mean(f1)
    if len({*truth, *predicted}) > 1:  # with one class alone it warns
        assert scores["matthews"] == metrics.matthews_corrcoef(truth, predicted)


def test_confusion_has_the_truth_in_its_rows() -> None:
    assert confusion(TRUTH, SAID, 2).tolist() == [[3, 2], [1, 4]]
    assert confusion(np.array([2]), np.array([0]), 3).tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_numbers() -> None:
    truth, predicted = np.array([1, 2, 3, 4], np.float32), np.array([1, 3, 2, 5], np.float32)
    scores = regression_metrics(truth, predicted)
    # deviations (-1.5, -.5, .5, 1.5) and (-1.75, .25, -.75, 2.25): 5.5 / √(5 · 8.75); ranks 1 3 2 4: 1 - 6·2/(4·15).
    assert scores == {
        "pearson": pytest.approx(5.5 / math.sqrt(5 * 8.75)),
        "spearman": pytest.approx(0.8),
        "mse": pytest.approx(0.75),
    }


def test_tied_numbers_share_their_rank() -> None:
    scores = regression_metrics(np.array([1, 2, 2, 3], np.float32), np.array([1, 2, 3, 4], np.float32))
    assert scores["spearman"] == pytest.approx(4.5 / math.sqrt(4.5 * 5))


@pytest.mark.parametrize(("truth", "predicted"), [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [2, 2, 2]), ([1], [2])])
def test_constant_numbers_have_no_correlation(truth: list[float], predicted: list[float]) -> None:
    scores = regression_metrics(np.array(truth, np.float32), np.array(predicted, np.float32))
    assert (scores["pearson"], scores["spearman"]) == (0.0, 0.0)
    assert scores["mse"] == pytest.approx(np.mean((np.array(truth) - np.array(predicted)) ** 2))


def test_calibration() -> None:
    right_or_not = np.array([0, 1, 0, 0])
    calibration = calibration_metrics(right_or_not, np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]]))
    # two bins of two rows: |1/2 - .9| and |1 - .6|, each half the rows; Brier: (.02 + 1.62 + .32 + .32) / 4
    assert calibration == {"ece": pytest.approx(0.4), "brier": pytest.approx(0.57)}


def test_certainty_that_is_right_is_perfect_and_the_last_bin_holds_it() -> None:
    sure = np.eye(3)
    assert calibration_metrics(np.arange(3), sure) == {"ece": 0.0, "brier": 0.0}
    assert calibration_metrics(np.array([1, 2, 0]), sure) == {"ece": 1.0, "brier": 2.0}


def test_errors_on_both_sides_of_a_bin_cancel_and_between_bins_do_not() -> None:
    half = np.array([[0.5, 0.5]] * 2)
    assert calibration_metrics(np.array([0, 1]), half)["ece"] == pytest.approx(0.0)
    apart = np.array([[0.55, 0.45], [0.95, 0.05]])
    assert calibration_metrics(np.array([0, 1]), apart)["ece"] == pytest.approx((0.45 + 0.95) / 2)
