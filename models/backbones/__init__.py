"""Backbones: images (B, 3, S, S) -> injection (B, C, S/4, S/4)."""

from torch import nn

from models.backbones.hrnet import HRNET_CONFIGS, HRNet
from models.backbones.stem import Stem


def make_backbone(name: str, out_channels: int) -> nn.Module:
    """A backbone by name, see `models.config.Backbone`."""
    return Stem(out_channels) if name == "stem" else HRNet(HRNET_CONFIGS[name], out_channels)
