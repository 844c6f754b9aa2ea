"""Every family as one network that the pipeline runs: the same ratings, bundles, other heads."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark_cache import SIZE
from safetensors.torch import save_file

from acouslic import files
from acouslic.bundle import load_bundle
from acouslic.calibration import Calibration
from acouslic.errors import InputError
from acouslic.heads import logits_of_annotated, logits_of_rating
from acouslic.network import HEADS, AbdomenNet, NetworkConfig, TrunkConfig, build_trunk
from acouslic.preprocess import Intensity, like_a_usual_frame, normalise
from benchmark.options import PAPER, STRICT, Protocol, WeightSource
from benchmark.packing import as_one_network, save_system, trained
from benchmark.systems import DEFAULT_SYSTEMS, SYSTEMS, Plan
from benchmark.trial import RESULT, WEIGHTS
from training.base import save_base

TRUNK = TrunkConfig(SIZE, 4, 64, 4, 64)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("base") / "base"
    provenance = {"simulated": True, "what": "random numbers"}
    save_base(folder, TRUNK, build_trunk(TRUNK).state_dict(), provenance, torch.float32)
    return folder


def awaken(network: torch.nn.Module) -> None:
    """Give adapters something to say, so that merging them matters."""
    for name, parameter in network.named_parameters():
        if "lora_B" in name and "out_proj" not in name:
            torch.nn.init.normal_(parameter, std=0.05)


@pytest.mark.parametrize("protocol", [PAPER, STRICT], ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("name", [*DEFAULT_SYSTEMS, "quality-fusion-concat", "quality-fusion-late"])
def test_a_packed_system_rates_frames_as_it_did(
    name: str, protocol: Protocol, base: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    intensity: Intensity = "as-is" if protocol is PAPER else "fan"
    plan = Plan(SIZE, protocol, WeightSource(base=base), stand_ins=True, intensity=intensity)
    built, masks = (SYSTEMS[system].build(plan) for system in (name, "joint"))
    for one in (built, masks):
        awaken(one.network)
        one.network.eval()
    frames = torch.randint(0, 255, (3, SIZE, SIZE), dtype=torch.uint8)
    with torch.no_grad():
        shown = frames if intensity == "as-is" else like_a_usual_frame(frames.float())
        told = built.network(shown)
        drawn = masks.network(shown).raw[0]
        packed = as_one_network(built, None if SYSTEMS[name].draws_masks else masks)
        said = packed(normalise(frames, intensity))
    p = said.quality_logits.softmax(dim=1)
    if name == "joint":
        assert torch.allclose(1 - p[:, 0], told.score, atol=1e-5)
    elif name.startswith("fetalclip_seg"):
        share = told.score.clamp_min(1e-4)
        assert torch.allclose(1 - p[:, 0], share / (share + 0.01), atol=1e-4)
        assert torch.allclose(said.mask_logits, told.raw[0], atol=1e-4)
    else:
        assert torch.allclose(1 - p[:, 0], told.score, atol=1e-4)
        assert torch.allclose(said.mask_logits, drawn, atol=1e-4)
    facts = {"name": f"benchmark-{name}", "simulated": True}
    save_system(tmp_path / "bundle", packed, Calibration(), facts, overwrite=False)
    bundle = load_bundle(tmp_path / "bundle")
    with torch.no_grad():
        again = bundle.members[0](normalise(frames, bundle.config.network.intensity))
    # Weights are stored in half precision.
    assert torch.allclose(again.quality_logits.softmax(dim=1), p, atol=0.02)


def test_a_trial_that_began_otherwise_is_refused(base: Path, tmp_path: Path) -> None:
    plan = Plan(SIZE, STRICT, WeightSource(base=base), stand_ins=True)
    built = SYSTEMS["fetalclip_cls"].build(plan)
    save_file(dict(built.network.named_buffers()), tmp_path / WEIGHTS)
    files.write_json(tmp_path / RESULT, {"network": built.network_name, "origin": built.origin})
    assert trained(tmp_path, SYSTEMS["fetalclip_cls"], plan).origin == built.origin
    other = replace(plan, weights=WeightSource(pretrained=False))
    with pytest.raises(InputError, match="--base"):
        trained(tmp_path, SYSTEMS["fetalclip_cls"], other)
    (tmp_path / RESULT).unlink()
    with pytest.raises(InputError, match="finished"):
        trained(tmp_path, SYSTEMS["fetalclip_cls"], plan)


def test_a_classifier_without_masks_is_refused(base: Path) -> None:
    plan = Plan(SIZE, STRICT, WeightSource(base=base), stand_ins=True)
    with pytest.raises(InputError, match="joint"):
        as_one_network(SYSTEMS["vgg"].build(plan), None)


def test_ratings_become_probabilities_that_rise_with_them() -> None:
    p = logits_of_rating(torch.tensor([0.0, 0.3, 0.6, 1.0])).softmax(dim=1)
    assert torch.allclose(p[1], torch.tensor([0.7, 0.21, 0.09]), atol=1e-6)
    assert p[0, 0] > 0.999 and p[3, 2] > 0.999
    assert bool((p[:, 2].diff() > 0).all())
    half = logits_of_annotated(torch.zeros(1)).softmax(dim=1)
    assert torch.allclose(half, torch.tensor([[0.5, 0.25, 0.25]]))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("decoder", ["own", "published"])
def test_every_head_goes_with_every_decoder(head: str, decoder: str) -> None:
    config = NetworkConfig.from_dict(
        {"trunk": vars(TRUNK), "decoder_width": 4, "head": head, "decoder": decoder}
    )
    output = AbdomenNet(config).eval()(torch.zeros(2, 3, SIZE, SIZE))
    assert output.quality_logits.shape == (2, 3)
    assert np.isfinite(output.quality_logits.detach().numpy()).all()
    assert NetworkConfig.from_dict(config.to_dict()) == config
