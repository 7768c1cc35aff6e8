"""The log of a run: one CSV row per epoch, and its curves."""

import io
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from utils.errors import OutputError
from utils.files import save_figure, write_text
from utils.reading import read_text

LOG_FILE = "log.csv"
CURVES_FILE = "curves.png"
CURVES = ("samples", "loss", "validation_nme", "train_nme")


def read_log(path: Path) -> pd.DataFrame:
    """The rows of a log; none if there is no file.

    Raises:
        OutputError: if the file is damaged.
    """
    if not path.exists():
        return pd.DataFrame(columns=["epoch", *CURVES])
    try:
        rows = pd.read_csv(io.StringIO(read_text(path)))
        # A log has a row from the beginning: a file of one line is not a log, or its lines have run together.
        if rows.empty:
            raise ValueError("no row")
        # The speed of an epoch is unknown if a run was stopped after its last step.
        if rows[["epoch", *CURVES]].astype(float).isna().any(axis=None):
            raise ValueError("a row is cut off")
    except (OSError, ValueError, KeyError) as error:  # what pandas raises on a damaged file is a ValueError
        raise OutputError(f"{path}: not the log of a run; move it away, the run can continue without it") from error
    return rows


def check_log(folder: Path, epoch: int) -> None:
    """Check that the log of a run is as long as its state: the state of another run, or a later one, does not fit it.

    Args:
        folder: the run folder.
        epoch: of the state, from 0; the epochs before it are finished.

    Raises:
        OutputError: if the log ends before the last finished epoch, or is damaged. A log that is not there is fine.
    """
    rows = read_log(folder / LOG_FILE)
    if len(rows) and rows["epoch"].max() < epoch - 1:
        raise OutputError(
            f"{folder / LOG_FILE}: ends with epoch {rows['epoch'].max() + 1:g}, but the state is of epoch {epoch}; put "
            "the files of one run together"
        )


def append_row(folder: Path, row: Mapping[str, float]) -> None:
    """Add an epoch to the log; rows of the same or later epochs are replaced, because a resumed run repeats them.

    Raises:
        OutputError: if the log is damaged or cannot be written.
    """
    path = folder / LOG_FILE
    before = read_log(path)
    kept = before[before["epoch"] < row["epoch"]]
    rows = pd.concat([kept, pd.DataFrame([row])]) if len(kept) else pd.DataFrame([row])
    write_text(path, rows.to_csv(index=False, float_format="%.6g"))


def plot_curves(logs: Mapping[str, Path], target: Path) -> None:
    """Draw loss and NME over the samples of one or several runs.

    Args:
        logs: name of each run and its log.
        target: PNG file to write.

    Raises:
        OutputError: if a log is damaged, or the file cannot be written.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss_axes, nme_axes = figure.subplots(1, 2)
    for name, path in logs.items():
        rows = read_log(path)
        loss_axes.plot(rows["samples"], rows["loss"], label=name)
        (line,) = nme_axes.plot(rows["samples"], rows["validation_nme"], label=f"{name}, validation")
        nme_axes.plot(rows["samples"], rows["train_nme"], "--", color=line.get_color(), label=f"{name}, training")
    loss_axes.set(xlabel="samples", ylabel="loss")
    nme_axes.set(xlabel="samples", ylabel="NME %", yscale="log")
    for axes in (loss_axes, nme_axes):
        axes.grid(alpha=0.3)
        axes.legend()
    save_figure(figure, target)
