"""A base: the folder with a frozen trunk that adapters are trained on, written by
`import-fetalclip` or the demo.

config.json        the trunk's architecture
trunk.safetensors  its weights, under the names of acouslic's trunk
provenance.json    where it comes from and under what licence
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import VisionTransformer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from acouslic import bundle, files
from acouslic.errors import InputError
from acouslic.network import TrunkConfig, build_trunk

FORMAT = "acouslic-base-1"
CONFIG, WEIGHTS, PROVENANCE = "config.json", "trunk.safetensors", "provenance.json"


def base_sha256(folder: Path) -> str:
    """The hash of a base's weights, which tells bases apart."""
    return files.sha256(folder / WEIGHTS)


def _owned(folder: Path) -> set[str]:
    try:
        is_ours = json.loads((folder / CONFIG).read_text())["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {CONFIG, WEIGHTS, PROVENANCE} if is_ours else set()


BASE = files.FolderKind("base", _owned)


def save_base(
    folder: Path,
    config: TrunkConfig,
    state: dict[str, torch.Tensor],
    provenance: dict[str, Any],
    dtype: torch.dtype,
    *,
    overwrite: bool = False,
) -> None:
    """Write a base, whole or not at all.

    Raises:
        OutputError: the folder holds something else, or a base that is not to be replaced.
    """
    tensors = {name: tensor.detach().to(dtype).contiguous() for name, tensor in state.items()}
    with files.new_folder(folder, BASE, overwrite=overwrite) as partial:
        save_file(tensors, partial / WEIGHTS)
        files.write_json(partial / CONFIG, {"format": FORMAT, "trunk": asdict(config)})
        files.write_json(partial / PROVENANCE, provenance)


def load_base(folder: Path) -> tuple[TrunkConfig, VisionTransformer, dict[str, Any]]:
    """Load a base, or the trunk of a bundle.

    Returns:
        The trunk's architecture, the trunk in float32, and where it comes from.

    Raises:
        InputError: a file is missing, or the weights do not fit the architecture.
    """
    try:
        config = _read_config(json.loads((folder / CONFIG).read_text()))
        trunk = build_trunk(config)
        state = load_file(folder / WEIGHTS).items()
        trunk.load_state_dict({name.removeprefix("trunk."): x.float() for name, x in state})
        provenance = json.loads((folder / PROVENANCE).read_text())
        return config, trunk, {"what": f"trunk of the bundle {folder.name}", **provenance}
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(
            expected=f"a base ({CONFIG}, {WEIGHTS}, {PROVENANCE}) or a bundle in {folder}",
            found=f"{type(error).__name__}: {str(error).splitlines()[-1].strip()}",
            advice="write one with `python -m training import-fetalclip`",
        ) from error


def _read_config(raw: dict[str, Any]) -> TrunkConfig:
    if raw["format"] == bundle.FORMAT:
        return bundle.BundleConfig.from_dict(raw).network.trunk
    if raw["format"] != FORMAT:
        raise ValueError(f"format {raw['format']!r}")
    return TrunkConfig(**raw["trunk"])
