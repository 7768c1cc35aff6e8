"""A network small enough for a test to run it many times, with nothing left at a value that hides a mistake."""

from typing import Any

import torch
from torch import Tensor, nn

from models import LDEQ, LDEQConfig
from solvers import FixedPointConfig


def small_config(**changes: Any) -> LDEQConfig:
    options = {
        "landmarks": 5,
        "image_size": 64,
        "backbone": "stem",
        "injection_channels": 8,
        "cell_width": 8,
        "cell_width_increment": 4,
        "cell_groups": 4,
        "solver": FixedPointConfig(max_evals=20, tol=1e-4),
    }
    return LDEQConfig(**{**options, **changes})


def small_model(seed: int = 0, **changes: Any) -> LDEQ:
    """In evaluation mode, contractive, with norms that are not the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LDEQ(small_config(**changes))
        for module in model.modules():
            if isinstance(module, nn.GroupNorm | nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
        with torch.no_grad():
            model.cell.fuse.conv.weight[:, : model.config.state_channels] *= 0.01
            model.cell.head.weight *= 2
    return model.eval()


def random_images(batch: int, seed: int = 0, size: int = 64) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))
