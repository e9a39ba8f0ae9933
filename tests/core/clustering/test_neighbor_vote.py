"""The vote of nearest neighbours: equal to that of scikit-learn, in bounded memory, of a sample if asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from ebsc_core.clustering import neighbor_vote
from ebsc_core.clustering.neighbor_vote import knn_accuracy
from ebsc_core.data.features.rows import HeldRows, unit_rows

CPU = torch.device("cpu")


def groups(n: int, seed: int = 0) -> tuple[HeldRows, np.ndarray]:
    """Rows around five centres, near enough that some neighbours are of another group."""
    generator = torch.Generator().manual_seed(seed)
    labels = np.arange(n) % 5
    centres = torch.randn(5, 8, generator=torch.Generator().manual_seed(9))
    return HeldRows(unit_rows(centres[labels] + 1.2 * torch.randn(n, 8, generator=generator))), labels


def test_is_that_of_scikit_learn_with_one_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbor_vote, "BLOCK_VOTERS", 64)
    rows, labels = groups(300)
    right = []
    for i, row in enumerate(rows.rows.numpy()):
        others = np.arange(300) != i
        model = KNeighborsClassifier(20, metric="cosine").fit(rows.rows.numpy()[others], labels[others])
        right.append(model.predict(row[None])[0] == labels[i])
    assert 0.5 < np.mean(right) < 1
    assert knn_accuracy(rows, labels, 0, CPU) == pytest.approx(np.mean(right))


def test_of_held_out_rows_only_the_others_vote() -> None:
    (rows, labels), (new, truth) = groups(300), groups(90, 1)
    model = KNeighborsClassifier(20, metric="cosine").fit(rows.rows.numpy(), labels)
    expected = model.score(new.rows.numpy(), truth)
    assert knn_accuracy(rows, labels, 0, CPU, (new, truth)) == pytest.approx(expected)


def test_a_row_never_votes_for_itself() -> None:
    """Each row is its own class, so whoever else votes is wrong."""
    rows, _ = groups(30)
    assert knn_accuracy(rows, np.arange(30), 0, CPU) == 0


def test_few_rows_vote_as_far_as_there_are_any() -> None:
    rows = HeldRows(torch.eye(2)[[0, 0, 1]])
    assert knn_accuracy(rows, np.array([7, 7, 7]), 0, CPU) == 1


def test_of_many_rows_a_seeded_sample_votes_and_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = groups(2000)
    whole = knn_accuracy(rows, labels, 0, CPU)
    monkeypatch.setattr(neighbor_vote, "MAX_VOTERS", 900)
    monkeypatch.setattr(neighbor_vote, "MAX_QUERIES", 400)
    sampled = knn_accuracy(rows, labels, 3, CPU)
    assert sampled == knn_accuracy(rows, labels, 3, CPU)
    assert sampled == pytest.approx(whole, abs=0.08)


def test_in_small_classes_no_strangers_vote() -> None:
    labels = np.repeat(np.arange(40), 3)
    centres = torch.nn.functional.one_hot(torch.from_numpy(labels), 40).float()
    rows = HeldRows(
        unit_rows(centres + 0.1 * torch.randn(120, 40, generator=torch.Generator().manual_seed(0)))
    )
    assert knn_accuracy(rows, labels, 0, CPU) == 1
