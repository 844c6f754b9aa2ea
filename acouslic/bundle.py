"""A bundle: a folder of weights, with all that rebuilds their networks and tells their origin.

config.json             the networks' architecture, LoRA, number of members, selection
trunk.safetensors       what all members share: the base, or the merged trunk of a single member
member_<k>.safetensors  the rest of member k: adapter, decoder, quality head
provenance.json         data, seed, code version, figures; `simulated` says whether of phantoms
MODEL_CARD.md           the same for people
manifest.json           the bundle's name, and the SHA-256 of each other file

Several members are an ensemble: their predictions are averaged.
"""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from acouslic import files
from acouslic.calibration import Calibration
from acouslic.errors import BundleError
from acouslic.lora import LoraConfig, add_lora, lora_layers, merge_lora
from acouslic.network import AbdomenNet, NetworkConfig
from acouslic.selection import SelectionConfig

FORMAT = "acouslic-bundle-2"
# Its bundles have no calibration and another rule for the choice of the frame.
FIRST_FORMAT = "acouslic-bundle-1"
FIRST_RULE = {"smoothing_frames", "mask_weight"}
MANIFEST = "manifest.json"
CONFIG, PROVENANCE, CARD = "config.json", "provenance.json", "MODEL_CARD.md"
TRUNK = "trunk.safetensors"
# 48 bits: no two of a million bundles share them, but for one chance in 500.
ID_DIGITS = 12
log = logging.getLogger(__name__)
State = dict[str, torch.Tensor]


def _owned(folder: Path) -> set[str]:
    """The names of a bundle's files in a folder; none where it holds no bundle."""
    try:
        manifest = _read_json(folder, MANIFEST)
        return {MANIFEST, *manifest["sha256"]} if "name" in manifest else set()
    except (BundleError, KeyError, TypeError):
        return set()


BUNDLE = files.FolderKind("bundle", _owned)


@dataclass(frozen=True)
class BundleConfig:
    """What `config.json` holds."""

    network: NetworkConfig
    """The architecture that all members share."""
    lora: LoraConfig | None
    """The members' adapters, or None where they are merged into the trunk."""
    members: int
    """How many networks answer together."""
    selection: SelectionConfig
    """How a frame is chosen from their prediction."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "BundleConfig":
        """Read what `to_dict` gives.

        Raises:
            KeyError: a value is missing.
            TypeError: there is a value that this version does not know.
            ValueError: the format is of another version.
        """
        if values["format"] not in (FORMAT, FIRST_FORMAT):
            raise ValueError(f"format {values['format']!r}")
        if values["format"] == FORMAT:
            calibration = Calibration.from_dict(values["calibration"])
            selection = values["selection"]
        else:
            calibration = Calibration()
            selection = {k: x for k, x in values["selection"].items() if k not in FIRST_RULE}
        return cls(
            network=NetworkConfig.from_dict(values["network"]),
            lora=None if values["lora"] is None else LoraConfig(**values["lora"]),
            members=values["members"],
            selection=SelectionConfig(**selection, calibration=calibration),
        )

    def to_dict(self) -> dict[str, Any]:
        """All values and the format's version, as plain JSON types."""
        values = asdict(self)
        del values["selection"]["calibration"]
        calibration = self.selection.calibration.to_dict()
        return {"format": FORMAT, **values, "calibration": calibration}


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory, ready to measure."""

    id: str
    """Its name and the first digits of its manifest's SHA-256."""
    config: BundleConfig
    """What rebuilt the networks, and how a frame is chosen."""
    members: tuple[AbdomenNet, ...]
    """The networks, in evaluation mode on `device`, their adapters merged."""
    provenance: dict[str, Any]
    """Where the weights come from: what `provenance.json` holds."""
    device: torch.device
    """Where the networks compute."""

    @property
    def is_simulated(self) -> bool:
        """Whether it was trained on simulated images, and so means nothing for patients."""
        return bool(self.provenance.get("simulated", False))


def without_sweep_prior(bundle: Bundle) -> Bundle:
    """The same bundle, whose choice of the frame does not know a sweep's number."""
    selection = replace(bundle.config.selection, sweep_prior=False)
    return replace(bundle, config=replace(bundle.config, selection=selection))


def choose_bundle(folder: Path, demo: Path) -> Path:
    """The folder itself, or the demo bundle where the folder is missing or has only a README.

    Args:
        folder: where the user's bundle is, if there is one.
        demo: the demo bundle's folder.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    # A file system of its own brings lost+found.
    if names.difference(files.KEPT_NAMES, {"lost+found"}):
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
        lora: the members' adapters, or None where they are merged.
        provenance: data, seed, code version, figures; `simulated` says whether of phantoms.
        card: the same for people, in Markdown.
        dtype: the type of the weights on disk.
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
        _write_descriptions(partial, name, config, provenance, card)


def copy_bundle(
    source: Path,
    folder: Path,
    selection: SelectionConfig,
    provenance: dict[str, Any],
    card: str,
    *,
    overwrite: bool = False,
) -> None:
    """Write a bundle with the weights of another one, and another way to choose a frame.

    Args:
        source: the other bundle's folder.
        folder: where the new one goes.
        selection: how it chooses a frame.
        provenance: see `save_bundle`.
        card: see `save_bundle`.
        overwrite: whether an older bundle at `folder` may be replaced.

    Raises:
        BundleError: the other one is not whole.
        OutputError: the folder holds something else, or a bundle that is not to be replaced.
    """
    manifest = _read_json(source, MANIFEST)
    _verify(source, manifest)
    config = replace(BundleConfig.from_dict(_read_json(source, CONFIG)), selection=selection)
    with files.new_folder(folder, BUNDLE, overwrite=overwrite) as partial:
        for name in (TRUNK, *(_member_file(k) for k in range(config.members))):
            shutil.copyfile(source / name, partial / name)
        _write_descriptions(partial, manifest["name"], config, provenance, card)


def _write_descriptions(
    folder: Path, name: str, config: BundleConfig, provenance: dict[str, Any], card: str
) -> None:
    """Write all but the weights, which are there already, the manifest last."""
    files.write_json(folder / CONFIG, config.to_dict())
    files.write_json(folder / PROVENANCE, provenance)
    files.write_text(folder / CARD, card)
    hashes = {path.name: files.sha256(path) for path in sorted(folder.iterdir())}
    files.write_json(folder / MANIFEST, {"name": name, "sha256": hashes})


def load_bundle(folder: Path | str, device: torch.device | str = "cpu") -> Bundle:
    """Verify a bundle and rebuild its networks; nothing is ever unpickled.

    Args:
        folder: the bundle's folder.
        device: where its networks shall compute, such as "cpu" or "cuda".

    Returns:
        The bundle, ready to measure.

    Raises:
        BundleError: a file is missing or altered, or the weights do not fit the architecture in the
            config.
    """
    folder, device = Path(folder), torch.device(device)
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
    digest = files.sha256(folder / MANIFEST)[:ID_DIGITS]
    provenance = _read_json(folder, PROVENANCE)
    return Bundle(f"{manifest['name']}-{digest}", config, members, provenance, device)


def plain_state(network: torch.nn.Module) -> State:
    """The network's state, in which an adapted layer's base has the name of a plain layer."""
    return {
        name.replace(".base_layer", ""): tensor for name, tensor in network.state_dict().items()
    }


def load_plain_state(network: torch.nn.Module, state: State) -> None:
    """Load what `plain_state` gives into a network, adapted or not.

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
    """One member, from the trunk that all share and its own tensors, its adapter merged."""
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
    """Check that every file is there, as the manifest has it, and that the manifest has all."""
    advice = "copy the bundle again, whole; never edit its files"
    for name, expected in manifest.get("sha256", {}).items():
        path = folder / name
        if not path.is_file():
            raise BundleError(expected=f"{name} in {folder}", found="no such file", advice=advice)
        digest = files.sha256(path)
        if digest != expected:
            raise BundleError(
                expected=f"{path} with sha256 {expected[:ID_DIGITS]}...",
                found=f"{digest[:ID_DIGITS]}...",
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
    """Whether a tensor belongs to the base, which all members share."""
    return key.startswith("trunk.") and ".lora_" not in key


def _member_file(k: int) -> str:
    return f"member_{k}.safetensors"


def _cast(state: State, dtype: torch.dtype) -> State:
    """A state on the CPU whose floating-point tensors are of one type."""
    return {
        key: tensor.detach()
        .cpu()
        .to(dtype if tensor.is_floating_point() else tensor.dtype)
        .contiguous()
        for key, tensor in state.items()
    }


def _load_tensors(path: Path) -> State:
    """A file's tensors; those of floating point as float32."""
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
    """The object in a bundle's JSON file."""
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
