"""A bundle: a folder of weights, all that rebuilds their network, and where they come from.

config.json             the networks' architecture, LoRA, number of members, selection
trunk.safetensors       what all members share: the base, or the merged trunk of a single member
member_<k>.safetensors  the rest of member k: adapter, decoder, quality head; several are an ensemble
provenance.json         data, seed, code version, figures; `simulated`: whether of phantoms
MODEL_CARD.md           the same for people
manifest.json           the bundle's name, and the sha256 of each of the others
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from acouslic import files
from acouslic.errors import BundleError
from acouslic.lora import LoraConfig, add_lora, lora_layers, merge_lora
from acouslic.network import AbdomenNet, NetworkConfig
from acouslic.selection import SelectionConfig

FORMAT = "acouslic-bundle-1"
MANIFEST = "manifest.json"
CONFIG, PROVENANCE, CARD = "config.json", "provenance.json", "MODEL_CARD.md"
TRUNK = "trunk.safetensors"
log = logging.getLogger(__name__)
State = dict[str, torch.Tensor]


def _owned(folder: Path) -> set[str]:
    try:
        manifest = _read_json(folder, MANIFEST)
        return {MANIFEST, *manifest["sha256"]} if "name" in manifest else set()
    except (BundleError, KeyError, TypeError):
        return set()


BUNDLE = files.FolderKind("bundle", _owned)


@dataclass(frozen=True)
class BundleConfig:
    """What `config.json` holds; `lora` is None where the adapter is merged into the trunk."""

    network: NetworkConfig
    lora: LoraConfig | None
    members: int
    selection: SelectionConfig

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "BundleConfig":
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']!r}")
        return cls(
            network=NetworkConfig.from_dict(values["network"]),
            lora=None if values["lora"] is None else LoraConfig(**values["lora"]),
            members=values["members"],
            selection=SelectionConfig(**values["selection"]),
        )

    def to_dict(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: `members` are in evaluation mode on `device`, their adapters merged."""

    id: str
    config: BundleConfig
    members: tuple[AbdomenNet, ...]
    provenance: dict[str, Any]
    device: torch.device


def choose_bundle(folder: Path, demo: Path) -> Path:
    """The folder itself, or the demo bundle where it is missing or holds nothing but its README."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names - {"README.md", ".gitignore", "lost+found"}:
        return folder
    log.warning(
        "no bundle in %s: using the demo bundle, which was trained on simulated images and "
        "means nothing for patients",
        folder,
    )
    return demo


def save_bundle(
    folder: Path,
    members: Sequence[AbdomenNet],
    *,
    name: str,
    selection: SelectionConfig,
    lora: LoraConfig | None,
    provenance: dict[str, Any],
    card: str,
    dtype: torch.dtype = torch.float16,
    overwrite: bool = False,
) -> None:
    """Write a bundle, whole or not at all.

    Args:
        folder: where it goes; a README.md that is there stays.
        members: networks of one architecture; several have the same base below their adapters.
        name: the first half of the bundle's id.
        selection: how a frame is chosen.
        lora: the members' adapters, None where they are merged.
        provenance: data, seed, code version, figures; `simulated` says whether of phantoms.
        card: the same for people, Markdown.
        dtype: of the weights on disk.
        overwrite: whether an older bundle may be replaced.

    Raises:
        OutputError: the folder holds something else, or a bundle that is not to be replaced.
        ValueError: several members do not share one trunk.
    """
    states = [_cast(plain_state(member), dtype) for member in members]
    shared = {key for key in states[0] if _is_shared(key)}
    if any(not torch.equal(state[key], states[0][key]) for state in states for key in shared):
        raise ValueError("the members do not share one trunk; merge no adapters into an ensemble")
    config = BundleConfig(members[0].config, lora, len(members), selection)
    with files.new_folder(folder, BUNDLE, overwrite=overwrite) as partial:
        save_file({key: states[0][key] for key in sorted(shared)}, partial / TRUNK)
        for k, state in enumerate(states):
            own = {key: state[key] for key in sorted(state.keys() - shared)}
            save_file(own, partial / _member_file(k))
        for path in partial.iterdir():
            # safetensors writes for its owner only; the container's user is another.
            path.chmod(0o644)
        files.write_json(partial / CONFIG, config.to_dict())
        files.write_json(partial / PROVENANCE, provenance)
        files.write_text(partial / CARD, card)
        hashes = {path.name: files.sha256(path) for path in sorted(partial.iterdir())}
        files.write_json(partial / MANIFEST, {"name": name, "sha256": hashes})


def load_bundle(folder: Path, device: torch.device | str = "cpu") -> Bundle:
    """Verify a bundle and rebuild its networks. Nothing is ever unpickled.

    Raises:
        BundleError: a file is missing or altered, or the weights do not fit the architecture in the
            config.
    """
    device = torch.device(device)
    manifest = _read_json(folder, MANIFEST)
    _verify(folder, manifest)
    try:
        config = BundleConfig.from_dict(_read_json(folder, CONFIG))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            expected=f"a config.json of the form {FORMAT}",
            found=f"{folder / CONFIG} of another form ({error})",
            advice="use a bundle and a code of the same version",
        ) from error
    trunk = _load_tensors(folder / TRUNK)
    members = tuple(
        _rebuild(config, trunk, _load_tensors(folder / _member_file(k)), folder).to(device)
        for k in range(config.members)
    )
    digest = files.sha256(folder / MANIFEST)[:12]
    provenance = _read_json(folder, PROVENANCE)
    return Bundle(f"{manifest['name']}-{digest}", config, members, provenance, device)


def plain_state(network: torch.nn.Module) -> State:
    """The network's state with the base's tensors under their plain names, adapted or not."""
    return {
        name.replace(".base_layer", ""): tensor for name, tensor in network.state_dict().items()
    }


def load_plain_state(network: torch.nn.Module, state: State) -> None:
    """The inverse of `plain_state`.

    Raises:
        RuntimeError: names or shapes differ.
    """
    own = network.state_dict()
    named = {
        name: state[plain] for name in own if (plain := name.replace(".base_layer", "")) in state
    }
    surplus = state.keys() - {name.replace(".base_layer", "") for name in own}
    if surplus:
        raise RuntimeError(f"unexpected tensor {min(surplus)}")
    network.load_state_dict(named)


def _rebuild(config: BundleConfig, trunk: State, own: State, folder: Path) -> AbdomenNet:
    try:
        network = AbdomenNet(config.network)
        if config.lora is not None:
            add_lora(network.trunk, config.lora)
        load_plain_state(network, {**trunk, **own})
    except (RuntimeError, ValueError, ZeroDivisionError) as error:
        raise BundleError(
            expected=f"weights of the architecture in {folder / CONFIG}",
            found=f"others ({str(error).splitlines()[-1].strip()})",
            advice="pack the bundle again with `python -m training pack`",
        ) from error
    if lora_layers(network.trunk):
        merge_lora(network.trunk)
    return network.eval().requires_grad_(False)


def _verify(folder: Path, manifest: dict[str, Any]) -> None:
    advice = "copy the bundle again, whole; never edit its files"
    for name, expected in manifest.get("sha256", {}).items():
        path = folder / name
        if not path.is_file():
            raise BundleError(expected=f"{name} in {folder}", found="no such file", advice=advice)
        found = files.sha256(path)
        if found != expected:
            raise BundleError(
                expected=f"{path} with sha256 {expected[:12]}...",
                found=f"{found[:12]}...",
                advice=advice,
            )
    for name in (CONFIG, PROVENANCE, TRUNK, _member_file(0)):
        if name not in manifest.get("sha256", {}):
            raise BundleError(
                expected=f"{name} listed in {folder / MANIFEST}",
                found="no such line",
                advice=advice,
            )


def _is_shared(key: str) -> bool:
    return key.startswith("trunk.") and ".lora_" not in key


def _member_file(k: int) -> str:
    return f"member_{k}.safetensors"


def _cast(state: State, dtype: torch.dtype) -> State:
    return {
        key: tensor.detach()
        .cpu()
        .to(dtype if tensor.is_floating_point() else tensor.dtype)
        .contiguous()
        for key, tensor in state.items()
    }


def _load_tensors(path: Path) -> State:
    try:
        return {
            key: tensor.float() if tensor.is_floating_point() else tensor
            for key, tensor in load_file(path).items()
        }
    except (OSError, SafetensorError) as error:
        raise BundleError(
            expected=f"safetensors in {path}", found=str(error), advice="copy the bundle again"
        ) from error


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BundleError(
            expected=f"{name} in {folder}",
            found=f"none that can be read ({error})",
            advice="give a folder that `python -m training pack` or `demo` wrote",
        ) from error
    if not isinstance(values, dict):
        raise BundleError(
            expected=f"an object in {path}", found="another value", advice="pack again"
        )
    return values
