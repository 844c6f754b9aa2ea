"""A base: the folder with a frozen trunk that adapters are trained on.

`import-fetalclip` and `demo` write one; the trunk of a bundle serves as well.

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

from acouslic import files, schema
from acouslic.bundle import read_config, read_provenance
from acouslic.bundle_files import MANIFEST, BundleFolder, State, require_finite
from acouslic.errors import InputError
from acouslic.network import Patches, TrunkConfig, build_trunk
from training.options import StoredType, Tokens

FORMAT = "acouslic-base-1"
CONFIG, WEIGHTS, PROVENANCE = "config.json", "trunk.safetensors", "provenance.json"
TORCH_TYPES: dict[StoredType, torch.dtype] = {"fp16": torch.float16, "fp32": torch.float32}
# What stands for the licence of simulated data.
NO_LICENCE = "none needed"
# Stands between licences that hold at once.
AND = " and "


def base_sha256(folder: Path) -> str:
    """The SHA-256 of the weights of a base, or of a bundle's trunk; it names the base."""
    return files.sha256(folder / WEIGHTS)


def _owned(folder: Path) -> set[str]:
    """The names of a base's files in a folder; none where it holds no base."""
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

    Args:
        folder: where it goes; a README.md that is there stays.
        config: the trunk's architecture.
        state: its weights, under the names of acouslic's trunk.
        provenance: where they come from; `simulated` says whether they were trained on phantoms.
        dtype: the type of the weights on disk.
        overwrite: whether an older base may be replaced.

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

    Args:
        folder: that of the base or the bundle.

    Returns:
        The trunk's architecture, the trunk in float32, and where it comes from: at least `what`
        and `simulated`, and a `licence` unless it is the project's own.

    Raises:
        BundleError: the bundle is not whole, or a weight of it or of the base is not finite.
        InputError: a file is missing, or the weights do not fit the architecture.
    """
    try:
        config, state, provenance = _read_bundle(folder) or _read_base(folder)
        trunk = build_trunk(config)
        trunk.load_state_dict({name.removeprefix("trunk."): x.float() for name, x in state.items()})
        return config, trunk, provenance
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(
            expected=f"a base ({CONFIG}, {WEIGHTS}, {PROVENANCE}) or a bundle in {folder}",
            found=f"{type(error).__name__}: {str(error).splitlines()[-1].strip()}",
            advice="write one with `python -m training import-fetalclip`, or give resources/demo",
        ) from error


def patches_for(tokens: Tokens, provenance: dict[str, Any]) -> Patches:
    """The patches that `--tokens` means on a trunk of this origin.

    FetalCLIP was trained with the black patches around the fan in view, the demo's trunk without.

    Args:
        tokens: what was asked for.
        provenance: where the trunk comes from, as `load_base` gives it.
    """
    if tokens == "auto":
        return "registers" if "model" in provenance else "fan"
    return tokens


def _read_base(folder: Path) -> tuple[TrunkConfig, State, dict[str, Any]]:
    raw = json.loads((folder / CONFIG).read_text())
    if raw["format"] != FORMAT:
        raise ValueError(f"format {raw['format']!r}")
    state = load_file(folder / WEIGHTS)
    require_finite(state, str(folder / WEIGHTS))
    provenance = json.loads((folder / PROVENANCE).read_text())
    return schema.validated(TrunkConfig, raw["trunk"]), state, provenance


def _read_bundle(folder: Path) -> tuple[TrunkConfig, State, dict[str, Any]] | None:
    """The trunk of a bundle; None where the folder holds no manifest, and so no bundle."""
    if not (folder / MANIFEST).exists():
        return None
    source = BundleFolder(folder)
    config = read_config(source)
    is_merged = config.lora is None
    provenance = _trunk_provenance(folder, read_provenance(source), is_merged=is_merged)
    return config.network.trunk, source.read_tensors(WEIGHTS), provenance


def _trunk_provenance(
    folder: Path, provenance: dict[str, Any], *, is_merged: bool
) -> dict[str, Any]:
    """Where a bundle's trunk comes from: from its base, and from the data where it is merged."""
    base = provenance.get("base", {"what": "of unknown origin", **provenance})
    licences = [base.get("licence"), provenance.get("data_licence") if is_merged else None]
    terms = [text for text in licences if text and text != NO_LICENCE]
    return {
        "simulated": provenance["simulated"] if is_merged else base["simulated"],
        "what": f"trunk of the bundle {provenance.get('name', folder.name)}; {base['what']}",
        "sha256": base_sha256(folder),
        **({"licence": AND.join(terms)} if terms else {}),
        **({"model": base["model"]} if "model" in base else {}),
        "base": base,
    }
