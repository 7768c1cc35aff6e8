"""Write label weights for faces that were rendered at large poses, before training on them.

python -m training.turned_quality turned1 turned2

Each folder is the output of a renderer of turned faces, in the raw layout of WFLW, with the angle in the names of the
images: WFLW_images/turned/<number>_<yaw>_<source>.jpg. The script adds label_quality.tsv, which training reads.
"""

import sys
from pathlib import Path

from training.data import DISAGREEMENT_COLUMN, LABEL_QUALITY_FILE, TRUSTED_DISAGREEMENT
from utils.command_line import given_path, run, script_parser
from utils.errors import InputError
from utils.files import write_text

_SAFE_YAW, _PROFILE_YAW = 60.0, 85.0
_PROFILE_WEIGHT = 0.4


def label_disagreement(yaw: float) -> float:
    """Disagreement, in percent of the eye distance, that leads to the label weight of a face at this yaw.

    Up to 60 degrees the labels agree with those of real faces: weight 1. Beyond, they follow a convention, and the
    weight falls linearly to 0.4 at 85 degrees.

    Args:
        yaw: Degrees.
    """
    share = min(1.0, max(0.0, (abs(yaw) - _SAFE_YAW) / (_PROFILE_YAW - _SAFE_YAW)))
    return TRUSTED_DISAGREEMENT / (1 - share * (1 - _PROFILE_WEIGHT))


def write_quality(root: Path) -> int:
    """Write label_quality.tsv for the images of a folder.

    Returns:
        The number of images.

    Raises:
        InputError: If there are no images, or a name has no angle.
    """
    images = sorted((root / "WFLW_images").rglob("*.jpg"))
    if not images:
        raise InputError(f"{root / 'WFLW_images'}: no images; render the turned faces first")
    lines = [f"image\t{DISAGREEMENT_COLUMN}"]
    for path in images:
        try:
            yaw = float(path.name.split("_")[1])
        except (IndexError, ValueError) as error:
            raise InputError(f"{path}: the name must be <number>_<yaw>_<source>.jpg") from error
        lines.append(f"{path.relative_to(root / 'WFLW_images').as_posix()}\t{label_disagreement(yaw):.4f}")
    write_text(root / LABEL_QUALITY_FILE, "\n".join(lines) + "\n")
    return len(images)


def main() -> None:
    """Write the file for every named folder."""
    parser = script_parser(__doc__)
    parser.add_argument("folders", nargs="+", type=given_path)
    for folder in parser.parse_args().folders:
        print(f"{folder}: {write_quality(folder)} images")


if __name__ == "__main__":
    sys.exit(run(main))
