"""Frame quality as a number: fusion of four depths, mix-up of features, a correlation loss.

Of Chen et al. (2025) only the abstract is public. Every formula here is OUR INTERPRETATION, built
from the nearest published work, and no figure of theirs is claimed to be reproduced. Fusion, mix-up
and correlation can be left out by themselves.
"""

import torch
from open_clip.transformer import VisionTransformer
from torch import nn
from torch.nn import functional

from acouslic.network import TAPS, TrunkConfig, TrunkFeatures
from benchmark.correlation import correlation_loss
from benchmark.frames import NO_CLUSTER, Samples
from benchmark.mixup import MixupConfig, draw_pairs, mix
from benchmark.networks import Answer, BenchmarkNetwork, View, taps_of
from benchmark.options import QualityParts

# Of the loss of Chen et al. nothing but the name is public: both numbers are ours. Errors above a
# quarter of the step from suboptimal (0.6) to optimal (1) count by their size, not by their square.
HUBER_WIDTH = 0.1
CORRELATION_WEIGHT = 0.5


class PlainHead(nn.Module):
    """A Linear on the pooled feature."""

    def __init__(self, config: TrunkConfig) -> None:
        """Make the head for a trunk of these dimensions."""
        super().__init__()
        self.linear = nn.Linear(config.embed_dim, 1)

    def project(self, features: TrunkFeatures) -> torch.Tensor:
        """What may be mixed, (N, embed_dim): the pooled feature."""
        return features.pooled

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Quality (N,), 0 to 1, of what `project` gave."""
        quality: torch.Tensor = self.linear(pooled)[:, 0].float().sigmoid()
        return quality


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


class FusionHead(nn.Module):
    """Tokens of four depths, gated and summed; a mean over patches, blended with a global branch.

    Each patch has a score and a weight in the mean, as in MANIQA (arXiv 2204.08958). About 1.5 M
    parameters at a trunk of width 1024.
    """

    def __init__(self, config: TrunkConfig, width: int = 256) -> None:
        """Make the head for a trunk of these dimensions; `width` is that of its own features."""
        super().__init__()
        self.scales = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, width))
            for _ in range(TAPS)
        )
        self.scale_gate = _mlp(TAPS * width, width // 4, TAPS)
        self.channel_gates = nn.ModuleList(_mlp(width, width // 4, width) for _ in range(TAPS))
        self.spatial_gates = nn.ModuleList(nn.Linear(width, 1) for _ in range(TAPS))
        self.patch_score = _mlp(width, width // 2, 1)
        self.patch_weight = _mlp(width, width // 2, 1)
        self.whole = _mlp(TAPS * width, width // 2, 1)
        self.blend = nn.Parameter(torch.zeros(()))

    def project(self, features: TrunkFeatures) -> torch.Tensor:
        """What may be mixed, (N, TAPS, 1 + patches, width): CLS and patch tokens of each depth."""
        scales = []
        for scale, tap, cls in zip(self.scales, features.taps, features.class_tokens, strict=True):
            tokens = torch.cat([cls[:, None], tap.flatten(2).transpose(1, 2)], dim=1)
            scales.append(scale(tokens))
        return torch.stack(scales, dim=1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Quality (N,), 0 to 1, of what `project` gave."""
        fused = self.fuse(tokens[:, :, 1:])
        score = self.patch_score(fused)[..., 0].float().sigmoid()
        weight = self.patch_weight(fused)[..., 0].float().sigmoid()
        local = (weight * score).sum(dim=1) / weight.sum(dim=1).clamp_min(1e-6)
        whole = self.whole(tokens[:, :, 0].flatten(1))[:, 0].float().sigmoid()
        share = self.blend.float().sigmoid()
        quality: torch.Tensor = share * local + (1 - share) * whole
        return quality

    def fuse(self, patches: torch.Tensor) -> torch.Tensor:
        """Sum over depths with gates of depth, channel and place.

        Args:
            patches: (N, TAPS, patches, width).

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


class Quality(BenchmarkNetwork):
    """A trunk and a quality head, trained on the quality as a number."""

    def __init__(
        self,
        trunk: VisionTransformer,
        config: TrunkConfig,
        uses: QualityParts,
        mixup: MixupConfig,
    ) -> None:
        """Put a new head on a trunk.

        Args:
            trunk: FetalCLIP's image encoder, or one like it.
            config: its dimensions.
            uses: which parts of the paper are used.
            mixup: how features are mixed, where they are.
        """
        super().__init__()
        self.config, self.trunk, self.uses, self.mixup = config, trunk, uses, mixup
        self.head = FusionHead(config) if uses.fusion else PlainHead(config)

    def forward(self, frames: torch.Tensor) -> Answer:
        """Score grey frames (N, S, S) by their predicted quality."""
        features = taps_of(self.trunk, self.config, View().images(frames))
        mixable = self.head.project(features)
        quality = self.head(mixable)
        return Answer(quality, quality, features.pooled, (mixable,))

    def embed(self, frames: torch.Tensor) -> torch.Tensor:
        """The pooled features of grey frames, (N, E), by which they are clustered."""
        pooled: torch.Tensor = self.trunk(View().images(frames))
        return pooled.float()

    def loss(self, answer: Answer, samples: Samples) -> torch.Tensor:
        """Huber's loss of each frame, and while training the correlation over all samples.

        Pseudo-samples count as frames. In evaluation it is Huber's loss alone, which does not
        depend on how frames come together in batches.
        """
        scores, targets = answer.quality, samples.target
        if self.training and self.uses.cmx and bool((samples.cluster != NO_CLUSTER).all()):
            pairs = draw_pairs(samples, self.mixup)
            mixed = self.head(mix(answer.raw[0], pairs))
            scores = torch.cat([scores, mixed])
            targets = torch.cat([targets, mix(samples.target, pairs)])
        loss = functional.smooth_l1_loss(scores, targets, beta=HUBER_WIDTH)
        if self.training and self.uses.correlation:
            loss = loss + CORRELATION_WEIGHT * correlation_loss(scores, targets)
        return loss
