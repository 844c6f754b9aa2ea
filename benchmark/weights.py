"""Where a system's first weights come from: timm, a local file, a base, or random numbers.

Local files are read without unpickling code.
"""

from pathlib import Path
from typing import Any

import timm
import torch
from open_clip.transformer import VisionTransformer
from safetensors.torch import load_file

from acouslic.backbones import SMALL_GRID
from acouslic.errors import InputError
from acouslic.network import TrunkConfig, build_trunk
from benchmark.options import WeightSource
from training.base import load_base

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
FETALCLIP = Path(__file__).resolve().parents[1] / "resources" / "fetalclip.json"
RANDOM = "random weights"


def timm_model(name: str, source: WeightSource) -> tuple[Any, str]:
    """Build a timm model with one logit.

    Args:
        name: the model's name in timm.
        source: where its weights come from.

    Returns:
        The model, and where its weights come from in words.

    Raises:
        InputError: `source.folder` has no file for it, or the wrong one.
    """
    if not source.pretrained:
        return timm.create_model(name, pretrained=False, num_classes=1), RANDOM
    if source.folder is None:
        return timm.create_model(name, pretrained=True, num_classes=1), f"timm's weights {name}"
    path = _weights_file(name, source.folder)
    try:
        model: Any = timm.create_model(
            name,
            pretrained=True,
            pretrained_cfg_overlay={"state_dict": read_state(path), "custom_load": False},
        )
        model.pretrained_cfg.pop("state_dict", None)
        # Not before: asked for one class at once, timm loads whatever fits and says nothing.
        model.reset_classifier(1)
    except (RuntimeError, KeyError, ValueError) as error:
        raise InputError(
            expected=f"weights of {name} in {path}",
            found=str(error).splitlines()[0],
            advice="save that model's state dict as timm publishes it",
        ) from error
    return model, f"the weights in {path.name}"


def at_hand(name: str, source: WeightSource) -> bool:
    """Whether the weights of a timm model lie in the source's folder."""
    return source.pretrained and source.folder is not None and bool(_files(name, source.folder))


def _weights_file(name: str, folder: Path) -> Path:
    if found := _files(name, folder):
        return found[0]
    raise InputError(
        expected=f"{name} with one of {', '.join(SUFFIXES)} in {folder}",
        found="no such file",
        advice="put it there, or leave --pretrained-dir out to let timm fetch it",
    )


def _files(name: str, folder: Path) -> list[Path]:
    # Not with_suffix: a timm name may have dots.
    paths = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    return [path for path in paths if path.is_file()]


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict of tensors; one level of wrapping (`state_dict`, `model`) is taken off."""
    if path.suffix == ".safetensors":
        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        if key in state and isinstance(state[key], dict):
            state = state[key]
    return dict(state)


def trunk_with_weights(
    source: WeightSource, size: int | None
) -> tuple[TrunkConfig, VisionTransformer, dict[str, Any]]:
    """Build the trunk of a base, or one with random weights.

    Args:
        source: with the base; without one its `pretrained` must be False.
        size: side of the images of a small trunk with random weights; None takes FetalCLIP's.

    Returns:
        The trunk's dimensions, the trunk, and where it comes from: at least `what`, in words.

    Raises:
        InputError: a base is needed and not given.
    """
    if source.base is not None:
        return load_base(source.base)
    if source.pretrained:
        raise InputError(
            expected="the base of the systems on FetalCLIP's trunk (--base)",
            found="none",
            advice="write one with `python -m training import-fetalclip`, or add --weights none",
        )
    config = TrunkConfig.read(FETALCLIP) if size is None else small_trunk(size)
    return config, build_trunk(config), {"what": RANDOM}


def small_trunk(size: int) -> TrunkConfig:
    """Dimensions of a small ViT for images of this side, with 8 x 8 tokens."""
    return TrunkConfig(
        image_size=size,
        patch_size=max(1, size // SMALL_GRID),
        width=128,
        layers=4,
        embed_dim=128,
    )
