"""The page Trust, the rank panel, and what the pages say of a ranking, without a browser."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from core.actions.evaluate import evaluation
from core.actions.rank import ranking
from core.actions.train import train_model
from core.evidence.agreement import MEASURES, NO_AGREEMENT, UNKNOWN_AGREEMENT, WARM_START, agreement_of
from core.evidence.methods import ALL_METHODS, DEFAULT_METHODS, LIBRARIES
from core.influence.methods import METHODS, estimator
from core.influence.targets import Target
from core.runtime.progress import Progress
from core.ui.charts.evidence import methods_figure
from core.ui.ranking.method_text import differences
from core.ui.shell.context import ranking_label
from core.ui.trust import evidence_panel
from core.ui.trust.evidence_results import (
    BEST_BASELINE,
    BEST_OTHER,
    CEILING_NAME,
    INCLUDES_ZERO,
    PREDICTS_BEST,
    caution,
    figures_table,
    findings,
    grids,
    ranked_methods,
)
from core.ui.trust.panel import CHECKPOINTS, COMPARED, DEFAULT_SETTINGS, NOT_MEASURED
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Workspace
from tests.ui.conftest import COMPUTE, Open, click, run_again, words
from tests.ui.evidence import KNOWLEDGE, write_evidence


def rank_by(workspace: Workspace, method: str, **parts: object) -> Run:
    return ranking(workspace, Target(), estimator(method, **parts), COMPUTE, Progress())  # type: ignore[arg-type]


class TestRankPanel:
    def choose(self, show: Open, method: str):  # type: ignore[no-untyped-def]
        page = show("tasks")
        page.selectbox(key="rank_method").set_value(method)
        return run_again(page)

    @pytest.mark.parametrize("method", [name for name in METHODS if name != "tracin"])
    def test_every_method_is_offered_and_asked_for_as_it_is(
        self, show: Open, empty: Workspace, started: list[list[str]], method: str
    ) -> None:
        page = self.choose(show, method)
        has_curvature = any(box.key == f"rank_curvature_{method}" for box in page.selectbox)
        assert has_curvature == (METHODS[method].estimator.solve is not None)
        click(page, "rank_start")
        target = [] if method == "self-influence" else ["--target", "all"]
        named = [] if method == "task-if" else ["--method", method]
        assert started == [["rank", "--workspace", str(empty.folder), *target, *named]]

    def test_only_what_differs_is_asked_for(self, show: Open, empty: Workspace, started: list[list[str]]) -> None:
        page = self.choose(show, "task-if-exact")
        page.selectbox(key="rank_solver_task-if-exact").set_value("low-rank")
        run_again(page)
        page.number_input(key="rank_rank_low-rank_task-if-exact").set_value(8)
        page.number_input(key="rank_damping_task-if-exact").set_value(0.3)
        page.selectbox(key="rank_evaluation_task-if-exact").set_value("direct")
        click(run_again(page), "rank_start")
        options = ["--method", "task-if-exact", "--solver", "low-rank", "--damping", "0.3", "--rank", "8"]
        assert started[0][5:] == [*options, "--evaluation", "direct"]

    def test_parts_that_do_not_fit_are_explained(self, show: Open, empty: Workspace) -> None:
        page = self.choose(show, "task-if")
        page.selectbox(key="rank_solver_task-if").set_value("dual")
        run_again(page)
        assert "The dual solver needs a curvature that is a sum" in words(page)
        assert page.button(key="rank_start").disabled
        page.selectbox(key="rank_curvature_task-if").set_value("task-fisher")
        assert not run_again(page).button(key="rank_start").disabled

    def test_tracin_without_snapshots_is_explained_before_it_starts(self, show: Open, empty: Workspace) -> None:
        page = self.choose(show, "tracin")
        assert "no snapshots" in words(page)
        assert page.button(key="rank_start").disabled

    def test_self_influence_has_no_target(self, show: Open, empty: Workspace) -> None:
        page = self.choose(show, "self-influence")
        assert "it needs no target" in words(page)
        assert all(control.key != "rank_target" for control in page.segmented_control)


class TestRankings:
    def test_labels_name_what_differs(self, full: Workspace) -> None:
        run = rank_by(full, "task-if", curvature="exact", damping=0.3, curvature_tasks=0)
        expected = "all held-out tasks · task-if, exact, all curvature tasks, damping 0.3 · "
        assert ranking_label(run) == f"{expected}{run.id[-6:]}"
        assert differences(run.config | {"method": "gone"}) == []

    def test_runs_of_older_engines_are_left_out(self, show: Open, empty: Workspace) -> None:
        evaluation(empty, COMPUTE, Progress())  # otherwise the first page starts a job

        def work(run: RunWriter) -> None:
            run.write_json("solver.json", {})

        old = {**empty.project().hashes, "target": "all", "curvature": "exact", "damping": 0.1}
        run = empty.runs.get_or_compute("rank", old, work)
        assert "an older version" in ranking_label(run)
        for page in ("tasks", "images", "edit", "curves", "overview", "trust"):
            show(page)
        assert "not ranked yet" in words(show("tasks"))

    @pytest.mark.parametrize(
        ("method", "parts", "said"),
        [
            ("task-if-exact", {"solver": "low-rank", "rank": 8}, "treated as flat"),
            ("dot", {}, "nothing is solved"),
            ("direct-if", {"damping": 0.5}, "Gradient of the training data: direct; of the target's loss: direct"),
            ("task-if-fisher", {}, "Curvature: task-fisher, over all 6 tasks"),
            pytest.param("self-influence", {}, "median error", marks=pytest.mark.slow),
        ],
    )
    def test_the_trust_panel_knows_every_report(
        self, show: Open, full: Workspace, method: str, parts: dict[str, object], said: str
    ) -> None:
        run = rank_by(full, method, **parts)
        for page in ("tasks", "images"):
            test = show(page)
            assert test.sidebar.selectbox(key="ranking").value == run.id
            assert said in words(test)
            assert NOT_MEASURED in words(test)

    def test_tracin_names_its_checkpoints(self, show: Open, home: Path, bare: Path, tmp_path: Path) -> None:
        from core.maml.training import TrainSettings
        from core.workspace.workspace import create

        spec = Workspace(bare).project().model.spec
        settings = TrainSettings(iterations=4, meta_batch=2)
        train_model(bare / "tasks", tmp_path / "model", spec, settings, COMPUTE, Progress(), "test")
        workspace = create(home / "tiny", bare / "tasks", tmp_path / "model")
        rank_by(workspace, "tracin")
        assert CHECKPOINTS in words(show("tasks"))

    def test_the_trust_panel_cites_evidence(self, show: Open, full: Workspace) -> None:
        write_evidence(full)
        row = full.runs.all("evidence")[0].table("methods.parquet").set_index("method").loc["task-if"]
        assert f"{COMPARED}: rank correlation {row['lds']:.2f} [" in words(show("tasks"))
        rank_by(full, "task-if", damping=0.3)
        assert f"{DEFAULT_SETTINGS}, not with damping 0.3" in words(show("images"))

    def test_effects_of_support_rows_are_shown(self, show: Open, full: Workspace) -> None:
        rows = full.runs.all("rank")[0].table("instances.parquet")
        page = show("images")
        page.session_state["images_open"] = rows.loc[rows["role"] == "support", "image_id"].iloc[0]
        run_again(page)
        shown = page.dataframe[-1].value
        assert shown.loc[shown["role"] == "support", "effect"].notna().all()


class TestTrust:
    def test_empty_offers_the_measurement(self, show: Open, empty: Workspace, started: list[list[str]]) -> None:
        page = show("trust")
        assert not page.dataframe
        while evidence_panel.TIMING in words(page):
            run_again(page)
        assert "40 retrainings, about" in words(page)
        click(page, "trust_start")
        assert started == [["evidence", "--workspace", str(empty.folder), "--methods", ",".join(DEFAULT_METHODS)]]
        assert page.code[0].value == f"tasklens evidence --workspace tiny --methods {','.join(DEFAULT_METHODS)}"

    def test_only_what_differs_is_asked_for(self, show: Open, empty: Workspace, started: list[list[str]]) -> None:
        page = show("trust")
        page.multiselect(key="trust_methods").set_value(["loss", "task-if", "task-if-5"])
        page.segmented_control(key="trust_truth").set_value("one")
        page.segmented_control(key="trust_retrain").set_value("warm")
        for name, value in (("subsets", 6), ("seeds", 3), ("iterations", 7), ("targets", 2)):
            page.number_input(key=f"trust_{name}").set_value(value)
        run_again(page)
        assert "23 retrainings" in words(page), "18 of subsets and 5 members"
        click(page, "trust_start")
        options = ["--methods", "task-if,task-if-5,loss", "--truth", "one", "--subsets", "6", "--seeds", "3"]
        assert started[0][3:] == [*options, "--retrain", "warm", "--iterations", "7", "--targets", "2"]

    def test_what_cannot_run_is_explained(self, show: Open, empty: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        page = show("trust")
        for methods, said in (([], ", ".join(ALL_METHODS)), (["tracin"], "no snapshots")):
            page.multiselect(key="trust_methods").set_value(methods)
            run_again(page)
            assert said in words(page)
            assert page.button(key="trust_start").disabled
        monkeypatch.setattr(evidence_panel, "missing", lambda names: [name for name in names if name in LIBRARIES])
        page.multiselect(key="trust_methods").set_value([next(iter(LIBRARIES))])
        assert "is not installed" in words(run_again(page))
        page.multiselect(key="trust_methods").set_value(["dot"])
        page.segmented_control(key="trust_truth").set_value("one")
        assert "there are 6." in words(run_again(page))
        assert page.button(key="trust_start").disabled

    def test_an_interrupted_measurement_goes_on(self, show: Open, empty: Workspace, started: list[list[str]]) -> None:
        from core.workspace.jobs import Job, Jobs

        folder = empty.folder / "jobs" / "20260101-000000-000000-aaaa"
        folder.mkdir(parents=True)
        args = ["evidence", "--workspace", str(empty.folder), "--methods", "dot", "--subsets", "5"]
        (folder / "job.json").write_text(pd.Series({"title": "x", "args": args, "started": ""}).to_json())
        assert isinstance(Jobs(empty.folder / "jobs").all()[0], Job)
        click(show("trust"), "trust_resume")
        assert started == [args]

    def test_says_which_is_best_and_how_far_from_the_ceiling(self, show: Open, full: Workspace) -> None:
        run = write_evidence(full, noise=0.3)
        page = show("trust")
        said = words(page)
        assert f"task-if-5 {PREDICTS_BEST}" in said
        assert f"{BEST_BASELINE}, dot" in said
        assert CEILING_NAME in said
        assert len(page.get("plotly_chart")) == 2
        assert not page.warning
        assert list(page.dataframe[0].value["method"])[-1] == "ceiling"
        assert set(page.dataframe[0].value["method"]) == {*KNOWLEDGE, "ceiling"}
        page.segmented_control(key="trust_measure").set_value("lds_mean")
        run_again(page)
        page.selectbox(key=f"trust_method_{run.id}").set_value("loss")
        page.selectbox(key=f"trust_target_{run.id}").set_value(run.json("evidence.json")["targets"][1])
        run_again(page)
        assert ALL_METHODS["loss"] in words(page)

    def test_retrainings_that_do_not_agree_rank_no_method(self, show: Open, full: Workspace) -> None:
        run = write_evidence(full, noise=20.0)
        page = show("trust")
        assert page.warning[0].value.startswith(NO_AGREEMENT)
        assert WARM_START in page.warning[0].value
        assert PREDICTS_BEST not in words(page)
        assert findings(run, "lds") == []
        assert not page.get("plotly_chart")
        assert not [box for box in page.selectbox if str(box.key).startswith("trust_method_")]
        shown = page.dataframe[0].value
        assert not {"lds", "lds_low", "lds_mean"} & set(shown)
        assert list(shown["method"]) == [*KNOWLEDGE, "ceiling"], "as they were evaluated"
        assert NO_AGREEMENT in words(show("tasks")), "instead of a correlation of the ranking"

    def test_each_measure_has_a_ceiling_of_its_own(self, full: Workspace) -> None:
        methods = write_evidence(full).table("methods.parquet").copy()
        ceiling = methods["kind"] == "ceiling"
        methods.loc[ceiling, ["lds_mean_low", "lds_mean"]] = [0.0, 0.1]
        assert [agreement_of(methods, measure).allows_ranking for measure in MEASURES] == [True, False]
        best = methods[~ceiling].sort_values("lds", ascending=False)["method"].iloc[0]
        assert figures_table(methods, "lds")["method"].iloc[0] == best
        shown = figures_table(methods, "lds_mean")
        assert shown["method"].iloc[0] == next(iter(KNOWLEDGE))
        assert "lds" in shown
        assert "lds_mean" not in shown

    def test_claims_no_more_than_is_seen(self, full: Workspace) -> None:
        alike = write_evidence(full, {"task-if": 0.5, "dot": 0.5}, noise=0.3)
        assert "not clearly better" in " ".join(findings(alike, "lds_mean"))
        beaten = " ".join(findings(write_evidence(full, {"task-if": 0.1, "loss": 1.0}), "lds"))
        assert f"loss {PREDICTS_BEST}" in beaten
        assert "a baseline" in beaten
        assert f"{BEST_OTHER}, task" in beaten
        alone = write_evidence(full, {"task-if": 0.9}, seeds=1)
        assert caution(alone, "lds").startswith(UNKNOWN_AGREEMENT)
        assert "task" in " ".join(findings(alone, "lds"))
        nothing = " ".join(findings(write_evidence(full, {"direct-if": 0.0}, noise=0.3), "lds_mean"))
        assert INCLUDES_ZERO in nothing

    def test_tables_fit_together(self, full: Workspace) -> None:
        run = write_evidence(full, planted=False)
        predicted, measured = grids(run, "dot")
        assert (predicted.shape, measured.shape) == ((20, 4), (20, 2, 4))
        target = run.json("evidence.json")["targets"][2]
        table = run.table("measured.parquet").set_index(["subset", "seed", "target"])
        assert measured[7, 1, 2] == table.loc[(7, 1, target), "loss"]
        assert "auc" not in figures_table(run.table("methods.parquet"), "lds"), "nothing was planted"


def test_methods_and_baselines_differ_in_colour_and_symbol(full: Workspace) -> None:
    methods = write_evidence(full).table("methods.parquet")
    figure = methods_figure(ranked_methods(methods, "lds"), agreement_of(methods, "lds").ceiling, "lds")
    looks = {trace.name: (trace.marker.color, trace.marker.symbol) for trace in figure.data}
    assert len(looks) == 3
    for position in (0, 1):
        assert len({look[position] for look in looks.values()}) == 3
    assert "ceiling" in figure.layout.annotations[0].text
