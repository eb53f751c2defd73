"""A finished training is found again by what it depends on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.actions.compute import Compute
from core.actions.train import train_model
from core.checkpoints.model import Model, ModelSpec
from core.maml.training import TrainSettings
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.tasks.generate import generate, write_folder
from core.tasks.settings import TaskSettings


def test_a_training_with_other_validation_tasks_is_another_one(tmp_path: Path) -> None:
    settings = TrainSettings(iterations=2, meta_batch=2, learning_rate=0.01, checks=1)
    spec = ModelSpec(ways=3, filters=2, blocks=2)

    def train(validation: int, settings: TrainSettings, out: str) -> Model:
        tasks = tmp_path / f"tasks-{validation}"
        if not tasks.exists():
            drawn = TaskSettings(ways=3, shots=1, queries=2, count=4, heldout=2, validation=validation)
            write_folder(generate(drawn), tasks)
        return train_model(tasks, tmp_path / out, spec, settings, Compute("cpu"), Progress(), "by a test")

    model = train(2, settings, "checked")
    assert train(2, settings, "checked").hash == model.hash
    with pytest.raises(UserError, match="another training"):
        train(3, settings, "checked")
    unchecked = replace(settings, checks=0)
    assert train(2, unchecked, "unchecked").hash == train(3, unchecked, "unchecked").hash
