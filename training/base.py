"""A base: the folder with a frozen trunk that adapters are trained on, written by
`import-fetalclip` or the demo.

config.json        the trunk's architecture
trunk.safetensors  its weights, under the names of acouslic's trunk
provenance.json    where it comes from and under what licence
"""

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import VisionTransformer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from acouslic.errors import InputError
from acouslic.network import TrunkConfig, build_trunk

FORMAT = "acouslic-base-1"
CONFIG, WEIGHTS, PROVENANCE = "config.json", "trunk.safetensors", "provenance.json"


def save_base(
    folder: Path,
    config: TrunkConfig,
    state: dict[str, torch.Tensor],
    provenance: dict[str, Any],
    dtype: torch.dtype,
) -> None:
    """Write a base, whole or not at all; an older one at the same place is replaced."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {name: tensor.detach().to(dtype).contiguous() for name, tensor in state.items()}
    save_file(tensors, partial / WEIGHTS)
    config_text = json.dumps({"format": FORMAT, "trunk": asdict(config)}, indent=2)
    (partial / CONFIG).write_text(config_text + "\n")
    (partial / PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def base_sha256(folder: Path) -> str:
    """The hash of a base's weights, which tells bases apart."""
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_base(folder: Path) -> tuple[TrunkConfig, VisionTransformer, dict[str, Any]]:
    """A base's architecture, its trunk in float32, and its provenance.

    Raises InputError where a file is missing, or the weights do not fit the architecture.
    """
    try:
        raw = json.loads((folder / CONFIG).read_text())
        if raw["format"] != FORMAT:
            raise ValueError(f"format {raw['format']!r}")
        config = TrunkConfig(**raw["trunk"])
        trunk = build_trunk(config)
        state = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
        trunk.load_state_dict(state)
        return config, trunk, json.loads((folder / PROVENANCE).read_text())
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(
            expected=f"a base ({CONFIG}, {WEIGHTS}, {PROVENANCE}) in {folder}",
            found=f"{type(error).__name__}: {str(error).splitlines()[-1].strip()}",
            advice="write one with `python -m training import-fetalclip`",
        ) from error
