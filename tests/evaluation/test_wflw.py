"""The evaluation on WFLW without a network: which faces are inferred together, and which are shown."""

import numpy as np

from datasets.wflw import WFLWTest
from evaluation.wflw import plan_inference, select_faces


def test_with_the_batch_rule_every_split_has_batches_of_its_own():
    data = WFLWTest("precropped", (None,) * 5, {"test": np.arange(5), "test_blur": np.array([1, 3, 4])}, None)
    plan = plan_inference(data, batch_size=2, stop_rule="batch")
    assert plan.batches == [[0, 1], [2, 3], [4], [1, 3], [4]]
    assert plan.faces.tolist() == [0, 1, 2, 3, 4, 1, 3, 4]
    assert {split: rows.tolist() for split, rows in plan.views.items()} == {
        "test": [0, 1, 2, 3, 4],
        "test_blur": [5, 6, 7],
    }


def test_with_the_sample_rule_every_face_is_inferred_once():
    data = WFLWTest("precropped", (None,) * 5, {"test": np.arange(4), "test_blur": np.array([1, 4])}, None)
    plan = plan_inference(data, batch_size=2, stop_rule="sample")
    assert plan.batches == [[0, 1], [2, 3], [4]]
    assert plan.views["test_blur"].tolist() == [1, 4]


def test_the_contact_sheet_has_the_worst_faces_and_those_around_the_median():
    errors = np.array([0.05, 0.30, 0.01, 0.04, 0.20, 0.02, 0.03])
    chosen = select_faces(errors, 3)
    assert errors[chosen["Worst"]].tolist() == [0.30, 0.20, 0.05]
    assert errors[chosen["Median"]].tolist() == [0.04, 0.03]
    assert [chosen.tolist() for chosen in select_faces(errors, 50).values()] == [np.argsort(-errors).tolist(), []]


def test_no_face_is_on_the_contact_sheet_twice():
    for count in range(1, 12):
        chosen = np.concatenate(list(select_faces(np.linspace(0.1, 0, 11), count).values()))
        assert len(set(chosen.tolist())) == chosen.size >= count
