"""A bundle: a folder of weights, all that rebuilds their network, and where they come from.

config.json           networks' architecture, LoRA, number of members, selection
trunk.safetensors     what all members share: the base, or the merged trunk of a single member
member_<k>.safetensors  the rest of member k: adapter, decoder, quality head (several members are an
ensemble) provenance.json       data, seed, code version, figures; `simulated` says whether the data
were phantoms MODEL_CARD.md         the same for people manifest.json         name, sha256 of each
of the others
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from acouslic.errors import BundleError, InputError
from acouslic.lora import LoraConfig, add_lora, lora_layers, merge_lora
from acouslic.network import AbdomenNet, NetworkConfig
from acouslic.selection import SelectionConfig

FORMAT = "acouslic-bundle-1"
MANIFEST = "manifest.json"
TRUNK = "trunk.safetensors"
log = logging.getLogger(__name__)
State = dict[str, torch.Tensor]


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


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one.

    Raises:
        InputError: a GPU is asked for where there is none.
    """
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise InputError(
            expected="a GPU for --device cuda", found="none", advice="use --device auto or cpu"
        )
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")


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
) -> None:
    """Write a bundle, whole or not at all; an older one at the same place is replaced.

    Members must share one architecture, and with several of them the same base below their
    adapters.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    states = [_cast(plain_state(member), dtype) for member in members]
    shared = {key for key in states[0] if _is_shared(key)}
    if any(not torch.equal(state[key], states[0][key]) for state in states for key in shared):
        raise ValueError("the members do not share one trunk; merge no adapters into an ensemble")
    save_file({key: states[0][key] for key in sorted(shared)}, partial / TRUNK)
    for k, state in enumerate(states):
        own = {key: state[key] for key in sorted(state.keys() - shared)}
        save_file(own, partial / _member_file(k))
    for path in partial.iterdir():
        path.chmod(0o644)  # safetensors writes for its owner only; the container's user is another
    config = BundleConfig(members[0].config, lora, len(members), selection)
    _write_json(partial / "config.json", config.to_dict())
    _write_json(partial / "provenance.json", provenance)
    (partial / "MODEL_CARD.md").write_text(card)
    hashes = {path.name: _sha256(path) for path in sorted(partial.iterdir())}
    _write_json(partial / MANIFEST, {"name": name, "sha256": hashes})
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


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
        config = BundleConfig.from_dict(_read_json(folder, "config.json"))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            expected=f"a config.json of the form {FORMAT}",
            found=f"{folder / 'config.json'} of another form ({error})",
            advice="use a bundle and a code of the same version",
        ) from error
    trunk = _load_tensors(folder / TRUNK)
    members = tuple(
        _rebuild(config, trunk, _load_tensors(folder / _member_file(k)), folder).to(device)
        for k in range(config.members)
    )
    digest = _sha256(folder / MANIFEST)[:12]
    provenance = _read_json(folder, "provenance.json")
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
            expected=f"weights of the architecture in {folder / 'config.json'}",
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
        found = _sha256(path)
        if found != expected:
            raise BundleError(
                expected=f"{path} with sha256 {expected[:12]}...",
                found=f"{found[:12]}...",
                advice=advice,
            )
    for name in ("config.json", "provenance.json", TRUNK, _member_file(0)):
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


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
