"""Find exact and near-duplicate images.

Near-duplicates are found by their pixels, in three steps:

1. **Candidates.** Images are reduced to at most 28 x 28 pixels and normalised to mean 0 and norm 1, so that brightness
   and contrast do not count. Nearest neighbours are searched twice: on the blurred image, and on the amplitudes of its
   low frequencies, which do not change with shifts.
2. **Distance** to every candidate, at the best of nine shifts by up to one pixel: ``sqrt(2 - 2 cosine)``, between 0
   (equal up to brightness and contrast) and 2.
3. **Threshold.** Distances are not comparable across images: two handwritten digits 1 are closer than two copies of a
   complicated drawing. So a pair is scored by the *ratio* of its distance to the distance of the eighth neighbour of
   its two images (the smaller one). Among images that are not duplicates, the share with a nearest-neighbour ratio
   below r falls like a power of r, as for random points in D dimensions. The power is estimated from the median and the
   quartile of the ratios, and the threshold is the ratio below which one image of the set is expected by chance. Images
   below the threshold are excluded and the power is estimated again, until it converges, so that duplicates do not bias
   it; the first estimate excludes the lower group of Otsu's method.
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
MIN_IMAGES = 24
"""With fewer distinct images the distribution of ratios cannot be estimated, so only exact duplicates are found."""
_EMBEDDED, _PRINCIPAL, _FREQUENCIES = 10, 64, 8
_BLUR = 1.5
_DEPTH_CAP = 3.0
"""Cap of minus the logarithm of a ratio in the first estimate, so that the nearest duplicates do not dominate it."""
_BLOCK = 256
_FLOOR = 0.05
"""Quantile at which local distances are clipped from below, as many copies of one image would hide another."""


@dataclass(frozen=True, eq=False)
class Duplicates:
    """The duplicates among ``n`` images.

    Attributes:
        pairs: one and other (positions, one < other), distance, ratio (NaN for exact), exact (bool). Of m identical
            images the first is paired with each of the rest.
        first: ``(n,)`` position of the first identical image.
        group: ``(n,)``: connected component of pairs, numbered by the position of its first image.
        ratios: The ratio of the nearest neighbour of every distinct image.
        threshold: Pairs with a smaller ratio are near-duplicates; 0 where there are too few images.
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
    """Return the exact and near-duplicates among the images at ``positions``.

    Takes ``64 m^2`` operations for the candidates: seconds for 20,000 images on two cores.

    Args:
        images: ``(n, height, width, channels)`` uint8; may be a memory map, of which one block at a time is read.
        positions: ``(m,)`` of the images to compare; results have positions in this array.
        advance: Called with numbers of images that add up to ``3 m``.
    """
    first = _first_identical(images, positions, advance)
    different = np.unique(first)
    exact = np.flatnonzero(first != np.arange(len(positions)))
    tables = [pd.DataFrame({"one": first[exact], "other": exact, "distance": 0.0, "ratio": np.nan, "exact": True})]
    ratios, threshold, power = np.empty(0), 0.0, float("nan")
    advance(len(positions) - len(different))
    if len(different) >= MIN_IMAGES:
        pictures = _thumbnails(images, positions[different], advance)
        candidates = _candidates(pictures)
        distances = _distances(pictures, candidates, advance)
        ratio = _ratios(distances, candidates)
        ratios = ratio.min(1)
        threshold, power = threshold_of(ratios)
        row, column = np.nonzero(ratio < threshold)
        one, other = np.sort(np.stack([different[row], different[candidates[row, column]]]), 0)
        near = {"one": one, "other": other, "distance": distances[row, column], "ratio": ratio[row, column]}
        table = pd.DataFrame(near).astype({"distance": np.float64, "ratio": np.float64}).assign(exact=False)
        tables.append(table.sort_values("distance", kind="stable").drop_duplicates(["one", "other"]))
    pairs = pd.concat(tables, ignore_index=True).astype({"one": np.int64, "other": np.int64, "exact": bool})
    pairs = pairs.sort_values(["distance", "one", "other"], kind="stable", ignore_index=True)
    edges = coo_array((np.ones(len(pairs)), (pairs["one"], pairs["other"])), shape=(len(positions), len(positions)))
    _, component = connected_components(edges, directed=False)
    _, first_of_component = np.unique(component, return_index=True)
    return Duplicates(pairs, first, first_of_component[component], ratios, threshold, power)


def threshold_of(ratios: np.ndarray) -> tuple[float, float]:
    """Return the ratio below which one image is expected by chance, and the power D, from those of all images."""
    depth = -np.log(np.maximum(ratios, 1e-9))
    end = _otsu_split(np.minimum(depth, _DEPTH_CAP))
    for _ in range(100):
        typical = depth[depth <= end]
        median, quartile = np.quantile(typical, [0.5, 0.75])
        scale = max(float(quartile - median), 1e-9) / np.log(2)
        new = float(median + scale * np.log(0.5 * len(typical)))
        if abs(new - end) < 1e-9:
            break
        end = new
    return float(np.exp(-end)), float(1 / scale)


def _otsu_split(depth: np.ndarray) -> float:
    """Return the threshold of Otsu (1979), "A threshold selection method from gray-level histograms"."""
    ordered = np.sort(depth)
    total, left = np.cumsum(ordered), np.arange(1, len(ordered))
    right = len(ordered) - left
    between = left * right * (total[:-1] / left - (total[-1] - total[:-1]) / right) ** 2
    split = int(between.argmax())
    return float(ordered[split] + ordered[split + 1]) / 2


def _first_identical(images: np.ndarray, positions: np.ndarray, advance: Callable[[int], None]) -> np.ndarray:
    digests: list[bytes] = []
    for block in _blocks(len(positions)):
        digests += [hashlib.blake2b(picture.tobytes(), digest_size=16).digest() for picture in images[positions[block]]]
        advance(len(block))
    _, first, member = np.unique(np.array(digests), return_index=True, return_inverse=True)
    return first[member]


def _blocks(n: int) -> Iterator[np.ndarray]:
    yield from (np.arange(start, min(n, start + _BLOCK)) for start in range(0, n, _BLOCK))


def _thumbnails(images: np.ndarray, positions: np.ndarray, advance: Callable[[int], None]) -> torch.Tensor:
    """Return ``(m, channels, height, width)`` float32 with at most :data:`SIDE` pixels per side."""
    size = (min(SIDE, images.shape[1]), min(SIDE, images.shape[2]))
    parts = []
    for block in _blocks(len(positions)):
        picture = torch.from_numpy(np.ascontiguousarray(images[positions[block]])).permute(0, 3, 1, 2).float()
        parts.append(F.adaptive_avg_pool2d(picture, size))
        advance(len(block))
    return torch.cat(parts)


def _normalised(pictures: torch.Tensor) -> torch.Tensor:
    """Return the images with mean 0 and norm 1 over the last dimension; a blank image stays 0."""
    centred = pictures - pictures.mean(-1, keepdim=True)
    return centred / centred.norm(dim=-1, keepdim=True).clamp_min(1e-6)


def _candidates(pictures: torch.Tensor) -> np.ndarray:
    """Return ``(m, 2 k)`` positions of neighbours by the blurred image and by frequencies; -1 for repeated ones."""
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
    """Return ``(m, k)`` positions of the nearest other rows, in the space of the first principal components."""
    centred = x - x.mean(0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    reduced = np.ascontiguousarray(centred @ directions[:, -_PRINCIPAL:])
    k = min(NEIGHBOURS, len(x) - 1)
    neighbours = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(reduced).kneighbors(return_distance=True)
    return neighbours[1][:, :k]


def _distances(pictures: torch.Tensor, candidates: np.ndarray, advance: Callable[[int], None]) -> np.ndarray:
    """Return ``(m, 2 k)`` distances at the best shift; infinite where there is no candidate."""
    height, width = pictures.shape[2:]
    flat, padded = _normalised(pictures.flatten(1)), F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    distances = np.empty(candidates.shape, np.float32)
    for block in _blocks(len(pictures)):
        borders = padded[block]
        shifted = [borders[:, :, y : y + height, x : x + width].flatten(1) for y in range(3) for x in range(3)]
        cosine = torch.einsum("bsd,bkd->bsk", _normalised(torch.stack(shifted, 1)), flat[candidates[block]]).amax(1)
        distances[block] = (2 - 2 * cosine).clamp_min(0).sqrt().numpy()
        advance(len(block))
    distances[candidates < 0] = np.inf
    return distances


def _ratios(distances: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    kth = min(NEIGHBOURS, distances.shape[1]) - 1
    local = np.partition(distances, kth, axis=1)[:, kth]
    local = np.maximum(local, max(np.quantile(local, _FLOOR), 1e-9))
    return distances / np.minimum(local[:, None], local[candidates])
