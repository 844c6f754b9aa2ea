"""Where a system's first weights come from: timm's own mechanism, a local file, a base, or chance.

Local files are read without unpickling code.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from open_clip.transformer import VisionTransformer
from safetensors.torch import load_file

from acouslic.errors import InputError
from acouslic.network import TrunkConfig, build_trunk
from training.base import load_base

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
FETALCLIP = Path(__file__).resolve().parents[1] / "resources" / "fetalclip.json"
RANDOM = "random weights"
STAND_IN_GRID = 8


@dataclass(frozen=True)
class WeightSource:
    """base: a folder by `import-fetalclip` or the demo, for every system on FetalCLIP's trunk.

    pretrained: whether timm systems start from published weights; folder: where those lie as
    files, None to let timm fetch them.
    """

    pretrained: bool = True
    folder: Path | None = None
    base: Path | None = None


def timm_model(name: str, source: WeightSource) -> tuple[Any, str]:
    """A timm model with one logit, and a phrase that says where its weights come from.

    Raises InputError where `source.folder` has no file for it, or the wrong one.
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
        # Only now: asked for one class at once, timm loads whatever fits and says nothing.
        model.reset_classifier(1)
    except (RuntimeError, KeyError, ValueError) as error:
        raise InputError(
            expected=f"weights of {name} in {path}",
            found=str(error).splitlines()[0],
            advice="save that model's state dict as timm publishes it",
        ) from error
    return model, f"the weights in {path.name}"


def _weights_file(name: str, folder: Path) -> Path:
    # Not with_suffix: a timm name may have dots.
    for path in (folder / f"{name}{suffix}" for suffix in SUFFIXES):
        if path.is_file():
            return path
    raise InputError(
        expected=f"{name} with one of {', '.join(SUFFIXES)} in {folder}",
        found="no such file",
        advice="put it there, or leave --pretrained-dir out to let timm fetch it",
    )


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """A state dict of tensors; one level of wrapping (`state_dict`, `model`) is taken off."""
    if path.suffix == ".safetensors":
        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        if key in state and isinstance(state[key], dict):
            state = state[key]
    return dict(state)


def trunk_with_weights(
    source: WeightSource, size: int | None
) -> tuple[TrunkConfig, VisionTransformer, str]:
    """The trunk of `source.base`, or FetalCLIP's with random weights where nothing pretrained is
    asked for; `size` overrides the trunk with a small one of that image side.

    Raises InputError where a base is needed and not given.
    """
    if source.base is not None:
        config, trunk, provenance = load_base(source.base)
        return config, trunk, str(provenance["what"])
    if source.pretrained:
        raise InputError(
            expected="the base that FetalCLIP's systems stand on (--base)",
            found="none",
            advice="write one with `python -m training import-fetalclip`, or add --weights none",
        )
    config = TrunkConfig.read(FETALCLIP) if size is None else small_trunk(size)
    return config, build_trunk(config), RANDOM


def small_trunk(size: int) -> TrunkConfig:
    """A small ViT for images of this side, of 8 x 8 tokens."""
    return TrunkConfig(
        image_size=size,
        patch_size=max(1, size // STAND_IN_GRID),
        width=128,
        layers=4,
        embed_dim=128,
    )
