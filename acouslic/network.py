"""The network: an open_clip visual tower (the trunk), a UNETR-like decoder, a quality head.

Images are (N, 3, S, S) float32, normalised as CLIP's; maps are (N, C, rows, columns).
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from open_clip.transformer import LayerNorm, VisionTransformer
from torch import nn
from torch.nn import functional

from acouslic.challenge import CHALLENGE_FAN, Quality
from acouslic.preprocess import masks_to_grid

TAPS = 4
HEAD_WIDTH = 64
HIDDEN = 64


@dataclass(frozen=True)
class TrunkConfig:
    """The vision part of an open_clip model config."""

    image_size: int
    patch_size: int
    width: int
    layers: int
    embed_dim: int

    @classmethod
    def read(cls, path: Path) -> "TrunkConfig":
        """From an open_clip JSON file; its text tower is ignored.

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
class NetworkConfig:
    """All that rebuilds a network."""

    trunk: TrunkConfig
    decoder_width: int

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "NetworkConfig":
        return cls(TrunkConfig(**values["trunk"]), values["decoder_width"])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class TrunkFeatures(NamedTuple):
    """Of the trunk: `pooled` (N, E), four `taps` (N, width, g, g), `class_tokens` (N, width)."""

    pooled: torch.Tensor
    taps: list[torch.Tensor]
    class_tokens: list[torch.Tensor]


class Decoded(NamedTuple):
    """`mask_logits` (N, 1, G, G) float32, and the maps behind them from deep to shallow."""

    mask_logits: torch.Tensor
    merged: list[torch.Tensor]


class Output(NamedTuple):
    """`mask_logits` (N, 1, G, G), `quality_logits` (N, 3) in the order of Quality; both float32."""

    mask_logits: torch.Tensor
    quality_logits: torch.Tensor


class Attention(nn.Module):
    """Self-attention of real Linears, called the way open_clip calls MultiheadAttention.

    nn.MultiheadAttention hands its weights to a functional and never calls `out_proj`, so an
    adapter on it would never train.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, query: torch.Tensor, _key: torch.Tensor, _value: torch.Tensor, **_options: object
    ) -> tuple[torch.Tensor, None]:
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
    """A trunk with fresh weights."""
    heads = config.width // HEAD_WIDTH
    trunk = VisionTransformer(
        image_size=config.image_size,
        patch_size=config.patch_size,
        width=config.width,
        layers=config.layers,
        heads=heads,
        mlp_ratio=4.0,
        output_dim=config.embed_dim,
        norm_layer=LayerNorm,
    )
    for block in trunk.transformer.resblocks:
        block.attn = Attention(config.width, heads)
    return trunk


def trunk_state_from_open_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """open_clip's visual state dict in this trunk's names; the tensors are the same ones."""
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


def patches_in_fan(config: TrunkConfig) -> torch.Tensor:
    """Indices of the patches with any pixel in the fan, ascending, (K,) int64."""
    fan = masks_to_grid(CHALLENGE_FAN.mask()[None], config.image_size)[0]
    patches = fan.reshape(config.grid, config.patch_size, config.grid, config.patch_size)
    return torch.from_numpy(np.flatnonzero(patches.any(axis=(1, 3))))


def trunk_features(
    trunk: VisionTransformer, config: TrunkConfig, seen: torch.Tensor, images: torch.Tensor
) -> TrunkFeatures:
    """Images (N, 3, S, S) to what a trunk says of them.

    Only the `seen` patches, those of `patches_in_fan`, go through the blocks, three fifths of
    them; the taps are zero elsewhere.
    """
    tokens = trunk._embeds(images)
    tokens = torch.cat([tokens[:, :1], tokens[:, 1:][:, seen]], dim=1)
    tokens, taps = trunk.transformer.forward_intermediates(tokens, indices=list(config.tap_blocks))
    pooled, _ = trunk._pool(tokens)
    return TrunkFeatures(
        pooled=pooled @ trunk.proj,
        taps=[_to_grid(tap[:, 1:], seen, config.grid) for tap in taps],
        class_tokens=[tap[:, 0] for tap in taps],
    )


def _to_grid(tokens: torch.Tensor, seen: torch.Tensor, grid: int) -> torch.Tensor:
    """Tokens of the seen patches (N, seen, width) to a map (N, width, g, g)."""
    full = tokens.new_zeros(len(tokens), grid * grid, tokens.shape[-1])
    full[:, seen] = tokens
    return full.transpose(1, 2).reshape(len(tokens), -1, grid, grid)


def pool_under_mask(found: torch.Tensor, mask_logits: torch.Tensor) -> torch.Tensor:
    """Mean of a map (N, C, g, g) under the mask (N, 1, G, G), (N, C)."""
    weight = functional.adaptive_avg_pool2d(mask_logits.sigmoid(), found.shape[-1])
    total = weight.sum(dim=(2, 3)).clamp_min(1e-3)
    return (found * weight).sum(dim=(2, 3)) / total


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _up(inputs: int, outputs: int) -> nn.Sequential:
    """Fewer channels first, then twice the size: a quarter of the work of the other order."""
    return nn.Sequential(_conv(inputs, outputs), nn.Upsample(scale_factor=2, mode="bilinear"))


def _climb(inputs: int, outputs: int, doublings: int) -> nn.Sequential:
    """From tokens to a skip connection: channels shrink at once, so that large maps stay thin."""
    first = _up(inputs, outputs) if doublings else _conv(inputs, outputs)
    return nn.Sequential(first, *(_up(outputs, outputs) for _ in range(doublings - 1)))


class Decoder(nn.Module):
    """UNETR-like: skips from image and taps, merged from deep to shallow, to one logit map.

    The token grid (g, g) is doubled until a token covers one pixel or less than two: 16 x 16 tokens
    of 14 px give 256 x 256, of 8 px give 128 x 128.
    """

    def __init__(self, config: TrunkConfig, width: int) -> None:
        super().__init__()
        doublings = max(3, round(math.log2(config.patch_size)))
        self.size = config.grid * 2**doublings
        self.image = nn.Sequential(_conv(1, width), _conv(width, width))
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
                _conv(2 * channels * width, channels * width), _up(channels * width, below)
            )
            for channels, below in ((8, 4 * width), (4, 2 * width), (2, width))
        )
        self.logit = nn.Sequential(_conv(2 * width, width), nn.Conv2d(width, 1, 1))

    def forward(self, images: torch.Tensor, taps: list[torch.Tensor]) -> Decoded:
        grey = functional.interpolate(
            images[:, :1], size=(self.size, self.size), mode="bilinear", align_corners=False
        )
        shallow, middle, deep, deepest = (
            climb(tap) for climb, tap in zip(self.taps, taps, strict=True)
        )
        x = deepest
        merged = []
        for merge, skip in zip(self.merges, (deep, middle, shallow), strict=True):
            x = merge(torch.cat([x, skip], dim=1))
            merged.append(x)
        return Decoded(self.logit(torch.cat([x, self.image(grey)], dim=1)).float(), merged)


class QualityHead(nn.Module):
    """Three classes from the pooled feature and from what the predicted mask covers.

    How well a frame suits is a matter of what the abdomen's section shows, and of how sure the
    mask is: it is trained to be empty wherever a frame is not annotated.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        merged = (4 + 2 + 1) * config.decoder_width
        inputs = config.trunk.embed_dim + config.trunk.width + merged
        self.norm = nn.LayerNorm(inputs)
        self.hidden = nn.Linear(inputs + 2, HIDDEN)
        self.logits = nn.Linear(HIDDEN, len(Quality))

    def forward(self, features: TrunkFeatures, decoded: Decoded) -> torch.Tensor:
        """Quality logits (N, 3) float32. The mask learns from its own loss only."""
        mask_logits = decoded.mask_logits.detach()
        covered = [
            pool_under_mask(found, mask_logits) for found in (features.taps[-1], *decoded.merged)
        ]
        seen = self.norm(torch.cat([features.pooled, *covered], dim=1).float())
        sure = pool_under_mask(mask_logits, mask_logits)
        log_area = mask_logits.sigmoid().mean(dim=(2, 3)).clamp_min(1e-4).log()
        hidden = functional.gelu(self.hidden(torch.cat([seen, sure, log_area], dim=1)))
        return cast(torch.Tensor, self.logits(hidden).float())


class AbdomenNet(nn.Module):
    """Trunk, decoder and quality head."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = build_trunk(config.trunk)
        self.decoder = Decoder(config.trunk, config.decoder_width)
        self.quality_head = QualityHead(config)
        self.seen: torch.Tensor
        self.register_buffer("seen", patches_in_fan(config.trunk), persistent=False)

    def trunk_features(self, images: torch.Tensor) -> TrunkFeatures:
        """Images (N, 3, S, S) to the pooled feature and the taps of the trunk."""
        return trunk_features(self.trunk, self.config.trunk, self.seen, images)

    def forward(self, images: torch.Tensor) -> Output:
        features = self.trunk_features(images)
        decoded = self.decoder(images, features.taps)
        return Output(decoded.mask_logits, self.quality_head(features, decoded))
