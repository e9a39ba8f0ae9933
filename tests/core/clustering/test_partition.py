"""Clusters of all images while training goes on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch.nn import functional as F

from ebsc_core.clustering.partition import partition
from ebsc_core.data.features.forms import WhitenForm, form_width
from ebsc_plugins.coefficients.energy import EnergyNetwork, EnergyOptions


@pytest.mark.parametrize("whiten", [True, False, "neighbors"])
def test_an_untrained_model_finds_subspaces(whiten: WhitenForm) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 4
    bases = torch.linalg.qr(torch.randn(4, 20, 3, generator=generator)).Q
    rows = torch.einsum("nwd,nd->nw", bases[labels], torch.randn(400, 3, generator=generator))
    rows = F.normalize(rows + 0.02 * torch.randn(400, 20, generator=generator), dim=1)
    model = EnergyNetwork(EnergyOptions(hidden=8), form_width(20, whiten))
    found = partition(rows, model, 4, whiten, seed=0).clusters
    assert found is not None
    assert found.dtype == torch.int64
    assert adjusted_rand_score(labels.numpy(), found.numpy()) > 0.95
    again = partition(rows, model, 4, whiten, seed=0).clusters
    assert again is not None
    assert np.array_equal(found.numpy(), again.numpy())


def test_neighbors_are_of_the_cluster_and_express_the_row() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = F.normalize(torch.randn(60, 5, generator=generator), dim=1)
    model = EnergyNetwork(EnergyOptions(hidden=8), 5)
    found = partition(rows, model, 3, False, seed=0)
    assert found.clusters is not None
    largest = (rows @ rows.T).fill_diagonal_(-2).topk(found.neighbors.shape[1]).indices
    own = torch.arange(60)[:, None]
    others = found.neighbors != own
    assert (found.clusters[found.neighbors] == found.clusters[:, None]).all()
    assert torch.equal(others, found.clusters[largest] == found.clusters[:, None])
    assert torch.equal(found.neighbors[others], largest[others])
    assert 0 < others.float().mean() < 1


def noise(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(0)), dim=1)


def test_without_a_number_of_clusters_all_that_express_a_row_are_its_neighbors() -> None:
    rows = noise(60, 5)
    found = partition(rows, EnergyNetwork(EnergyOptions(hidden=8), 5), None, False, seed=0)
    assert found.clusters is None
    largest = (rows @ rows.T).fill_diagonal_(-2).topk(found.neighbors.shape[1]).indices
    assert torch.equal(found.neighbors, largest)


def test_pixels_tell_what_the_rows_do_not() -> None:
    labels = torch.arange(200) % 4
    pixels = F.normalize(torch.eye(4, 12)[labels] + 0.3 * noise(200, 12), dim=1)
    model = EnergyNetwork(EnergyOptions(hidden=8), form_width(20 + 12, "neighbors"))
    found = partition(noise(200, 20), model, 4, False, seed=0, pixels=pixels)
    assert found.clusters is not None
    assert adjusted_rand_score(labels.numpy(), found.clusters.numpy()) > 0.95
    assert (labels[found.neighbors] == labels[:, None]).float().mean() > 0.95


def test_how_much_pixels_tell_is_a_distance_of_sets_of_neighbors() -> None:
    rows, pixels = noise(80, 6), F.normalize(noise(80, 11)[:, :8], dim=1)
    model = EnergyNetwork(EnergyOptions(hidden=8), form_width(6 + 8, "neighbors"))
    found = partition(rows, model, None, False, seed=0, pixels=pixels)
    k = found.neighbors.shape[1]
    alone = (rows @ rows.T).fill_diagonal_(-2).topk(k).indices.tolist()
    pairs = list(zip(map(set, alone), map(set, found.neighbors.tolist()), strict=True))
    common, either = (sum(map(len, sets)) for sets in ([a & b for a, b in pairs], [a | b for a, b in pairs]))
    assert found.distance == pytest.approx(1 - common / either)
    assert partition(rows, EnergyNetwork(EnergyOptions(hidden=8), 6), None, False, seed=0).distance is None


def test_pixels_that_repeat_the_rows_tell_nothing() -> None:
    rows = noise(80, 6)
    model = EnergyNetwork(EnergyOptions(hidden=8), form_width(12, "neighbors"))
    found = partition(rows, model, None, "neighbors", seed=0, pixels=rows)
    assert found.distance == pytest.approx(0, abs=0.05)
