"""The network: backbones, cell, DEQ layer, heatmaps, LDEQ, checkpoints."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.checkpoints import load_checkpoint, save_checkpoint
    from models.config import LDEQConfig, preset
    from models.ldeq import LDEQ, LDEQOutput
    from utils.errors import CheckpointError

__all__ = ["LDEQ", "CheckpointError", "LDEQConfig", "LDEQOutput", "load_checkpoint", "preset", "save_checkpoint"]

HOMES = {
    "LDEQ": "models.ldeq",
    "LDEQOutput": "models.ldeq",
    "LDEQConfig": "models.config",
    "preset": "models.config",
    "load_checkpoint": "models.checkpoints",
    "save_checkpoint": "models.checkpoints",
    "CheckpointError": "utils.errors",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that `python -m models.ldeq` runs a module that is not imported yet."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
