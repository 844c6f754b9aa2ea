"""`import-fetalclip`: the published checkpoint -> a base, without trusting the file.

The checkpoint is a whole open_clip CLIP: every tensor of both towers must be there in its shape,
and nothing else. The base gets the visual tower.
"""

import json
import logging
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch.nn import functional

from acouslic import files
from acouslic.errors import InputError
from acouslic.network import (
    NetworkConfig,
    Patches,
    TrunkConfig,
    TrunkFeatures,
    TrunkPass,
    trunk_state_from_open_clip,
)
from acouslic.preprocess import Intensity, normalise, to_grid
from evaluation.frames import read_image
from phantom.look import Look
from phantom.render import Renderer
from phantom.truth import truth
from training.base import BASE, TORCH_TYPES, load_base, save_base
from training.options import StoredType

VISUAL = "visual."
LICENCE = "CC BY-NC 4.0"
MODEL = "numansaeed/fetalclip-model"
SOURCE = f"{MODEL}, FetalCLIP_weights.pt (arXiv 2502.14807)"
ADVICE = "download FetalCLIP_weights.pt again from its authors' model page and compare its size"
# The phantom whose frames stand in for real ones, and how many: two a sweep.
PHANTOM_SEED, PHANTOM_FRAMES = 1, 12
State = dict[str, torch.Tensor]
log = logging.getLogger(__name__)


def import_fetalclip(
    checkpoint: Path,
    output: Path,
    *,
    config: Path,
    dtype: StoredType,
    images: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Write a base with the visual tower of a checkpoint.

    Args:
        checkpoint: FetalCLIP_weights.pt.
        output: the base's folder.
        config: open_clip's model config of the checkpoint.
        dtype: numbers that the weights are stored in.
        images: folder of frames to vary brightness and patches on; None takes a phantom's.
        overwrite: whether an older base may be replaced.

    Raises:
        InputError: the file is missing, cut short, no checkpoint, holds code, or is of another
            architecture.
        OutputError: `output` holds something else, or a base that is not to be replaced.
    """
    files.refuse_stranger(output, BASE, overwrite=overwrite)
    log.info("FetalCLIP's weights are under %s: no commercial use, and name their authors", LICENCE)
    state = read_state(checkpoint)
    check_architecture(state, config)
    visual = {
        name.removeprefix(VISUAL): tensor
        for name, tensor in state.items()
        if name.startswith(VISUAL)
    }
    provenance = {
        "simulated": False,
        "what": "visual tower of FetalCLIP",
        "model": MODEL,
        "source": SOURCE,
        "file": checkpoint.name,
        "sha256": files.sha256(checkpoint),
        "licence": LICENCE,
    }
    save_base(
        output,
        TrunkConfig.read(config),
        trunk_state_from_open_clip(visual),
        provenance,
        TORCH_TYPES[dtype],
        overwrite=overwrite,
    )
    log.info("%s holds the visual tower, sha256 of its source %s", output, provenance["sha256"])
    frames = phantom_frames() if images is None else read_images(images)
    for line in feature_report(output, frames):
        log.info("%s", line)


def phantom_frames() -> np.ndarray:
    """Frames of a phantom, spread over its sweeps, (N, H, W) uint8."""
    known = truth(PHANTOM_SEED, 0)
    tissue = np.flatnonzero(known.tissue())
    chosen = tissue[np.linspace(0, len(tissue) - 1, PHANTOM_FRAMES).astype(int)]
    return Renderer(known, Look.REALISTIC).frames(chosen.tolist())


def read_images(folder: Path) -> np.ndarray:
    """The .png files of a folder as frames, (N, H, W) uint8.

    Raises:
        InputError: there is none.
    """
    paths = sorted(folder.glob("*.png"))
    if not paths:
        raise InputError(
            expected=f"frames (.png) in {folder}", found="none", advice="name a folder of images"
        )
    return np.stack([read_image(path) for path in paths])


@torch.inference_mode()
def feature_report(base: Path, frames: np.ndarray) -> list[str]:
    """How far `--intensity` and `--tokens` take the trunk's features from what it was trained on.

    That is: brightness as it is, and all patches in view.

    Args:
        base: the folder of the base.
        frames: (N, H, W) uint8.

    Returns:
        A line for scale, the pooled features' cosine of two different frames; then a line for each
        option, with those of the same frame, and of the fan's patches after the tapped blocks.
    """
    config, trunk, _ = load_base(base)
    grid = to_grid(frames, config.image_size)
    fan = TrunkPass(NetworkConfig(config, decoder_width=1)).patches

    def features(patches: Patches, intensity: Intensity) -> TrunkFeatures:
        network = NetworkConfig(config, decoder_width=1, patches=patches, norms="by-source")
        through = TrunkPass(network)
        found: TrunkFeatures = through(trunk, normalise(grid, intensity))
        return found._replace(taps=[tap.flatten(2)[:, :, fan] for tap in found.taps])

    trained_on = features("all", "as-is")
    pooled = functional.normalize(trained_on.pooled)
    others = (pooled @ pooled.T).fill_diagonal_(math.nan).nanmedian()
    blocks = ", ".join(str(block + 1) for block in config.tap_blocks)
    lines = [
        f"cosine of two different frames' pooled features: {others:.3f} (median of {len(frames)} "
        f"frames); of a frame's features with what the trunk was trained on, pooled (least), and "
        f"of the fan's patches after blocks {blocks}:"
    ]
    changes: tuple[tuple[str, Patches, Intensity], ...] = (
        ("--intensity fan", "all", "fan"),
        ("--tokens registers", "registers", "as-is"),
        ("--tokens fan", "fan", "as-is"),
    )
    for option, patches, intensity in changes:
        lines.append(f"{option}: {_cosines(trained_on, features(patches, intensity))}")
    return lines


def _cosines(before: TrunkFeatures, after: TrunkFeatures) -> str:
    """Median cosines of pooled features and of each tap's tokens (N, width, K)."""
    pooled = functional.cosine_similarity(before.pooled, after.pooled)
    taps = [
        f"{functional.cosine_similarity(old, new).median():.3f}"
        for old, new in zip(before.taps, after.taps, strict=True)
    ]
    return f"{pooled.median():.3f} ({pooled.min():.3f}); {', '.join(taps)}"


def read_state(path: Path) -> State:
    """The checkpoint's tensors by open_clip's names, mapped from the file where its format allows.

    Only tensors and plain containers are unpickled; anything that would run code is refused.

    Raises:
        InputError: the file is missing, cut short, no checkpoint, or holds code.
    """
    if not path.is_file():
        raise InputError(expected="FetalCLIP_weights.pt", found=f"no file {path}", advice=ADVICE)
    try:
        mapped = zipfile.is_zipfile(path)
        raw = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped or None)
    except pickle.UnpicklingError as error:
        raise InputError(
            expected="a checkpoint of tensors only",
            found=f"{path.name}, which is damaged or would run code when loaded",
            advice=f"do not load it by other means; {ADVICE}",
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise InputError(
            expected="a whole PyTorch checkpoint",
            found=f"{path.name}, which is cut short or something else",
            advice=ADVICE,
        ) from error
    return _tensors(raw, path)


def _tensors(raw: Any, path: Path) -> State:
    state = raw.get("state_dict", raw) if isinstance(raw, dict) else None
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(tensor, torch.Tensor) for tensor in state.values())
    ):
        raise InputError(
            expected="a dict with a state_dict of tensors",
            found=f"{path.name} with {type(raw).__name__} of other content",
            advice=ADVICE,
        )
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def check_architecture(state: State, config: Path) -> None:
    """Compare every name and shape with the whole CLIP of an open_clip model config.

    Raises:
        InputError: they differ; it counts the differences and names the first few.
    """
    expected = expected_shapes(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    problems = [f"{name} is missing" for name in expected if name not in shapes]
    problems += [f"{name} is unknown" for name in shapes if name not in expected]
    problems += [
        f"{name} is {shapes[name]} instead of {shape}"
        for name, shape in expected.items()
        if shapes.get(name, shape) != shape
    ]
    problems += [
        f"{name} is of {tensor.dtype}"
        for name, tensor in state.items()
        if not tensor.is_floating_point()
    ]
    if problems:
        raise InputError(
            expected=f"the {len(expected)} tensors of the architecture in {config.name}",
            found=f"{len(problems)} differences: {'; '.join(problems[:3])}",
            advice=ADVICE,
        )


def expected_shapes(config: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of open_clip's own model by its tensors' names, built without memory."""
    raw = json.loads(config.read_text())
    with torch.device("meta"):
        model = CLIP(
            raw["embed_dim"], CLIPVisionCfg(**raw["vision_cfg"]), CLIPTextCfg(**raw["text_cfg"])
        )
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
