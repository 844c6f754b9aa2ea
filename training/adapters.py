"""Low-rank adapters for training, by PEFT, on every projection of the trunk.

The trunk's own attention module (see `network.Attention`) makes q, k, v and the output projection
ordinary Linears, so that each adapter is called, trains and merges. A bundle's adapters are merged
by `acouslic.lora`, without PEFT.
"""

# torch and PEFT are imported by the functions alone: command lines must not wait for them.
from __future__ import annotations

from typing import TYPE_CHECKING

from acouslic.lora import TARGETS, LoraConfig

if TYPE_CHECKING:
    from open_clip.transformer import VisionTransformer
    from peft.tuners.lora import LoraLayer
    from torch import nn


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
