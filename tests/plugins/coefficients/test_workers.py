from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from ebsc_core.clustering.coefficients import self_expressive_coefficients
from ebsc_core.plugins.interfaces import CoefficientModel
from ebsc_plugins.coefficients.elastic_net import ElasticNet, ElasticNetOptions
from ebsc_plugins.coefficients.omp import OmpOptions, OrthogonalMatchingPursuit
from ebsc_plugins.coefficients.workers import side_by_side

CPU = torch.device("cpu")


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_items_are_worked_on_at_once_each_by_one_thread_and_come_back_in_order(threads: None) -> None:
    together = threading.Barrier(3)

    def work(item: int) -> tuple[int, int, bool]:
        together.wait(timeout=30)  # passes only if all three are at work
        time.sleep(0.01 * (3 - item))
        return item, torch.get_num_threads(), torch.is_grad_enabled()

    assert side_by_side(work, range(3), CPU) == [(0, 1, False), (1, 1, False), (2, 1, False)]
    assert torch.get_num_threads() == 3
    inherited: list[int] = []
    other = threading.Thread(target=lambda: inherited.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert inherited == [3]


def test_what_goes_wrong_in_one_is_told(threads: None) -> None:
    def work(item: int) -> int:
        return 1 // item

    with pytest.raises(ZeroDivisionError):
        side_by_side(work, range(2), CPU)
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(
    "model",
    [ElasticNet(ElasticNetOptions(max_rounds=4), 20), OrthogonalMatchingPursuit(OmpOptions(), 20)],
    ids=["elastic-net", "omp"],
)
def test_the_number_of_threads_changes_nothing(model: CoefficientModel, threads: None) -> None:
    rows = torch.nn.functional.normalize(torch.randn(600, 20, generator=torch.Generator().manual_seed(0)))
    several = self_expressive_coefficients(model, rows, 10)
    unfinished = getattr(model, "unfinished", 0)
    torch.set_num_threads(1)
    one = self_expressive_coefficients(model, rows, 10)
    assert getattr(model, "unfinished", 0) == unfinished
    assert (unfinished > 0) == isinstance(model, ElasticNet)
    assert torch.equal(one.indices, several.indices)
    torch.testing.assert_close(one.values, several.values, rtol=1e-5, atol=1e-6)
