"""The low-rank eigenbasis of a curvature, kept as a run, so that no two questions compute it twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.influence.solvers import Basis, Product, low_rank
from core.runtime.errors import UserError
from core.runtime.files import replacing
from core.workspace.runs import Run, Runs, RunWriter

KIND = "basis"
ENGINE_VERSION = 3  # raised whenever the engine's answers change, so that older runs are not taken for newer ones
FILE = "basis.safetensors"
_SHARES = (0.1, 0.001)  # the damping of edits and of rankings


def cached_basis(runs: Runs, question: dict[str, Any], compute: Callable[[RunWriter], tuple[Basis, Product]]) -> Run:
    """The run with the basis that answers ``question``, from the store or computed now.

    The run holds ``basis.safetensors`` (vectors ``(r, P)``, values ``(r,)``) and ``report.json``: the values, and the
    relative residuals of solves with it for a random vector, by damping as a share of the largest value.

    Args:
        compute: Makes the basis; gives with it the product with the curvature.
    """

    def work(run: RunWriter) -> None:
        with run.timed("basis"):
            basis, product = compute(run)
        with run.timed("residuals"):
            residuals = _residuals(basis, product)
        run.write(lambda folder: _write(basis, folder))
        run.write_json("report.json", {"values": basis.values.tolist(), "residuals": residuals})

    return runs.get_or_compute(KIND, {**question, "engine": ENGINE_VERSION}, work)


def read_basis(run: Run, like: Tensor) -> Basis:
    """The basis of a run, of the device and precision of ``like`` ``(P,)``.

    Raises:
        UserError: the file is damaged, or of a model of another size.
    """
    path = run.folder / FILE
    try:
        kept = load_file(path)
        vectors, values = kept["vectors"], kept["values"]
    except (SafetensorError, OSError, KeyError) as error:
        raise UserError(f"{path} cannot be read: {error}.", "Delete the run and do it again.") from error
    if vectors.shape != (len(values), like.numel()):
        raise UserError(f"{path} belongs to a model of another size.", "Delete the run and do it again.")
    return Basis(vectors.to(like), values.numpy())


def random_vector(like: Tensor) -> Tensor:
    """The vector that residuals are told of where nothing was asked yet."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)


def _residuals(basis: Basis, product: Product) -> dict[str, float]:
    b, largest = random_vector(basis.vectors[0]), float(basis.values[-1])
    shifts = {str(share): share * largest for share in _SHARES if basis.values[0] + share * largest > 0}
    return {share: low_rank(product, b, basis, shift=shift).residual for share, shift in shifts.items()}


def _write(basis: Basis, folder: Path) -> None:
    with replacing(folder / FILE) as temporary:
        save_file({"vectors": basis.vectors.cpu(), "values": torch.from_numpy(basis.values.copy())}, temporary)
