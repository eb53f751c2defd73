"""Detection of injected label noise, on tables small enough to count by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from core.evidence.detection import detection


def instances(rows: list[tuple[str, str, str, float, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["task_id", "role", "image_id", "score", "loss"])


def images(**columns: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"image_id": list("abcd"), "loss": [1, 2, 3, 4], **columns})


def figures(table: pd.DataFrame, level: str, score: str) -> tuple[float, float]:
    (row,) = table[(table["level"] == level) & (table["score"] == score)].to_dict("records")
    return row["auc"], row["average_precision"]


MISLABELLED = pd.DataFrame({"image_id": ["a", "b", "not drawn"], "given": list("123"), "true": list("456")})


def test_mislabelled_images_are_evaluated_for_every_score_of_an_image() -> None:
    scores = {"score": [-4, -1, -2, 3], "score_query": [-4, -3, 1, 2], "score_support": [1, 2, 3, 4]}
    found = detection(MISLABELLED, pd.DataFrame(), pd.DataFrame(), images(**scores))
    assert set(found["level"]) == {"images"}
    assert found["items"].tolist() == [4] * 5
    assert found["bad"].tolist() == [2] * 5
    assert figures(found, "images", "influence") == pytest.approx((3 / 4, (1 + 2 / 3) / 2))
    assert figures(found, "images", "influence, as query") == (1, 1)
    assert figures(found, "images", "influence, as support") == (1, 1)
    assert figures(found, "images", "adapted loss") == pytest.approx((0, (1 / 3 + 2 / 4) / 2))
    assert figures(found, "images", "chance") == (0.5, 0.5)


FLIPPED = pd.DataFrame({"task_id": ["t1", "t1"], "role": ["query", "support"], "image_id": ["c", "a"]})


def test_flips_are_evaluated_by_task_and_by_row_of_each_role() -> None:
    tasks = pd.DataFrame({"task_id": ["t0", "t1", "t2"], "score": [2, -1, -3], "loss": [0.1, 0.9, 0.2]})
    rows = instances(
        [
            ("t0", "support", "a", 1, 0.1),
            ("t0", "query", "c", 2, 0.2),
            ("t1", "support", "a", -2, 0.0),
            ("t1", "query", "c", -1, 0.9),
            ("t1", "query", "d", -2, 0.3),
        ]
    )
    found = detection(FLIPPED, tasks, rows, images())
    assert list(dict.fromkeys(found["level"])) == ["tasks", "support rows", "query rows"]
    assert figures(found, "tasks", "influence") == pytest.approx((1 / 2, 1 / 2))
    assert figures(found, "tasks", "adapted loss") == (1, 1)
    assert figures(found, "tasks", "chance") == pytest.approx((1 / 2, 1 / 3))
    assert figures(found, "support rows", "influence") == (1, 1)
    assert figures(found, "support rows", "adapted loss") == pytest.approx((0, 1 / 2))
    assert figures(found, "query rows", "influence") == pytest.approx((1 / 2, 1 / 2))
    assert found.loc[found["level"] == "query rows", "bad"].tolist() == [1] * 3


@pytest.mark.parametrize(("planted", "share"), [([], 0.0), (list("abcd"), 1.0)])
def test_if_all_or_none_are_errors_only_chance_is_reported(planted: list[str], share: float) -> None:
    truth = pd.DataFrame({"image_id": planted})
    found = detection(truth, pd.DataFrame(), pd.DataFrame(), images(score=[1, 2, 3, 4]))
    assert found["score"].tolist() == ["chance"]
    assert found["average_precision"].tolist() == [share]


def test_equal_scores_are_no_better_than_chance() -> None:
    level = {"score": [0.0] * 4, "score_query": [0.0] * 4, "score_support": [0.0] * 4}
    found = detection(MISLABELLED, pd.DataFrame(), pd.DataFrame(), images(**level))
    assert figures(found, "images", "influence") == figures(found, "images", "chance")
