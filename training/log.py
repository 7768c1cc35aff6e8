"""The log of a run: one CSV row per epoch, and its curves."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

LOG_FILE = "log.csv"
CURVES_FILE = "curves.png"


def append_row(folder: Path, row: Mapping[str, float]) -> None:
    """Add an epoch to the log; rows of the same or later epochs, which a resumed run does again, are replaced."""
    path = folder / LOG_FILE
    rows = pd.DataFrame([row])
    if path.exists():
        before = pd.read_csv(path)
        rows = pd.concat([before[before["epoch"] < row["epoch"]], rows])
    rows.to_csv(path, index=False, float_format="%.6g")


def plot_curves(logs: Mapping[str, Path], target: Path) -> None:
    """Draw loss and NME over the samples of one or several runs.

    Args:
        logs: name of each run and its log.
        target: PNG file to write.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss_axes, nme_axes = figure.subplots(1, 2)
    for name, path in logs.items():
        rows = pd.read_csv(path)
        loss_axes.plot(rows["samples"], rows["loss"], label=name)
        (line,) = nme_axes.plot(rows["samples"], rows["validation_nme"], label=f"{name}, validation")
        nme_axes.plot(rows["samples"], rows["train_nme"], "--", color=line.get_color(), label=f"{name}, training")
    loss_axes.set(xlabel="samples", ylabel="loss")
    nme_axes.set(xlabel="samples", ylabel="NME %", yscale="log")
    for axes in (loss_axes, nme_axes):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(target)
