"""Overview: the loaded problem, the accuracy of the model, its distance from stationarity, and the next steps."""

import streamlit as st

from core.actions.recommend import newest_recommendation, recommended_levels
from core.tasks.changes import Changes
from core.ui.edit.results import results
from core.ui.ranking.panel import newest_evaluation, rank_panel
from core.ui.shell.command import command_block
from core.ui.shell.context import page
from core.ui.shell.guard import report_errors
from core.ui.shell.jobs import job_panel, jobs_of, start, start_button
from core.ui.shell.navigation import page as link
from core.ui.shell.precomputed import precomputed_note
from core.ui.shell.text import count, plain
from core.ui.trust.evidence_results import evidence_runs
from core.ui.trust.panel import NOT_STATIONARY, STATIONARY, inner_lines
from core.workspace.workspace import newest_ranking

with page("Overview") as context:
    project, workspace = context.project, context.workspace
    train, spec = project.tasks.train, project.model.spec
    if workspace.about:
        st.caption(plain(f"{workspace.name}: {workspace.about}"))
    evaluated = newest_evaluation(context)
    ranked = newest_ranking(workspace, project) is not None
    recommendation = newest_recommendation(workspace, project)
    removal: Changes | None = None
    with report_errors("The decisions"):
        removal = workspace.changes()

    if evaluated is None:
        if not jobs_of(workspace.jobs, "evaluate"):
            start(context, "Evaluate the model", ["evaluate"])
        st.subheader("Evaluating the model on the held-out tasks")
        job_panel(workspace.jobs, "evaluate")
        start_button(context, "Evaluate again", "Evaluate the model", ["evaluate"], key="evaluate")
    else:
        summary = evaluated.json("summary.json")
        at = summary["stationarity"]
        one, two, three, four = st.columns(4)
        one.metric(
            "Accuracy on held-out tasks",
            f"{summary['accuracy']['mean']:.1%}",
            help="Share of query images classified correctly after adaptation; mean over tasks.",
        )
        low, high = (f"{100 * summary['accuracy'][end]:.1f}" for end in ("low", "high"))
        one.caption(plain(f"95 % interval {low} to {high} % over {count(summary['tasks'], 'task')}"))
        two.metric("Loss on held-out tasks", f"{summary['loss']['mean']:.3f}", help="Cross-entropy in nats.")
        two.caption(plain(f"95 % interval {summary['loss']['low']:.3f} to {summary['loss']['high']:.3f}"))
        near = at["ratio"] < STATIONARY
        three.metric(
            "Distance from stationarity",
            f"{at['ratio']:.1e}",
            help="How far the gradients of the tasks are from cancelling: 0 at a stationary point, 1 at worst.",
        )
        three.caption(
            plain(
                f"{'close enough to a stationary point' if near else NOT_STATIONARY}; "
                f"gradient norm {at['gradient_norm']:.2g}"
            )
        )
        four.metric("Training tasks", f"{len(train):,}")
        four.caption(
            plain(
                f"{train.ways}-way, {count(train.rows['image_id'].nunique(), 'image')} in "
                f"{count(len(train.rows), 'row')}; {len(project.tasks.heldout)} held-out tasks"
            )
        )

        precomputed_note(context, evaluated)
        if recommendation is not None:
            levels = recommended_levels(recommendation)
            with st.container(border=True):
                st.markdown("**What looks wrong**")
                for level in ("tasks", "images"):
                    words, button = st.columns([5, 1], vertical_alignment="center")
                    words.markdown(plain(f"{levels[level].sentence} {levels[level].proposal}"))
                    button.page_link(link(level), label=f"Show the {level}")
                if levels["images"].proposed:
                    st.caption(plain(" ".join(levels["images"].notes)))
        st.subheader("Next steps")
        steps = [
            (
                recommendation is not None,
                "Recommend what to remove",
                "tasks",
                "measure which score finds label noise best here, and how much there is",
            ),
            (ranked, "Rank the training data", "tasks", "which tasks and images help or hurt the held-out tasks"),
            (
                bool(evidence_runs(context)),
                "Validate the rankings",
                "trust",
                "compare the predictions of each method with retraining, and their cost",
            ),
            (
                bool(removal),
                "Decide what to remove",
                "tasks",
                "what looks wrong, as recommended, and what harms the held-out tasks",
            ),
            (
                bool(removal and results(context, removal)),
                "Measure the effect",
                "edit",
                "accuracy before the changes, estimated, fine-tuned and retrained",
            ),
            (bool(workspace.runs.all("curve")), "Draw removal curves", "curves", "compared with removing at random"),
            ((workspace.folder / "exports").exists(), "Export", "export", "the cleaned task list and the edited model"),
        ]
        for done, label, name, why in steps:
            tick, words, gloss = st.columns([0.4, 3, 8], vertical_alignment="center")
            tick.markdown("**✓**" if done else "○")
            words.page_link(link(name), label=label)
            gloss.caption(plain(why))
        if not ranked:
            rank_panel(context)
        else:
            with st.expander("Rank again, on other held-out tasks, on one failing image, or with another method"):
                rank_panel(context)

    with st.expander("What is loaded"):
        noise = project.tasks.description.get("settings", {}).get("noise", "unknown")
        st.markdown(
            f"- Images: {plain(project.images.name)}, {count(len(project.images), 'image')} of "
            f"{' x '.join(map(str, project.images.shape[:2]))}, "
            f"{count(len(project.images.class_names), 'class', 'classes')}\n"
            f"- Model: {plain(spec.description)}; {count(project.model.size, 'parameter')}\n"
            + "".join(f"- {line}\n" for line in inner_lines(evaluated.json("summary.json") if evaluated else {}))
            + f"- Injected label noise: {plain(noise)}\n"
            f"- Training command: {plain(project.model.metadata.get('command', 'unknown'))}\n"
            f"- Folder: {plain(workspace.folder)}"
        )
    command_block(context, ["evaluate"], ["rank"])
