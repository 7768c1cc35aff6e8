"""The light stem of the original release: three convolutions to 1/4 resolution."""

from torch import Tensor, nn

from models.blocks import ConvBlock


class Stem(nn.Module):
    """7x7 stride 2 to c/4, 3x3 to c/2, 2x2 max pooling, 3x3 to c channels, where c is the width of the injection."""

    def __init__(self, out_channels: int):
        super().__init__()
        self.block1 = ConvBlock(3, out_channels // 4, 7, nn.BatchNorm2d, stride=2)
        self.block2 = ConvBlock(out_channels // 4, out_channels // 2, 3, nn.BatchNorm2d)
        self.pool = nn.MaxPool2d(2)
        self.block3 = ConvBlock(out_channels // 2, out_channels, 3, nn.BatchNorm2d)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) ImageNet-normalised RGB -> injection (B, out_channels, S/4, S/4)."""
        return self.block3(self.pool(self.block2(self.block1(images))))
