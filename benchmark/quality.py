"""Frame quality as a number: fusion of four depths, mix-up of features, a correlation loss.

Of Chen et al. (2025) only the abstract is public. Every formula is OUR INTERPRETATION, built from
the nearest published work, and no figure of theirs is claimed to be reproduced. Fusion, mix-up and
correlation can be left out by themselves.
"""

from typing import cast

import torch
from open_clip.transformer import VisionTransformer

from acouslic.backbones import View
from acouslic.heads import NumberHead
from acouslic.network import HEADS, NetworkConfig, NumberHeadName, TrunkConfig, TrunkPass
from benchmark.frames import NO_CLUSTER, Samples
from benchmark.networks import Answer, BenchmarkNetwork
from training.mixup import MixupConfig, Pool
from training.rating import rating_loss


class Quality(BenchmarkNetwork):
    """A trunk and a quality head, trained on the quality as a number."""

    def __init__(
        self,
        trunk: VisionTransformer,
        config: TrunkConfig,
        head: NumberHeadName,
        *,
        mixup: MixupConfig | None,
        correlation: bool,
    ) -> None:
        """Put a new head on a trunk.

        Args:
            trunk: FetalCLIP's image encoder, or one like it.
            config: its dimensions.
            head: name of the head.
            mixup: how features are mixed; None mixes none.
            correlation: whether the correlation is part of the loss.
        """
        super().__init__()
        self.config, self.trunk, self.head_name = config, trunk, head
        self.mixup, self.correlation = mixup, correlation
        whole = NetworkConfig(config, decoder_width=1, patches="all")
        self.head = cast(NumberHead, HEADS[head](whole))
        self.trunk_pass = TrunkPass(whole)

    def forward(self, frames: torch.Tensor) -> Answer:
        """Score grey frames (N, S, S) by their predicted quality."""
        features = self.trunk_pass(self.trunk, View().images(frames))
        mixable = self.head.project(features)
        quality = self.head.rate(mixable)
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
        mixes = (
            self.training and self.mixup is not None and bool((samples.cluster != NO_CLUSTER).all())
        )
        return rating_loss(
            self.head.rate,
            answer.raw[0],
            samples.target,
            pool=Pool(samples.target, samples.subject, samples.cluster) if mixes else None,
            mixup=self.mixup,
            correlation=self.training and self.correlation,
        )
