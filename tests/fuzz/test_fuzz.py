"""A few hundred cases of the campaign; `make fuzz` runs thousands."""

import pytest

from tests.fuzz.campaign import CLASSES, Stage, try_case

CASES = {
    "checkpoint": 40,
    "face list": 30,
    "clip": 30,
    "picture": 80,
    "boxes": 40,
    "options": 10,
    "results folder": 6,
    "run folder": 10,
    "arguments": 100,
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("stage"))


@pytest.mark.parametrize("name", CLASSES)
def test_damage_is_a_right_result_or_one_line_and_leaves_every_file(name: str, stage: Stage):
    outcomes = [(seed, *try_case(stage, name, 77_000_000 + seed)) for seed in range(CASES[name])]
    assert [case for case in outcomes if case[1] in ("failure", "traceback")] == []
    assert {case[1] for case in outcomes} & {"refused", "rest evaluated"}, "the damages of this class do no harm"
