"""Heads that rate a frame: what they see, and the three qualities' logits that they answer with.

`network.HEADS` holds them by name. A head that knows only "annotated or not" splits its probability
evenly between suboptimal and optimal; one that rates quality q as a number from 0 to 1 says none,
suboptimal, optimal with the probabilities 1 - q, q (1 - q), q^2, which rise with q. Both are
readings of ours: a bundle's calibration, fitted on cases that the head never saw, corrects them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

if TYPE_CHECKING:
    from acouslic.network import Decoded, TrunkConfig, TrunkFeatures

# FetalCLIP_SEG's: the share of the pixels that its mask must cover for a frame to be annotated.
AREA_THRESHOLD = 0.01
# The least share that a logarithm is taken of: two pixels of 128 x 128.
LEAST_SHARE = 1e-4
# Qualities closer to 0 or 1 have no logarithm in float32 that would say more.
LEAST_DOUBT = 1e-6
FUSION_WIDTH = 256
FUSION_DEPTHS = 4


def logits_of_annotated(logit: torch.Tensor) -> torch.Tensor:
    """Quality logits (N, 3) of a logit (N,) of being annotated; the other two share its part."""
    half = logit - math.log(2)
    return torch.stack([torch.zeros_like(logit), half, half], dim=1)


def logits_of_rating(quality: torch.Tensor) -> torch.Tensor:
    """Quality logits (N, 3) of a quality (N,), 0 to 1; see the module's text."""
    rating = quality.clamp(LEAST_DOUBT, 1 - LEAST_DOUBT)
    yes, no = rating.log(), (1 - rating).log()
    return torch.stack([no, yes + no, 2 * yes], dim=1)


class ClassHead(nn.Module):
    """FetalCLIP_CLS's: annotated or not, by a Linear on the pooled feature."""

    def __init__(self, config: TrunkConfig) -> None:
        """Make one for a trunk of these dimensions."""
        super().__init__()
        self.linear = nn.Linear(config.embed_dim, 1)

    def forward(self, features: TrunkFeatures, decoded: Decoded | None = None) -> torch.Tensor:
        """Quality logits (N, 3) float32."""
        return logits_of_annotated(self.linear(features.pooled)[:, 0].float())


class AreaHead(nn.Module):
    """FetalCLIP_SEG's: the share of the pixels under the mask; its even odds are at 1 %."""

    def __init__(self, config: TrunkConfig) -> None:
        """Make one; it has no weights."""
        super().__init__()

    @staticmethod
    def share(mask_logits: torch.Tensor) -> torch.Tensor:
        """The share (N,) of the pixels of (N, 1, G, G) whose probability is above 0.5."""
        return (mask_logits > 0).float().flatten(1).mean(dim=1)

    def forward(self, features: TrunkFeatures, decoded: Decoded | None = None) -> torch.Tensor:
        """Quality logits (N, 3) float32."""
        assert decoded is not None
        share = self.share(decoded.mask_logits).clamp_min(LEAST_SHARE)
        return logits_of_annotated((share / AREA_THRESHOLD).log())


class NumberHead(nn.Module, ABC):
    """A head that says quality as a number, in two steps: what lies between them may be mixed."""

    @abstractmethod
    def project(self, features: TrunkFeatures) -> torch.Tensor:
        """What may be mixed, (N, ...)."""

    @abstractmethod
    def rate(self, mixable: torch.Tensor) -> torch.Tensor:
        """Quality (N,), 0 to 1, of what `project` gave."""

    def forward(self, features: TrunkFeatures, decoded: Decoded | None = None) -> torch.Tensor:
        """Quality logits (N, 3) float32."""
        return logits_of_rating(self.rate(self.project(features)))


class RatingHead(NumberHead):
    """Quality as a number, by a Linear on the pooled feature."""

    def __init__(self, config: TrunkConfig) -> None:
        """Make one for a trunk of these dimensions."""
        super().__init__()
        self.linear = nn.Linear(config.embed_dim, 1)

    def project(self, features: TrunkFeatures) -> torch.Tensor:
        """What may be mixed, (N, embed_dim): the pooled feature."""
        return features.pooled

    def rate(self, mixable: torch.Tensor) -> torch.Tensor:
        """Quality (N,), 0 to 1, of what `project` gave."""
        return cast(torch.Tensor, self.linear(mixable)[:, 0].float().sigmoid())


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


class DepthsHead(NumberHead):
    """Quality as a number, from tokens of four depths; a subclass says how they come together.

    Each is one reading of Chen et al. (2025), of which only the abstract is public.
    """

    def __init__(self, config: TrunkConfig) -> None:
        """Make one for a trunk of these dimensions."""
        super().__init__()
        self.scales = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, FUSION_WIDTH))
            for _ in range(FUSION_DEPTHS)
        )

    def project(self, features: TrunkFeatures) -> torch.Tensor:
        """What may be mixed, (N, 4, 1 + patches, width): CLS and patch tokens of each depth."""
        scales = []
        for scale, tap, cls in zip(self.scales, features.taps, features.class_tokens, strict=True):
            tokens = torch.cat([cls[:, None], tap.flatten(2).transpose(1, 2)], dim=1)
            scales.append(scale(tokens))
        return torch.stack(scales, dim=1)


def _of_each_depth(tokens: torch.Tensor) -> torch.Tensor:
    """CLS and mean patch of each depth, (N, 4, 2 width), of what `DepthsHead.project` gives."""
    return torch.cat([tokens[:, :, 0], tokens[:, :, 1:].mean(dim=2)], dim=2)


class ConcatFusionHead(DepthsHead):
    """Early fusion: CLS and mean patch of all depths side by side, rated by one small network."""

    def __init__(self, config: TrunkConfig) -> None:
        """Make one for a trunk of these dimensions."""
        super().__init__(config)
        self.score = _mlp(FUSION_DEPTHS * 2 * FUSION_WIDTH, FUSION_WIDTH, 1)

    def rate(self, mixable: torch.Tensor) -> torch.Tensor:
        """Quality (N,), 0 to 1, of what `project` gave."""
        score = self.score(_of_each_depth(mixable).flatten(1))
        return cast(torch.Tensor, score[:, 0].float().sigmoid())


class LateFusionHead(DepthsHead):
    """Late fusion: each depth rates the frame by itself; a mean with learnt weights counts."""

    def __init__(self, config: TrunkConfig) -> None:
        """Make one for a trunk of these dimensions."""
        super().__init__(config)
        self.scores = nn.ModuleList(
            _mlp(2 * FUSION_WIDTH, FUSION_WIDTH // 2, 1) for _ in range(FUSION_DEPTHS)
        )
        self.weights = nn.Parameter(torch.zeros(FUSION_DEPTHS))

    def rate(self, mixable: torch.Tensor) -> torch.Tensor:
        """Quality (N,), 0 to 1, of what `project` gave."""
        depths = _of_each_depth(mixable).unbind(dim=1)
        scores = torch.cat([score(x) for score, x in zip(self.scores, depths, strict=True)], dim=1)
        weighted = scores.float().sigmoid() * self.weights.float().softmax(dim=0)
        return weighted.sum(dim=1).clamp(0, 1)


class FusionHead(DepthsHead):
    """Tokens of four depths, gated and summed patch by patch, and a global branch beside them.

    Each patch has a score and a weight in the mean, as in MANIQA (arXiv 2204.08958). About 1.5 M
    parameters at a trunk of width 1024.
    """

    def __init__(self, config: TrunkConfig) -> None:
        """Make one for a trunk of these dimensions."""
        super().__init__(config)
        width, depths = FUSION_WIDTH, FUSION_DEPTHS
        self.scale_gate = _mlp(depths * width, width // 4, depths)
        self.channel_gates = nn.ModuleList(_mlp(width, width // 4, width) for _ in range(depths))
        self.spatial_gates = nn.ModuleList(nn.Linear(width, 1) for _ in range(depths))
        self.patch_score = _mlp(width, width // 2, 1)
        self.patch_weight = _mlp(width, width // 2, 1)
        self.whole = _mlp(depths * width, width // 2, 1)
        self.blend = nn.Parameter(torch.zeros(()))

    def rate(self, mixable: torch.Tensor) -> torch.Tensor:
        """Quality (N,), 0 to 1, of what `project` gave."""
        fused = self.fuse(mixable[:, :, 1:])
        score = self.patch_score(fused)[..., 0].float().sigmoid()
        weight = self.patch_weight(fused)[..., 0].float().sigmoid()
        local = (weight * score).sum(dim=1) / weight.sum(dim=1).clamp_min(1e-6)
        whole = self.whole(mixable[:, :, 0].flatten(1))[:, 0].float().sigmoid()
        share = self.blend.float().sigmoid()
        return cast(torch.Tensor, share * local + (1 - share) * whole)

    def fuse(self, patches: torch.Tensor) -> torch.Tensor:
        """Sum over depths with gates of depth, channel and place.

        Args:
            patches: (N, 4, patches, width).

        Returns:
            (N, patches, width).
        """
        pooled = patches.mean(dim=2)
        scale = self.scale_gate(pooled.flatten(1)).softmax(dim=1)
        fused = torch.zeros_like(patches[:, 0])
        for k, (channels, places) in enumerate(
            zip(self.channel_gates, self.spatial_gates, strict=True)
        ):
            gate = channels(pooled[:, k]).sigmoid()[:, None] * places(patches[:, k]).sigmoid()
            fused = fused + scale[:, k, None, None] * gate * patches[:, k]
        return fused
