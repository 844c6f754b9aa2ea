"""A bundle: a folder of weights, with all that rebuilds their networks and tells their origin.

config.json             the networks' architecture, LoRA, number of members, selection
trunk.safetensors       what all members share: the base, or the merged trunk of a single member
member_<k>.safetensors  the rest of member k: adapter, decoder, quality head
sweep_head.safetensors  the sweep head, where there is one
provenance.json         data, seed, code version, figures; `simulated` says whether of phantoms
MODEL_CARD.md           the same for people
manifest.json           the bundle's name, and the SHA-256 of each other file

Several members are an ensemble: their predictions are averaged.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Interval
from safetensors.torch import save_file
from torch import nn
from torch.overrides import TorchFunctionMode

from acouslic import files, schema
from acouslic.bundle_files import (
    CARD,
    CONFIG,
    COPY_AGAIN,
    MANIFEST,
    MOST_MEMBERS,
    PROVENANCE,
    STRANGERS_ALLOWED,
    SWEEP_HEAD,
    TRUNK,
    BundleFolder,
    Manifest,
    State,
    file_names,
    member_file,
    require_finite,
)
from acouslic.calibration import Calibration
from acouslic.engine import Engine, TorchEngine
from acouslic.engine_names import EngineName, PrecisionName
from acouslic.errors import BundleError, InputError
from acouslic.lora import LoraConfig, merge_adapters
from acouslic.network import AbdomenNet, NetworkConfig, lay_channels_last
from acouslic.scorer import build_network
from acouslic.selection import SelectionConfig
from acouslic.sweep_head import SweepHead, SweepHeadConfig

FORMAT: Literal["acouslic-bundle-2"] = "acouslic-bundle-2"
# Its bundles have no calibration and another rule for the choice of the frame.
FIRST_FORMAT: Literal["acouslic-bundle-1"] = "acouslic-bundle-1"
FIRST_RULE = {"smoothing_frames", "mask_weight"}


def _owned(folder: Path) -> set[str]:
    """The names of a bundle's files in a folder; none where it holds no bundle."""
    try:
        return {MANIFEST, *BundleFolder(folder).manifest.sha256}
    except BundleError:
        return set()


BUNDLE = files.FolderKind("bundle", _owned)


Members = Annotated[int, Interval(ge=1, le=MOST_MEMBERS)]


@dataclass(frozen=True)
class _Content:
    """`config.json` as it is on disk."""

    format: Literal["acouslic-bundle-1", "acouslic-bundle-2"]
    network: NetworkConfig
    lora: LoraConfig | None
    members: Members
    selection: dict[str, Any]
    calibration: dict[str, Any] | None = None
    sweep_head: SweepHeadConfig | None = None


@dataclass(frozen=True)
class BundleConfig:
    """What `config.json` means."""

    network: NetworkConfig
    """The architecture that all members share."""
    lora: LoraConfig | None
    """The members' adapters, or None where they are merged into the trunk."""
    members: Members
    """How many networks answer together."""
    selection: SelectionConfig
    """How a frame is chosen from their prediction."""
    sweep_head: SweepHeadConfig | None = None
    """The size of the sweep head, if there is one."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "BundleConfig":
        """Read what `to_dict` gives.

        Raises:
            ValueError: it is of another version or form, or a value is beyond its limits.
        """
        content = schema.validated(_Content, values)
        is_first, selection = content.format == FIRST_FORMAT, content.selection
        if is_first:
            selection = {key: selection[key] for key in selection.keys() - FIRST_RULE}
        if "calibration" in selection or is_first == (content.calibration is not None):
            raise ValueError("the calibration: not where this format has it")
        calibration = (
            Calibration()
            if content.calibration is None
            else Calibration.from_dict(content.calibration)
        )
        return cls(
            network=content.network,
            lora=content.lora,
            members=content.members,
            selection=replace(
                schema.validated(SelectionConfig, selection), calibration=calibration
            ),
            sweep_head=content.sweep_head,
        )

    def to_dict(self) -> dict[str, Any]:
        """All values and the format's version, as plain JSON types."""
        values = asdict(self)
        del values["selection"]["calibration"]
        if self.sweep_head is None:
            del values["sweep_head"]  # code of before there were any reads such a bundle too
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
    """PyTorch's networks, in evaluation mode, their adapters merged; none with another engine."""
    provenance: dict[str, Any]
    """Where the weights come from: what `provenance.json` holds."""
    engine: Engine
    """What computes the networks."""
    sweep_head: SweepHead | None = None
    """What corrects the log odds along each sweep, on the CPU."""
    cpu_too: bool = False
    """Whether the CPU takes over where that is a GPU without enough memory."""

    @property
    def is_simulated(self) -> bool:
        """Whether it was trained on simulated images, and so means nothing for patients."""
        return bool(self.provenance.get("simulated", False))


def without_sweep_prior(bundle: Bundle) -> Bundle:
    """The same bundle, whose choice of the frame does not know a sweep's number."""
    selection = replace(bundle.config.selection, sweep_prior=False)
    return replace(bundle, config=replace(bundle.config, selection=selection))


def with_engine(
    bundle: Bundle, name: EngineName = "auto", precision: PrecisionName = "auto"
) -> Bundle:
    """The same bundle, computed by another engine.

    Args:
        bundle: as `load_bundle` gives it.
        name: auto: PyTorch on a GPU; on a CPU OpenVINO where it is installed and the network is
            all of this project's architecture, as tests compare the engines on that; else PyTorch.
        precision: what is computed in; auto: what the engine takes by itself.

    Returns:
        The bundle; with another engine than PyTorch it has no `members`, as that one keeps a copy.

    Raises:
        InputError: OpenVINO is asked for where it is not installed or where a GPU shall compute, or
            the processor does not compute in that precision.
    """
    if name == "auto":
        on_cpu = bundle.engine.device.type == "cpu" and find_spec("openvino") is not None
        name = "openvino" if on_cpu and bundle.config.network.is_own else "torch"
    if name == "torch":
        return replace(bundle, engine=TorchEngine(bundle.members, precision))
    if bundle.engine.device.type != "cpu" or find_spec("openvino") is None:
        raise InputError(
            expected="a CPU and an installed OpenVINO for --engine openvino",
            found=f"{bundle.engine.device.type}, OpenVINO "
            + ("not installed" if find_spec("openvino") is None else "installed"),
            advice="use --engine auto or torch",
        )
    # It takes a third of a second to import.
    from acouslic.openvino_engine import OpenVinoEngine

    return replace(bundle, members=(), engine=OpenVinoEngine(bundle.members, precision))


def choose_bundle(folder: Path, *, demo: Path | None) -> Path:
    """The folder of the bundle to load: the user's, or the demo's where that is asked for.

    Args:
        folder: where the user's bundle is.
        demo: the demo bundle's folder where it is asked for, else None.

    Raises:
        BundleError: there is no bundle, or one beside the demo that is asked for.
    """
    problem = _emptiness(folder)
    if demo is None:
        if problem:
            raise BundleError(
                expected=f"a bundle of weights in {folder}",
                found=problem,
                advice="upload model.tar.gz (./export.sh writes it) as the algorithm's model, or "
                "name a bundle with --model; to try the software without one, give --demo or set "
                "ACOUSLIC_DEMO=1",
            )
        return folder
    if not problem:
        raise BundleError(
            expected=f"no bundle in {folder}, as the demo weights are asked for",
            found="one",
            advice="leave out --demo and ACOUSLIC_DEMO to use it, or empty the folder",
        )
    return demo


def _emptiness(folder: Path) -> str | None:
    """In what way there is nothing in a folder; None where there is something."""
    if not folder.is_dir():
        if folder.is_symlink() and not folder.exists():
            return "a link that leads nowhere"
        return "a file" if folder.exists() else "no such folder"
    names = {path.name for path in folder.iterdir()}
    return None if names - STRANGERS_ALLOWED else "nothing in that folder"


def save_bundle(
    folder: Path,
    members: Sequence[AbdomenNet],
    *,
    name: str,
    selection: SelectionConfig,
    lora: LoraConfig | None,
    provenance: dict[str, Any],
    card: str,
    sweep_head: SweepHead | None = None,
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
        sweep_head: what was trained upon the calibration in `selection`; kept in float32.
        dtype: the type of the weights on disk.
        overwrite: whether an older bundle may be replaced.

    Raises:
        BundleError: a weight is not finite in `dtype`, or the name is none.
        OutputError: the folder holds something else, or a bundle that is not to be replaced.
        ValueError: several members do not share one trunk, or a bundle may not say this of itself.
    """
    _require_name(name)
    states = [_cast(plain_state(member), dtype) for member in members]
    shared = {key for key in states[0] if _is_shared(key)}
    if any(not torch.equal(state[key], states[0][key]) for state in states for key in shared):
        raise ValueError("the members do not share one trunk; merge no adapters into an ensemble")
    for k, state in enumerate(states):
        require_finite(state, f"the weights of member {k}")
    head, head_config = _head_to_save(sweep_head)
    config = BundleConfig(members[0].config, lora, len(members), selection, head_config)
    with files.new_folder(folder, BUNDLE, overwrite=overwrite) as partial:
        _save_tensors({key: states[0][key] for key in sorted(shared)}, partial / TRUNK)
        for k, state in enumerate(states):
            own = {key: state[key] for key in sorted(state.keys() - shared)}
            _save_tensors(own, partial / member_file(k))
        if head:
            _save_tensors(head, partial / SWEEP_HEAD)
        _write_descriptions(partial, name, config, provenance, card)


def copy_bundle(
    source: Path,
    folder: Path,
    selection: SelectionConfig,
    provenance: dict[str, Any],
    card: str,
    *,
    sweep_head: SweepHead | None = None,
    overwrite: bool = False,
) -> None:
    """Write a bundle with the weights of another one, and another way to choose a frame.

    The other one's sweep head is left out: it corrects the odds of the calibration that it was
    trained upon.

    Args:
        source: the other bundle's folder.
        folder: where the new one goes.
        selection: how it chooses a frame.
        provenance: see `save_bundle`.
        card: see `save_bundle`.
        sweep_head: see `save_bundle`.
        overwrite: whether an older bundle at `folder` may be replaced.

    Raises:
        BundleError: the other one is not whole, or a weight of the head is not finite.
        OutputError: the folder holds something else, or a bundle that is not to be replaced.
    """
    old = BundleFolder(source)
    head, head_config = _head_to_save(sweep_head)
    config = replace(read_config(old), selection=selection, sweep_head=head_config)
    with files.new_folder(folder, BUNDLE, overwrite=overwrite) as partial:
        for name in file_names(config.members, sweep_head=False) - {CONFIG, PROVENANCE, CARD}:
            (partial / name).write_bytes(old.read(name))
        if head:
            _save_tensors(head, partial / SWEEP_HEAD)
        _write_descriptions(partial, old.manifest.name, config, provenance, card)


def _head_to_save(head: SweepHead | None) -> tuple[dict[str, torch.Tensor], SweepHeadConfig | None]:
    """A sweep head's tensors, none where there is no head, and its size."""
    if head is None:
        return {}, None
    state = _cast(head.state_dict(), torch.float32)
    require_finite(state, "the weights of the sweep head")
    return state, head.config


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file(tensors, path)
    # safetensors writes for its owner only; the container's user is another.
    path.chmod(0o644)


def _write_descriptions(
    folder: Path, name: str, config: BundleConfig, provenance: dict[str, Any], card: str
) -> None:
    """Write all but the weights, which are there already, the manifest last."""
    BundleConfig.from_dict(config.to_dict())  # what could not be read is not written
    files.write_json(folder / CONFIG, config.to_dict())
    files.write_json(folder / PROVENANCE, provenance)
    files.write_text(folder / CARD, card)
    hashes = {path.name: files.sha256(path) for path in sorted(folder.iterdir())}
    manifest = schema.validated(Manifest, {"name": name, "sha256": hashes})
    files.write_json(folder / MANIFEST, asdict(manifest))


def load_bundle(folder: Path | str, device: torch.device | str = "cpu") -> Bundle:
    """Verify a bundle and rebuild its networks; nothing is ever unpickled.

    Args:
        folder: the bundle's folder.
        device: where its networks shall compute, such as "cpu" or "cuda".

    Returns:
        The bundle, ready to measure with PyTorch; see `with_engine`.

    Raises:
        BundleError: a file is missing or altered, or the weights do not fit the architecture in the
            config.
    """
    source, device = BundleFolder(Path(folder)), torch.device(device)
    config, provenance = read_config(source), read_provenance(source)
    source.read(CARD)  # nothing else in it counts, but a bundle is whole or not
    trunk = source.read_tensors(TRUNK)
    members = tuple(
        _rebuild(config, trunk, source.read_tensors(member_file(k)), source.path).to(device)
        for k in range(config.members)
    )
    head = None
    if config.sweep_head is not None:
        head = _rebuild_head(config.sweep_head, source.read_tensors(SWEEP_HEAD), source.path)
    return Bundle(source.id, config, members, provenance, TorchEngine(members), head)


def read_config(source: BundleFolder) -> BundleConfig:
    """The config of a bundle that holds exactly the files that it needs.

    Raises:
        BundleError: it is of another form, or a file is missing or too many.
    """
    values = source.read_object(CONFIG)
    try:
        config = BundleConfig.from_dict(values)
    except ValueError as error:
        raise BundleError(
            expected=f"a config.json of the form {FORMAT}",
            found=f"{source.path / CONFIG} of another form ({error})",
            advice="use a bundle and a code of the same version",
        ) from error
    source.require_exactly(config.members, sweep_head=config.sweep_head is not None)
    return config


def read_provenance(source: BundleFolder) -> dict[str, Any]:
    """Where a bundle's weights come from.

    Raises:
        BundleError: it does not say so in the way that `Bundle` and a base need.
    """
    provenance = source.read_object(PROVENANCE)
    base = provenance.get("base", {})
    for place, values in (("it", provenance), ("its base", base)):
        if not isinstance(values, dict) or not isinstance(values.get("simulated", False), bool):
            raise BundleError(
                expected=f"true or false for `simulated` in {source.path / PROVENANCE}",
                found=f"another value in {place}",
                advice=COPY_AGAIN,
            )
    return provenance


def plain_state(network: torch.nn.Module) -> State:
    """The network's state, in which an adapted layer's base has the name of a plain layer."""
    return {
        name.replace(".base_layer", ""): tensor for name, tensor in network.state_dict().items()
    }


def load_plain_state(network: torch.nn.Module, state: State, *, assign: bool = False) -> None:
    """Load what `plain_state` gives into a network, adapted or not.

    Args:
        network: of the same architecture.
        state: its tensors by name.
        assign: whether they become the network's own, where others are copied into those it has.

    Raises:
        RuntimeError: names, shapes or kinds of numbers differ.
    """
    own = network.state_dict()
    named = {
        name: state[plain] for name in own if (plain := name.replace(".base_layer", "")) in state
    }
    surplus = state.keys() - {name.replace(".base_layer", "") for name in own}
    if surplus:
        raise RuntimeError(f"unexpected tensor {min(surplus)}")
    for name, tensor in named.items():
        if tensor.is_floating_point() != own[name].is_floating_point():
            raise RuntimeError(f"{tensor.dtype} in {name}")
    network.load_state_dict(named, assign=assign)


# Methods of tensors, which draw or scale in place of what is then loaded.
_DRAWS = {"uniform_", "normal_", "mul"}


class _NothingDrawn(TorchFunctionMode):
    """Leaves out what layers and open_clip draw at random and scale, as weights come from a file.

    On the meta device each of these imports torch._dynamo or sympy, which takes seconds.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if getattr(func, "__name__", None) in _DRAWS:
            return args[0]
        return (torch.empty if func is torch.randn else func)(*args, **kwargs)


def _rebuild(config: BundleConfig, trunk: State, own: State, folder: Path) -> AbdomenNet:
    """One member, from the trunk that all share and its own tensors, its adapter merged."""
    try:
        # Without weights of its own: what a config asks for takes no memory until all tensors fit.
        draws = _NothingDrawn() if config.network.is_own else nullcontext()
        with torch.device("meta"), draws:
            network = build_network(config.network)
        state = trunk | own
        if config.lora is not None:
            state = merge_adapters(state, config.lora)
        load_plain_state(network, state, assign=True)
        if config.network.decoder == "own":
            lay_channels_last(network.decoder)
    except (RuntimeError, ValueError, ZeroDivisionError) as error:
        raise _of_another_architecture(folder, error) from error
    return network.eval().requires_grad_(False)


def _rebuild_head(config: SweepHeadConfig, state: State, folder: Path) -> SweepHead:
    """The sweep head, from its tensors."""
    with torch.device("meta"), _NothingDrawn():
        head = SweepHead(config)
    try:
        load_plain_state(head, state, assign=True)
    except RuntimeError as error:
        raise _of_another_architecture(folder, error) from error
    return head.eval().requires_grad_(False)


def _of_another_architecture(folder: Path, error: Exception) -> BundleError:
    return BundleError(
        expected=f"weights of the architecture in {folder / CONFIG}",
        found=f"others ({str(error).splitlines()[-1].strip()})",
        advice="pack the bundle again with `python -m training pack`",
    )


def _require_name(name: str) -> None:
    try:
        schema.validated(Manifest, {"name": name, "sha256": {}})
    except ValueError as error:
        raise BundleError(
            expected="a name of 1 to 100 letters that can be printed",
            found=repr(name),
            advice="give the bundle another name",
        ) from error


def _is_shared(key: str) -> bool:
    """Whether a tensor belongs to the base, which all members share."""
    return key.startswith("trunk.") and ".lora_" not in key


def _cast(state: State, dtype: torch.dtype) -> State:
    """A state on the CPU whose floating-point tensors are of one type, but for norms' statistics.

    Those stay float32: a variance may exceed what float16 can hold, and they take next to nothing.
    """
    return {
        key: tensor.detach()
        .cpu()
        .to(dtype if tensor.is_floating_point() and not _is_statistic(key) else tensor.dtype)
        .contiguous()
        for key, tensor in state.items()
    }


def _is_statistic(key: str) -> bool:
    return key.endswith((".running_mean", ".running_var"))
