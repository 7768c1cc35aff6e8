"""The demo, run as a user runs it, on the shipped weights and sample."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from inference import FaceLandmarker
from utils.metrics import video_nme

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "datasets" / "sample"
CLIP = SAMPLE / "videos" / "collins_easy.mp4"


def run(script: str, *options: object, folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / script, *map(str, options)],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "DISPLAY": "", "WAYLAND_DISPLAY": ""},
        check=False,
    )


def demo(*options: object, folder: Path) -> subprocess.CompletedProcess:
    return run("demo.py", *options, folder=folder)


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def points(lines: list[dict]) -> np.ndarray:
    return np.array([line["landmarks"] for line in lines])[:, :, :2]


def frames_of(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        there, frame = capture.read()
        if not there:
            return frames
        frames.append(frame)


def write_clip(path: Path, frames: list[np.ndarray]) -> None:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()


def write_dataset(root: Path, frames: int) -> None:
    """The first frames of a sample clip in the layout of WFLW-V, as the easy clip `clip`."""
    for folder in ("videos", "bboxes", "landmarks", "splits"):
        (root / folder).mkdir(parents=True)
    write_clip(root / "videos" / "clip.mp4", frames_of(CLIP)[:frames])
    for folder in ("bboxes", "landmarks"):
        np.save(root / folder / "clip.npy", np.load(SAMPLE / folder / "collins_easy.npy")[:frames])
    (root / "splits" / "easy_video_IDs.txt").write_text("clip\n")


@pytest.mark.parametrize("variant", ["faithful", "steady"])
def test_with_the_same_boxes_and_rwr_the_landmarks_are_those_of_the_evaluation(tmp_path, variant):
    write_dataset(tmp_path / "data", frames=10)
    options = ["--rwr_variant", variant, "--crop", "steady" if variant == "steady" else "original"]
    paths = ["--WFLW_V_dataset_path", "data", "--WFLW_V_split", "easy", "--WFLW_V_workers", 0]
    evaluated = run("test_LDEQ_WFLW_V.py", *options, *paths, "--output_folder", "results", folder=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    (saved,) = (tmp_path / "results").rglob("clip*.npz")
    as_evaluated = ["--boxes", "data/bboxes/clip.npy", "--solve_first_frame", "false", "--restart", "false"]
    shown = demo("data/videos/clip.mp4", *options, *as_evaluated, "--landmarks", "out.jsonl", folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    lines = read_lines(tmp_path / "out.jsonl")
    with np.load(saved) as arrays:
        expected = next(arrays[name] for name in arrays.files if arrays[name].shape == (10, 98, 2))
    np.testing.assert_allclose(points(lines), expected, atol=2e-3)
    assert [line["evaluations"] for line in lines] == [2] * 10


def test_a_face_is_found_followed_written_and_drawn(tmp_path):
    write_clip(tmp_path / "clip.mp4", frames_of(CLIP)[:20])
    done = demo("clip.mp4", "--save", "overlay.mp4", "--landmarks", "out.csv", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["frame"], row["face"]) for row in rows] == [(str(frame), "0") for frame in range(20)]
    found = np.array([[[float(row[f"{axis}_{k}"]) for axis in "xy"] for k in range(98)] for row in rows])
    assert video_nme(found, np.load(SAMPLE / "landmarks" / "collins_easy.npy")[:20]) < 5
    assert all(float(row["uncertainty_0"]) > 0 and 0 <= float(row["residual"]) < 1 for row in rows)
    overlay, clip = frames_of(tmp_path / "overlay.mp4"), frames_of(tmp_path / "clip.mp4")
    assert len(overlay) == 20
    # Twice as large, with a line through the chin.
    assert overlay[10].shape[:2] == (480, 640)
    plain = cv2.resize(clip[10], None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    across, down = (2 * found[10, 16]).round().astype(int)
    patches = [frame[down - 2 : down + 3, across - 2 : across + 3].astype(float) for frame in (overlay[10], plain)]
    assert np.abs(patches[0] - patches[1]).mean() > 20


def test_the_demo_and_the_landmarker_give_the_same_faces(tmp_path):
    picture, clip = SAMPLE / "test" / "hopper.jpg", tmp_path / "clip.mp4"
    write_clip(clip, frames_of(CLIP)[:3])
    landmarker = FaceLandmarker(device="cpu")
    for source, frames in ((picture, [landmarker(picture)]), (clip, landmarker.track(clip))):
        done = demo(source, "--landmarks", "faces.jsonl", "--device", "cpu", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        lines = read_lines(tmp_path / "faces.jsonl")
        faces = [{"frame": number} | face.to_dict() for number, of_frame in enumerate(frames) for face in of_frame]
        assert len(lines) == len(faces) > 0
        for line, face in zip(lines, faces, strict=True):
            assert list(line) == list(face)
            for key in ("frame", "face", "evaluations"):
                assert line[key] == face[key]
            for key in ("box", "score", "landmarks", "residual"):
                np.testing.assert_allclose(line[key], face[key], rtol=0, atol=0.01)


def test_two_faces_one_of_which_leaves_and_comes_back_and_a_moment_without_any(tmp_path):
    one, two = frames_of(CLIP)[:30], frames_of(SAMPLE / "videos" / "hopper_easy.mp4")[:30]
    empty = np.full_like(two[0], 100)
    right = two[:6] + [empty] * 8 + two[14:]
    left = one[:8] + [empty] * 4 + one[12:]
    write_clip(tmp_path / "clip.mp4", [np.hstack(pair) for pair in zip(left, right, strict=True)])
    done = demo("clip.mp4", "--landmarks", "out.jsonl", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = read_lines(tmp_path / "out.jsonl")
    sides = {frame: set() for frame in range(30)}
    for line in lines:
        sides[line["frame"]].add("left" if np.mean(line["landmarks"], axis=0)[0] < 320 else "right")
    # Compression may smear a face over the frame after it, and beside a face another is looked for every 15 frames.
    assert all(sides[frame] == {"left", "right"} for frame in (0, 3, 5, 28, 29))
    assert all(sides[frame] == set() for frame in (10, 11))
    assert sides[13] == {"left"}
    numbers = [{line["face"] for line in lines if line["frame"] == frame} for frame in (0, 29)]
    assert len(numbers[0]) == len(numbers[1]) == 2
    assert not numbers[0] & numbers[1]


def test_a_portrait_video_is_turned_as_its_metadata_say(tmp_path):
    upright = [np.rot90(frame, axes=(1, 0)).copy() for frame in frames_of(CLIP)[:3]]
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 240, 320, "yuv420p"
        for frame in upright:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        container.mux(stream.encode(None))
    # The display matrix of the track header: a quarter turn, so that the stored frames lie on their side.
    content = bytearray((tmp_path / "clip.mp4").read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    matrix = np.array([0, -(1 << 16), 0, 1 << 16, 0, 0, 0, 0, 1 << 30], ">i4")
    content[place : place + 36] = matrix.tobytes()
    (tmp_path / "clip.mp4").write_bytes(content)
    done = demo("clip.mp4", "--landmarks", "out.jsonl", "--save", "overlay.mp4", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    found = points(read_lines(tmp_path / "out.jsonl"))
    assert len(found) == 3
    assert video_nme(found, np.load(SAMPLE / "landmarks" / "collins_easy.npy")[:3]) < 5
    assert frames_of(tmp_path / "overlay.mp4")[0].shape == (480, 640, 3)


def test_pictures_with_alpha_16_bits_grey_or_damage_in_a_folder(tmp_path):
    frame = frames_of(CLIP)[0]
    folder = tmp_path / "pictures"
    folder.mkdir()
    alpha = np.full((*frame.shape[:2], 1), 255, np.uint8)
    cv2.imwrite(str(folder / "1_alpha.png"), np.concatenate([frame, alpha], axis=2))
    cv2.imwrite(str(folder / "2_deep.png"), frame.astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "3_plain.png"), frame)
    cv2.imwrite(str(folder / "10_grey.png"), cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))
    cv2.imwrite(str(folder / "11_nobody.png"), np.full_like(frame, 128))
    (folder / "12_short.png").write_bytes((folder / "3_plain.png").read_bytes()[:100])
    (folder / "notes.txt").write_text("no picture")
    done = demo("pictures", "--save", "overlays", "--landmarks", "out.jsonl", folder=tmp_path)
    assert done.returncode == 1
    assert "12_short.png" in done.stderr and "Traceback" not in done.stderr
    lines = read_lines(tmp_path / "out.jsonl")
    assert [line["image"] for line in lines] == ["1_alpha.png", "2_deep.png", "3_plain.png", "10_grey.png"]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3]
    found = points(lines)
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[2])
    true = np.load(SAMPLE / "landmarks" / "collins_easy.npy")[[0] * 4]
    assert video_nme(found, true) < 5
    assert len(list((tmp_path / "overlays").iterdir())) == 5


def test_a_picture_too_small_for_a_cropped_face_is_named(tmp_path):
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((1, 1, 3), np.uint8))
    done = demo(tmp_path / "one.png", "--cropped", folder=tmp_path)
    assert done.returncode == 2 and "one.png: 1 x 1 pixels are too few" in done.stderr


def test_a_cropped_face_is_solved_as_the_benchmark_does(tmp_path):
    evaluated = run("test_LDEQ_WFLW.py", "--workers", 0, "--output_folder", "results", folder=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    done = demo(SAMPLE / "test", "--cropped", "--landmarks", "out.jsonl", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "results" / "predictions.npz") as arrays:
        expected = {
            Path(name).name: 256 * face for name, face in zip(arrays["image"], arrays["keypoints"], strict=True)
        }
    lines = read_lines(tmp_path / "out.jsonl")
    assert {line["image"] for line in lines} == set(expected)
    for line, found in zip(lines, points(lines), strict=True):
        np.testing.assert_allclose(found, expected[line["image"]], atol=0.05)


def test_side_by_side_has_three_panels_and_names_their_jitters(tmp_path):
    np.save(tmp_path / "boxes.npy", np.load(SAMPLE / "bboxes" / "collins_easy.npy")[:12])
    write_clip(tmp_path / "clip.avi", frames_of(CLIP)[:12])
    done = demo("clip.avi", "--compare", "--boxes", "boxes.npy", "--save", "three.mp4", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert frames_of(tmp_path / "three.mp4")[0].shape[1] == 3 * 256
    assert all(
        f"jitter, {name}:" in done.stdout
        for name in ("every frame on its own", "RwR as in the paper", "RwR with our pull (steady)")
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [(5, "has 5 boxes, but there is a frame 5"), (7, "has a box for frame 6, but there are 6 frames")],
)
def test_boxes_that_do_not_match_the_frames_are_an_error_and_the_earlier_landmarks_stay(tmp_path, rows, message):
    np.save(tmp_path / "boxes.npy", np.load(SAMPLE / "bboxes" / "collins_easy.npy")[:rows])
    write_clip(tmp_path / "clip.mp4", frames_of(CLIP)[:6])
    (tmp_path / "out.jsonl").write_text("earlier")
    done = demo("clip.mp4", "--boxes", "boxes.npy", "--landmarks", "out.jsonl", folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "out.jsonl").read_text() == "earlier"
    assert len(read_lines(tmp_path / "out.jsonl.part")) >= 5


def test_several_pictures_of_one_name_keep_their_results_apart(tmp_path):
    face = frames_of(CLIP)[0]
    for folder, picture in (("p1", face), ("p2", np.full_like(face, 128))):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "x.png"), picture)
    cv2.imwrite(str(tmp_path / "a.bmp"), face)
    cv2.imwrite(str(tmp_path / "a.bmp.png"), face)
    done = demo("p1/x.png", "p2/x.png", "a.bmp", "a.bmp.png", "p1/x.png", "--save", "overlays", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 faces in 4 pictures" in done.stdout
    assert "no face found in p2/x.png: try --detection_threshold 0.3" in done.stdout
    assert "Landmarks: results/demo/pictures.jsonl" in done.stdout and "Overlays: overlays" in done.stdout
    lines = read_lines(tmp_path / "results" / "demo" / "pictures.jsonl")
    assert [line["image"] for line in lines] == ["p1/x.png", "a.bmp", "a.bmp.png"]
    assert all(0.5 <= line["score"] < 1 for line in lines)
    written = {path.relative_to(tmp_path / "overlays").as_posix() for path in (tmp_path / "overlays").rglob("*.png")}
    assert written == {"p1/x.png", "p2/x.png", "a.bmp.png", "a.bmp.overlay.png"}


def test_one_face_in_one_picture_is_said_so_and_help_needs_no_torch(tmp_path):
    cv2.imwrite(str(tmp_path / "x.png"), frames_of(CLIP)[0])
    done = demo("x.png", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1 face in 1 picture", "Landmarks: results/demo/x.png.jsonl"]
    code = "import sys, demo; sys.argv = ['demo.py', '--help']\ntry: demo.main()\nexcept SystemExit: pass\n"
    code += "sys.exit(bool({'torch', 'numpy', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_outputs_never_replace_inputs_also_through_links(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "x.png"), frames_of(CLIP)[0])
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "boxes.csv").write_text("frame,face,x1,y1,x2,y2\n0,0,100,60,220,180\n")
    before = {path: path.read_bytes() for path in (folder / "x.png", tmp_path / "boxes.csv")}
    for options in (["--save", "link"], ["--boxes", "boxes.csv", "--landmarks", "boxes.csv"]):
        done = demo("pictures", *options, folder=tmp_path)
        assert done.returncode == 2 and "would replace the input" in done.stderr
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("grey", [False, True])
def test_a_video_of_one_frame_gives_one_line_for_its_face(tmp_path, grey):
    frame = frames_of(CLIP)[0]
    if grey:
        frame = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    write_clip(tmp_path / "clip.mp4", [frame])
    done = demo("clip.mp4", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line["frame"] for line in read_lines(tmp_path / "results" / "demo" / "clip.mp4.jsonl")] == [0]


def test_what_is_no_file_in_a_folder_of_pictures_is_named_and_the_rest_is_read(tmp_path: Path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(SAMPLE / "test" / "hopper.jpg", folder / "b.jpg")
    (folder / "a.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(folder / "c.jpg")
    (folder / "d.jpg").mkdir()
    done = demo(folder, "--landmarks", "faces.jsonl", folder=tmp_path)
    assert done.returncode == 1
    assert "a.jpg: no such file" in done.stderr and "c.jpg: is not a file" in done.stderr
    assert [line["image"] for line in read_lines(tmp_path / "faces.jsonl")] == ["b.jpg"]


def prepare_bad_input(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "cut.mp4").write_bytes(CLIP.read_bytes()[:2000])
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    np.save(folder / "flat.npy", np.ones((60, 4)))
    np.save(folder / "thin.npy", np.full((60, 4), [10, 10, 10.01, 10.01]))
    np.save(folder / "far.npy", np.full((60, 4), [-90_000, 10, 10, 10_000]))
    (folder / "table.csv").write_text("frame,face,x1\n0,0,1\n")
    (folder / "taken.mp4").mkdir()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["missing.mp4"], "missing.mp4: no such file"),
        (["empty"], "empty: the folder holds no picture"),
        ([""], "argument input: must be a path, not empty"),
        (["noise.mp4"], "noise.mp4: cannot be decoded as a picture or video"),
        (["cut.mp4"], "cut.mp4"),
        (["cut.jpg"], "cut.jpg: cannot be decoded as a picture"),
        (["97"], "webcam 97 does not open"),
        ([CLIP, "--show"], "no display"),
        ([CLIP, "--boxes", "flat.npy"], "has no area"),
        ([CLIP, "--boxes", "thin.npy"], "thin.npy: frame 0, face 0: box [10.0, 10.0, 10.01, 10.01] has no area"),
        ([CLIP, "--boxes", "far.npy"], "far.npy: frame 0, face 0: (-90000, 10) is far outside the picture"),
        ([CLIP, "--save", "taken.mp4"], "taken.mp4: is a folder; give a file"),
        ([CLIP, "--save", "flat.npy/overlay.mp4"], "flat.npy is not a folder"),
        ([CLIP, "--save", ""], "argument --save: must be a path, not empty"),
        ([SAMPLE / "test", "--save", "out/a.jsonl", "--landmarks", "out/a.jsonl"], "a.jsonl: is also the folder"),
        ([CLIP, "--sav", "overlay.mp4"], "unrecognized arguments: --sav"),
        ([CLIP, "--boxes", "table.csv"], "no column y1, x2, y2"),
        ([CLIP, "--boxes", "none.npy"], "none.npy: no such file"),
        ([CLIP, "--landmarks", "out.txt"], "out.txt: landmarks are written as .jsonl or .csv"),
        ([CLIP, "--save", "overlay.avi"], "overlay.avi"),
        ([CLIP, "--save", CLIP], "would replace the input"),
        ([CLIP, "--compare", "--rwr", "false"], "--compare"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, options, message):
    import demo as script
    from utils.command_line import run as run_script

    prepare_bad_input(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["demo.py", *map(str, options)])
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert run_script(script.main) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(lines) == 1
    assert message in lines[0]


def test_ctrl_c_keeps_the_frames_so_far_and_is_status_130(tmp_path, monkeypatch):
    import demo as script
    from inference.face_tracker import FaceTracker
    from utils.command_line import run as run_script

    step = FaceTracker.step
    seen = []

    def stop_at_the_fourth(self, *args):
        seen.append(args)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(FaceTracker, "step", stop_at_the_fourth)
    monkeypatch.setattr(sys, "argv", ["demo.py", str(CLIP), "--landmarks", str(tmp_path / "out.jsonl")])
    assert run_script(script.main) == 130
    assert [line["frame"] for line in read_lines(tmp_path / "out.jsonl")] == [0, 1, 2]
