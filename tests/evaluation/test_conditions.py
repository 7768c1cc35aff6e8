"""What a run was made on is said in words, and only the whole of the published data is the benchmark."""

from pathlib import Path

import pytest

from datasets.wflw import RAW_BOXES as RAW_BOXES_OF_WFLW
from datasets.wflw_v import SPLITS as SPLITS_OF_WFLW_V
from datasets.wflw_v import published_results
from evaluation.conditions import FACES_OF_WFLW, describe_clips, describe_faces
from evaluation.settings import CLIP_SPLITS, RAW_BOXES, SAMPLE

ELSEWHERE = Path("somewhere")


def test_the_names_that_the_command_lines_offer_are_those_of_the_datasets():
    assert RAW_BOXES == RAW_BOXES_OF_WFLW
    assert CLIP_SPLITS == SPLITS_OF_WFLW_V


def test_the_whole_of_wflw_is_the_benchmark():
    assert describe_faces(ELSEWHERE, FACES_OF_WFLW).benchmark


@pytest.mark.parametrize(
    ("changes", "failed", "text"),
    [
        ({"test": 96}, 0, "96 of 2500 test faces: not the benchmark"),
        ({"test_blur": 772}, 0, "2500 test faces, but 772 of 773 in test_blur: not the benchmark"),
        ({}, 3, "2500 test faces, 3 of them without landmarks: not the benchmark"),
    ],
)
def test_what_is_less_is_not_the_benchmark(changes, failed, text):
    conditions = describe_faces(ELSEWHERE, FACES_OF_WFLW | changes, failed)
    assert (conditions.text, conditions.benchmark) == (text, False)


def test_the_sample_is_a_smoke_test():
    conditions = describe_faces(SAMPLE, {"test": 17})
    assert conditions.text == "sample (17 crops of 7 portraits, machine-made labels): a smoke test, not WFLW"
    assert not conditions.benchmark
    assert "a smoke test, not WFLW-V" in describe_clips(SAMPLE, "all", {"a": "easy"}).text


def test_only_the_published_easy_clips_are_the_benchmark_of_the_easy_split():
    clips = dict.fromkeys(published_results(), "easy")
    assert describe_clips(ELSEWHERE, "easy", clips).benchmark
    assert not describe_clips(ELSEWHERE, "all", clips).benchmark
    other = dict(list(clips.items())[1:]) | {"another": "easy"}
    assert len(other) == 500
    assert not describe_clips(ELSEWHERE, "easy", other).benchmark
    few = describe_clips(ELSEWHERE, "easy", {"a": "easy"})
    assert few.text == "1 of 500 easy clips of WFLW-V: not the benchmark"
