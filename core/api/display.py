"""The results of the Python API as notebooks and terminals show them, and progress bars."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm.auto import tqdm

from core.checkpoints.model import Model as StoredModel
from core.checkpoints.model import save_model
from core.data import ImageSet
from core.data.images import squeeze_grey
from core.editing.methods import cost_text
from core.editing.net_effect import NetEffect
from core.editing.settings import ESTIMATES
from core.influence.ranking import Ranking as Scores
from core.maml.evaluation import Interval
from core.recommendation.summary import LevelRecommendation
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.tasks.changes import Changes
from core.tasks.tasklist import KEY

_THUMBNAIL = 56  # pixels


class ProgressBars(Progress):
    """A reporter that draws one tqdm bar per stage; without ``is_shown`` it draws nothing."""

    def __init__(self, is_shown: bool) -> None:
        super().__init__()
        self._is_hidden = not is_shown
        self._bar: tqdm = tqdm(disable=True)

    def stage(self, name: str, total: int, *, done: int = 0) -> None:
        """Begin a stage with a new bar."""
        self.close()
        self._bar = tqdm(desc=name, total=total, initial=done, disable=self._is_hidden)
        super().stage(name, total, done=done)

    def close(self) -> None:
        """Finish the bar of the stage."""
        self._bar.close()

    def _report(self, force: bool) -> None:
        if self._note:
            self._bar.set_postfix_str(self._note, refresh=False)
        self._bar.update(self._done - self._bar.n)


@dataclass(frozen=True, eq=False)
class ImageGrid:
    """A grid of captioned images, ``(n, height, width, channels)`` uint8, drawn by notebooks."""

    images: np.ndarray
    captions: tuple[str, ...]

    @classmethod
    def of(cls, images: ImageSet, rows: pd.DataFrame, captions: Sequence[str]) -> ImageGrid:
        """Return a grid of the images that the rows of a table name."""
        positions = [images.index[image_id] for image_id in rows["image_id"]]
        return cls(np.asarray(images.images[positions]), tuple(captions))

    def __repr__(self) -> str:
        return "\n".join(self.captions)

    def _repr_html_(self) -> str:
        tiles = "".join(
            f'<figure style="margin:0;width:120px"><img src="{_png(pixels)}" width="{_THUMBNAIL}" '
            f'height="{_THUMBNAIL}" style="image-rendering:pixelated">'
            f'<figcaption style="font-size:11px;overflow-wrap:anywhere">{html.escape(caption)}</figcaption></figure>'
            for pixels, caption in zip(self.images, self.captions, strict=True)
        )
        return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{tiles}</div>'


def _png(pixels: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(squeeze_grey(pixels)).save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def check_type(name: str, value: Any, wanted: type, source: str) -> None:
    """Raise UserError if an argument is of another type; ``source`` says where the right one comes from."""
    if not isinstance(value, wanted):
        article = "an" if wanted.__name__[0] in "AEIOU" else "a"
        what = f"{name} must be {article} {wanted.__name__} object, not {type(value).__name__}."
        raise UserError(what, f"It comes from {source}.")


def check_path(name: str, value: Any) -> Path:
    """Return a path that the user gave as text or as a path; raise UserError for anything else."""
    if not isinstance(value, str | Path):
        raise UserError(f"Invalid {name}: {value!r}.", "Use a name or a path.")
    return Path(value)


def first_rows(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the first ``count`` rows; raise UserError if it is no positive whole number."""
    if not isinstance(count, Integral) or count < 1:
        raise UserError(f"Invalid count: {count!r}.", "Use a whole number, 1 or more.")
    return table.head(int(count))


@dataclass(frozen=True, eq=False)
class Model:
    """A meta-trained model; ``stored`` is its specification, meta-parameters and metadata."""

    stored: StoredModel

    @property
    def params(self) -> dict[str, torch.Tensor]:
        """Return the meta-parameters by name, on the CPU."""
        return self.stored.params

    @property
    def report(self) -> dict[str, Any]:
        """Return how training ended: stationarity, held-out accuracy and loss; empty for imported models."""
        return self.stored.metadata.get("report", {})

    def save(self, folder: str | Path) -> Path:
        """Write the model as a folder that :func:`load_model` and every command read."""
        save_model(self.stored, Path(folder))
        return Path(folder)

    def __repr__(self) -> str:
        accuracy = self.report.get("heldout_accuracy")
        text = f", held-out accuracy {Interval(**accuracy).text('.1%')}" if accuracy else ""
        return f"Model({self.stored.spec.description}, {self.stored.size:,} parameters{text})"


@dataclass(frozen=True, eq=False)
class Ranking(Scores):
    """Influence scores of training data on a target: positive = helpful, negative = harmful, in nats.

    Attributes:
        instances, tasks, images: One row per support or query row of a training task, per training task, and per
            training image, whose score is the sum over its rows (:mod:`core.influence.scores`).
        report: Solver, damping, residual and the loss of the target.
        pixels: The images that the tables name.
    """

    pixels: ImageSet

    def show(self, count: int = 12, *, most: str = "harmful") -> ImageGrid:
        """Return a grid of the images that are ``most`` harmful or helpful; raise UserError for anything else."""
        if most not in ("harmful", "helpful"):
            raise UserError(f"Invalid most: {most!r}.", "Use harmful or helpful.")
        chosen = first_rows(self.images.sort_values("score", ascending=most == "harmful"), count)
        pairs = zip(chosen["image_id"], chosen["score"], strict=True)
        return ImageGrid.of(self.pixels, chosen, [f"{name}: {1000 * score:+.3g} mnat" for name, score in pairs])

    def __repr__(self) -> str:
        solver, residual = self.report.get("solver"), self.report.get("residual")
        accuracy = f", residual {residual:.1e}" if isinstance(residual, float) else ""
        return f"Ranking({len(self.tasks)} tasks, {len(self.images):,} images, solver {solver}{accuracy})"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}, most harmful images:</p>{self.show()._repr_html_()}"


@dataclass(frozen=True, eq=False)
class ReviewQueue:
    """Suspected label errors, most suspicious first.

    Attributes:
        items: The table of :class:`core.review.build_queue.BuiltQueue`.
        summary: How the queue was built.
        pixels: The images that the table names.
    """

    items: pd.DataFrame
    summary: dict[str, Any]
    pixels: ImageSet

    def show(self, count: int = 12) -> ImageGrid:
        """Return a grid of the most suspicious items with their given and suggested classes."""
        chosen = first_rows(self.items, count)
        texts = zip(chosen["image_id"], chosen["class"], chosen["suggested"], strict=True)
        return ImageGrid.of(self.pixels, chosen, [f"{name}: {given} → {better}?" for name, given, better in texts])

    def __repr__(self) -> str:
        return f"ReviewQueue({len(self.items):,} items, ranked by {self.summary.get('ranking')})"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{self.show()._repr_html_()}"


@dataclass(frozen=True, eq=False)
class Recommendation:
    """What looks wrong, by the score that finds label noise injected into copies of the data best.

    Attributes:
        tasks, images, instances: One row per training task, image, and support or query row, the most suspicious first:
            ids, class (of images and rows), scores, ``suspicion`` (the recommended score) and ``probability`` (that the
            item is wrong).
        candidates: How well every score found the injected noise
            (:class:`core.recommendation.choice.Choice`).
        levels: What is recommended, by ``tasks``, ``images`` and ``instances``.
    """

    tasks: pd.DataFrame
    images: pd.DataFrame
    instances: pd.DataFrame
    candidates: pd.DataFrame
    levels: dict[str, LevelRecommendation]

    def proposal(self, by: str = "tasks") -> Changes:
        """Return the proposed removal of ``tasks``, ``images`` or ``instances``; raise UserError for anything else."""
        if by not in self.levels:
            raise UserError(f"Invalid by: {by!r}.", f"Use one of {', '.join(self.levels)}.")
        proposed = getattr(self, by).head(self.levels[by].proposed)
        if by == "instances":
            return Changes(instances=frozenset(proposed[KEY].itertuples(index=False, name=None)))
        return Changes.named(**{by: list(proposed[f"{by[:-1]}_id"])})

    def __repr__(self) -> str:
        return "\n".join(f"{level}: {one.sentence} {one.proposal}" for level, one in self.levels.items())


@dataclass(frozen=True, eq=False)
class EditedModel:
    """A model after an edit, measured on the held-out tasks.

    Attributes:
        method: One of :data:`core.editing.settings.EDIT_METHODS`.
        figures: All figures about the edit (cost, accuracy, loss, changes).
        seconds: Wall-clock time of the edit, without its control.
        effect: The net effect of the changes, with that of the procedure by itself; None for a control.
    """

    model: Model
    method: str
    figures: dict[str, Any]
    seconds: float
    effect: NetEffect | None

    @property
    def is_estimate(self) -> bool:
        """Return whether the result is an estimate of retraining rather than a measurement."""
        return self.method in ESTIMATES

    @property
    def net_effect(self) -> Interval | None:
        """Return the held-out accuracy minus that of the control, with its 95 % interval, paired by task.

        The control is the same procedure without the changes; None for a control itself.
        """
        return None if self.effect is None else self.effect.accuracy

    @property
    def accuracy_change(self) -> Interval:
        """Return the held-out accuracy minus that of the unedited model, with its 95 % interval, paired by task.

        It includes what the procedure does without the changes; :attr:`net_effect` does not.
        """
        return Interval(**self.figures["accuracy_change"])

    def __repr__(self) -> str:
        cost = cost_text(self.figures, self.seconds)
        if self.effect is None:
            return f"EditedModel({self.method}: a control, held-out accuracy {_points(self.accuracy_change)}; {cost})"
        kind = "estimated net effect" if self.is_estimate else "net effect"
        procedure = self.effect.procedure
        alone = "" if procedure is None else f"; the procedure by itself {_points(procedure)}"
        effect = f"{kind} on held-out accuracy {_points(self.effect.accuracy)}"
        return f"EditedModel({self.method}: {effect}{alone}; {cost})"


def _points(interval: Interval) -> str:
    return interval.percent("+", " points")
