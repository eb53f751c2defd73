"""Duplicates are found and other images are not; leaks are listed with their tasks."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from core.data import load_images
from core.review.duplicate_tables import find_leaks
from core.review.duplicates import Duplicates, find_duplicates, threshold_of

N = 1000


@cache
def digits() -> np.ndarray:
    """``(N, 28, 28, 1)`` digits, every class."""
    return np.ascontiguousarray(load_images("mnist5k").images[:: 5000 // N])


def jpeg(picture: np.ndarray) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(picture[..., 0]).save(stream, "JPEG", quality=60)
    return np.asarray(Image.open(stream))[..., None]


def noisy(picture: np.ndarray) -> np.ndarray:
    return np.clip(picture + np.random.default_rng(0).normal(0, 8, picture.shape), 0, 255).astype(np.uint8)


CHANGES = {
    "noise": noisy,
    "shifted right": lambda picture: np.roll(picture, 1, 1),
    "shifted up and left": lambda picture: np.roll(picture, (-1, -1), (0, 1)),
    "darker": lambda picture: (picture * 0.7).astype(np.uint8),
    "brighter": lambda picture: np.clip(picture * 0.8 + 30, 0, 255).astype(np.uint8),
    "jpeg": jpeg,
}


def found_in(pictures: np.ndarray) -> Duplicates:
    return find_duplicates(pictures, np.arange(len(pictures)))


@pytest.mark.parametrize("change", CHANGES)
def test_transformed_copies_are_found_and_nothing_else(change: str) -> None:
    origin = np.arange(0, N, N // 40)
    copies = np.stack([CHANGES[change](digits()[at]) for at in origin])
    pairs = found_in(np.concatenate([digits(), copies])).pairs
    truth = set(zip(origin.tolist(), range(N, N + len(origin)), strict=True))
    found = set(zip(pairs["one"], pairs["other"], strict=True))
    assert len(found & truth) >= 0.95 * len(truth)
    assert len(found - truth) <= 2
    assert not pairs["exact"].any()


def test_distinct_digits_are_not_reported() -> None:
    result = found_in(digits())
    assert len(result.pairs) <= 1
    assert 0.1 < result.threshold < 0.5
    assert np.array_equal(result.group, np.arange(N))


def test_identical_images_form_one_group() -> None:
    pictures = np.concatenate([digits()[:60], digits()[[3, 3, 7]], np.zeros((2, 28, 28, 1), np.uint8)])
    result = found_in(pictures)
    exact = result.pairs[result.pairs["exact"]]
    assert sorted(zip(exact["one"], exact["other"], strict=True)) == [(3, 60), (3, 61), (7, 62), (63, 64)]
    assert (exact["distance"] == 0).all()
    assert result.group[[3, 60, 61]].tolist() == [3, 3, 3]
    assert result.first[61] == 3


def test_few_images_in_colour_at_positions_of_a_memory_map(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = rng.uniform(0, 255, (90, 5, 5, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    smooth[80] = np.clip(smooth[10] + rng.normal(0, 3, smooth[10].shape), 0, 255)
    smooth[85] = smooth[10][..., ::-1]  # the same shapes in other colours
    memory_map = np.memmap(tmp_path / "pixels", np.uint8, "w+", shape=smooth.shape)
    memory_map[:] = smooth
    result = find_duplicates(memory_map, np.r_[80, 0:80, 85])
    assert result.pairs[["one", "other"]].to_numpy().tolist() == [[0, 11]]
    few = find_duplicates(memory_map, np.array([10, 80, 10]))
    assert (few.threshold, few.pairs["exact"].tolist()) == (0.0, [True])


def test_the_threshold_follows_the_power_law_of_the_data() -> None:
    rng = np.random.default_rng(0)
    for power in (4.0, 9.0):
        ordinary = rng.uniform(size=4000) ** (1 / power)
        threshold, estimate = threshold_of(ordinary)
        assert estimate == pytest.approx(power, rel=0.2)
        assert threshold == pytest.approx(4000 ** (-1 / power), rel=0.35)
        with_copies = np.concatenate([ordinary[:3400], rng.uniform(0, 0.5 * threshold, 600)])
        assert threshold_of(with_copies)[0] == pytest.approx(threshold, rel=0.35)


def task(name: str, support: list[str], query: list[str], classes: dict[str, str] | None = None) -> pd.DataFrame:
    rows = [(name, role, image) for role, images in (("support", support), ("query", query)) for image in images]
    table = pd.DataFrame(rows, columns=["task_id", "role", "image_id"])
    return table.assign(**{"class": [(classes or {}).get(image, "x") for image in table["image_id"]]})


class TestLeaks:
    ids = np.array(["a", "a2", "b", "b2", "c", "d"], dtype=object)
    """Image a2 is identical to a, and b2 nearly identical to b."""
    found = Duplicates(
        pd.DataFrame({"one": [0, 2], "other": [1, 3], "distance": [0.0, 0.1], "exact": [True, False]}),
        np.array([0, 0, 2, 3, 4, 5]),
        np.array([0, 0, 2, 2, 4, 5]),
        np.empty(0),
        0.3,
        5.0,
    )

    def leaks(self, train: pd.DataFrame, heldout: pd.DataFrame) -> list[tuple[object, ...]]:
        table = find_leaks(self.found, self.ids, train, heldout)
        names = ["kind", "part", "image_id", "other", "distance", "exact", "contradiction"]
        return [
            (*row, list(one), list(two))
            for row, one, two in zip(
                table[names].itertuples(index=False, name=None), table["tasks"], table["other_tasks"], strict=True
            )
        ]

    def test_support_and_query(self) -> None:
        train = pd.concat(
            [
                task("t0", ["c"], ["c"]),  # the same image in both roles
                task("t1", ["a"], ["a2"], {"a2": "y"}),
                task("t2", ["b2"], ["b"]),
                task("t3", ["a", "a2"], ["d"]),  # both on one side
            ]
        )
        assert self.leaks(train, task("h0", ["d"], ["d"])) == [
            ("support-query", "training", "c", "c", 0.0, True, False, ["t0"], ["t0"]),
            ("support-query", "training", "a", "a2", 0.0, True, True, ["t1"], ["t1"]),
            ("support-query", "held-out", "d", "d", 0.0, True, False, ["h0"], ["h0"]),
            ("support-query", "training", "b2", "b", 0.1, False, False, ["t2"], ["t2"]),
            ("train-heldout", "", "d", "d", 0.0, True, False, ["t3"], ["h0"]),
        ]

    def test_training_and_held_out(self) -> None:
        train = pd.concat([task("t0", ["a"], ["c"]), task("t1", ["a"], ["b"])])
        heldout = pd.concat([task("h0", ["a2"], ["d"], {"a2": "z"}), task("h1", ["b2"], ["a2"], {"a2": "z"})])
        assert self.leaks(train, heldout) == [
            ("train-heldout", "", "a", "a2", 0.0, True, True, ["t0", "t1"], ["h0", "h1"]),
            ("train-heldout", "", "b", "b2", 0.1, False, False, ["t1"], ["h1"]),
        ]

    def test_none(self) -> None:
        assert self.leaks(task("t0", ["a"], ["b"]), task("h0", ["c"], ["d"])) == []
