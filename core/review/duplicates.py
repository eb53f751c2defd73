"""Images that occur twice: byte for byte, or nearly.

Near ones are found by pixels, in three steps:

1. **Candidates.** Every picture is brought to at most 28 x 28 pixels, its mean taken off and its length made 1, so that
   neither brightness nor contrast counts. Its nearest neighbours are sought twice: by the blurred picture, and by the
   amplitudes of its low frequencies, which a shift leaves as they are.
2. **Distance** to every candidate, at the best of nine shifts by up to one pixel: ``sqrt(2 - 2 cosine)``, between 0
   (the same but for brightness and contrast) and 2.
3. **Threshold.** What is near depends on where one looks: two digits 1 of different people lie nearer to each other
   than two copies of a complicated drawing do. So a pair is rated by the *ratio* of its distance to that of the eighth
   neighbour of its two pictures (the smaller one). For pictures that are no copies, the share whose nearest neighbour
   is below a ratio r falls like a power of r, as it does for points scattered in D dimensions. The power is read off
   the middle of the data's own ratios, and the threshold is the ratio below which one picture of the whole set would be
   expected by chance. What lies below is left out when the power is read off again, until nothing changes, so that
   copies do not raise the bar for themselves; it begins where the ratios part best into two heaps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import NearestNeighbors
from torch.nn import functional as F

SIDE = 28
NEIGHBOURS = 8
FEWEST = 24
"""Of fewer different pictures nothing can be said about what is ordinary, so only exact copies are sought."""
_EMBEDDED, _PRINCIPAL, _FREQUENCIES = 10, 64, 8
_BLUR = 1.5
_DEEP = 3.0
"""Logarithm of how much nearer than its neighbours a picture must be to count as a copy and no nearer, in the start."""
_BLOCK = 256
_FLOOR = 0.05
"""Quantile of the local distances that none is taken to lie below, or many copies of one picture would hide another."""


@dataclass(frozen=True, eq=False)
class Duplicates:
    """What was found among ``n`` pictures.

    Attributes:
        pairs: one and other (positions, one < other), distance, ratio (NaN for exact), exact (bool). Of m identical
            pictures the first is paired with each of the rest.
        first: ``(n,)`` position of the first picture that is identical.
        group: ``(n,)``: pictures linked by pairs, directly or through others, have the same number, which is the
            position of the first of them.
        ratios: Of every different picture, the ratio of its nearest neighbour.
        threshold: Pairs with a smaller ratio are near-duplicates; 0 where there are too few pictures.
        power: D.
    """

    pairs: pd.DataFrame
    first: np.ndarray
    group: np.ndarray
    ratios: np.ndarray
    threshold: float
    power: float


def find_duplicates(
    images: np.ndarray, positions: np.ndarray, advance: Callable[[int], None] = lambda units: None
) -> Duplicates:
    """Exact and near duplicates among the images at ``positions``.

    Args:
        images: ``(n, height, width, channels)`` uint8; may be a memory map, of which one block at a time is read.
        positions: ``(m,)`` the images that are looked at; results count along these.
        advance: Called with numbers of pictures that come to ``3 m`` in all.

    Complexity: m squared times 64 for the candidates; 20,000 pictures take seconds on two cores.
    """
    first = _first_identical(images, positions, advance)
    different = np.unique(first)
    exact = np.flatnonzero(first != np.arange(len(positions)))
    tables = [pd.DataFrame({"one": first[exact], "other": exact, "distance": 0.0, "ratio": np.nan, "exact": True})]
    ratios, threshold, power = np.empty(0), 0.0, float("nan")
    advance(len(positions) - len(different))
    if len(different) >= FEWEST:
        pictures = _thumbnails(images, positions[different], advance)
        candidates = _candidates(pictures)
        distances = _distances(pictures, candidates, advance)
        ratio = _ratios(distances, candidates)
        ratios = ratio.min(1)
        threshold, power = threshold_of(ratios)
        tables.append(_near_pairs(distances, ratio, candidates, different, threshold))
    pairs = pd.concat(tables, ignore_index=True).astype({"one": np.int64, "other": np.int64, "exact": bool})
    pairs = pairs.sort_values(["distance", "one", "other"], kind="stable", ignore_index=True)
    return Duplicates(pairs, first, _groups(pairs, len(positions)), ratios, threshold, power)


def threshold_of(ratios: np.ndarray) -> tuple[float, float]:
    """Return the ratio below which one picture is expected by chance, and the power D with which chance falls.

    Args:
        ratios: Of every picture that of its nearest neighbour.
    """
    depth = -np.log(np.maximum(ratios, 1e-9))
    end = _otsu_split(np.minimum(depth, _DEEP))
    for _ in range(100):
        ordinary = depth[depth <= end]
        middle, deep = np.quantile(ordinary, [0.5, 0.75])
        scale = max(float(deep - middle), 1e-9) / np.log(2)
        new = float(middle + scale * np.log(0.5 * len(ordinary)))
        if abs(new - end) < 1e-9:
            break
        end = new
    return float(np.exp(-end)), float(1 / scale)


def _otsu_split(depth: np.ndarray) -> float:
    """Where two heaps part best (Otsu 1979), to begin from: above most copies where there are any."""
    ordered = np.sort(depth)
    total, left = np.cumsum(ordered), np.arange(1, len(ordered))
    right = len(ordered) - left
    between = left * right * (total[:-1] / left - (total[-1] - total[:-1]) / right) ** 2
    at = int(between.argmax())
    return float(ordered[at] + ordered[at + 1]) / 2


def _first_identical(images: np.ndarray, positions: np.ndarray, advance: Callable[[int], None]) -> np.ndarray:
    seen: dict[bytes, int] = {}
    first = np.empty(len(positions), np.int64)
    for block in _blocks(len(positions)):
        pixels = np.ascontiguousarray(images[positions[block]])
        for place, picture in zip(block, pixels, strict=True):
            first[place] = seen.setdefault(hashlib.blake2b(picture.tobytes(), digest_size=16).digest(), int(place))
        advance(len(block))
    return first


def _blocks(n: int) -> Iterator[np.ndarray]:
    yield from (np.arange(start, min(n, start + _BLOCK)) for start in range(0, n, _BLOCK))


def _thumbnails(images: np.ndarray, positions: np.ndarray, advance: Callable[[int], None]) -> torch.Tensor:
    """``(m, channels, height, width)`` float32, at most :data:`SIDE` pixels a side."""
    size = (min(SIDE, images.shape[1]), min(SIDE, images.shape[2]))
    parts = []
    for block in _blocks(len(positions)):
        picture = torch.from_numpy(np.ascontiguousarray(images[positions[block]])).permute(0, 3, 1, 2).float()
        parts.append(F.adaptive_avg_pool2d(picture, size))
        advance(len(block))
    return torch.cat(parts)


def _normalised(pictures: torch.Tensor) -> torch.Tensor:
    """Without brightness and contrast: mean 0, length 1 in the last dimension; a blank picture is 0."""
    centred = pictures - pictures.mean(-1, keepdim=True)
    return centred / centred.norm(dim=-1, keepdim=True).clamp_min(1e-6)


def _candidates(pictures: torch.Tensor) -> np.ndarray:
    """``(m, 2 k)`` positions of the nearest by the blurred picture and by frequencies; one named twice is -1 once."""
    blurred = F.adaptive_avg_pool2d(_blurred(pictures), min(_EMBEDDED, *pictures.shape[2:]))
    low = torch.fft.rfft2(pictures - pictures.mean((2, 3), keepdim=True), norm="ortho").abs()
    low = torch.cat([low[:, :, :_FREQUENCIES, :_FREQUENCIES], low[:, :, 1 - _FREQUENCIES :, :_FREQUENCIES]], 2)
    by_pixels, by_frequency = (_nearest(_normalised(x.flatten(1)).numpy()) for x in (blurred, low))
    by_frequency[(by_frequency[:, :, None] == by_pixels[:, None, :]).any(2)] = -1
    return np.concatenate([by_pixels, by_frequency], 1)


def _blurred(pictures: torch.Tensor) -> torch.Tensor:
    reach = min(6, *(side - 1 for side in pictures.shape[2:]))
    kernel = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * _BLUR**2))
    kernel, channels = kernel / kernel.sum(), pictures.shape[1]
    padded = F.pad(pictures, (reach,) * 4, mode="replicate")
    along = F.conv2d(padded, kernel.view(1, 1, 1, -1).repeat(channels, 1, 1, 1), groups=channels)
    return F.conv2d(along, kernel.view(1, 1, -1, 1).repeat(channels, 1, 1, 1), groups=channels)


def _nearest(x: np.ndarray) -> np.ndarray:
    """``(m, k)`` of each row's nearest others, along the first principal directions."""
    centred = x - x.mean(0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    reduced = np.ascontiguousarray(centred @ directions[:, -_PRINCIPAL:])
    k = min(NEIGHBOURS, len(x) - 1)
    found = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(reduced).kneighbors(return_distance=True)
    return found[1][:, :k]


def _distances(pictures: torch.Tensor, candidates: np.ndarray, advance: Callable[[int], None]) -> np.ndarray:
    """``(m, 2 k)`` distances at the best shift; infinite where there is no candidate."""
    height, width = pictures.shape[2:]
    flat, padded = _normalised(pictures.flatten(1)), F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    found = np.empty(candidates.shape, np.float32)
    for block in _blocks(len(pictures)):
        here = padded[block]
        shifted = [here[:, :, y : y + height, x : x + width].flatten(1) for y in range(3) for x in range(3)]
        cosine = torch.einsum("bsd,bkd->bsk", _normalised(torch.stack(shifted, 1)), flat[candidates[block]]).amax(1)
        found[block] = (2 - 2 * cosine).clamp_min(0).sqrt().numpy()
        advance(len(block))
    found[candidates < 0] = np.inf
    return found


def _ratios(distances: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    kth = min(NEIGHBOURS, distances.shape[1]) - 1
    local = np.partition(distances, kth, axis=1)[:, kth]
    local = np.maximum(local, max(np.quantile(local, _FLOOR), 1e-9))
    return distances / np.minimum(local[:, None], local[candidates])


def _near_pairs(
    distances: np.ndarray, ratio: np.ndarray, candidates: np.ndarray, different: np.ndarray, threshold: float
) -> pd.DataFrame:
    row, column = np.nonzero(ratio < threshold)
    ends = np.sort(np.stack([different[row], different[candidates[row, column]]], 1), 1)
    table = pd.DataFrame(
        {"one": ends[:, 0], "other": ends[:, 1], "distance": distances[row, column].astype(np.float64)}
    ).assign(ratio=ratio[row, column].astype(np.float64), exact=False)
    return table.sort_values("distance", kind="stable").drop_duplicates(["one", "other"])


def _groups(pairs: pd.DataFrame, n: int) -> np.ndarray:
    ends = (pairs["one"].to_numpy(), pairs["other"].to_numpy())
    _, component = connected_components(coo_array((np.ones(len(pairs)), ends), shape=(n, n)), directed=False)
    _, first, member = np.unique(component, return_index=True, return_inverse=True)
    return first[member]
