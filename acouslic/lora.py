"""Low-rank adapters on every projection of the trunk, by PEFT.

The trunk's own attention module (see `network.Attention`) makes q, k, v and the output projection
ordinary Linears, so that each adapter is called, trains and merges.
"""

# torch and PEFT are imported by the functions alone: the training's command line shows the options
# in LoraConfig, and its help must not wait for them.
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Interval

if TYPE_CHECKING:
    from open_clip.transformer import VisionTransformer
    from peft.tuners.lora import LoraLayer
    from torch import nn

# What the layers of a block are called that get an adapter: all of its projections.
TARGETS = ("qkv", "out", "c_fc", "c_proj")


@dataclass(frozen=True)
class LoraConfig:
    """The adapters; the defaults are those of the reference for FetalCLIP."""

    rank: Annotated[int, Interval(ge=1, le=1024)] = 8
    """Rank of each adapter's two matrices."""
    alpha: Annotated[int, Interval(ge=1, le=4096)] = 16
    """Numerator of an adapter's scale, alpha / rank."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    """Share of an adapter's inputs that are dropped in training, 0 to 1."""


def add_lora(trunk: nn.Module, config: LoraConfig, targets: tuple[str, ...] = TARGETS) -> None:
    """Freeze the trunk and adapt each of its projections, in place; its output stays as it was.

    Args:
        trunk: from `network.build_trunk`.
        config: the adapters.
        targets: ends of the names of the layers to adapt.

    Raises:
        ValueError: no layer's name ends in one of `targets`.
    """
    from peft import LoraConfig as PeftLoraConfig
    from peft import inject_adapter_in_model

    trunk.requires_grad_(False)
    inject_adapter_in_model(
        PeftLoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=list(targets),
            bias="none",
        ),
        trunk,
    )


def lora_layers(trunk: nn.Module) -> dict[str, LoraLayer]:
    """The adapted layers by name; empty without adapters."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in trunk.named_modules() if isinstance(module, LoraLayer)}


def merge_lora(trunk: VisionTransformer) -> None:
    """Add each adapter to its base weights, in place, and put the plain Linears back."""
    import torch

    for name, layer in lora_layers(trunk).items():
        parent, _, child = name.rpartition(".")
        with torch.no_grad():
            layer.merge()
        setattr(trunk.get_submodule(parent), child, layer.get_base_layer())
