"""Cases of the fuzz that run a script: options, results folders and run folders."""

import hashlib
import json
from pathlib import Path

from damage import WORDS, Generator, damage_bytes, damage_json, pick

from tests.fuzz.stage import PropertyError, Stage, call_script


def options(stage: Stage, generator: Generator) -> str:
    """A wrong value of an option of a script, on sound files."""
    folder = stage.copy("faces", "clips", "weights.safetensors", "picture.png")
    weights = ["--landmark_model_weights", str(folder / "weights.safetensors"), "--device", "cpu"]
    faces, clips, out = str(folder / "faces"), str(folder / "clips"), str(folder / "out")
    script, command, names = (
        (
            "train_LDEQ_WFLW",
            Stage.training_options(folder),
            ("--epochs", "--learning_rate", "--seed", "--weight_decay", "--image_size", "--splits", "--max_evals",
             "--save_minutes", "--gradient", "--preset", "--initial_weights", "--dataset_path"),
        ),
        (
            "test_LDEQ_WFLW",
            [*weights, "--dataset_path", faces, "--output_folder", out, "--workers", "0"],
            ("--batch_size", "--tol", "--max_evals", "--solver", "--raw_box", "--plot", "--precision", "--dataset_path",
             "--landmark_model_weights", "--stop_rule"),
        ),
        (
            "test_LDEQ_WFLW_V",
            [*weights, "--WFLW_V_dataset_path", clips, "--output_folder", out, "--WFLW_V_workers", "0"],
            ("--WFLW_V_batch_size", "--rwr_max_iters", "--rwr", "--WFLW_V_split", "--rwr_variant", "--crop",
             "--WFLW_V_dataset_path", "--tuning_ids"),
        ),
    )[int(generator.integers(3))]  # fmt: skip
    word = str(pick(generator, WORDS))
    return _run_script(folder, script, [*command, f"{pick(generator, names)}={word}"])


def results_folder(stage: Stage, generator: Generator) -> str:
    """An output folder that is an input, a file, or has folders in the places of files."""
    folder = stage.copy("faces", "clips", "weights.safetensors")
    weights = ["--landmark_model_weights", str(folder / "weights.safetensors"), "--device", "cpu"]
    out = folder / "out"
    kind = int(generator.integers(5))
    if kind == 0:
        out.write_text("a file of the user's")
    elif kind == 1:
        out.symlink_to(folder / str(pick(generator, ("faces", "clips"))))
    elif kind == 2:
        (out / str(pick(generator, ("results.json", "per_face.csv", "per_video.csv", "predictions.npz")))).mkdir(
            parents=True
        )
    elif kind == 3:
        out = folder / str(pick(generator, ("faces", "clips")))
    else:
        out = folder / ("n" * 300)
    if generator.random() < 0.5:
        command = [*weights, "--dataset_path", str(folder / "faces"), "--output_folder", str(out), "--workers", "0"]
        return _run_script(folder, "test_LDEQ_WFLW", command)
    command = [*weights, "--WFLW_V_dataset_path", str(folder / "clips"), "--output_folder", str(out)]
    return _run_script(folder, "test_LDEQ_WFLW_V", [*command, "--WFLW_V_workers", "0", "--save_video"])


def run_folder(stage: Stage, generator: Generator) -> str:
    """A file of a run of training, which is then resumed."""
    folder = stage.copy("faces", "run")
    path = folder / "run" / str(pick(generator, ("config.json", "state.pt", "log.csv", "weights.safetensors")))
    kind = int(generator.integers(4))
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.unlink()
        path.mkdir()
    elif path.suffix == ".json":
        path.write_text(damage_json(path.read_text(), generator))
    else:
        path.write_bytes(damage_bytes(path.read_bytes(), generator))
    return _run_script(folder, "train_LDEQ_WFLW", [*Stage.training_options(folder), "--resume"], may_change="run")


def _run_script(
    folder: Path, script: str, arguments: list[str], may_change: frozenset[str] | set[str] = frozenset()
) -> str:
    """Run a script in this process and hold it to the property."""
    before = _digests(folder)
    status, message = call_script(script, arguments)
    lines = [line for line in message.splitlines() if "error: " in line]
    if status not in (0, 1, 2) or (status == 2 and len(lines) != 1) or (status == 0 and lines):
        raise PropertyError(f"status {status}, {message[-500:]!r}: {script} {arguments}")
    after = _digests(folder)
    lost = [
        name for name, digest in before.items() if after.get(name) != digest and name.split("/")[0] not in may_change
    ]
    if lost:
        raise PropertyError(f"{lost} changed: {script} {arguments}")
    results = next(folder.glob("out/results.json"), None)
    if status == 0 and results is not None and results.is_file():
        json.loads(results.read_text(), parse_constant=_refuse_constant)
    return ("result", "rest evaluated", "refused")[status]


def _refuse_constant(name: str) -> None:
    raise PropertyError(f"results.json holds {name}")


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
