"""The low-rank eigenbasis of a curvature as a stored result, so that no two solves compute it twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.influence.solvers import Basis, Product, low_rank, probe_vectors
from core.maml.storage import ResultStore, ResultWriter, StepWriter
from core.runtime.errors import UserError
from core.runtime.replacing import replacing

KIND = "basis"
ENGINE_VERSION = 3  # increased whenever the results of the engine change, so that older runs are not reused
FILE = "basis.safetensors"
_RESIDUAL_DAMPINGS = (0.1, 0.001)  # shares of the largest eigenvalue: the defaults of edits and of rankings
_RESIDUAL_SEED = 1


def stored_basis(
    store: ResultStore, cache_key: dict[str, Any], compute: Callable[[StepWriter], tuple[Basis, Product]]
) -> Path:
    """Return the folder of the basis for a cache key, from the store or computed now.

    The folder holds ``basis.safetensors`` (vectors ``(r, P)``, values ``(r,)``) and ``report.json``: the values, and
    the relative residuals of solves for a random vector, by damping as a share of the largest value.
    ``compute`` returns the basis and the product with its curvature.
    """

    def write(writer: ResultWriter) -> None:
        with writer.timed("basis"):
            basis, product = compute(writer)
        with writer.timed("residuals"):
            b, largest = residual_probe(basis.vectors[0]), float(basis.values[-1])
            shares = (share for share in _RESIDUAL_DAMPINGS if basis.values[0] + share * largest > 0)
            residuals = {str(share): low_rank(product, b, basis, shift=share * largest).residual for share in shares}
        writer.write(lambda folder: _write_basis(basis, folder))
        writer.write_json("report.json", {"values": basis.values.tolist(), "residuals": residuals})

    return store.get_or_compute(KIND, {**cache_key, "engine": ENGINE_VERSION}, write).folder


def read_basis(folder: Path, like: Tensor) -> Basis:
    """Read a basis to the device and precision of ``like`` ``(P,)``; UserError if damaged or of another model size."""
    path = folder / FILE
    try:
        arrays = load_file(path)
        vectors, values = arrays["vectors"], arrays["values"]
    except (SafetensorError, OSError, KeyError) as error:
        raise UserError(f"{path} cannot be read: {error}.", "Delete the run and repeat it.") from error
    if vectors.shape != (len(values), like.numel()):
        raise UserError(f"{path} belongs to a model of another size.", "Delete the run and repeat it.")
    return Basis(vectors.to(like), values.numpy())


def residual_probe(like: Tensor) -> Tensor:
    """Return the random vector ``(P,)`` that residuals are reported for where no target is known."""
    return probe_vectors(like.shape, like, _RESIDUAL_SEED)


def _write_basis(basis: Basis, folder: Path) -> None:
    with replacing(folder / FILE) as temporary:
        save_file({"vectors": basis.vectors.cpu(), "values": torch.from_numpy(basis.values.copy())}, temporary)
