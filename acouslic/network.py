"""The network: an open_clip visual tower (the trunk), a UNETR-like decoder, a head.

`DECODERS` and `HEADS` hold the ones that there are by name.

Images are (N, 3, S, S) float32, normalised as CLIP's; maps are (N, C, rows, columns).
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast

import numpy as np
import torch
from annotated_types import Interval, MultipleOf
from torch import nn
from torch.nn import functional

from acouslic import schema
from acouslic.backbones import BackboneName, View
from acouslic.challenge import CHALLENGE_FAN, Quality
from acouslic.heads import (
    LEAST_SHARE,
    AreaHead,
    ClassHead,
    ConcatFusionHead,
    FusionHead,
    LateFusionHead,
    RatingHead,
)
from acouslic.open_clip_trunk import LayerNorm, VisionTransformer
from acouslic.preprocess import Intensity, masks_to_grid
from acouslic.unetr import PublishedDecoder, published_taps

# UNETR takes features after four blocks, and so does the reference's decoder for FetalCLIP.
TAPS = 4
# open_clip's own, which FetalCLIP has: its config names no other.
HEAD_WIDTH = 64
# CLIP's own: the hidden layer of a block is so many times wider than its tokens.
MLP_RATIO = 4.0
# Width of the quality head's hidden layer; set by hand.
HIDDEN = 64
# At least so much weight is assumed under a mask, so that an empty one gives 0 and not 0 / 0.
LEAST_WEIGHT = 1e-3
# Heads that say quality as a number.
NumberHeadName = Literal["rating", "fusion", "fusion-concat", "fusion-late"]
# `joint` is this project's head, `class` FetalCLIP_CLS's, `area` FetalCLIP_SEG's.
HeadName = Literal["joint", "class", "area"] | NumberHeadName
# `own` is this project's decoder, `published` FetalCLIP_SEG's.
DecoderName = Literal["own", "published"]
# Which patches' tokens go through the trunk's blocks, see `NetworkConfig.patches`.
Patches = Literal["fan", "all", "registers"]
# What brings features of different sizes to one scale, see `NetworkConfig.norms`.
Norms = Literal["shared", "by-source"]


@dataclass(frozen=True)
class TrunkConfig:
    """The vision part of an open_clip model config.

    The limits hold for bundles. They leave room above ViT-bigG/14, the largest tower of open_clip.
    """

    image_size: Annotated[int, Interval(ge=16, le=1024)]
    """Side of the square images in pixels."""
    patch_size: Annotated[int, Interval(ge=2, le=64)]
    """Side of the square patches in pixels; each becomes a token."""
    width: Annotated[int, Interval(ge=HEAD_WIDTH, le=4096), MultipleOf(HEAD_WIDTH)]
    """Numbers a token."""
    layers: Annotated[int, Interval(ge=TAPS, le=128)]
    """Blocks, one behind the other."""
    embed_dim: Annotated[int, Interval(ge=1, le=4096)]
    """Numbers of the pooled feature."""

    @classmethod
    def read(cls, path: Path) -> "TrunkConfig":
        """Read an open_clip JSON file; its text tower is ignored.

        Raises:
            TypeError: the vision part has an option that this trunk does not know.
        """
        config = json.loads(path.read_text())
        return cls(embed_dim=config["embed_dim"], **config["vision_cfg"])

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def tap_blocks(self) -> tuple[int, ...]:
        """0-based blocks that features are taken after: four, evenly spaced, the last included."""
        return tuple(self.layers * (tap + 1) // TAPS - 1 for tap in range(TAPS))


@dataclass(frozen=True)
class BackboneConfig:
    """A scorer of timm: one logit for "annotated"."""

    name: BackboneName
    """Its architecture."""
    view: View
    """How it sees a frame."""


@dataclass(frozen=True)
class TrunkScorerConfig:
    """A scorer that is a trunk of its own with a head; all patches go through it."""

    trunk: TrunkConfig
    """Its trunk."""
    head: Literal["class"] | NumberHeadName
    """Its head."""


@dataclass(frozen=True)
class NetworkConfig:
    """All that rebuilds a network."""

    trunk: TrunkConfig
    """The image encoder."""
    decoder_width: Annotated[int, Interval(ge=1, le=512)]
    """Channels of the decoder's finest map; the deeper ones have two, four and eight times more."""
    image_levels: Annotated[int, Interval(ge=1, le=4)] = 1
    """Sizes of the frame that the decoder convolves itself, each half the last one: 1 to 4."""
    intensity: Intensity = "as-is"
    """What becomes of a frame's brightness before the network; see `preprocess.normalise`."""
    decoder: DecoderName = "own"
    """What makes the mask."""
    head: HeadName = "joint"
    """What rates the frame."""
    patches: Patches = "fan"
    """Patches that go through the trunk: those with a pixel in the fan, or all; registers: those in
    the fan, and up to four tokens that stand for the others."""
    norms: Norms = "shared"
    """by-source: the trunk's own last LayerNorm on its taps, and one LayerNorm for each source of
    the joint head; shared, as before there was a choice: taps as they are, one LayerNorm over all
    sources."""
    scorer: BackboneConfig | TrunkScorerConfig | None = None
    """A network beside this one that rates the frame in the head's place; None has the head."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "NetworkConfig":
        """Read what `to_dict` gives, or gave before the fields that have a default.

        Raises:
            ValueError: it is of another form.
        """
        return schema.validated(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """All values as plain JSON types."""
        return asdict(self)

    @property
    def is_own(self) -> bool:
        """Whether all parts are this project's own, none the papers'."""
        return (self.decoder, self.head, self.scorer) == ("own", "joint", None)

    @property
    def tap_blocks(self) -> tuple[int, ...]:
        """0-based blocks that the decoder's features are taken after."""
        if self.decoder == "published":
            return published_taps(self.trunk.layers)
        return self.trunk.tap_blocks


class TrunkFeatures(NamedTuple):
    """What a trunk gives for N images of g x g patches."""

    pooled: torch.Tensor
    """(N, embed_dim), CLIP's feature of the whole image."""
    taps: list[torch.Tensor]
    """Four maps (N, width, g, g): the patches' tokens after four of the blocks."""
    class_tokens: list[torch.Tensor]
    """(N, width) each: the class token after the same blocks."""


class Decoded(NamedTuple):
    """What the decoder gives for N images."""

    mask_logits: torch.Tensor
    """(N, 1, G, G) float32."""
    merged: list[torch.Tensor]
    """The maps behind them, from deep to shallow; channels and sizes differ."""


class Output(NamedTuple):
    """What a network gives for N images."""

    mask_logits: torch.Tensor
    """(N, 1, G, G) float32."""
    quality_logits: torch.Tensor
    """(N, 3) float32, in the order of `Quality`."""


class Attention(nn.Module):
    """Self-attention made of Linears, called as open_clip calls nn.MultiheadAttention.

    nn.MultiheadAttention hands its weights to a functional and never calls `out_proj`, so an
    adapter on it would never train.
    """

    def __init__(self, width: int, heads: int) -> None:
        """Make it for tokens of `width` numbers."""
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, query: torch.Tensor, _key: torch.Tensor, _value: torch.Tensor, **_options: object
    ) -> tuple[torch.Tensor, None]:
        """Tokens (N, length, width) to tokens of the same shape; key and value are the query's."""
        n, length, width = query.shape
        qkv = self.qkv(query).view(n, length, 3, self.heads, width // self.heads)
        attended = attend(*qkv.permute(2, 0, 3, 1, 4))
        return self.out(attended.transpose(1, 2).reshape(n, length, width)), None


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Scaled dot-product attention of (N, heads, length, d) tensors.

    In bfloat16 on a CPU, PyTorch's fused kernel takes three times as long as the plain products.
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        return torch.matmul(scores.softmax(dim=-1), value)
    return functional.scaled_dot_product_attention(query, key, value)


def build_trunk(config: TrunkConfig) -> VisionTransformer:
    """A trunk with fresh weights and attention that adapters can train."""
    heads = config.width // HEAD_WIDTH
    trunk = VisionTransformer(
        image_size=config.image_size,
        patch_size=config.patch_size,
        width=config.width,
        layers=config.layers,
        heads=heads,
        mlp_ratio=MLP_RATIO,
        output_dim=config.embed_dim,
        norm_layer=LayerNorm,
    )
    for block in trunk.transformer.resblocks:
        block.attn = Attention(config.width, heads)
    return trunk


def trunk_state_from_open_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename open_clip's visual state dict for this trunk; the tensors are the same."""
    renamed = (
        (".attn.in_proj_weight", ".attn.qkv.weight"),
        (".attn.in_proj_bias", ".attn.qkv.bias"),
        (".attn.out_proj.", ".attn.out."),
    )
    result = {}
    for name, tensor in state.items():
        for theirs, ours in renamed:
            name = name.replace(theirs, ours)
        result[name] = tensor
    return result


def patches_in_fan(config: TrunkConfig) -> np.ndarray:
    """Which patches have a pixel in the fan, (g, g) bool."""
    fan = masks_to_grid(CHALLENGE_FAN.mask()[None], config.image_size)[0]
    patches = fan.reshape(config.grid, config.patch_size, config.grid, config.patch_size)
    return np.asarray(patches.any(axis=(1, 3)))


def register_shares(outside: np.ndarray) -> np.ndarray:
    """What share each patch has in each register: the mean over a quarter of the image.

    Large ViTs keep what they know of the whole image in tokens of patches that show little; with
    four registers to keep it in they need no such patches (Darcet et al. 2024, arXiv 2309.16588).
    FetalCLIP has none, but was trained with the black patches around the fan in view.

    Args:
        outside: (g, g) bool, the patches that registers stand for.

    Returns:
        (R, g * g) float32, rows of sum 1; R is the number of quarters that hold such a patch.
    """
    row, column = np.indices(outside.shape) >= len(outside) // 2
    quarters = [outside & (2 * row + column == quarter) for quarter in range(4)]
    shares = [quarter.ravel() / quarter.sum() for quarter in quarters if quarter.any()]
    return np.array(shares, np.float32).reshape(-1, outside.size)


class TrunkPass(nn.Module):
    """A trunk's way through images: which tokens go through its blocks, and what is kept of them.

    It has no weights, and the trunk is given to each call: training may have put another in place.
    """

    def __init__(self, config: NetworkConfig) -> None:
        """Make the one of a network of this architecture."""
        super().__init__()
        self.grid, self.blocks = config.trunk.grid, config.tap_blocks
        self.norms_taps = config.norms == "by-source"
        in_fan = patches_in_fan(config.trunk)
        taking_part = np.ones_like(in_fan) if config.patches == "all" else in_fan
        outside = ~in_fan if config.patches == "registers" else np.zeros_like(in_fan)
        self.patches: torch.Tensor
        """(K,) int64, indices of the patches that go through the blocks, ascending."""
        self.registers: torch.Tensor
        """(R, g * g) float32, see `register_shares`; R is 0 where there are none."""
        # By NumPy: a network is built without memory for its weights, but not for these.
        patches = torch.from_numpy(np.flatnonzero(taking_part))
        self.register_buffer("patches", patches, persistent=False)
        registers = torch.from_numpy(register_shares(outside))
        self.register_buffer("registers", registers, persistent=False)

    def forward(self, trunk: VisionTransformer, images: torch.Tensor) -> TrunkFeatures:
        """What a trunk gives for images (N, 3, S, S); taps are zero where no patch took part."""
        # A small trunk has fewer blocks than taps, and open_clip gives each block but once.
        different = sorted(set(self.blocks))
        tokens, kept = trunk.transformer.forward_intermediates(
            self._tokens(trunk, images), indices=different
        )
        if self.norms_taps:
            kept = [trunk.ln_post(tap) for tap in kept]
        taps = [kept[different.index(block)] for block in self.blocks]
        pooled, _ = trunk._pool(tokens)
        return TrunkFeatures(
            pooled=pooled @ trunk.proj,
            taps=[self._to_grid(tap[:, 1 : 1 + len(self.patches)]) for tap in taps],
            class_tokens=[tap[:, 0] for tap in taps],
        )

    def _tokens(self, trunk: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
        """The class token, the patches' and the registers: (N, 1 + K + R, width)."""
        tokens = trunk._embeds(images)
        patches = tokens[:, 1:]
        chosen = [tokens[:, :1], patches[:, self.patches]]
        if len(self.registers):
            chosen.append(self.registers @ patches)
        return torch.cat(chosen, dim=1)

    def _to_grid(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (N, K, width) of the patches to a map (N, width, g, g)."""
        count, patches = len(self.patches), self.patches
        absent = patches.new_full((self.grid**2,), count)
        places = absent.scatter(0, patches, torch.arange(count, device=patches.device))
        # The patches that are not there take the row of zeros behind the others.
        full = functional.pad(tokens, (0, 0, 0, 1))[:, places]
        return full.transpose(1, 2).reshape(tokens.shape[0], -1, self.grid, self.grid)


def pool_under_mask(maps: torch.Tensor, mask_logits: torch.Tensor) -> torch.Tensor:
    """Mean of maps (N, C, g, g) under a mask (N, 1, G, G) of logits, G a multiple of g: (N, C)."""
    # int, as a tracer takes a size for a tensor.
    side = int(mask_logits.shape[-1] // maps.shape[-1])
    weight = functional.avg_pool2d(mask_logits.sigmoid(), side)
    total = weight.sum(dim=(2, 3)).clamp_min(LEAST_WEIGHT)
    return (maps * weight).sum(dim=(2, 3)) / total


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    """A depthwise 3 x 3 convolution, then one over channels: the reference's block."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _up(inputs: int, outputs: int) -> nn.Sequential:
    """Fewer channels, then twice the size: a quarter of the work that the other order takes."""
    return nn.Sequential(_conv(inputs, outputs), nn.Upsample(scale_factor=2, mode="bilinear"))


def _climb(inputs: int, outputs: int, doublings: int) -> nn.Sequential:
    """From tokens to a skip connection; channels shrink at once, so that large maps stay thin."""
    first = _up(inputs, outputs) if doublings else _conv(inputs, outputs)
    return nn.Sequential(first, *(_up(outputs, outputs) for _ in range(doublings - 1)))


def _level(inputs: int, outputs: int) -> nn.Sequential:
    """Half the size, then two plain 3 x 3 convolutions, as in a U-Net."""
    layers: list[nn.Module] = [nn.AvgPool2d(2)]
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def lay_channels_last(decoder: nn.Module) -> None:
    """Lay a decoder's filters in memory so that a pixel's channels lie together, in place.

    Its maps then lie so too, as the trunk's tokens do already. That takes a CPU a third less time.
    Only training on one device may do so: docs/performance.md says why.
    """
    decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Decoder(nn.Module):
    """UNETR-like: skips from image and taps, merged from deep to shallow into one map of logits.

    The token grid (g, g) is doubled until a cell is about a pixel of the image: 16 x 16 tokens of
    14 px give 256 x 256, of 8 px give 128 x 128. Channels are the reference's: one, two, four and
    eight times `width`. With `image_levels` above 1 the frame itself goes down a U-Net's way too:
    what a trunk's tokens blur, or never learnt, the merges then see.
    """

    def __init__(self, config: TrunkConfig, width: int, image_levels: int = 1) -> None:
        """Make one.

        Args:
            config: the trunk's.
            width: channels of the finest map.
            image_levels: sizes of the frame that are convolved, 1 to 4.
        """
        super().__init__()
        # Three merges double the grid three times, even where patches are smaller than 8 px.
        doublings = max(3, round(math.log2(config.patch_size)))
        self.size = config.grid * 2**doublings
        self.image = nn.Sequential(_conv(1, width), _conv(width, width))
        self.levels = nn.ModuleList(
            _level(2**level * width, 2 ** (level + 1) * width) for level in range(image_levels - 1)
        )
        self.taps = nn.ModuleList(
            _climb(config.width, channels * width, rise)
            for channels, rise in (
                (2, doublings - 1),
                (4, doublings - 2),
                (8, doublings - 3),
                (8, doublings - 3),
            )
        )
        self.merges = nn.ModuleList(
            nn.Sequential(
                _conv((2 + (level < image_levels)) * channels * width, channels * width),
                _up(channels * width, below),
            )
            for channels, below, level in ((8, 4 * width, 3), (4, 2 * width, 2), (2, width, 1))
        )
        self.logit = nn.Sequential(_conv(2 * width, width), nn.Conv2d(width, 1, 1))

    def forward(self, images: torch.Tensor, taps: list[torch.Tensor]) -> Decoded:
        """Images (N, 3, S, S) and the trunk's taps of them to masks."""
        grey = functional.interpolate(
            images[:, :1], size=(self.size, self.size), mode="bilinear", align_corners=False
        )
        shallow, middle, deep, deepest = (
            climb(tap) for climb, tap in zip(self.taps, taps, strict=True)
        )
        finest, *coarser = self._image_maps(grey)
        x = deepest
        merged = []
        for merge, skip, level in zip(self.merges, (deep, middle, shallow), (3, 2, 1), strict=True):
            x = merge(torch.cat([x, skip, *coarser[level - 1 : level]], dim=1))
            merged.append(x)
        return Decoded(self.logit(torch.cat([x, finest], dim=1)).float(), merged)

    def _image_maps(self, grey: torch.Tensor) -> list[torch.Tensor]:
        """The frame's own maps, from fine to coarse."""
        maps = [self.image(grey)]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return maps


class SourceNorm(nn.LayerNorm):
    """A LayerNorm for each of several sources, side by side in one vector.

    One over all of them would leave next to nothing of those whose numbers are small: some channels
    of a ViT's tokens are a hundred times larger than its pooled feature.
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        """Make it for sources of so many numbers each."""
        super().__init__(sum(sizes))
        self.sizes = list(sizes)

    def forward(self, joined: torch.Tensor) -> torch.Tensor:
        """Vectors (N, sum of sizes) to the same, each source with mean 0 and variance 1."""
        parts = (torch.split(x, self.sizes, dim=-1) for x in (joined, self.weight, self.bias))
        normed = [
            functional.layer_norm(source, weight.shape, weight, bias, self.eps)
            for source, weight, bias in zip(*parts, strict=True)
        ]
        return torch.cat(normed, dim=-1)


class QualityHead(nn.Module):
    """A frame's quality, from the pooled feature and from what the predicted mask covers.

    How well a frame suits depends on what the abdomen's section shows, and on how certain and how
    large the mask is.
    """

    def __init__(self, config: NetworkConfig) -> None:
        """Make one for the features of a network of this architecture."""
        super().__init__()
        merged = (channels * config.decoder_width for channels in (4, 2, 1))  # of Decoder.merges
        sizes = config.trunk.embed_dim, config.trunk.width, *merged
        inputs = sum(sizes)
        self.norm = SourceNorm(sizes if config.norms == "by-source" else (inputs,))
        self.hidden = nn.Linear(inputs + 2, HIDDEN)
        self.logits = nn.Linear(HIDDEN, len(Quality))

    def forward(self, features: TrunkFeatures, decoded: Decoded) -> torch.Tensor:
        """Quality logits (N, 3) float32; no gradient reaches the mask's logits from here."""
        mask_logits = decoded.mask_logits.detach()
        covered = [
            pool_under_mask(maps, mask_logits) for maps in (features.taps[-1], *decoded.merged)
        ]
        content = self.norm(torch.cat([features.pooled, *covered], dim=1).float())
        certainty = pool_under_mask(mask_logits, mask_logits)
        log_area = mask_logits.sigmoid().mean(dim=(2, 3)).clamp_min(LEAST_SHARE).log()
        hidden = functional.gelu(self.hidden(torch.cat([content, certainty, log_area], dim=1)))
        return cast(torch.Tensor, self.logits(hidden).float())


def _own_decoder(config: NetworkConfig) -> Decoder:
    return Decoder(config.trunk, config.decoder_width, config.image_levels)


def _published_decoder(config: NetworkConfig) -> PublishedDecoder:
    return PublishedDecoder(config.trunk.image_size, config.trunk.width, config.decoder_width)


DECODERS: dict[DecoderName, Callable[[NetworkConfig], Decoder | PublishedDecoder]] = {
    "own": _own_decoder,
    "published": _published_decoder,
}
HEADS: dict[HeadName, Callable[[NetworkConfig], nn.Module]] = {
    "joint": QualityHead,
    "class": lambda config: ClassHead(config.trunk),
    "area": lambda config: AreaHead(config.trunk),
    "rating": lambda config: RatingHead(config.trunk),
    "fusion": lambda config: FusionHead(config.trunk),
    "fusion-concat": lambda config: ConcatFusionHead(config.trunk),
    "fusion-late": lambda config: LateFusionHead(config.trunk),
}


class AbdomenNet(nn.Module):
    """Trunk, decoder and head: one pass gives a frame's mask and its quality."""

    def __init__(self, config: NetworkConfig) -> None:
        """Make one with fresh weights."""
        super().__init__()
        self.config = config
        self.trunk = build_trunk(config.trunk)
        self.decoder = DECODERS[config.decoder](config)
        self.quality_head = HEADS[config.head](config)
        self.trunk_pass = TrunkPass(config)

    def trunk_features(self, images: torch.Tensor) -> TrunkFeatures:
        """What the trunk gives for images (N, 3, S, S)."""
        return cast(TrunkFeatures, self.trunk_pass(self.trunk, images))

    def decode(self, images: torch.Tensor, features: TrunkFeatures) -> Decoded:
        """Images (N, 3, S, S) and what the trunk gives for them to masks."""
        return Decoded(*self.decoder(images, features.taps))

    def forward(self, images: torch.Tensor) -> Output:
        """Images (N, 3, S, S) to mask and quality logits."""
        features = self.trunk_features(images)
        decoded = self.decode(images, features)
        return Output(decoded.mask_logits, self.quality_head(features, decoded))
