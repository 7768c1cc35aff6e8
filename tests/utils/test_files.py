import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from small_disk import small_disk

from utils.errors import OutputError
from utils.files import (
    Aside,
    locked_folder,
    prepare_output_folder,
    protect_inputs,
    save_figure,
    write_arrays,
    write_aside,
    write_bytes,
    write_csv,
    write_json,
    write_text,
)

ROOT = Path(__file__).parents[2]

WRITERS = {
    "bytes": lambda path: write_bytes(path, b"new" * 100_000),
    "text": lambda path: write_text(path, "new" * 100_000),
    "json": lambda path: write_json(path, {"new": "new" * 100_000}),
    "csv": lambda path: write_csv(path, {"new": list(range(100_000))}),
    "npz": lambda path: write_arrays(path, {"new": np.random.default_rng(0).random(100_000)}),
    "png": lambda path: save_figure(Figure(figsize=(20, 20)), path),
}


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_is_written_whole_and_nothing_is_left_aside(kind: str, tmp_path: Path):
    path = tmp_path / "made" / "on the way" / "file"
    WRITERS[kind](path)
    assert path.stat().st_size > 0
    assert names_in(path.parent) == ["file"]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_that_does_not_fit_on_the_disk_leaves_the_old_one_whole(kind: str, tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OutputError) as error, small_disk():
        WRITERS[kind](path)
    assert str(error.value) == f"{path}: cannot be written (File too large); choose another place"
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_folder_in_the_place_of_a_file_is_refused(kind: str, tmp_path: Path):
    (tmp_path / "file").mkdir()
    with pytest.raises(OutputError, match=r"file: cannot be written \(Is a directory\)"):
        WRITERS[kind](tmp_path / "file")
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["old/file", "n" * 300])
def test_a_path_that_cannot_be_is_refused(name: str, tmp_path: Path):
    (tmp_path / "old").write_text("old")
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / name, "new")
    assert (tmp_path / "old").read_text() == "old"


@pytest.mark.parametrize("place", [".", "/"])
def test_the_folder_itself_is_no_file(place: str):
    with pytest.raises(OutputError, match="Is a directory"):
        write_text(Path(place), "new")


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(KeyError), write_aside(tmp_path / "file") as part:
        part.write_text("half")
        raise KeyError("a bug")
    assert (tmp_path / "file").read_text() == "old"
    assert names_in(tmp_path) == ["file"]


def test_a_link_left_in_the_place_aside_is_not_written_through(tmp_path: Path):
    (tmp_path / "precious").write_text("old")
    (tmp_path / "file.part").symlink_to(tmp_path / "precious")
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "precious").read_text() == "old"
    assert (tmp_path / "file").read_text() == "new"


def test_a_file_in_the_place_aside_stays(tmp_path: Path):
    (tmp_path / "file.part").write_text("mine")
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "file.part").read_text() == "mine"
    assert names_in(tmp_path) == ["file", "file.part"]


def test_what_is_written_bit_by_bit_has_its_name_only_at_the_end(tmp_path: Path):
    aside = Aside(tmp_path / "file")
    aside.part.write_text("half")
    assert names_in(tmp_path) == ["file.part"]
    aside.commit(durable=True)
    assert names_in(tmp_path) == ["file"]


def test_an_output_that_is_an_input_is_refused_through_every_kind_of_link(tmp_path: Path):
    clip = tmp_path / "clip.mp4"
    clip.write_text("frames")
    (tmp_path / "symbolic.mp4").symlink_to(clip)
    (tmp_path / "hard.mp4").hardlink_to(clip)
    (tmp_path / "folder").symlink_to(tmp_path)
    for name in ("clip.mp4", "symbolic.mp4", "hard.mp4", "folder/clip.mp4"):
        with pytest.raises(OutputError, match="would replace the input"):
            protect_inputs([tmp_path / name], [clip])
    with pytest.raises(OutputError, match="would replace the input"):
        protect_inputs([tmp_path / "folder"], [tmp_path])
    protect_inputs([tmp_path / "other.mp4"], [clip, tmp_path / "gone.mp4"])


def test_an_input_in_the_place_aside_is_safe_too(tmp_path: Path):
    (tmp_path / "overlay.mp4.part").write_text("frames")
    with pytest.raises(OutputError, match="would replace the input"):
        protect_inputs([tmp_path / "overlay.mp4"], [tmp_path / "overlay.mp4.part"])


def test_two_inputs_never_share_an_output(tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OutputError, match="would be written twice"):
        protect_inputs([tmp_path / "x.png", tmp_path / "link" / "x.png"], [])
    protect_inputs([tmp_path / "x.png", tmp_path / "y.png"], [])


HOLD_LOCK = """
import sys
from pathlib import Path
from utils.files import locked_folder

with locked_folder(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.readline()
"""


def hold_lock(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLD_LOCK, str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_second_run_is_refused_as_long_as_the_first_has_the_folder(tmp_path: Path):
    first = hold_lock(tmp_path)
    with pytest.raises(OutputError, match="another run is writing into this folder"), locked_folder(tmp_path):
        pass
    first.communicate("\n", timeout=60)
    with locked_folder(tmp_path):
        pass
    assert names_in(tmp_path) == []


def test_a_lock_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path: Path):
    with locked_folder(tmp_path):
        (lock,) = names_in(tmp_path)
    os.mkfifo(tmp_path / lock)
    with pytest.raises(OutputError, match="is not an ordinary file"), locked_folder(tmp_path):
        pass


def test_a_run_that_was_killed_does_not_keep_its_folder(tmp_path: Path):
    first = hold_lock(tmp_path)
    first.kill()
    first.communicate()
    with locked_folder(tmp_path):
        pass


@pytest.mark.parametrize("prepare", [prepare_output_folder, lambda folder: locked_folder(folder).__enter__()])
def test_a_folder_that_cannot_be_made_is_refused(prepare, tmp_path: Path):
    (tmp_path / "file").write_text("old")
    for name in ("file", "file/folder", "n" * 300):
        with pytest.raises(OutputError, match="cannot be written"):
            prepare(tmp_path / name)
    assert (tmp_path / "file").read_text() == "old"


def test_a_figure_of_photographs_stays_small(tmp_path: Path):
    figure = Figure(figsize=(6, 6))
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    figure.add_subplot().imshow(picture, interpolation="bicubic")
    save_figure(figure, tmp_path / "photographs.png")
    assert (tmp_path / "photographs.png").stat().st_size <= 300_000


def test_a_figure_may_name_a_path_that_is_not_utf8(tmp_path):
    figure = Figure(figsize=(2, 1))
    figure.suptitle("n\udce4me.safetensors")
    save_figure(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_device_is_not_replaced_by_a_file(tmp_path: Path):
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="not a regular file"):
        write_text(pipe, "x")
    assert pipe.is_fifo()
