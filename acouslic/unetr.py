"""The decoder of FetalCLIP_SEG as published: 1,591,941 parameters upon a ViT-L/14.

Its structure is that of the code of arXiv 2507.22802, written anew from its layers' sizes: UNETR's
with depthwise separable convolutions, every convolution with a bias. The trunk's tokens are shrunk
to a sixteenth of the image's side first, so that four doublings give the image's own size.
"""

import torch
from torch import nn
from torch.nn import functional

# The tokens' map is doubled so often.
DOUBLINGS = 4
# FetalCLIP_SEG's taps lie after the blocks layers // 4, // 3, // 2 and the last one.
TAP_DIVISORS = (4, 3, 2, 1)


def published_taps(layers: int) -> tuple[int, ...]:
    """0-based blocks that features are taken after: 6, 8, 12 and 24 of 24, as people count."""
    return tuple(layers // divisor - 1 for divisor in TAP_DIVISORS)


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    """A depthwise 3 x 3 convolution, then one over channels."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs),
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, 1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _double(channels: int) -> nn.ConvTranspose2d:
    """Twice the size, channel by channel."""
    return nn.ConvTranspose2d(channels, channels, 2, stride=2, groups=channels)


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_double(inputs), *_conv(inputs, outputs))


def _bare_up(inputs: int, outputs: int) -> nn.Sequential:
    """Twice the size and other channels, without a norm."""
    return nn.Sequential(_double(inputs), nn.Conv2d(inputs, outputs, 1))


class PublishedDecoder(nn.Module):
    """Skips from image and taps, merged from deep to shallow into one map of logits."""

    def __init__(self, image_size: int, trunk_width: int, width: int) -> None:
        """Make one.

        Args:
            image_size: side of the images, and of the map of logits; a multiple of 16.
            trunk_width: numbers a token.
            width: channels of the finest map; 32 as published.

        Raises:
            ValueError: the side is no multiple of 16.
        """
        super().__init__()
        self.grid, rest = divmod(image_size, 2**DOUBLINGS)
        if rest:
            raise ValueError(f"images of {image_size} px, no multiple of {2**DOUBLINGS}")
        self.size = image_size
        self.image = nn.Sequential(_conv(3, width), _conv(width, width))
        self.taps = nn.ModuleList(
            [
                nn.Sequential(
                    _up(trunk_width, 8 * width),
                    _up(8 * width, 4 * width),
                    _up(4 * width, 2 * width),
                ),
                nn.Sequential(_up(trunk_width, 8 * width), _up(8 * width, 4 * width)),
                _up(trunk_width, 8 * width),
                _bare_up(trunk_width, 8 * width),
            ]
        )
        self.merges = nn.ModuleList(
            nn.Sequential(
                _conv(2 * channels * width, channels * width),
                *(_conv(channels * width, channels * width) for _ in range(more)),
                _bare_up(channels * width, channels * width // 2),
            )
            for channels, more in ((8, 2), (4, 1), (2, 1))
        )
        self.logit = nn.Sequential(
            _conv(2 * width, width), _conv(width, width), nn.Conv2d(width, 1, 1)
        )

    def forward(
        self, images: torch.Tensor, taps: list[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Decode.

        Args:
            images: (N, 3, S, S).
            taps: four maps (N, C, g, g) of the trunk, from shallow to deep.

        Returns:
            Mask logits (N, 1, S, S) float32, and the maps behind them, from deep to shallow.
        """
        shallow, middle, deep, x = (
            climb(self._shrunk(tap)) for climb, tap in zip(self.taps, taps, strict=True)
        )
        merged = []
        for merge, skip in zip(self.merges, (deep, middle, shallow), strict=True):
            x = merge(torch.cat([skip, x], dim=1))
            merged.append(x)
        return self.logit(torch.cat([self.image(images), x], dim=1)).float(), merged

    def _shrunk(self, tap: torch.Tensor) -> torch.Tensor:
        size = (self.grid, self.grid)
        return functional.interpolate(tap, size=size, mode="bilinear", align_corners=False)
