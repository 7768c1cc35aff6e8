import argparse
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from recorded_graph import StandInRecorder
from small_networks import small_model

from benchmarks import cuda, detection, measuring, scripts
from benchmarks.clips import few_clips, few_faces, make_clip
from inference.cuda_graphs import GraphedNetwork
from inference.network import Network
from inference.pictures import find_faces
from inference.predictor import LandmarkPredictor
from models import load_checkpoint
from solvers import FixedPointConfig
from utils.errors import InputError
from utils.sources import open_source, read_frames

ROOT = Path(__file__).parents[2]
BENCHMARKS = [path for path in sorted((ROOT / "benchmarks").glob("*.py")) if "__main__" in path.read_text()]
CPU = torch.device("cpu")
HELP = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    print("ended with", end.code, "torch" in sys.modules)
"""


def run_benchmark(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / name), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_help_is_answered_without_torch(path):
    result = subprocess.run([sys.executable, "-c", HELP, str(path)], capture_output=True, text=True, timeout=100)
    assert "ended with 0 False" in result.stdout, result.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_cuda_benchmark_says_so_and_exits_with_2():
    result = run_benchmark("cuda.py")
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "error: this benchmark needs a CUDA device, and there is none; run it on a machine with a GPU"
    ]


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    result = run_benchmark("scripts.py", "--against", str(tmp_path))
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: --against {tmp_path}: no checkout")


def test_the_table_of_the_cuda_benchmark_has_every_way_and_their_agreement():
    model = small_model(solver=FixedPointConfig(max_evals=3, tol=0))
    plain = Network(model, engine="torch")
    networks = {"plain": plain, "graph": GraphedNetwork(plain, StandInRecorder())}
    args = argparse.Namespace(rwr_variant="steady", repeats=2)
    rows = cuda.measure(networks, "fp32", 2, args)
    assert [(row["work"], row["way"]) for row in rows] == [
        ("frame of RwR", "plain"),
        ("frame of RwR", "graph"),
        ("full solve", "plain"),
        ("full solve", "graph"),
    ]
    for row in rows:
        assert row["largest difference of keypoints"] < 1e-5
        assert row["images a second"] == pytest.approx(2000 / row["ms"])
    assert rows[0]["plain / it"] == 1


def test_calls_are_timed_in_turn_and_the_first_of_each_is_not_counted():
    calls = []
    actions = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = measuring.milliseconds_in_turn(actions, 3, CPU)
    assert "".join(calls) == "ab" * 4
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}


def test_the_ratio_is_that_of_what_was_measured_together():
    assert measuring.median_ratio([2.0, 30.0, 8.0], [1.0, 10.0, 8.0]) == 2.0


def test_the_machine_is_named_by_what_its_system_says(monkeypatch):
    lines = [
        "processor : 0",
        "model name : A Processor 9",
        "flags : fpu avx2 fma avx512_bf16 sse",
        "model name : other",
    ]
    monkeypatch.setattr(measuring, "_cpu_info", lambda: lines)
    assert measuring.machine(CPU).startswith("A Processor 9; ")
    assert (
        f"{torch.get_num_threads()} threads; avx2 fma avx512_bf16; PyTorch {torch.__version__}" in measuring.machine()
    )


def test_start_up_is_told_apart_from_the_time_of_an_item(monkeypatch):
    runs = {"whole": scripts.Run(12.0, 20.0, 3 * 2**20, 10), "part": scripts.Run(4.0, 8.0, 2**20, 2)}
    monkeypatch.setattr(scripts, "start", lambda workload, words, root, args: runs[words[0]])
    workload = scripts.Workload(["whole"], ["part"], lambda output, folder: 0)
    measured = scripts.measure(workload, ROOT, scripts.HERE, argparse.Namespace(options=[]))
    # Eight items more took 8 s more, so one takes 1 s, and of 12 s for ten of them 2 s are left.
    assert measured["ms an item"] == 1000 and measured["items a second"] == 1
    assert measured["processor ms an item"] == 1500
    assert measured["start-up, s"] == 2
    assert measured["peak memory, MiB"] == 3


def test_options_after_two_dashes_are_for_this_checkout_only(monkeypatch):
    started = []
    result = iter([scripts.Run(2, 2, 1, 2), scripts.Run(1, 1, 1, 1)] * 2)
    monkeypatch.setattr(scripts, "start", lambda workload, words, *rest: started.append(words) or next(result))
    workload = scripts.Workload(["whole"], ["part"], lambda output, folder: 0)
    args = argparse.Namespace(options=["--engine", "torch"])
    for checkout in (scripts.HERE, scripts.BEFORE):
        scripts.measure(workload, ROOT, checkout, args)
    assert started == [["whole", "--engine", "torch"], ["part", "--engine", "torch"], ["whole"], ["part"]]


def test_a_script_is_run_and_its_faces_are_counted(tmp_path, precropped_wflw):
    args = argparse.Namespace(dataset_path=precropped_wflw, landmark_model_weights=None, threads=1)
    workload = scripts.faces(args, tmp_path)
    assert scripts.start(workload, workload.whole, ROOT, args).items == 6
    part = scripts.start(workload, workload.part, ROOT, args)
    assert part.items < 6 and part.seconds > 0 and part.peak > 2**20


def test_a_script_that_fails_is_an_error_with_its_last_words(tmp_path):
    workload = scripts.Workload([], None, lambda output, folder: 0)
    args = argparse.Namespace(landmark_model_weights=None, threads=None)
    with pytest.raises(InputError, match=r"demo.py ended with status 2: .*no_such_file"):
        scripts.start(workload, ["demo.py", str(tmp_path / "no_such_file.mp4")], ROOT, args)


def test_few_faces_are_the_first_of_every_list(precropped_wflw, tmp_path):
    few = few_faces(precropped_wflw, tmp_path)
    assert {path.name for path in few.glob("*.txt")} == {path.name for path in precropped_wflw.glob("test*.txt")}
    for path in few.glob("*.txt"):
        (line,) = path.read_text().splitlines()
        assert (few / path.stem / line.split()[0]).is_file()
    with pytest.raises(InputError, match="no pre-cropped WFLW"):
        few_faces(tmp_path, tmp_path)


def test_few_clips_are_one_with_its_boxes_and_landmarks(tmp_path):
    few = few_clips(ROOT / "datasets" / "sample", tmp_path)
    (name,) = (few / "splits" / "easy_video_IDs.txt").read_text().split()
    assert (few / "videos" / f"{name}.mp4").is_file() and (few / "landmarks" / f"{name}.npy").is_file()


def test_a_clip_of_copies_has_its_size_and_as_many_pictures(tmp_path):
    path = make_clip(ROOT / "datasets" / "sample" / "videos" / "hopper_easy.mp4", tmp_path / "a.mp4", (120, 80), 3, 2)
    capture = cv2.VideoCapture(str(path))
    frames = [capture.read()[1] for _ in range(2)]
    assert not capture.read()[0]
    assert frames[0].shape == (80, 120, 3)
    quarters = [frames[1][y : y + 40, x : x + 60].astype(int) for y in (0, 40) for x in (0, 60)]
    # Up to what the encoder loses.
    assert np.abs(quarters[0] - quarters[1]).mean() < 8 and np.abs(quarters[0] - quarters[2]).mean() < 8
    assert quarters[3].mean() < 8


def test_a_clip_of_more_frames_goes_forwards_and_backwards(tmp_path):
    sample = ROOT / "datasets" / "sample" / "videos" / "hopper_easy.mp4"
    own = sum(1 for _ in read_frames(open_source(str(sample))))
    path = make_clip(sample, tmp_path / "a.mp4", (120, 80), frames=own + 4)
    frames = [frame.astype(int) for frame in read_frames(open_source(str(path)))]
    assert len(frames) == own + 4
    # Up to what the encoder loses.
    assert all(np.abs(frames[own - 1 + step] - frames[own - 1 - step]).mean() < 8 for step in (1, 2, 3, 4))
    assert np.abs(frames[0] - frames[-1]).mean() > 16


def test_kept_and_labelled_faces_are_counted(tmp_path):
    class Detector:
        def detect(self, frame):
            # The same face twice, which is kept once.
            return np.array([[40, 60, 220, 230, 0.9], [41, 60, 221, 230, 0.8]])

    predictor = LandmarkPredictor(load_checkpoint(ROOT / "weights" / "ldeq_mini.safetensors"), engine="torch")
    picture = ROOT / "datasets" / "sample" / "test" / "hopper.jpg"
    (face,) = find_faces(cv2.imread(str(picture)), predictor, Detector())
    labelled = {picture: [face.landmarks, face.landmarks + 150]}
    counts = detection.count(labelled, Detector(), predictor, tmp_path)
    assert counts == {"detections": 2, "faces": 1, "labelled": 1, "of": 2}
    assert (tmp_path / "test_hopper.png").is_file()


def test_the_benchmark_of_detection_needs_whole_pictures():
    result = run_benchmark("detection.py", "--dataset_path", str(ROOT / "datasets" / "sample"))
    assert result.returncode == 2 and "holds crops; give raw WFLW" in result.stderr
