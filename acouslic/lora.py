"""Low-rank adapters: what they are, and how a bundle's become part of the trunk's weights.

Training makes them with PEFT (`training.adapters`), which what ships can do without.
"""

# torch is imported by the type checker alone: the training's command line shows the options in
# LoraConfig, and its help must not wait.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Interval

if TYPE_CHECKING:
    from torch import Tensor

# What the layers of a block are called that get an adapter: all of its projections.
TARGETS = ("qkv", "out", "c_fc", "c_proj")
# In the name of each of an adapter's two matrices, as PEFT calls them.
MARK = ".lora_"


@dataclass(frozen=True)
class LoraConfig:
    """The adapters; the defaults are those of the reference for FetalCLIP."""

    rank: Annotated[int, Interval(ge=1, le=1024)] = 8
    """Rank of each adapter's two matrices."""
    alpha: Annotated[int, Interval(ge=1, le=4096)] = 16
    """Numerator of an adapter's scale, alpha / rank."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    """Share of an adapter's inputs that are dropped in training, 0 to 1."""


def merge_adapters(state: Mapping[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """Add each adapter to its base weights: W + alpha / rank B A (Hu et al. 2021, section 4.1).

    Args:
        state: the tensors of an adapted network by name, a layer's base by that of a plain layer.
        config: the adapters.

    Returns:
        The tensors of the plain network. Those that have no adapter are the given ones.

    Raises:
        ValueError: an adapter is missing, of another shape, or of a layer that has none.
    """
    plain = {name: tensor for name, tensor in state.items() if MARK not in name}
    adapters = state.keys() - plain.keys()
    for name, weight in plain.items():
        layer = name.removesuffix(".weight")
        if not layer.startswith("trunk.") or layer.rpartition(".")[2] not in TARGETS:
            continue
        if name == layer:
            continue  # its bias
        down, up = (f"{layer}{MARK}{matrix}.default.weight" for matrix in "AB")
        if not {down, up} <= adapters:
            raise ValueError(f"no adapter of {layer}")
        adapters -= {down, up}
        _require_shapes(layer, weight, state[down], state[up], config.rank)
        plain[name] = weight + (state[up] @ state[down]) * (config.alpha / config.rank)
    if adapters:
        raise ValueError(f"unexpected tensor {min(adapters)}")
    return plain


def _require_shapes(layer: str, weight: Tensor, down: Tensor, up: Tensor, rank: int) -> None:
    outputs, inputs = weight.shape if weight.ndim == 2 else (0, 0)
    shapes = [tuple(matrix.shape) for matrix in (up, down)]
    if shapes != [(outputs, rank), (rank, inputs)] or not up.is_floating_point():
        raise ValueError(f"an adapter of {layer} with shapes {shapes}")
