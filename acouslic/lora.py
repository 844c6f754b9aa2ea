"""Low-rank adapters on every projection of the trunk, by PEFT.

The trunk's own attention module (see `network.Attention`) makes q, k, v and the output projection
ordinary Linears, so that each adapter is called, trains and merges.
"""

from dataclasses import dataclass

import torch
from open_clip.transformer import VisionTransformer
from peft import LoraConfig as PeftLoraConfig
from peft import inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

TARGETS = ("qkv", "out", "c_fc", "c_proj")


@dataclass(frozen=True)
class LoraConfig:
    """Rank, scale numerator and dropout; the defaults are those of the reference for FetalCLIP."""

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.1


def add_lora(trunk: nn.Module, config: LoraConfig, targets: tuple[str, ...] = TARGETS) -> None:
    """Freeze the trunk and adapt each of its projections, in place; its output stays as it was.

    Raises:
        ValueError: no layer's name ends in one of `targets`.
    """
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
    return {name: module for name, module in trunk.named_modules() if isinstance(module, LoraLayer)}


def merge_lora(trunk: VisionTransformer) -> None:
    """Add each adapter to its base weights, in place, and put the plain Linears back."""
    for name, layer in lora_layers(trunk).items():
        parent, _, child = name.rpartition(".")
        with torch.no_grad():
            layer.merge()
        setattr(trunk.get_submodule(parent), child, layer.get_base_layer())
