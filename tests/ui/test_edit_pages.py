"""The pages Edit, Curves and Export on a tiny workspace, without a browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.actions import preparation
from core.actions.compute import Compute
from core.actions.decide import mark
from core.actions.edit_results import EditResult
from core.actions.export import export, export_notes
from core.actions.preparation import open_estimator, prepare
from core.checkpoints.model import save_trajectory
from core.decisions.log import Item
from core.editing.methods import SOLVE
from core.editing.net_effect import NO_CONTROL, NetEffect
from core.editing.settings import CONTROL_OF, DEFAULT_EDIT_METHODS, FINETUNE, NewtonSettings
from core.editing.steps import start_text
from core.editing.whatif import WhatIfEstimator
from core.maml.evaluation import Interval
from core.maml.training import Snapshot
from core.runtime.errors import UserError
from core.runtime.files import read_json, write_json
from core.runtime.progress import Progress
from core.tasks.changes import Changes, cleaned
from core.tasks.exchange import LIBRARIES
from core.tasks.tasklist import FORMATS, read_tasks
from core.ui.charts.edit import Dot, curve_figure, edit_figure
from core.ui.edit.curve_results import NO_GAIN, ONE_SEED, ORDER_NAMES, UNCLEAR, averages, observations
from core.ui.edit.methods_table import (
    AGAINST_RETRAINING,
    REFERENCE,
    STARTED_AT,
    UNKNOWN,
    share_of_retraining,
)
from core.ui.edit.results import (
    ESTIMATED_EFFECT,
    LABELS,
    NET_EFFECT,
    NO_RESULTS,
    NON_DEFAULT,
    NOT_MEASURED,
    ONLY_RETRAINING,
    OWN_START,
    direction,
    findings,
    headline,
    in_points,
)
from core.workspace.runs import Run
from core.workspace.workspace import Workspace
from tests.actions.recommended import PROPOSED, stored_recommendation
from tests.ui.conftest import Open, click, make_edit, run_again, words


class TestEdit:
    def test_empty_says_what_to_do_next(self, show: Open, empty: Workspace, started: list[list[str]]) -> None:
        page = show("edit")
        assert not page.dataframe
        assert "tasklens remove --workspace tiny" in page.code[0].value
        click(page, "edit_recommend")
        assert started == [["recommend", "--workspace", str(empty.folder)]]

    def test_marks_the_most_harmful_and_takes_them_back(self, show: Open, full: Workspace) -> None:
        mark(full, tasks=sorted(full.changes().tasks), verdict="clear", reviewer="me")
        page = show("edit")
        page.number_input(key="edit_worst_tasks").set_value(2)
        run_again(page)
        click(page, "edit_remove_worst")
        (ranked,) = full.runs.all("rank")
        scores = ranked.table("tasks.parquet").sort_values("score")
        assert full.changes().tasks == set(scores["task_id"].head(2))
        entry = next(iter(full.decisions.current().values()))
        assert page.button(key="edit_remove_worst").disabled, "all of them are marked"
        assert (entry.reviewer, entry.source, entry.reason) == ("me", ranked.id, "among the 2 most harmful tasks")
        assert entry.cause == "harmful"
        click(page, "edit_clear_all")
        assert not len(full.changes())
        click(page, "review_Undo")
        assert len(full.changes()) == 2

    def test_removes_what_is_recommended(self, show: Open, full: Workspace) -> None:
        mark(full, tasks=sorted(full.changes().tasks), verdict="clear", reviewer="me")
        recommended = stored_recommendation(full)
        page = show("edit")
        first = full.project().tasks.train.task_ids[: PROPOSED["tasks"]]
        assert page.number_input(key=f"edit_proposed_tasks_{recommended.id}").value == len(first)
        click(page, "edit_remove_worst")
        assert full.changes().tasks == set(first)
        entry = next(iter(full.decisions.current().values()))
        assert (entry.source, entry.cause) == (recommended.id, "label-error")
        page.segmented_control(key="edit_order_recommended").set_value("most harmful")
        run_again(page)
        assert page.selectbox(key="review_cause_harmful").value == "harmful"

    def test_marking_the_most_harmful_respects_what_was_kept(self, show: Open, full: Workspace) -> None:
        kept = sorted(full.changes().tasks)
        mark(full, tasks=kept, verdict="keep", reviewer="somebody")
        page = show("edit")
        page.number_input(key="edit_worst_tasks").set_value(2)
        run_again(page)
        assert "Already decided: 1 of the 2" in words(page)
        click(page, "edit_remove_worst")
        assert len(full.changes().tasks) == 1
        assert not full.changes().tasks & set(kept)

    def test_results_belong_to_the_present_removal_set(self, show: Open, full: Workspace) -> None:
        page = show("edit")
        assert NET_EFFECT in words(page)
        assert ESTIMATED_EFFECT in words(page)
        rows = page.dataframe[1].value
        assert set(rows["model"]) == {LABELS[way] for way in (*DEFAULT_EDIT_METHODS, "steps")}
        assert list(rows["kind"]) == [*["measured"] * (len(rows) - 1), "estimate"]
        assert page.button(key="edit_estimate").disabled
        assert page.button(key="edit_steps").disabled
        assert not page.button(key="edit_retrain").disabled

        other = next(task for task in full.project().tasks.train.task_ids if task not in full.changes().tasks)
        mark(full, tasks=[other], reviewer="somebody")
        run_again(page)
        assert NO_RESULTS in words(page)
        assert len(page.dataframe) == 1, "of the old results nothing is shown, nor the controls alone"
        assert "Stored for other changes: 4 results" in words(page)
        assert not page.button(key="edit_estimate").disabled
        assert f"{NET_EFFECT}: " not in words(page)

    def test_starts_edits_as_jobs(self, show: Open, empty: Workspace, started: list[list[str]]) -> None:
        mark(empty, tasks=empty.project().tasks.train.task_ids[:1], reviewer="me")
        page = show("edit")
        assert NO_RESULTS in words(page)
        for button in ("estimate", "steps", "retrain"):
            click(page, f"edit_{button}")
        for args, ways in zip(started, (DEFAULT_EDIT_METHODS, ("steps",), ("retrain",)), strict=True):
            assert args == [
                "edit",
                "--workspace",
                str(empty.folder),
                *(part for way in ways for part in ("--how", way)),
            ]

    def test_retrain_is_measured_beside_the_estimate(self, show: Open, full: Workspace) -> None:
        said = words(show("edit"))
        assert ONLY_RETRAINING in said
        assert re.search(r"control \([\d,]+ meta-gradients", said), "its cost is said beforehand"
        run = make_edit(full, "retrain")
        page = show("edit")
        (control,) = full.runs.all("edit-retrain-all")
        effect = Interval.of(accuracy(run) - accuracy(control))
        said = words(page)
        assert f"{NET_EFFECT}: {in_points(effect)}" in said
        assert ESTIMATED_EFFECT in said
        assert ONLY_RETRAINING not in said
        assert page.button(key="edit_retrain").disabled

    def test_edits_are_compared_by_cost_and_with_retraining(self, show: Open, full: Workspace) -> None:
        page = show("edit")
        rows = page.dataframe[1].value.set_index("model")
        assert (rows[AGAINST_RETRAINING] == UNKNOWN).all()
        (run,) = full.runs.all("edit-newton")
        cost = run.json("edit.json")["cost"]
        seconds = sum(run.json("provenance.json")["seconds"].values())
        row = rows.loc[LABELS["newton"]]
        assert row["meta-gradients"] == f"{cost['meta_gradients']:,.0f}"
        assert row["seconds"] == pytest.approx(seconds, abs=0.05)
        assert row["share of retraining's"] == f"{100 * cost['share_of_retraining']:.1f} %"
        assert any(expander.label.startswith("Newton step") for expander in page.expander)

        retrained = make_edit(full, "retrain")
        page = show("edit")
        rows = page.dataframe[1].value.set_index("model")
        assert rows.loc[LABELS["retrain"], AGAINST_RETRAINING] == REFERENCE
        assert rows.loc[LABELS["retrain"], "share of retraining's"] == "100.0 %"
        apart = accuracy(full.runs.all("edit-steps")[0]) - accuracy(retrained)
        assert f"{100 * apart.mean():+.1f} points" in rows.loc[LABELS["steps"], AGAINST_RETRAINING]
        assert UNKNOWN not in words(page)

    def test_net_effects_come_first_and_sort_the_table(self, show: Open, full: Workspace) -> None:
        page = show("edit")
        rows = page.dataframe[1].value.set_index("model")
        effects = {}
        for way in ("newton", "steps", "finetune"):
            (run,), (control,) = (full.runs.all(f"edit-{one}") for one in (way, CONTROL_OF[way]))
            effects[LABELS[way]] = Interval.of(accuracy(run) - accuracy(control))
        for label, effect in effects.items():
            assert rows.loc[label, "net effect"] == in_points(effect)
        means = [effects[label].mean for label in rows.index[:3]]
        assert means == sorted(means, reverse=True)
        assert f"{NET_EFFECT}: {in_points(effects[rows.index[0]])}" in words(page)

    def test_a_missing_control_is_said_and_offered(self, show: Open, full: Workspace, started: list[list[str]]) -> None:
        (control,), (steps,) = (full.runs.all(f"edit-{way}") for way in ("steps-all", "steps"))
        assert NOT_MEASURED not in words(show("edit"))
        shutil.rmtree(control.folder)
        page = show("edit")
        assert NOT_MEASURED in words(page)
        rows = page.dataframe[1].value.set_index("model")
        assert rows.loc[LABELS["steps"], "net effect"] == NO_CONTROL
        click(page, "edit_controls")
        assert started == [["edit", "--workspace", str(full.folder), "--control-of", steps.id]]

    def test_steps_and_their_control_begin_alike(self, show: Open, full: Workspace) -> None:
        model = full.project().model
        save_trajectory(
            [Snapshot({name: 0.9 * value for name, value in model.params.items()}, 1e-3)], full.folder / "model"
        )
        page = show("edit")
        assert f"{LABELS['steps']}: {OWN_START}" in words(page)
        assert not page.button(key="edit_steps").disabled
        make_edit(full, "steps")
        page = show("edit")
        said = words(page)
        assert STARTED_AT in said
        assert OWN_START not in said
        assert NOT_MEASURED not in said
        assert page.button(key="edit_steps").disabled
        starts = [one.json("edit.json").get("start") for one in full.runs.all("edit-steps-all")]
        assert sum(start is not None for start in starts) == 1, "the control of the new steps began where they did"

    def test_steps_say_where_they_began(self, show: Open, full: Workspace) -> None:
        assert STARTED_AT not in words(show("edit"))
        (run,) = full.runs.all("edit-steps")
        figures = read_json(run.folder / "edit.json") | {
            "start": {"number": 2, "losses": [1.2, 1.1, 0.9, 1], "tasks": 8}
        }
        write_json(run.folder / "edit.json", figures)
        assert f"{STARTED_AT} {start_text(figures)}." in words(show("edit"))

    def test_edits_of_earlier_versions_are_shown_without_a_cost(self, show: Open, full: Workspace) -> None:
        for way in ("newton", "newton-all", "steps", "steps-all", "finetune-all"):
            shutil.rmtree(full.runs.all(f"edit-{way}")[0].folder)
        for run in full.runs.all("edit-linear") + full.runs.all("edit-finetune"):
            figures = read_json(run.folder / "edit.json")
            del figures["cost"]
            write_json(run.folder / "edit.json", figures)
        page = show("edit")
        rows = page.dataframe[1].value
        assert list(rows["model"]) == [LABELS[way] for way in ("finetune", "linear")]
        assert list(rows["meta-gradients"]) == ["", ""]
        assert rows["net effect"][0] == NO_CONTROL
        assert ESTIMATED_EFFECT in words(page)
        assert not page.button(key="edit_estimate").disabled, "the newer edits can be made"

    def test_a_newton_step_that_was_not_taken_is_said(self, show: Open, full: Workspace) -> None:
        (run,) = full.runs.all("edit-newton")
        figures = read_json(run.folder / "edit.json")
        figures["newton"] |= {"taken": False, "share": None, "ratio": None}
        write_json(run.folder / "edit.json", figures)
        page = show("edit")
        assert "No Newton step" in words(page)
        assert not any(expander.label.startswith("Newton step") for expander in page.expander)

    def test_edits_with_other_options_are_shown_and_named(self, show: Open, full: Workspace) -> None:
        assert NON_DEFAULT not in words(show("edit"))
        other = make_edit(full, "linear", solver=replace(SOLVE, curvature="exact", damping=0.4))
        make_edit(full, "finetune", finetune=replace(FINETUNE, iterations=2))
        make_edit(full, "newton", newton=NewtonSettings(products=2))
        page = show("edit")
        named = {"linear": "exact, damping 0.4", "newton": "products 2", "finetune": "iterations 2"}
        for way, what in named.items():
            assert f"{LABELS[way]}: {what}" in words(page)
        assert NOT_MEASURED not in words(page), "the controls have these options too"
        assert page.button(key="edit_estimate").disabled, "the usual ones are there too"
        change = other.json("edit.json")["accuracy_change"]["mean"]
        rows = page.dataframe[1].value.set_index("model")
        assert rows.loc[LABELS["linear"], "net effect"].startswith(f"{100 * change:+.1f} points")

    def test_live_estimates_are_prepared_by_a_job(self, show: Open, full: Workspace, started: list[list[str]]) -> None:
        page = show("edit")
        assert re.search(r"about \d.* GB of disk", words(page)), "at the pace of the evaluation"
        assert "Live estimate" not in words(page)
        click(page, "edit_prepare")
        assert started == [["whatif", "--workspace", str(full.folder), "--prepare"]]

    def test_a_live_estimate_follows_the_removal_set_and_is_computed_once(
        self, show: Open, full: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(preparation, "SETTINGS", replace(preparation.SETTINGS, rank=5))
        prepare(full, Compute(), Progress())
        asked: list[Changes] = []
        compute = WhatIfEstimator.change_gradient
        monkeypatch.setattr(
            WhatIfEstimator, "change_gradient", lambda self, changes: asked.append(changes) or compute(self, changes)
        )
        page = show("edit")
        said = words(page)
        found = open_estimator(full, Compute()).changes(full.changes())
        assert asked == [full.changes()] * 2, "one here, one on the page"
        assert f"Held-out accuracy ≈ *{in_points(found.accuracy_change)}*" in said
        assert f"residual of the solve {found.residual:.0%}" in said
        assert "estimate, not measured" in said
        run_again(page)
        assert len(asked) == 2, "nothing is computed on an unchanged rerun"
        other = next(task for task in full.project().tasks.train.task_ids if task not in full.changes().tasks)
        mark(full, tasks=[other], reviewer="me")
        run_again(page)
        click(page, "review_Undo")
        assert "Live estimate" in words(page)
        assert len(asked) == 3, "what was undone is known already"

    def test_a_damaged_preparation_says_so_and_hides_nothing_else(
        self, show: Open, full: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(preparation, "SETTINGS", replace(preparation.SETTINGS, rank=5))
        run = prepare(full, Compute(), Progress())
        (run.folder / "tasks.npy").write_bytes(b"nothing")
        page = show("edit")
        assert "Delete the run" in page.error[0].value
        assert NET_EFFECT in words(page)

    def test_texts_of_people_are_no_markup(self, show: Open, full: Workspace) -> None:
        page = show("edit")
        shown = [str(element.value) for kind in (page.markdown, page.caption, page.info) for element in kind]
        assert not any("![](" in text for text in shown)


class TestCurves:
    def test_empty_offers_a_ranking(self, show: Open, empty: Workspace, started: list[list[str]]) -> None:
        page = show("curves")
        click(page, "curve_rank")
        assert started[0][0] == "rank"

    def test_form_starts_the_command_it_shows(self, show: Open, full: Workspace, started: list[list[str]]) -> None:
        page = show("curves")
        page.multiselect(key="curve_shares").set_value([50, 0])
        page.multiselect(key="curve_orders").set_value(["harmful", "random"])
        page.number_input(key="curve_seeds").set_value(1)
        run_again(page)
        assert "3 fine-tunes of 40 steps" in words(page)
        click(page, "curve_start")
        (ranked,) = full.runs.all("rank")
        options = ["--ranking", ranked.id, "--shares", "0,0.5", "--orders", "harmful,random", "--seeds", "1"]
        assert started == [["curve", "--workspace", str(full.folder), *options]]
        assert page.code[0].value == f"tasklens curve --workspace tiny {' '.join(options)}"

    def test_needs_a_share_and_an_order(self, show: Open, full: Workspace) -> None:
        page = show("curves")
        page.multiselect(key="curve_shares").set_value([])
        run_again(page)
        assert page.button(key="curve_start").disabled
        assert "at least one share" in words(page)

    def test_finished_curve(self, show: Open, full: Workspace) -> None:
        page = show("curves")
        said = words(page)
        assert f"At 40% removed, {ORDER_NAMES['harmful']} compared with {ORDER_NAMES['random']}" in said
        assert "all held-out tasks" in said
        figures = page.dataframe[0].value
        assert set(figures["order"]) == {"nothing removed", "harmful", "loss", "random"}
        assert (figures["seeds"] == 2).all()


class TestExport:
    def test_empty_exports_the_list_as_it_is(self, show: Open, empty: Workspace) -> None:
        page = show("export")
        assert "Nothing is removed or relabelled" in words(page)
        assert page.metric[0].value == "6"
        click(page, "export_write")
        assert (empty.folder / "exports" / "cleaned" / "cleaned-tasks.csv").exists()

    def test_writes_the_choices_and_offers_only_the_present_export(self, show: Open, full: Workspace) -> None:
        page = show("export")
        folder = full.folder / "exports" / "cleaned"
        assert [metric.value for metric in page.metric] == ["5", "45", "1", "0", "0", "0"]
        click(page, "export_write")
        assert "Written to" in words(page)
        assert {path.name for path in folder.glob("cleaned-tasks.*")} == {f"cleaned-tasks.{f}" for f in FORMATS}

        page.multiselect(key="export_formats").set_value(["csv"])
        model = next(box for box in page.selectbox if str(box.key).startswith("export_model"))
        assert model.options[0] == "none"
        assert set(model.options[1:]) == {LABELS[way] for way in (*DEFAULT_EDIT_METHODS, "steps")}, "never a control"
        model.select(LABELS["finetune"])
        run_again(page)
        assert "earlier export with other choices" in words(page)
        click(page, "export_write")
        assert "Written to" in words(page)
        assert [path.name for path in folder.glob("cleaned-tasks.*")] == ["cleaned-tasks.csv"]
        (tuned,) = full.runs.all("edit-finetune")
        same = (tuned.folder / "model" / "model.safetensors").read_bytes()
        assert (folder / "model" / "model.safetensors").read_bytes() == same
        assert f"--formats csv --model {tuned.id}" in page.code[0].value

        mark(full, tasks=sorted(full.changes().tasks), verdict="clear", reviewer="me")
        run_again(page)
        assert "Written to" not in words(page)

    def test_lists_for_other_libraries_are_written_and_read_back(self, show: Open, full: Workspace) -> None:
        rows = full.project().tasks.train.rows
        left = rows[~rows["task_id"].isin(full.changes().tasks) & (rows["role"] == "query")]
        item = Item("instance", *left.iloc[0][["task_id", "role", "image_id"]])
        mark(full, [item], reviewer="me")
        folder, images = full.folder / "exports" / "cleaned", full.project().images
        page = show("export")
        page.multiselect(key="export_formats").set_value(["csv", *LIBRARIES])
        run_again(page)
        click(page, "export_write")
        assert "Written to" in words(page)
        assert "--formats csv,learn2learn,torchmeta,easyfsl" in page.code[0].value
        removal, train = full.changes(), full.project().tasks.train
        assert read_tasks(folder / "cleaned-tasks.csv", images).hash == cleaned(train, removal).hash
        for library in LIBRARIES:
            have = read_tasks(folder / f"cleaned-tasks.{library}.json", images)
            assert have.hash == cleaned(train, removal, drop_rows=True).hash
        kept = read_json(folder / "export.json")["removed_rows"]
        assert kept == {"csv": "kept with weight 0"} | dict.fromkeys(LIBRARIES, "dropped")
        (note,) = export_notes(folder)
        assert note in words(page)

        page.multiselect(key="export_formats").set_value(["easyfsl"])
        run_again(page)
        assert "earlier export with other choices" in words(page)
        click(page, "export_write")
        assert "Written to" in words(page)
        assert [path.name for path in folder.glob("cleaned-tasks.*")] == ["cleaned-tasks.easyfsl.json"]

    def test_a_list_that_a_library_cannot_hold_is_explained_and_nothing_changes(
        self, show: Open, full: Workspace
    ) -> None:
        page = show("export")
        click(page, "export_write")
        folder = full.folder / "exports" / "cleaned"
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        rows = full.project().tasks.train.rows
        alive = rows[~rows["task_id"].isin(full.changes().tasks)]
        mark(full, images=[alive.loc[alive["role"] == "support", "image_id"].iloc[0]], reviewer="me")
        page.multiselect(key="export_formats").set_value(["csv", "torchmeta"])
        run_again(page)
        click(page, "export_write")
        assert "would lose all support images of a class" in words(page)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_what_people_wrote_is_no_formula_in_a_spreadsheet(self, empty: Workspace, tmp_path: Path) -> None:
        mark(empty, tasks=["t0"], reason='=HYPERLINK("http://evil.example")', reviewer="@me")
        export(empty, tmp_path / "out")
        removed = pd.read_csv(tmp_path / "out" / "removed.csv")
        assert removed[["task_id", "reason", "reviewer"]].iloc[0].tolist() == [
            "t0",
            '\'=HYPERLINK("http://evil.example")',
            "'@me",
        ]

    def test_dropping_rows_that_a_task_needs_is_explained(self, show: Open, full: Workspace) -> None:
        rows = full.project().tasks.train.rows
        alive = rows[~rows["task_id"].isin(full.changes().tasks)]
        mark(full, images=[alive.loc[alive["role"] == "support", "image_id"].iloc[0]], reviewer="me")
        page = show("export")
        page.toggle(key="export_drop").set_value(True)
        run_again(page)
        assert "would lose all support images of a class" in words(page)


@pytest.mark.parametrize("page", ["edit", "curves", "export"])
def test_damaged_workspace_is_explained(page: str, show: Open, empty: Workspace) -> None:
    (empty.folder / "tasks" / "tasks.json").write_text("{")
    shown = show(page)
    assert len(shown.error) == 1
    assert "tasks.json is not valid JSON" in words(shown)


def test_estimates_are_drawn_hollow_and_dashed_and_controls_as_diamonds() -> None:
    interval = Interval(0.8, 0.7, 0.9)
    figure = edit_figure(
        [
            Dot("before", interval, None),
            Dot("tuned", interval, interval, interval),
            Dot("linear", interval, interval, estimate=True),
            Dot("old", interval, None),
        ]
    )
    dashes = {(trace.y[0], trace.line.dash) for trace in figure.data if trace.mode == "lines"}
    assert dashes == {("before", "solid"), ("linear", "dot"), ("tuned", "solid"), ("old", "solid")}
    symbols = [(trace.y[0], trace.marker.symbol) for trace in figure.data if trace.mode == "markers"]
    assert ("linear", "circle-open") in symbols
    assert symbols.count(("tuned", "diamond")) == 1
    assert ("linear", "circle") not in symbols
    (missing,) = [note for note in figure.layout.annotations if note.text == NO_CONTROL]
    assert missing.y == "old"


def curve_points(harmful: Sequence[float], random: Sequence[float]) -> pd.DataFrame:
    rows = [("none", 0.0, seed, 0, 0.5, 1.0) for seed in range(len(harmful))]
    rows += [("harmful", 0.4, seed, 4, accuracy, 1.0) for seed, accuracy in enumerate(harmful)]
    rows += [("random", 0.4, seed, 4, accuracy, 1.0) for seed, accuracy in enumerate(random)]
    return pd.DataFrame(rows, columns=["order", "share", "seed", "removed", "accuracy", "loss"])


def test_every_line_of_a_curve_starts_where_nothing_is_removed() -> None:
    points = curve_points([0.6, 0.7], [0.5, 0.4])
    figure = curve_figure(points, averages(points), "tasks")
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [list(trace.x) for trace in lines] == [[0, 40], [0, 40]]
    np.testing.assert_allclose([trace.y[0] for trace in lines], 50)
    np.testing.assert_allclose([trace.y[1] for trace in lines], [65, 45])


def test_observations_claim_no_more_than_is_seen() -> None:
    clear = " ".join(observations(curve_points([0.6, 0.7], [0.5, 0.4])))
    assert "+20.0 points (+10.0 to +30.0 over 2 seeds): the same sign" in clear
    assert UNCLEAR in " ".join(observations(curve_points([0.6, 0.4], [0.5, 0.5])))
    assert ONE_SEED in " ".join(observations(curve_points([0.6], [0.5])))
    assert NO_GAIN in " ".join(observations(curve_points([0.4, 0.4], [0.3, 0.4])))


def accuracy(run: Run) -> pd.Series:
    return run.table("heldout.parquet").set_index("task_id")["accuracy"]


def result(folder: Path, way: str, net: Interval | None, accuracies: Sequence[float]) -> EditResult:
    folder = folder / f"edit-{way}-0"
    folder.mkdir()
    heldout = pd.DataFrame({"task_id": ["a", "b"], "accuracy": accuracies, "loss": 1.0})
    heldout.to_parquet(folder / "heldout.parquet")
    write_json(folder / "edit.json", {})
    write_json(folder / "provenance.json", {"seconds": {"steps": 1.0}})
    return EditResult(way, Run(folder), None, None if net is None else NetEffect(net, net, None))


def test_closeness_is_a_share_only_of_a_clear_change(tmp_path: Path) -> None:
    steps = result(tmp_path, "steps", Interval(0.091, 0.05, 0.12), [0.5, 0.6])
    clear = result(tmp_path, "retrain", Interval(0.1, 0.05, 0.15), [0.51, 0.61])
    found = share_of_retraining(steps, clear)
    assert (found.share, found.effect) == (pytest.approx(0.91), "gain")
    assert found.difference.mean == pytest.approx(-0.01)

    def retrained(net: Interval | None) -> EditResult:
        return replace(clear, effect=None if net is None else NetEffect(net, net, None))

    assert share_of_retraining(steps, retrained(Interval(0.01, -0.05, 0.15))).share is None
    assert share_of_retraining(steps, retrained(None)).share is None
    found = share_of_retraining(steps, retrained(Interval(-0.1, -0.15, -0.05)))
    assert (found.share, found.effect) == (pytest.approx(-0.91), "loss")


def test_the_headline_is_a_net_effect_or_an_estimate_that_looks_like_one(tmp_path: Path) -> None:
    large, small = Interval(0.2, 0.1, 0.3), Interval(0.05, 0.01, 0.09)
    steps, retrained = result(tmp_path, "steps", large, [1, 1]), result(tmp_path, "retrain", small, [1, 1])
    linear, without = result(tmp_path, "linear", small, [1, 1]), result(tmp_path, "newton", None, [1, 1])

    def title(*found: EditResult) -> str:
        first = headline(found)
        assert first is not None
        return first[0]

    assert title(steps, retrained).endswith(f"{NET_EFFECT}: {in_points(small)}"), "retraining counts if it is measured"
    assert title(steps, without, linear).endswith(f"{NET_EFFECT}: {in_points(large)}")
    assert NET_EFFECT not in title(without, linear)
    assert title(without, linear).endswith(f"*{in_points(small)}*")
    assert headline([without]) is None
    assert NOT_MEASURED in " ".join(findings([without, linear]))


def test_direction_follows_the_interval() -> None:
    assert direction({"mean": 0.1, "low": 0.05, "high": 0.2}) == "higher"
    assert direction({"mean": -0.1, "low": -0.2, "high": -0.05}) == "lower"
    assert direction({"mean": 0.1, "low": -0.05, "high": 0.2}).startswith("not clearly")


def test_export_refuses_a_file_as_folder(empty: Workspace, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        export(empty, tmp_path / "taken")
