"""A network that rates frames beside one that draws masks: a baseline, made ready to measure.

A classifier says nothing of an abdomen's outline. Packed together with this project's own network
it rates the frames, and the other one draws the masks.
"""

from typing import cast

import torch
from torch import nn

from acouslic.backbones import build_backbone
from acouslic.heads import logits_of_annotated
from acouslic.network import (
    HEADS,
    AbdomenNet,
    BackboneConfig,
    NetworkConfig,
    Output,
    TrunkPass,
    TrunkScorerConfig,
    build_trunk,
)
from acouslic.preprocess import CLIP_MEAN, CLIP_STD


class BackboneScorer(nn.Module):
    """A classifier of timm; images come normalised as CLIP's and are turned back first."""

    def __init__(self, config: BackboneConfig, size: int) -> None:
        """Make one with fresh weights for images of this side."""
        super().__init__()
        self.view = config.view
        # A bundle's network is built on no device at first, but timm's tables of positions are not
        # among the weights that it gets later.
        with torch.device("cpu"):
            self.model = build_backbone(config.name, size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, S, S) to quality logits (N, 3) float32."""
        grey = (images[:, 0] * CLIP_STD[0] + CLIP_MEAN[0]) * 255
        return logits_of_annotated(self.model(self.view.images(grey))[:, 0].float())


class TrunkScorer(nn.Module):
    """A trunk of its own with a head that needs no mask."""

    def __init__(self, config: TrunkScorerConfig) -> None:
        """Make one with fresh weights."""
        super().__init__()
        self.trunk = build_trunk(config.trunk)
        whole = NetworkConfig(config.trunk, decoder_width=1, patches="all")
        self.head = HEADS[config.head](whole)
        self.trunk_pass = TrunkPass(whole)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, S, S) to quality logits (N, 3) float32."""
        return cast(torch.Tensor, self.head(self.trunk_pass(self.trunk, images)))


class ScoredNet(AbdomenNet):
    """The masks of one network, the quality of another; its own head stays unused."""

    def __init__(self, config: NetworkConfig) -> None:
        """Make one with fresh weights."""
        assert config.scorer is not None
        super().__init__(config)
        self.scorer: BackboneScorer | TrunkScorer = (
            BackboneScorer(config.scorer, config.trunk.image_size)
            if isinstance(config.scorer, BackboneConfig)
            else TrunkScorer(config.scorer)
        )

    def forward(self, images: torch.Tensor) -> Output:
        """Images (N, 3, S, S) to mask and quality logits."""
        decoded = self.decode(images, self.trunk_features(images))
        return Output(decoded.mask_logits, self.scorer(images))


def build_network(config: NetworkConfig) -> AbdomenNet:
    """A network with fresh weights, as a bundle's config describes it."""
    return AbdomenNet(config) if config.scorer is None else ScoredNet(config)
