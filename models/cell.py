"""The landmark head: an hourglass that maps heatmaps and the injection to new heatmaps, z -> f(z, x)."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks import ConvBlock, NormFactory
from models.config import LDEQConfig
from models.heatmaps import MASS_FLOOR, normalise_heatmaps, soft_argmax


class HourglassDown(nn.Module):
    """One level of the way down: 3x3 at this resolution (the skip), pooling, 3x3 to the next width."""

    def __init__(self, width: int, next_width: int, norm: NormFactory):
        super().__init__()
        self.same = ConvBlock(width, width, 3, norm)
        self.widen = ConvBlock(width, next_width, 3, norm)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, width, H, W) -> skip (B, width, H, W), features (B, next_width, H/2, W/2)."""
        skip = self.same(features)
        return skip, self.widen(F.avg_pool2d(skip, 2))


class HourglassUp(nn.Module):
    """One level of the way up: 3x3 to the narrower width, upsampling, merge with the skip, residual 5x5."""

    def __init__(self, width: int, next_width: int, norm: NormFactory):
        super().__init__()
        self.narrow = ConvBlock(width, next_width, 3, norm)
        self.merge = ConvBlock(2 * next_width, next_width, 1, norm)
        self.refine = ConvBlock(next_width, next_width, 5, norm)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """Features (B, width, H, W) and skip (B, next_width, 2H, 2W) -> (B, next_width, 2H, 2W)."""
        upsampled = F.interpolate(self.narrow(features), scale_factor=2, mode="nearest")
        merged = self.merge(torch.cat([skip, upsampled], dim=1))
        return merged + self.refine(merged)


class Hourglass(nn.Module):
    """An hourglass of four levels; `widths` are the widths at its five resolutions, from full resolution down."""

    def __init__(self, widths: Sequence[int], norm: NormFactory):
        super().__init__()
        steps = list(pairwise(widths))
        self.down = nn.ModuleList(HourglassDown(width, next_width, norm) for width, next_width in steps)
        self.bottleneck = ConvBlock(widths[-1], widths[-1], 3, norm)
        self.up = nn.ModuleList(HourglassUp(next_width, width, norm) for width, next_width in reversed(steps))

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, H, W) -> (B, width, H, W), H and W divisible by 16."""
        skips = []
        for down in self.down:
            skip, features = down(features)
            skips.append(skip)
        features = self.bottleneck(features)
        for up in self.up:
            features = up(features, skips.pop())
        return features


class LearnedGate(nn.Module):
    """The share g of the new heatmap in the output, for each channel of the state.

    g = sigmoid(a + b log(1 + (d / u)^2)), where a is a 1x1 convolution of the hourglass's features, averaged under the
    new heatmap; d is the distance between the soft-argmax of the new and the old heatmap; u is the standard deviation
    of the new heatmap. A state of zeros is far from every landmark, so it is forgotten at once.

    Args:
        width: channels of the features.
        channels: Z, channels of the state.
        start: g before training, at d = 0.
    """

    def __init__(self, width: int, channels: int, start: float):
        super().__init__()
        self.sight = nn.Conv2d(width, channels, 1)
        self.release = nn.Parameter(torch.full((channels,), 2.0))
        nn.init.zeros_(self.sight.weight)
        nn.init.constant_(self.sight.get_parameter("bias"), math.log(start / (1 - start)))

    def forward(self, z: Tensor, heatmaps: Tensor, features: Tensor) -> Tensor:
        """Old and new heatmaps (B, Z, H, W), features (B, width, H, W) -> g (B, Z, 1, 1)."""
        mass = heatmaps.sum(dim=(2, 3)).clamp_min(MASS_FLOOR)
        seen = (self.sight(features) * heatmaps).sum(dim=(2, 3)) / mass
        (old, _), (new, deviation) = soft_argmax(z), soft_argmax(heatmaps)
        distance = (new - old).square().sum(dim=2) / deviation.square()
        return torch.sigmoid(seen + self.release * torch.log1p(distance))[:, :, None, None]


class Cell(nn.Module):
    """f(z, x): 1x1 block on [z, x], hourglass, 1x1 convolution to the state, heatmap normalisation, gate if any."""

    def __init__(self, config: LDEQConfig):
        super().__init__()

        def norm(channels: int) -> nn.Module:
            return nn.BatchNorm2d(channels) if config.batch_norm_cell else nn.GroupNorm(config.cell_groups, channels)

        self.state_channels = config.state_channels
        self.normalisation = config.normalisation
        self.beta = config.effective_beta
        self.fuse = ConvBlock(config.state_channels + config.injection_channels, config.cell_width, 1, norm)
        self.hourglass = Hourglass(config.cell_widths, norm)
        self.head = nn.Conv2d(config.cell_width, config.state_channels, 1)
        self.constant_gate = config.gate_start if config.gate == "constant" else None
        self.gate = (
            LearnedGate(config.cell_width, config.state_channels, config.gate_start)
            if config.gate == "learned"
            else None
        )

    def embed(self, injection: Tensor) -> Tensor:
        """The part of the first convolution that sees only the injection, with the bias; computed once per solve.

        Args:
            injection: (B, C, H, W).

        Returns:
            (B, cell width, H, W), the second argument of `forward`.
        """
        conv = self.fuse.conv
        return F.conv2d(injection, conv.weight[:, self.state_channels :], conv.bias)

    def forward(self, z: Tensor, embedded: Tensor) -> Tensor:
        """One evaluation of f.

        Args:
            z: (B, Z, H, W) state, float32.
            embedded: (B, cell width, H, W), see `embed`.

        Returns:
            (B, Z, H, W) new state, float32 under autocast too.
        """
        mixed = F.conv2d(z, self.fuse.conv.weight[:, : self.state_channels]) + embedded
        features = self.hourglass(self.fuse.norm(self.fuse.activation(mixed)))
        # In bfloat16 the head would round every heatmap to 8 bits, which would limit the residual.
        with torch.autocast(z.device.type, enabled=False):
            features = features.to(z.dtype)
            heatmaps = normalise_heatmaps(self.head(features), self.normalisation, self.beta)
            if self.gate is not None:
                return torch.lerp(z, heatmaps, self.gate(z, heatmaps, features))
            return heatmaps if self.constant_gate is None else torch.lerp(z, heatmaps, self.constant_gate)
