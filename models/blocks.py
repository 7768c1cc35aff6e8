"""The building block of the stem and the cell."""

from collections.abc import Callable

from torch import Tensor, nn

NormFactory = Callable[[int], nn.Module]


class ConvBlock(nn.Module):
    """Convolution with bias, LeakyReLU(0.01), norm, in the order of the published checkpoints."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, norm: NormFactory, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=(kernel - 1) // 2)
        self.activation = nn.LeakyReLU(0.01, inplace=True)
        self.norm = norm(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride)."""
        return self.norm(self.activation(self.conv(features)))
