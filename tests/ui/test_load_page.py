"""The Load page without a browser: its steps, the commands it starts, and what it says of what does not fit."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from core.checkpoints.model import Model, ModelSpec, save_model
from core.data import load_images
from core.data.listing import Listing, TargetFormat, make_table
from core.data.store import store_images
from core.tasks.generate import TaskSettings, generate, write_folder
from core.tasks.tasklist import read_tasks, write_tasks
from core.ui.load.images import PLACES
from core.workspace.jobs import Jobs
from core.workspace.uploads import stored_uploads
from core.workspace.workspace import Workspace, library_jobs
from tests.cli.shell import Shell
from tests.ui.conftest import Open, click, run_again, settle, words


def picture(value: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((28, 28), value, dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def own(home: Path) -> str:
    """An image set of the user's: four classes of six, half of them training classes, one name that is markup."""
    classes = ["![](http://evil.example/x.png)", "b", "c", "d"]
    ids = [f"{kind}/{number}.png" for kind in "abcd" for number in range(6)]
    table = make_table(ids, [classes[n // 6] for n in range(24)], ["train"] * 12 + ["test"] * 12)
    store_images(Listing("own", table, lambda position: picture(position * 9), "v1"), form=TargetFormat())
    return "own"


@pytest.fixture
def tasks(own: str, home: Path) -> Path:
    folder = home / "library" / "tasks" / "mine"
    write_folder(generate(TaskSettings(own, 2, 1, 1, 4, 2)), folder)
    return folder


def save(home: Path, name: str, **spec: object) -> Path:
    wanted = ModelSpec.model_validate({"ways": 2, "filters": 2, **spec})
    folder = home / "library" / "models" / name
    save_model(Model(wanted, wanted.init(0, torch.float64), {}), folder)
    return folder


def save_of(tasks: Path) -> dict[str, torch.Tensor]:
    """The state dict of a model that fits the tasks."""
    return ModelSpec(ways=2, filters=2).init(0)


def headings(page: AppTest) -> list[str]:
    return [one.value for one in page.subheader]


def test_with_nothing_of_ones_own_it_begins_with_the_digits(show: Open, home: Path) -> None:
    page = show("load")
    assert page.selectbox(key="load_images").value == "mnist5k"
    assert headings(page) == ["1 · Images", "2 · Tasks"]
    assert "There are no tasks over mnist5k yet." in words(page)


def test_a_path_is_looked_at_and_imported_by_the_command(
    show: Open, home: Path, tmp_path: Path, started: list[list[str]]
) -> None:
    for kind in ("cat", "dog"):
        (tmp_path / "pets" / kind).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "pets" / kind / f"{number}.png").write_bytes(picture(number))
    page = show("load")
    page.text_input(key="load_path").set_value(str(tmp_path / "pets"))
    page.text_input(key="load_name").set_value("pets")
    page.text_input(key="load_size").set_value("14")
    page.checkbox(key="load_skip").set_value(True)
    settle(click(run_again(page), "load_look"))
    assert "pets: 6 images of 2 classes" in words(page)
    assert "14 x 14, grey" in words(page)
    click(page, "load_import")
    assert started == [
        ["data", "--path", str(tmp_path / "pets"), "--name", "pets", "--size", "14", "--skip-unreadable"]
    ]


def test_a_path_that_is_wrong_is_said_and_the_rest_of_the_page_stays(show: Open, home: Path, own: str) -> None:
    page = show("load")
    page.text_input(key="load_path").set_value("/no/such/<b>folder</b>")
    settle(click(run_again(page), "load_look"))
    assert "/no/such/<b>folder</b> does not exist." in words(page)
    assert headings(page) == ["1 · Images", "2 · Tasks"]
    page.text_input(key="load_size").set_value("8x4")
    click(run_again(page), "load_look")
    assert page.button(key="load_import")


def test_a_download_names_its_format(show: Open, home: Path, started: list[list[str]]) -> None:
    page = show("load")
    page.segmented_control(key="load_place").set_value(PLACES[2])
    run_again(page)
    page.selectbox(key="load_public").set_value("mnist")
    run_again(page)
    page.text_input(key="load_public_path").set_value("/data/mnist")
    click(run_again(page), "load_import")
    assert started == [["data", "--path", "/data/mnist", "--format", "mnist", "--download"]]


def test_a_damaged_image_set_is_named(show: Open, home: Path, own: str) -> None:
    (path,) = (home / "library" / "images").glob("*/images.json")
    stored = json.loads(path.read_text())
    path.with_name("images.json").write_text(json.dumps({**stored, "shape": "wide"}))
    page = show("load")
    assert any("images.json" in warning.value.replace("\\", "") for warning in page.warning)
    assert page.selectbox(key="load_images").value == "mnist5k"


def test_tasks_follow_the_split_of_the_images(show: Open, home: Path, own: str, started: list[list[str]]) -> None:
    page = show("load")
    assert page.selectbox(key="load_images").value == "own"
    page.number_input(key="load_ways_own").set_value(2)
    click(run_again(page), "load_make_tasks")
    (args,) = started
    assert args[:5] == ["tasks", "--data", "own", "--ways", "2"]
    assert args[args.index("--split") :][:2] == ["--split", "official"]
    assert args[args.index("--heldout-split") :][:2] == ["--heldout-split", "test"]
    assert args[-2:] == ["--out", str(home / "library" / "tasks" / "own-2way-1shot")]


@pytest.mark.parametrize("entered", [0, 7, 50])
def test_the_number_of_validation_tasks_is_automatic_unless_entered(
    show: Open, home: Path, own: str, started: list[list[str]], entered: int
) -> None:
    page = show("load")
    assert page.number_input(key="load_validation_own").value is None
    page.number_input(key="load_heldout_own").set_value(20)
    click(run_again(page), "load_make_tasks")
    page.number_input(key="load_validation_own").set_value(entered)
    click(run_again(page), "load_make_tasks")
    automatic, chosen = started
    assert "--validation" not in automatic
    assert chosen[chosen.index("--validation") :][:2] == ["--validation", str(entered)]


def test_own_lists_are_uploaded_and_kept_as_files(
    show: Open, home: Path, own: str, tmp_path: Path, started: list[list[str]]
) -> None:
    made = generate(TaskSettings(own, 2, 1, 1, 4, 2))
    page = show("load")
    page.segmented_control(key="load_tasks_way").set_value("My own lists")
    run_again(page)
    for key, tasks in (("load_train_list", made.train), ("load_heldout_list", made.heldout)):
        write_tasks(tasks, tmp_path / "list (mine).csv")
        content = (tmp_path / "list (mine).csv").read_bytes()
        page.file_uploader(key=key).upload("list (mine).csv", content, "text/csv")
    click(run_again(page), "load_make_tasks")
    (args,) = started
    train, heldout = (Path(args[args.index(name) + 1]) for name in ("--train-list", "--heldout-list"))
    assert (train.name, train.parents[1]) == ("list-mine-.csv", home / "library" / "uploads")
    assert read_tasks(train, load_images(own)).hash == made.train.hash
    assert read_tasks(heldout, load_images(own)).hash == made.heldout.hash


def test_an_upload_that_is_removed_stays_removed_while_a_field_has_it(show: Open, home: Path, own: str) -> None:
    page = show("load")
    page.segmented_control(key="load_place").set_value(PLACES[1])
    run_again(page)
    page.file_uploader(key="load_upload").upload("mine.zip", b"no archive", "application/zip")
    run_again(page)
    (stored,) = stored_uploads()
    run_again(page)
    click(page, f"uploads_remove_{stored.id}_mine.zip")
    run_again(page)
    assert stored_uploads() == []
    assert "mine.zip was removed" in words(page)


@pytest.mark.parametrize("text", ["{", "[]", '{"settings": 3}', '{"settings": {"ways": 2}}'])
def test_a_damaged_folder_of_tasks_hides_no_other(show: Open, home: Path, tasks: Path, text: str) -> None:
    broken = home / "library" / "tasks" / "broken" / "tasks.json"
    broken.parent.mkdir()
    broken.write_text(text)
    page = show("load")
    assert page.selectbox(key="load_tasks").options == ["mine · 2-way 1-shot, 4 tasks"]
    assert [str(broken) in one.value.replace("\\", "") for one in page.warning] == [True]


def test_models_are_told_apart_by_whether_they_fit(show: Open, home: Path, tasks: Path) -> None:
    save(home, "good")
    save(home, "other-classes", ways=5)
    save(home, "other-size", shape=(84, 84, 3))
    page = show("load")
    assert page.selectbox(key="load_model").options[0].startswith("good ·")
    assert len(page.selectbox(key="load_model").options) == 1
    said = words(page)
    assert "other-classes: The model is 5-way, the tasks are 2-way." in said
    assert "other-size: The model takes images of shape (84, 84, 3)" in said


def test_training_and_its_cost_are_one_command_apart(
    show: Open, home: Path, tasks: Path, started: list[list[str]]
) -> None:
    page = show("load")
    click(page, "load_cost")
    click(page, "load_train")
    asked, go = started
    assert asked == [*go, "--dry-run"]
    assert go[:3] == ["train", "--tasks", str(tasks)]


def test_a_checkpoint_needs_the_rate_it_was_trained_with_to_be_said(
    show: Open, home: Path, tasks: Path, tmp_path: Path, started: list[list[str]]
) -> None:
    page = show("load")
    page.segmented_control(key="load_model_way").set_value("Use my checkpoint")
    run_again(page)
    page.text_input(key="load_checkpoint").set_value(str(tmp_path / "maml.pt"))
    page.number_input(key="load_check_steps").set_value(1)
    page.number_input(key="load_check_rate").set_value(0.5)
    settle(click(run_again(page), "load_check_look"))
    assert f"{tmp_path / 'maml.pt'} does not exist." in words(page)
    torch.save(ModelSpec(ways=2, filters=2).init(0), tmp_path / "maml.pt")
    settle(click(page, "load_check_look"))
    assert "4 convolution blocks of 2 filters" in words(page)
    click(page, "load_check_import")
    assert started == [
        [
            *("model", "--checkpoint", str(tmp_path / "maml.pt"), "--tasks", str(tasks), "--inner-steps", "1"),
            *("--inner-rate", "0.5", "--out", str(home / "library" / "models" / "maml")),
        ]
    ]


def test_a_workspace_is_made_of_tasks_and_model(show: Open, home: Path, tasks: Path) -> None:
    model = save(home, "good")
    page = show("load")
    page.text_input(key="load_workspace_good").set_value("first")
    run_again(page)
    page.button(key="load_open").click()
    page.run()  # it goes to another page, which this script does not have
    opened = Workspace(home / "first").project()
    assert opened.images.hash == load_images("own").hash
    assert (home / "first" / "model" / "model.json").read_text() == (model / "model.json").read_text()


@pytest.mark.parametrize("name", ["", "a/b", "library"])
def test_a_name_that_is_none_for_a_workspace_is_refused(show: Open, home: Path, tasks: Path, name: str) -> None:
    save(home, "good")
    page = show("load")
    page.text_input(key="load_workspace_good").set_value(name)
    click(run_again(page), "load_open")
    assert "Choose another name." in words(page) or "is not a valid workspace name" in words(page)


def test_the_cost_is_shown_once_it_was_measured(show: Open, home: Path, tasks: Path) -> None:
    model = save(home, "good")
    line = ["inspect", "--tasks", str(tasks), "--model", str(model), "--json"]
    # A job that prints what the command printed here, rather than a new process of the command.
    said = Shell(home.parent).done(*line).out
    jobs = library_jobs()
    job = Jobs(jobs.folder, [sys.executable, "-c", f"print({chr(10).join(said)!r})"]).start("Estimate costs", line)
    while job.status() == "running":
        time.sleep(0.01)
    assert job.status() == "done", job.error()
    page = show("load")
    assert "Tasks: 4 for training, 2 held out; 2-way, 1-shot, 1 queries per class, over own." in words(page)
    assert page.dataframe[0].value["stage"].tolist() == ["Evaluate", "Rank", "Fine-tune"]
