"""A model of learn2learn has the same accuracy in TaskLens on the same held-out episodes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from core.data.images import ImageSet
from core.tasks.exchange import write_foreign
from core.tasks.generate import TaskFolder, read_folder
from core.workspace.workspace import Workspace
from tests.cli.shell import Shell
from tests.learn2learn.test_networks import l2l, models, small_resnet

DOCS = Path(__file__).parents[2] / "docs" / "exchange.md"
TASKS = ["tasks", "--count", "12", "--ways", "5", "--shots", "1", "--queries", "5", "--heldout", "20"]
STEPS, RATE = 2, 0.3
FAULTY = ("omniglot-cnn", "MetaSGD")
NETWORKS = {
    "omniglot-cnn": lambda: models.OmniglotCNN(5, hidden_size=8),
    "cnn4": lambda: models.MiniImagenetCNN(5, hidden_size=8, channels=1, embedding_size=8),
    "omniglot-fc": lambda: models.OmniglotFC(784, 5, sizes=[16]),
    "resnet12": lambda: small_resnet(5, (3, 4, 4, 5), avg_pool=False, channels=1),
}
QUICK = [("cnn4", "MetaSGD")]
CASES = [
    pytest.param(name, wrapper, marks=() if (name, wrapper) in QUICK else pytest.mark.slow)
    for name in NETWORKS
    for wrapper in ("MAML", "MetaSGD")
    if (name, wrapper) != FAULTY
]
Episode = tuple[Tensor, Tensor, Tensor, Tensor]


class Images(Dataset[tuple[Tensor, int]]):
    """Return pixels in [0, 1], channels first, in float64."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        pixels = torch.from_numpy(self.images.images[position]).double().div(255)
        return pixels.view(self.images.shape).permute(2, 0, 1), int(self.images.labels[position])


def episodes(folder: TaskFolder, part: str, path: Path) -> list[Episode]:
    """Return support and query of every task, read from the export for learn2learn as the documentation shows."""
    write_foreign(getattr(folder, part), folder.images(), "learn2learn", path)
    (lines,) = re.findall(r"```python\n# learn2learn\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    defined: dict[str, Any] = {}
    exec(lines, defined)
    taskset, adaptation = defined["load"](path, Images(folder.images()))
    converted = []
    for number, support in enumerate(adaptation):
        x, y = taskset[number]
        inside = torch.zeros(len(y), dtype=torch.bool)
        inside[support] = True
        converted.append((x[inside], y[inside], x[~inside], y[~inside]))
    return converted


def adapted_logits(meta: Any, episode: Episode) -> Tensor:
    learner = meta.clone()
    for _ in range(STEPS):
        learner.adapt(F.cross_entropy(learner(episode[0]), episode[1]))
    return learner(episode[2])


@pytest.mark.parametrize(("name", "wrapper"), CASES)
def test_the_printed_accuracy_equals_that_of_learn2learn(name: str, wrapper: str, tmp_path: Path) -> None:
    """In float64, because float32 rounding can move a unit across a kink of ReLU or max-pooling."""
    shell = Shell(tmp_path)
    tasks = shell.done(*TASKS, "--out", tmp_path / "tasks").path
    folder = read_folder(tasks)
    torch.manual_seed(0)
    meta = getattr(l2l.algorithms, wrapper)(NETWORKS[name](), lr=RATE).double()
    optimizer = torch.optim.Adam(meta.parameters(), 3e-3)
    train = episodes(folder, "train", tmp_path / "train.json")
    for step in range(4):
        optimizer.zero_grad()
        for episode in train[3 * step : 3 * step + 3]:
            F.cross_entropy(adapted_logits(meta, episode), episode[3]).backward()
        optimizer.step()
    heldout = episodes(folder, "heldout", tmp_path / "heldout.json")
    logits = [adapted_logits(meta, episode).detach() for episode in heldout]
    correct = sum(int((one.argmax(1) == episode[3]).sum()) for one, episode in zip(logits, heldout, strict=True))
    loss = sum(float(F.cross_entropy(one, episode[3])) for one, episode in zip(logits, heldout, strict=True))

    torch.save(meta.state_dict(), tmp_path / "theirs.pt")
    rate = ["--inner-rate", RATE] if wrapper == "MAML" else []
    arguments = ["--checkpoint", tmp_path / "theirs.pt", "--inner-steps", STEPS, *rate, "--tasks", tasks]
    model = shell.done("model", *map(str, arguments), "--out", tmp_path / "model").path
    shell.done("open", "--tasks", tasks, "--model", model, "-w", "mine")
    run = shell.done("evaluate", "-w", "mine", "--device", "cpu", "--dtype", "float64")
    summary = Workspace(tmp_path / "home" / "mine").runs.get(run.path.name).json("summary.json")
    count_of_queries = sum(len(episode[3]) for episode in heldout)
    assert summary["accuracy"]["mean"] * count_of_queries == pytest.approx(correct, abs=1e-6)
    assert summary["loss"]["mean"] == pytest.approx(loss / len(heldout), rel=1e-9)
    assert f"held-out accuracy {correct / count_of_queries:.3f}" in run.err


def test_meta_sgd_of_learn2learn_fails_at_a_second_step_of_omniglot_cnn() -> None:
    """A limitation of learn2learn (docs/models.md): the first step loses convolutions that are registered twice."""
    meta = l2l.algorithms.MetaSGD(NETWORKS["omniglot-cnn"](), lr=RATE)
    x, y = torch.rand(5, 1, 28, 28), torch.arange(5)
    with pytest.raises(RuntimeError, match="not have been used in the graph"):
        adapted_logits(meta, (x, y, x, y))
