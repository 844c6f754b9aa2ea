"""What is benchmarked: networks that score frames and know their own loss.

Every network takes grey frames (N, S, S) from 0 to 255 and answers with scores from 0 to 1. It
normalises and crops by itself, as families differ in that.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

import torch
from open_clip.transformer import VisionTransformer
from torch import nn
from torch.nn import functional

from acouslic.backbones import View
from acouslic.challenge import QUALITY_VALUES
from acouslic.heads import AreaHead
from acouslic.lora import LoraConfig
from acouslic.network import AbdomenNet, Attention, TrunkConfig
from benchmark.frames import Samples
from training.adapters import add_lora, lora_layers
from training.losses import dice_loss, joint_loss
from training.options import LossConfig

# Added above and below the fraction by MONAI.
MONAI_SMOOTHING = 1e-5


class Answer(NamedTuple):
    """What a network says of N frames."""

    score: torch.Tensor
    """(N,) float32, 0 to 1: what is compared with the threshold."""
    quality: torch.Tensor
    """(N,) float32, 0 to 1: the highest one picks a stack's frame."""
    embedding: torch.Tensor
    """(N, E): the features behind the answer."""
    raw: tuple[torch.Tensor, ...]
    """What the network's own loss needs."""


class BenchmarkNetwork(nn.Module):
    """A system's network."""

    def forward(self, frames: torch.Tensor) -> Answer:
        """Score grey frames (N, S, S), 0 to 255."""
        raise NotImplementedError

    def loss(self, answer: Answer, samples: Samples) -> torch.Tensor:
        """The mean loss over a batch that `forward` has answered."""
        raise NotImplementedError


class Features(Protocol):
    """A function from images to features."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features (N, E) of images (N, 3, S, S)."""
        ...


class Classifier(BenchmarkNetwork):
    """An encoder and one logit; binary cross-entropy with annotated or not."""

    def __init__(
        self,
        encoder: nn.Module,
        features: Features,
        head: nn.Module,
        view: View,
        trunk_config: TrunkConfig | None = None,
    ) -> None:
        """Join the parts.

        Args:
            encoder: all of the network but a head of its own.
            features: the encoder's features.
            head: from features to one logit; may be a module inside of the encoder.
            view: how the encoder sees a frame.
            trunk_config: the encoder's dimensions, if it is FetalCLIP's or one like it.
        """
        super().__init__()
        self.encoder, self.view, self.trunk_config = encoder, view, trunk_config
        self._features = features
        # A timm model holds its head itself: registered here too, its weights would be there twice.
        inside = [name for name, module in encoder.named_modules() if module is head]
        self.own_head = None if inside else head
        self._head: Callable[[torch.Tensor], torch.Tensor] = head.__call__
        self._head_name = inside[0] if inside else None

    def forward(self, frames: torch.Tensor) -> Answer:
        """Score grey frames (N, S, S): the probability that a frame is annotated."""
        embedding = self._features(self.view.images(frames))
        logit = self._head(embedding)[:, 0].float()
        probability = logit.sigmoid()
        return Answer(probability, probability, embedding, (logit,))

    def loss(self, answer: Answer, samples: Samples) -> torch.Tensor:
        """Binary cross-entropy."""
        label = (samples.quality > 0).float()
        return functional.binary_cross_entropy_with_logits(answer.raw[0], label)

    def encoder_state(self) -> dict[str, torch.Tensor]:
        """The encoder's weights without the head: what the paper's code shares between trials."""
        state = self.encoder.state_dict()
        if self._head_name is None:
            return state
        return {
            name: value for name, value in state.items() if not name.startswith(self._head_name)
        }


def timm_classifier(model: Any, view: View) -> Classifier:
    """A classifier of a timm model that was built with one class."""

    def features(images: torch.Tensor) -> torch.Tensor:
        pooled = model.forward_head(model.forward_features(images), pre_logits=True)
        return cast(torch.Tensor, pooled)

    return Classifier(model, features, model.get_classifier(), view)


def trunk_classifier(trunk: VisionTransformer, config: TrunkConfig) -> Classifier:
    """FetalCLIP_CLS: the pooled feature and a Linear."""
    return Classifier(trunk, trunk, nn.Linear(config.embed_dim, 1), View(), config)


class Segmenter(BenchmarkNetwork):
    """FetalCLIP_SEG: a decoder on the trunk, as published or ours; the score is the mask's area."""

    def __init__(self, network: AbdomenNet, *, dice_alone: bool) -> None:
        """Benchmark a network whose head is `area`.

        Args:
            network: trunk and decoder.
            dice_alone: whether there is no cross-entropy beside Dice, as in the paper's code.
        """
        super().__init__()
        self.network, self.dice_alone = network, dice_alone

    def forward(self, frames: torch.Tensor) -> Answer:
        """Score grey frames (N, S, S): the share of the pixels with p > 0.5."""
        images = View().images(frames)
        features = self.network.trunk_features(images)
        logits = self.network.decode(images, features).mask_logits
        area = AreaHead.share(logits)
        return Answer(area, area, features.pooled, (logits,))

    def loss(self, answer: Answer, samples: Samples) -> torch.Tensor:
        """Dice of every frame; or that of annotated frames, and a cross-entropy."""
        logits = answer.raw[0]
        target = functional.interpolate(
            samples.masks[:, None].float() / 255, size=logits.shape[-2:], mode="bilinear"
        )
        if self.dice_alone:
            return dice_of_every_frame(logits, target)
        dice = dice_loss(logits, target, samples.quality > 0)
        return dice + functional.binary_cross_entropy_with_logits(logits, target)


def dice_of_every_frame(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - soft Dice as MONAI's DiceLoss(sigmoid=True), which the paper's code has, computes it.

    A frame without abdomen has a loss of nearly 1 whatever is said of it, and next to no gradient.

    Args:
        logits: (N, 1, G, G).
        target: (N, 1, G, G), 0 to 1.

    Returns:
        The mean over all frames.
    """
    probability, truth = logits.float().sigmoid().flatten(1), target.flatten(1)
    overlap = 2 * (probability * truth).sum(dim=1) + MONAI_SMOOTHING
    size = probability.sum(dim=1) + truth.sum(dim=1) + MONAI_SMOOTHING
    return (1 - overlap / size).mean()


class Joint(BenchmarkNetwork):
    """This project's network and loss; every quality has the same weight."""

    def __init__(self, network: AbdomenNet) -> None:
        """Benchmark a network with trunk, decoder and quality head."""
        super().__init__()
        self.network = network
        self.register_buffer("values", torch.tensor(QUALITY_VALUES), persistent=False)
        self.register_buffer("weights", torch.ones(len(QUALITY_VALUES)), persistent=False)

    def forward(self, frames: torch.Tensor) -> Answer:
        """Score grey frames (N, S, S): the probability that a frame is annotated."""
        images = View().images(frames)
        features = self.network.trunk_features(images)
        decoded = self.network.decode(images, features)
        logits = self.network.quality_head(features, decoded)
        probability = logits.softmax(dim=1)
        return Answer(
            score=1 - probability[:, 0],
            quality=(probability * self.values).sum(dim=1),
            embedding=features.pooled,
            raw=(decoded.mask_logits, logits),
        )

    def loss(self, answer: Answer, samples: Samples) -> torch.Tensor:
        """The joint loss of mask and quality, as in training."""
        masks, logits = answer.raw
        truth = samples.masks.float() / 255
        weights = cast(torch.Tensor, self.weights)
        return joint_loss(
            masks,
            logits,
            truth,
            samples.quality,
            teaches_mask=torch.ones_like(samples.quality, dtype=torch.bool),
            class_weights=weights,
            config=LossConfig(),
        ).total


def reference_attention(trunk: VisionTransformer) -> None:
    """Give the trunk open_clip's own attention back, in place, with the same weights.

    That attention reads `out_proj.weight` past the layer itself, so an adapter on `out_proj` never
    trains. The paper's code has this trap, and its protocol keeps it.
    """
    for block in trunk.transformer.resblocks:
        ours = block.attn
        assert isinstance(ours, Attention)
        theirs = nn.MultiheadAttention(ours.out.in_features, ours.heads, batch_first=True)
        with torch.no_grad():
            theirs.in_proj_weight.copy_(ours.qkv.weight)
            theirs.in_proj_bias.copy_(ours.qkv.bias)
            theirs.out_proj.weight.copy_(ours.out.weight)
            theirs.out_proj.bias.copy_(ours.out.bias)
        block.attn = theirs


def add_adapters(model: nn.Module, targets: tuple[str, ...], config: LoraConfig) -> None:
    """Freeze a model and adapt some of its layers, in place.

    Args:
        model: the model.
        targets: endings of the layers' names.
        config: the adapters' rank and scale.

    Raises:
        ValueError: no layer has such a name, as with DenseNet and EfficientNet.
    """
    add_lora(model, config, targets)
    assert lora_layers(model)


def parameter_counts(network: nn.Module) -> tuple[int, int]:
    """Numbers of trainable and of all parameters."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)
