"""Features are the inputs of the layers, one row per image, in the given order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from core.data import ImageSet
from core.maml.module import ModuleNet
from core.review import features
from core.review.features import SHIFTS, image_features
from tests.problems import tiny_images, tiny_problem

PROBLEM = tiny_problem()


def test_centred_scaled_and_in_order() -> None:
    batches: list[int] = []
    positions = np.array([50, 3, 17, 60, 22, 5, 41])
    found = image_features(PROBLEM.model.network, PROBLEM.params, PROBLEM.images, positions, batches.append)
    assert found.dtype == np.float32
    assert len(found) == 7
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-5)
    assert found.var(0).sum() == pytest.approx(round(found.var(0).sum()), abs=1e-3)  # 1 a layer
    assert sum(batches) == 7 * SHIFTS
    # Batches are normalised as a whole, so that the order within them changes nothing.
    other = image_features(PROBLEM.model.network, PROBLEM.params, PROBLEM.images, positions[::-1].copy())
    np.testing.assert_allclose(found, other[::-1], atol=1e-5)


def test_equal_images_have_equal_features_and_small_shifts_change_little() -> None:
    small = tiny_images()
    by = features._SHIFT * 7
    assert round(by) == 0  # of so small images a shift is one pixel at least
    pixels = np.concatenate([small.images, small.images[:1], np.roll(small.images[:1], 1, 2)])
    n = len(small)
    twice = ImageSet("twice", pixels, np.r_[small.labels, 0, 0], small.class_names, np.arange(n + 2).astype(str))
    found = image_features(PROBLEM.model.network, PROBLEM.params, twice, np.arange(n + 2))
    np.testing.assert_allclose(found[0], found[n], atol=1e-5)
    distance = np.linalg.norm(found[: n + 2] - found[0], axis=1)
    assert distance[n + 1] < np.median(distance[1:n])


def test_wide_layers_are_projected_and_distances_kept() -> None:
    seen = torch.randn(20, 5000, generator=torch.Generator().manual_seed(0))
    narrow = features._pooled(seen)
    assert narrow.shape == (20, 1024)
    torch.testing.assert_close(torch.pdist(narrow), torch.pdist(seen), rtol=0.15, atol=0.0)
    assert features._pooled(torch.ones(2, 3, 9, 9)).shape == (2, 3 * 16)
    torch.testing.assert_close(narrow, features._pooled(seen))  # the same every time


def test_user_defined_networks() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(75, 6), nn.ReLU(), nn.Linear(6, 3))

    network = ModuleNet("small", 3, (7, 7, 1), build)
    found = image_features(network, network.init(0, torch.float32), tiny_images(), np.arange(30))
    assert found.shape == (30, 75 + 6)
    assert np.isfinite(found).all()
    assert not any(module._forward_pre_hooks for module in network.module.modules())
