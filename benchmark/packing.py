"""A system of the benchmark as one network that the shipped pipeline runs, and as a bundle.

A system that draws no mask rates the frames beside this project's own network (`joint`, of the same
trial), which draws the masks. Adapters are merged.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from safetensors.torch import load_file
from torch import nn

from acouslic.backbones import BackboneName
from acouslic.bundle import save_bundle
from acouslic.calibration import Calibration
from acouslic.errors import InputError
from acouslic.network import (
    AbdomenNet,
    BackboneConfig,
    TrunkScorerConfig,
    trunk_state_from_open_clip,
)
from acouslic.scorer import BackboneScorer, ScoredNet, TrunkScorer
from benchmark.networks import Classifier, Joint, Segmenter
from benchmark.quality import Quality
from benchmark.systems import Built, Plan, System
from benchmark.trial import RESULT, WEIGHTS
from training.adapters import lora_layers, merge_lora
from training.calibration import with_calibration
from training.cards import LIMITS, SIMULATED
from training.provenance import code_version


def trained(folder: Path, system: System, plan: Plan) -> Built:
    """A system as a finished trial left it, in evaluation mode on the CPU.

    Args:
        folder: the trial's.
        system: which one.
        plan: what it was built for.

    Raises:
        InputError: the trial is not finished, or began otherwise than the plan says.
    """
    if not all((folder / file).is_file() for file in (RESULT, WEIGHTS)):
        raise InputError(
            expected=f"a finished trial with {RESULT} and {WEIGHTS} in {folder}",
            found="none",
            advice="give the command that trains it again",
        )
    built = system.build(plan)
    result = json.loads((folder / RESULT).read_text())
    # What was frozen is not among the trial's weights.
    if (built.network_name, built.origin) != (result["network"], result["origin"]):
        raise InputError(
            expected=f"{result['network']} from {result['origin']}, as {folder} has it",
            found=f"{built.network_name} from {built.origin}",
            advice="give --base, --weights and --pretrained-dir as the benchmark got them",
        )
    built.network.load_state_dict(load_file(folder / WEIGHTS), strict=False)
    built.network.eval().requires_grad_(False)
    return built


def as_one_network(built: Built, masks: Built | None) -> AbdomenNet:
    """A trained system as the pipeline's network; what is given is changed.

    Args:
        built: the system.
        masks: a trained `joint`, for systems that draw none.

    Returns:
        The network in evaluation mode.

    Raises:
        InputError: no bundle may name this backbone, or nothing draws masks.
    """
    if isinstance(built.network, Joint | Segmenter):
        network = built.network.network
        if lora_layers(network.trunk):
            merge_lora(network.trunk)
        return network.eval()
    if masks is None or not isinstance(masks.network, Joint):
        raise InputError(
            expected=f"a trained `joint`, to draw the masks for {built.network_name}",
            found="none of the same trial",
            advice="add joint to --systems and give the command again",
        )
    drawer = as_one_network(masks, None)
    scorer = _scorer(built, drawer.config.trunk.image_size)
    network = ScoredNet(replace(drawer.config, scorer=_scorer_config(built)))
    network.load_state_dict(drawer.state_dict(), strict=False)
    network.scorer = scorer
    return network.eval().requires_grad_(False)


def _scorer_config(built: Built) -> BackboneConfig | TrunkScorerConfig:
    network = built.network
    if isinstance(network, Quality):
        return TrunkScorerConfig(network.config, network.head_name)
    assert isinstance(network, Classifier)
    if network.trunk_config is not None:
        return TrunkScorerConfig(network.trunk_config, "class")
    if built.backbone not in [name for kind in get_args(BackboneName) for name in get_args(kind)]:
        raise InputError(
            expected="a backbone that bundles may name",
            found=str(built.backbone),
            advice="add it to acouslic/backbones.py",
        )
    return BackboneConfig(built.backbone, network.view)  # type: ignore[arg-type] # looked up above


def _scorer(built: Built, size: int) -> BackboneScorer | TrunkScorer:
    network, config = built.network, _scorer_config(built)
    if isinstance(config, BackboneConfig):
        assert isinstance(network, Classifier)
        _merge(network.encoder)
        backbone = BackboneScorer(config, size)
        backbone.model.load_state_dict(network.encoder.state_dict())
        return backbone
    scorer = TrunkScorer(config)
    if isinstance(network, Quality):
        trunk: nn.Module = network.trunk
        scorer.head.load_state_dict(network.head.state_dict())
    else:
        assert isinstance(network, Classifier) and network.own_head is not None
        trunk = network.encoder
        head = {f"linear.{name}": x for name, x in network.own_head.state_dict().items()}
        scorer.head.load_state_dict(head)
    _merge(trunk)
    # The paper's adapters stand on open_clip's own attention, whose weights have other names.
    scorer.trunk.load_state_dict(trunk_state_from_open_clip(trunk.state_dict()))
    return scorer


def _merge(model: nn.Module) -> None:
    if lora_layers(model):
        merge_lora(model)


def save_system(
    output: Path,
    network: AbdomenNet,
    calibration: Calibration,
    facts: dict[str, Any],
    *,
    overwrite: bool,
) -> None:
    """Write a bundle of a packed system.

    Args:
        output: the bundle's folder.
        network: from `as_one_network`.
        calibration: fitted on the validation part.
        facts: `name`, `simulated`, `base` and what else its provenance tells.
        overwrite: whether an older bundle may be replaced.

    Raises:
        OutputError: the folder holds something else, or a bundle that is not to be replaced.
    """
    provenance = {**facts, "code": code_version()}
    save_bundle(
        output,
        [network],
        name=facts["name"],
        selection=with_calibration(calibration),
        lora=None,
        provenance=provenance,
        card=_card(provenance),
        overwrite=overwrite,
    )


def _card(provenance: dict[str, Any]) -> str:
    simulated = f"{SIMULATED}\n\n" if provenance["simulated"] else ""
    rows = "\n".join(f"| {name} | {json.dumps(value)} |" for name, value in provenance.items())
    return f"""# {provenance["name"]}

{simulated}A system of the benchmark, packed as it was trained. Its calibration was fitted on the
benchmark's validation part.

| | |
|---|---|
{rows}

{LIMITS}"""
