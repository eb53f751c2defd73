"""An evidence run written by hand: synthetic losses, and methods that know more or less of them."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pandas as pd

from core.actions.evidence import EvidenceSettings
from core.evidence.lds import Score, ceiling, lds
from core.evidence.methods import ALL_METHODS, kind
from core.influence.basis import ENGINE_VERSION
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Workspace

KNOWLEDGE = {
    "task-if": 0.9,
    "task-if-exact": 0.8,
    "task-if-paper": 0.35,
    "direct-if": 0.1,
    "task-if-5": 3.0,
    "dot": 0.5,
    "loss": 0.25,
    "task-if+loss": 0.75,
}
"""How much of what was measured each method knows, against a noise of 1."""
_RESIDUAL = ("task-if", "task-if-exact", "task-if-paper", "direct-if", "task-if-5")


def write_evidence(
    workspace: Workspace,
    knowledge: dict[str, float] | None = None,
    *,
    seeds: int = 2,
    noise: float = 0.7,
    planted: bool = True,
    **changes: object,
) -> Run:
    """Write a finished run; ``noise`` is that of a retraining, against differences of 1 between subsets."""
    known = knowledge if knowledge is not None else KNOWLEDGE
    settings = EvidenceSettings(tuple(known), seeds=seeds)
    project = workspace.project()
    ids = project.tasks.heldout.task_ids[:20]
    rng = np.random.default_rng(0)
    truth = 0.02 * rng.standard_normal((settings.subsets, len(ids)))
    measured = 0.9 + truth[:, None] + 0.02 * noise * rng.standard_normal((settings.subsets, seeds, len(ids)))

    def interval(name: str, score: Score | None) -> dict[str, float]:
        values = (score.mean, score.low, score.high) if score else (np.nan,) * 3
        return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))

    def row(name: str, group: str, each: Score | None, mean: Score | None, **more: object) -> dict[str, object]:
        return {"method": name, "kind": group, **interval("lds", each), **interval("lds_mean", mean), **more}

    rows, tables = [], []
    for number, (name, share) in enumerate(known.items()):
        predicted = share * truth + 0.02 * rng.standard_normal(truth.shape)
        foretold, found = predicted.mean(1)[:, None], measured.mean((1, 2))[:, None]
        rows.append(
            row(
                name,
                kind(name),
                lds(predicted, measured.mean(1)),
                lds(foretold, found),
                words=ALL_METHODS[name],
                auc=min(0.99, 0.5 + 0.3 * share) if planted else np.nan,
                seconds=4.0 + 3 * number,
                memory_gb=1.0 + 0.1 * number,
                residual=10.0 ** -(2 + number % 3) if name in _RESIDUAL else np.nan,
                note="averaged over 5 models" if name == "task-if-5" else "",
            )
        )
        subset, target = np.indices(predicted.shape).reshape(2, -1)
        tables.append(
            pd.DataFrame({"method": name, "subset": subset, "target": np.array(ids)[target]}).assign(
                predicted=predicted.reshape(-1)
            )
        )
    rows.append(
        row(
            "ceiling",
            "ceiling",
            ceiling(measured),
            ceiling(measured.mean(2)[..., None]),
            words="how well independent retrainings of the same subsets agree",
            auc=np.nan,
            seconds=310.0,
            memory_gb=np.nan,
            residual=np.nan,
            note="",
        )
    )
    subset, seed, target = np.indices(measured.shape).reshape(3, -1)
    table = pd.DataFrame({"subset": subset, "seed": seed, "target": np.array(ids)[target]})
    about = {
        **asdict(settings),
        "targets": ids,
        "iterations": 1200,
        "ratio": 2.1e-2,
        "loss_spread": 0.02,
        "device": "cpu",
        "dtype": "float32",
    }

    def work(run: RunWriter) -> None:
        run.write_table("methods.parquet", pd.DataFrame(rows))
        run.write_table("measured.parquet", table.assign(loss=measured.reshape(-1)))
        run.write_table("predicted.parquet", pd.concat(tables, ignore_index=True))
        run.write_json("evidence.json", about | changes)

    question = {**project.hashes, "engine": ENGINE_VERSION, **asdict(settings), "dtype": "float32", "noise": noise}
    return workspace.runs.get_or_compute("evidence", question, work)
