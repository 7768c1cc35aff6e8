"""The network: backbones, cell, DEQ layer, heatmaps, LDEQ, checkpoints."""

from models.checkpoints import load_checkpoint, save_checkpoint
from models.config import LDEQConfig, preset
from models.ldeq import LDEQ, LDEQOutput
from utils.errors import CheckpointError

__all__ = ["LDEQ", "CheckpointError", "LDEQConfig", "LDEQOutput", "load_checkpoint", "preset", "save_checkpoint"]
