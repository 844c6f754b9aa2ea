"""Classifiers of timm by name, with one logit, and how each sees a frame.

The names are all that a bundle may ask for: timm itself would fetch others from the network. Those
of `SMALL` take the place of a real one in a trial of the software; nothing is known of frames by
them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import torch
from annotated_types import Interval
from torch.nn import functional

from acouslic.preprocess import CLIP_MEAN, CLIP_STD

if TYPE_CHECKING:
    from torch import nn

RealName = Literal[
    "densenet121",
    "efficientnet_b0",
    "tf_efficientnet_lite0",
    "vgg16",
    "swin_large_patch4_window7_224.ms_in22k_ft_in1k",
    "deit3_large_patch16_224.fb_in22k_ft_in1k",
    "vit_large_patch14_clip_224.openai_ft_in12k_in1k",
]
SmallName = Literal[
    "small-densenet", "small-efficientnet", "small-vgg", "small-swin", "small-deit", "small-vit"
]
BackboneName = RealName | SmallName
REAL: tuple[RealName, ...] = get_args(RealName)
# Tokens along the side of a small ViT's image.
SMALL_GRID = 8
Colour = Annotated[float, Interval(ge=0, le=1)]


@dataclass(frozen=True)
class View:
    """How a family of networks sees a frame."""

    mean: tuple[Colour, Colour, Colour] = CLIP_MEAN
    """Mean of the three colours, 0 to 1, that is subtracted."""
    std: tuple[Colour, Colour, Colour] = CLIP_STD
    """Standard deviation of the three colours, by which is divided."""
    crop: Annotated[float, Interval(ge=0.5, le=1)] = 1.0
    """Share of the image's side that a centre crop leaves; 1 does not crop."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """How the image is enlarged before it is cropped."""

    def images(self, frames: torch.Tensor) -> torch.Tensor:
        """Grey frames (N, S, S), 0 to 255, as normalised images (N, 3, S, S) float32.

        As timm does it: the image is enlarged to S / crop, and its middle S x S are taken.
        """
        grey = frames.float()[:, None] / 255
        if self.crop < 1:
            size = grey.shape[-1]
            larger = math.floor(size / self.crop)
            cut = (larger - size) // 2
            grey = functional.interpolate(
                grey, size=(larger, larger), mode=self.interpolation, antialias=True
            )
            grey = grey[..., cut : cut + size, cut : cut + size].clamp(0, 1)
        mean = torch.tensor(self.mean, device=grey.device)[:, None, None]
        std = torch.tensor(self.std, device=grey.device)[:, None, None]
        return (grey - mean) / std


def build_backbone(name: BackboneName, size: int) -> Any:
    """A classifier with fresh weights and one logit.

    Args:
        name: its architecture.
        size: side of the images; the real ones take 224.

    Returns:
        timm's module.
    """
    import timm

    if name in REAL:
        return timm.create_model(name, pretrained=False, num_classes=1)
    return SMALL[name](size)


def _small_densenet(size: int) -> nn.Module:
    import timm

    return timm.create_model(
        "densenet121", num_classes=1, growth_rate=12, block_config=(2, 4, 4, 2)
    )


def _small_efficientnet(size: int) -> nn.Module:
    import timm

    return timm.create_model("test_efficientnet", num_classes=1)


def _small_vgg(size: int) -> nn.Module:
    from timm.models.vgg import VGG

    stages = [[16], [32], [32, 32], [64, 64], [64]]
    config = [layer for stage in stages for layer in (*stage, "M")]
    return VGG(config, num_classes=1, mlp_ratio=1 / 64)


def _small_swin(size: int) -> nn.Module:
    import timm

    return timm.create_model(
        "swin_large_patch4_window7_224",
        num_classes=1,
        img_size=size,
        window_size=size // 32,
        embed_dim=32,
        depths=(1, 1, 2, 1),
        num_heads=(1, 2, 4, 8),
    )


def _small_vit(timm_name: str) -> Callable[[int], nn.Module]:
    def build(size: int) -> nn.Module:
        import timm

        return timm.create_model(
            timm_name,
            num_classes=1,
            img_size=size,
            patch_size=max(1, size // SMALL_GRID),
            embed_dim=96,
            depth=4,
            num_heads=3,
        )

    return build


SMALL: dict[str, Callable[[int], nn.Module]] = {
    "small-densenet": _small_densenet,
    "small-efficientnet": _small_efficientnet,
    "small-vgg": _small_vgg,
    "small-swin": _small_swin,
    "small-deit": _small_vit("deit3_small_patch16_224"),
    "small-vit": _small_vit("vit_base_patch16_clip_224"),
}
