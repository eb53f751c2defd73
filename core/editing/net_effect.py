"""The net effect of changes to the training data: an edited model compared with its control.

A model that was not trained to its end gains by every further step, whatever was removed. So the difference between an
edited and the unedited model is that of the changes *and* of the procedure. The control is the same procedure, with the
same settings and seed, on the unchanged tasks; the difference to it is due to the changes alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from core.editing.settings import ESTIMATES
from core.maml.evaluation import Interval

NO_CONTROL = "no control"


@dataclass(frozen=True)
class NetEffect:
    """The effect of changes on the held-out tasks, with 95 % intervals, paired by task.

    Attributes:
        accuracy: Accuracy of the edited model minus that of its control, as a share.
        loss: The same for the loss, in nats.
        procedure: Accuracy of the control minus that of the unedited model: the gain of the procedure by itself. None
            for an estimate, which has no procedure.
    """

    accuracy: Interval
    loss: Interval
    procedure: Interval | None


@dataclass(frozen=True)
class EditMeasurement:
    """A measurement of an edited model: ``figures`` (``edit.json``), and accuracy and loss per held-out task."""

    figures: Mapping[str, Any]
    heldout: pd.DataFrame


def net_effect(method: str, edited: EditMeasurement, control: EditMeasurement | None) -> NetEffect | None:
    """Return the net effect of an edit; None where its control is not measured.

    An estimate needs no control: without changes, a linear edit is the unedited model.
    """
    if method in ESTIMATES:
        figures = edited.figures
        return NetEffect(Interval(**figures["accuracy_change"]), Interval(**figures["loss_change"]), None)
    if control is None:
        return None
    accuracy, loss = (heldout_difference(edited.heldout, control.heldout, name) for name in ("accuracy", "loss"))
    return NetEffect(accuracy, loss, Interval(**control.figures["accuracy_change"]))


def heldout_difference(one: pd.DataFrame, other: pd.DataFrame, column: str = "accuracy") -> Interval:
    """Return the mean of a column of one model minus that of another, paired by ``task_id``."""
    first, second = (table.set_index("task_id")[column] for table in (one, other))
    return Interval.of((first - second).to_numpy())
