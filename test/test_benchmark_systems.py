"""The registry: the paper's parameter counts, adapters dead and alive, weights, a new entry."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from acouslic.backbones import View
from acouslic.errors import InputError
from acouslic.lora import LoraConfig
from acouslic.network import TrunkConfig, build_trunk
from benchmark import systems
from benchmark.frames import Samples
from benchmark.networks import (
    Classifier,
    Joint,
    Segmenter,
    add_adapters,
    parameter_counts,
    reference_attention,
)
from benchmark.options import PAPER, STRICT, WeightSource
from benchmark.systems import (
    DEFAULT_SYSTEMS,
    SYSTEMS,
    Plan,
    real_parameters,
    timm_system,
)
from benchmark.table import in_millions
from benchmark.weights import timm_model
from training.base import save_base
from training.options import Tokens

TINY_TRUNK = TrunkConfig(32, 8, 64, 4, 64)
# Trainable under the paper's adapters, and under those that train everywhere.
EXPECTED = {
    "densenet": (6_954_881, 6_954_881),
    "efficientnet": (4_008_829, 4_008_829),
    "vgg": (134_264_641, 134_264_641),
    "swin": (1_736_065, 2_313_601),
    "deit": (2_374_657, 3_161_089),
    "vit": (2_373_217, 3_159_649),
    "fetalclip_cls": (2_359_296 + 769, 3_145_728 + 769),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_papers_parameter_counts(name: str) -> None:
    system = SYSTEMS[name]
    paper, _ = real_parameters(system, PAPER)
    strict, _ = real_parameters(system, STRICT)
    assert (paper, strict) == EXPECTED[name]
    assert system.published is not None
    assert in_millions(paper) == system.published.parameters


def test_the_segmentations_decoder_is_the_published_one_and_ours_is_a_row_of_its_own() -> None:
    assert real_parameters(SYSTEMS["fetalclip_seg"], PAPER)[0] == 1_591_941
    assert real_parameters(SYSTEMS["fetalclip_seg_ours"], PAPER)[0] == 1_030_828
    assert SYSTEMS["fetalclip_seg_ours"].published is None


def test_the_frozen_encoder_is_an_option_of_the_segmentation() -> None:
    decoder = real_parameters(SYSTEMS["fetalclip_seg"], PAPER)[0]
    thawed = real_parameters(
        SYSTEMS["fetalclip_seg"], replace(PAPER, frozen_segmentation_encoder=False)
    )[0]
    assert thawed - decoder == 3_145_728


def test_the_fusion_head_has_about_a_million_and_a_half_parameters() -> None:
    whole = real_parameters(SYSTEMS["quality"], STRICT)[0] - 3_145_728
    plain = real_parameters(SYSTEMS["quality-no-fusion"], STRICT)[0] - 3_145_728
    assert 1.3e6 < whole < 1.7e6
    assert plain == 769


def test_the_registry_is_in_the_papers_order() -> None:
    paper = ("densenet", "efficientnet", "vgg", "swin", "deit", "vit")
    assert (
        *paper,
        "fetalclip_cls",
        "fetalclip_seg",
        "fetalclip_seg_ours",
        "joint",
        "quality",
    ) == DEFAULT_SYSTEMS


@pytest.mark.parametrize("name", DEFAULT_SYSTEMS)
def test_every_stand_in_learns(name: str) -> None:
    torch.manual_seed(0)
    system = SYSTEMS[name]
    network = system.build(Plan(32, STRICT, WeightSource(pretrained=False), True)).network
    answer = network(torch.randint(0, 255, (3, 32, 32), dtype=torch.uint8))
    assert answer.score.shape == answer.quality.shape == (3,)
    assert answer.embedding.shape[0] == 3
    assert bool(((answer.score >= 0) & (answer.score <= 1)).all())
    network.loss(answer, _samples(3)).backward()  # type: ignore[no-untyped-call]
    lacking = {key for key, p in network.named_parameters() if p.requires_grad and p.grad is None}
    # Maps are taken before the trunk's last norm and projection, so these may stay idle.
    ends = ("trunk.proj", "trunk.ln_post.weight", "trunk.ln_post.bias")
    assert all(name.endswith(ends) for name in lacking)


def _samples(count: int) -> Samples:
    quality = torch.arange(count) % 3
    return Samples(
        torch.zeros(count, 32, 32, dtype=torch.uint8),
        torch.full((count, 32, 32), 255, dtype=torch.uint8),
        quality,
        torch.tensor([0.0, 0.6, 1.0])[quality],
        torch.arange(count),
        torch.zeros(count, dtype=torch.int64),
    )


@pytest.fixture
def base(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    trunk = build_trunk(TINY_TRUNK)
    provenance = {"simulated": True, "what": "random numbers"}
    save_base(tmp_path / "base", TINY_TRUNK, trunk.state_dict(), provenance, torch.float32)
    return tmp_path / "base"


def test_the_papers_adapters_on_out_proj_are_dead_and_ours_are_not(base: Path) -> None:
    for protocol, alive in ((PAPER, False), (STRICT, True)):
        plan = Plan(32, protocol, WeightSource(base=base))
        network = SYSTEMS["fetalclip_cls"].build(plan).network.train()
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
        samples = _samples(3)._replace(frames=torch.randint(0, 255, (3, 32, 32)))
        network.loss(network(samples.frames), samples).backward()  # type: ignore[no-untyped-call]
        without = {
            name
            for name, p in network.named_parameters()
            if p.requires_grad and (p.grad is None or not p.grad.any())
        }
        assert (not without) is alive
        assert all("out_proj" in name for name in without)


def test_the_references_attention_says_the_same() -> None:
    torch.manual_seed(0)
    trunk = build_trunk(TINY_TRUNK).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        ours = trunk(images)
        reference_attention(trunk)
        assert torch.allclose(trunk(images), ours, atol=1e-5)


def test_fair_systems_start_from_their_base_and_freeze_it(base: Path) -> None:
    for name in ("fetalclip_seg", "joint", "quality"):
        built = SYSTEMS[name].build(Plan(32, STRICT, WeightSource(base=base)))
        trained = {key for key, p in built.network.named_parameters() if p.requires_grad}
        assert all("lora_" in key for key in trained if "trunk." in key)
        assert any("qkv.lora_" in key for key in trained)
        assert built.origin == "random numbers"
    frozen = SYSTEMS["fetalclip_seg"].build(Plan(32, PAPER, WeightSource(base=base))).network
    assert all(
        key.startswith("network.decoder.")
        for key, p in frozen.named_parameters()
        if p.requires_grad
    )


def test_only_joint_takes_the_patches_that_are_asked_for(base: Path) -> None:
    def patches(name: str, tokens: Tokens) -> str:
        plan = Plan(32, STRICT, WeightSource(base=base), tokens=tokens)
        network = SYSTEMS[name].build(plan).network
        assert isinstance(network, Joint | Segmenter)
        return network.network.config.patches

    told: tuple[Tokens, ...] = ("auto", "all", "registers")
    assert [patches("joint", tokens) for tokens in told] == ["fan", "all", "registers"]
    assert patches("fetalclip_seg", "registers") == "all"


def test_lora_on_a_model_without_such_layers_is_refused() -> None:
    model = timm.create_model("test_efficientnet", num_classes=1)
    with pytest.raises(ValueError, match="Target modules"):
        add_adapters(model, systems.REFERENCE_TIMM_TARGETS, LoraConfig())


def test_a_base_is_asked_for() -> None:
    with pytest.raises(InputError, match="--base"):
        SYSTEMS["joint"].build(Plan(224, STRICT, WeightSource()))


def test_a_ninth_baseline_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = timm_system("resnet", "ResNet", "resnet18", adapters=False, stand_in="small-vit")
    monkeypatch.setitem(systems.SYSTEMS, "resnet", entry)
    assert real_parameters(entry, PAPER)[0] == 11_177_025
    built = entry.build(Plan(32, PAPER, WeightSource(), stand_ins=True))
    assert parameter_counts(built.network)[0] > 0


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_come_from_a_local_file(tmp_path: Path, suffix: str) -> None:
    state = timm.create_model("test_efficientnet", num_classes=1000).state_dict()
    state = {
        name: torch.randn_like(value) if value.ndim == 4 else value for name, value in state.items()
    }
    path = tmp_path / f"test_efficientnet.r160_in1k{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    model, origin = timm_model("test_efficientnet.r160_in1k", WeightSource(folder=tmp_path))
    assert path.name in origin
    assert torch.equal(model.conv_stem.weight, state["conv_stem.weight"])
    assert model.get_classifier().out_features == 1


def test_a_network_whose_weights_are_at_hand_needs_no_stand_in(tmp_path: Path) -> None:
    name = "tf_efficientnet_lite0"
    save_file(timm.create_model(name).state_dict(), tmp_path / f"{name}.safetensors")
    plan = Plan(64, STRICT, WeightSource(folder=tmp_path), stand_ins=True)
    real, small = (SYSTEMS[one].build(plan) for one in ("efficientnet_lite0", "efficientnet"))
    assert (real.network_name, real.backbone, real.stand_in) == (name, name, False)
    assert small.backbone == "small-efficientnet" and small.stand_in
    random = replace(plan, weights=WeightSource(pretrained=False, folder=tmp_path))
    assert SYSTEMS["efficientnet_lite0"].build(random).stand_in


def test_a_missing_or_wrong_file_is_named(tmp_path: Path) -> None:
    source = WeightSource(folder=tmp_path)
    with pytest.raises(InputError, match="test_vit"):
        timm_model("test_vit.r160_in1k", source)
    save_file({"x": torch.zeros(1)}, tmp_path / "test_vit.r160_in1k.safetensors")
    with pytest.raises(InputError, match="test_vit"):
        timm_model("test_vit.r160_in1k", source)


def test_a_centre_crop_cuts_the_margin() -> None:
    frame = torch.zeros(1, 32, 32)
    frame[:, 0] = 255
    view = View(interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))
    assert view.images(frame).max() == 1
    assert replace(view, crop=0.875).images(frame).max() == 0
    assert replace(view, crop=0.875).images(frame).shape == (1, 3, 32, 32)


def test_the_papers_cnns_and_its_swin_are_cropped() -> None:
    for protocol, crop, swins in ((PAPER, 0.875, 0.9), (STRICT, 1.0, 1.0)):
        plan = Plan(32, protocol, WeightSource(), stand_ins=True)
        cnn, transformer = (SYSTEMS[name].build(plan).network for name in ("densenet", "swin"))
        assert isinstance(cnn, Classifier) and isinstance(transformer, Classifier)
        assert cnn.view.crop == crop
        assert transformer.view.crop == swins
