"""Episodes: prototypes and distances by hand, and support that is never a query."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynlora.errors import ConfigError
from dynlora.kinds.recycle.work.few_shot import (
    Episode,
    EpisodeDraw,
    distances,
    episode_accuracy,
    episode_logits,
    prototypes,
    rows_of_classes,
)
from dynlora.kinds.recycle.work.run import LabelledTexts, against, summarised

ROWS = [np.arange(0, 8), np.arange(8, 15), np.arange(15, 30), np.arange(30, 36)]


def test_prototypes_and_distances_are_those_found_by_hand() -> None:
    support = torch.tensor([[[0.0, 0.0], [2.0, 0.0]], [[0.0, 3.0], [0.0, 5.0]]])
    centres = prototypes(support)
    assert centres.tolist() == [[1.0, 0.0], [0.0, 4.0]]
    assert distances(torch.tensor([[1.0, 1.0], [3.0, 4.0]]), centres).tolist() == [[1.0, 10.0], [20.0, 9.0]]


def test_logits_are_minus_the_distances_and_queries_keep_their_class() -> None:
    episode = Episode(np.array([4, 7]), np.array([[0], [1]]), np.array([[2, 3], [4, 5]]))
    features = torch.tensor([[0.0], [10.0], [1.0], [9.0], [8.0], [2.0]])
    logits, target = episode_logits(features, episode)
    assert target.tolist() == [0, 0, 1, 1]
    assert logits.tolist() == [[-1.0, -81.0], [-81.0, -1.0], [-64.0, -4.0], [-4.0, -64.0]]
    assert episode_accuracy(features, episode) == pytest.approx(0.5)


def test_an_episode_never_mixes_support_and_query_nor_classes() -> None:
    draw = EpisodeDraw(ROWS, ways=3, shots=(1, 4), queries=5, seed=3)
    shots = set()
    for episode in draw.first(200):
        support, query = set(episode.support.ravel().tolist()), set(episode.query.ravel().tolist())
        assert not support & query
        assert len(support) == episode.support.size
        assert len(query) == episode.query.size
        assert len(set(episode.classes.tolist())) == 3
        for number, one in enumerate(episode.classes):
            assert set(episode.support[number]) | set(episode.query[number]) <= set(ROWS[one])
        shots.add(episode.support.shape[1])
    assert shots == {1, 4}


def test_an_episode_is_a_function_of_seed_and_number_alone() -> None:
    first, second = (EpisodeDraw(ROWS, 2, (1,), 3, seed=9) for _ in range(2))
    late = second[17]
    assert np.array_equal(list(first.first(18))[-1].rows, late.rows)
    other = EpisodeDraw(ROWS, 2, (1,), 3, seed=10)
    assert any(not np.array_equal(first[index].rows, other[index].rows) for index in range(5))


def test_pools_that_are_too_small_are_refused() -> None:
    with pytest.raises(ConfigError, match="ways=5: there are only 4 classes"):
        EpisodeDraw(ROWS, 5, (1,), 3, seed=0)
    with pytest.raises(ConfigError, match="shots=6: a class has only 6 examples"):
        EpisodeDraw(ROWS, 2, (6,), 3, seed=0)


def test_rows_of_rare_classes_are_left_out() -> None:
    label = np.array([2, 0, 2, 1, 2, 0])
    assert [rows.tolist() for rows in rows_of_classes(label, 2)] == [[1, 5], [0, 2, 4]]


def test_a_test_takes_a_few_texts_of_each_class_the_same_every_time() -> None:
    label = np.array([0] * 50 + [1] * 3 + [2] * 20)
    data = LabelledTexts([str(number) for number in range(73)], label, ["a", "b", "c"], "here")
    few = data.at_most(10, seed=4)
    assert np.bincount(few.label).tolist() == [10, 3, 10]
    assert [int(label[int(text)]) for text in few.texts] == few.label.tolist()
    assert few.texts == data.at_most(10, seed=4).texts != data.at_most(10, seed=5).texts


def test_intervals_of_paired_differences_are_narrower_than_of_each() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0.8, 0.1, 400)
    accuracy = {"base": {1: shared}, "meta": {1: shared + 0.02}}
    row, paired = summarised(accuracy)["meta"]["1"], against(accuracy, "base")["meta"]["1"]
    assert paired["mean"] == pytest.approx(0.02)
    assert paired["high"] - paired["low"] < 1e-6 < row["high"] - row["low"]
    assert row["high"] - row["mean"] == pytest.approx(1.959964 * shared.std(ddof=1) / 20)
    assert set(against(accuracy, "base")) == {"meta"}
