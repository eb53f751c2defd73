"""EK-FAC influence (Grosse et al. 2023, "Studying Large Language Model Generalization with Influence Functions",
section 3) of the pooled model, by kronfluence, summed to tasks.

For a training row z and a held-out query row q, kronfluence returns ``D l(q)^T G^-1 D l(z)`` with G the
eigenvalue-corrected Kronecker-factored Gauss-Newton matrix, damped by a tenth of its mean eigenvalue. This is
proportional to the increase of q's loss when z is removed, so positive is helpful without a change of sign.
"""

from __future__ import annotations

from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from core.baselines.libraries import checked_scores, require
from core.baselines.pooled import BATCH, codes, distinct_rows, pixels, train_pooled
from core.data import ImageSet
from core.runtime.errors import UserError
from core.tasks.tasklist import TaskList

Batch = tuple[Tensor, Tensor]
_CORRECTION_ROWS = 500  # rows that the eigenvalues are fitted on if query gradients are summed


def ekfac_scores(images: ImageSet, train: TaskList, heldout: TaskList, *, epochs: int, seed: int) -> np.ndarray:
    """Return EK-FAC scores ``(N, T)``, positive = helpful, up to one positive factor.

    The score of a pair is the sum over the training task's rows, support and query, of the mean over the held-out
    task's query rows. The pooled model is trained on a row once, however many tasks it is in; each of these tasks is
    credited with it in full.

    Raises:
        UserError: held-out tasks have classes that no training task has, all rows have weight 0, or the scores
            cannot rank.
    """
    queries = heldout.rows[heldout.rows["role"] == "query"]
    query_rows = distinct_rows(TaskList(queries))
    # Fails before the long training if a class is unknown.
    query_labels = codes(query_rows["class"], sorted(set(distinct_rows(train)["class"])))
    net, known, labels, x, _ = _pooled(images, train, epochs=epochs, seed=seed)
    pairs = row_scores(
        net,
        TensorDataset(x, torch.from_numpy(labels)),
        TensorDataset(pixels(images, query_rows["image_id"]), torch.from_numpy(query_labels)),
        seed=seed,
    )
    sizes = queries.groupby("task_id").size()
    mean = _membership(queries.assign(weight=queries["weight"] / queries["task_id"].map(sizes)), heldout, query_rows)
    return checked_scores(_membership(train.rows, train, known) @ pairs @ mean.T, "EK-FAC")


def ekfac_mean_scores(images: ImageSet, train: TaskList, heldout: TaskList, *, epochs: int, seed: int) -> np.ndarray:
    """Return the EK-FAC scores for the loss of all held-out query rows together, ``(N,)``, up to a positive factor.

    The query gradients are summed before their products with those of the training rows, so that the cost does not
    grow with the number of pairs, and the eigenvalues are fitted on 500 rows: with hundreds of classes this saves many
    minutes over :func:`ekfac_scores`.
    """
    net, known, labels, x, classes = _pooled(images, train, epochs=epochs, seed=seed)
    queries = heldout.rows[(heldout.rows["role"] == "query") & (heldout.rows["weight"] > 0)]
    query_data = TensorDataset(pixels(images, queries["image_id"]), torch.from_numpy(codes(queries["class"], classes)))
    pairs = row_scores(net, TensorDataset(x, torch.from_numpy(labels)), query_data, seed=seed, sum_queries=True)
    return checked_scores(_membership(train.rows, train, known) @ pairs, "EK-FAC")[:, 0]


def _pooled(
    images: ImageSet, train: TaskList, *, epochs: int, seed: int
) -> tuple[nn.Module, pd.DataFrame, np.ndarray, Tensor, list[str]]:
    """Return the classifier of the pooled rows, these rows, their labels and pixels, and its classes."""
    known = distinct_rows(train)
    classes = sorted(set(known["class"]))
    labels, x = codes(known["class"], classes), pixels(images, known["image_id"])
    net = train_pooled(x, labels, len(classes), epochs=epochs, seed=seed, device="cpu")
    if not all(torch.isfinite(value).all() for value in net.parameters()):
        raise UserError("The training of the pooled model diverged.", "Use fewer epochs.")
    return net, known, labels, x, classes


def row_scores(
    net: nn.Module, train: TensorDataset, query: TensorDataset, *, seed: int, sum_queries: bool = False
) -> np.ndarray:
    """Return kronfluence's pairwise scores of training rows and query rows, ``(rows, queries)`` float64.

    Args:
        net: A classifier of linear and convolutional layers; it is modified and cannot be used afterwards.
        seed: Seed of the labels drawn from the model for its Fisher matrix.
        sum_queries: Treat the queries as one, whose loss is the sum of theirs: ``(rows, 1)``.
    """
    require("kronfluence")
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class CrossEntropy(Task):
        """A kronfluence task whose measurement is the loss, so that scores are in units of the loss."""

        def compute_train_loss(self, batch: Batch, model: nn.Module, sample: bool = False) -> Tensor:
            logits, label = model(batch[0]), batch[1]
            if sample:
                label = torch.multinomial(F.softmax(logits.detach(), -1), 1).flatten()
            return F.cross_entropy(logits, label, reduction="sum")

        def compute_measurement(self, batch: Batch, model: nn.Module) -> Tensor:
            return self.compute_train_loss(batch, model)

    task = CrossEntropy()
    with TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        analyzer = Analyzer("pooled", prepare_model(net, task), task, cpu=True, disable_tqdm=True, output_dir=folder)
        factors = FactorArguments(strategy="ekfac", lambda_max_examples=_CORRECTION_ROWS if sum_queries else None)
        analyzer.fit_all_factors("factors", train, per_device_batch_size=BATCH, factor_args=factors)
        # A damping factor of None is a tenth of the mean eigenvalue.
        arguments = ScoreArguments(damping_factor=None, aggregate_query_gradients=sum_queries)
        analyzer.compute_pairwise_scores(
            "scores", "factors", query, train, BATCH, per_device_train_batch_size=BATCH, score_args=arguments
        )
        scores = analyzer.load_pairwise_scores("scores")["all_modules"]  # (queries, rows)
    return scores.T.double().numpy()


def _membership(rows: pd.DataFrame, tasks: TaskList, distinct: pd.DataFrame) -> np.ndarray:
    """Return the total weight of each distinct (image, class) in each task, ``(tasks, distinct rows)``."""
    column = pd.Series(distinct.index, pd.MultiIndex.from_frame(distinct))
    row = pd.Series(range(len(tasks)), tasks.task_ids)
    weighted = rows[rows["weight"] > 0]
    membership = np.zeros((len(tasks), len(distinct)))
    cells = (row[weighted["task_id"]].to_numpy(), column[pd.MultiIndex.from_frame(weighted[list(distinct)])].to_numpy())
    np.add.at(membership, cells, weighted["weight"].to_numpy())
    return membership
