import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from acouslic.bundle import plain_state
from acouslic.lora import TARGETS, LoraConfig, merge_adapters
from acouslic.network import AbdomenNet, NetworkConfig, Norms, Patches, TrunkConfig, TrunkPass
from training.adapters import add_lora, lora_layers, merge_lora

RESOURCES = Path(__file__).parents[1] / "resources"


def dead_adapters(network: AbdomenNet, batch: int) -> list[str]:
    """Adapter matrices without gradient. B starts as zero, so A gets one only when B has moved."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.01)
    size = network.config.trunk.image_size
    output = network(torch.randn(batch, 3, size, size))
    (output.mask_logits.square().mean() + output.quality_logits.square().mean()).backward()
    matrices = {name: p for name, p in network.named_parameters() if "lora_" in name}
    assert len(matrices) == 2 * len(TARGETS) * network.config.trunk.layers
    return [name for name, p in matrices.items() if p.grad is None or not p.grad.abs().max() > 0]


PATCHES: tuple[Patches, ...] = ("fan", "all", "registers")


@pytest.mark.parametrize(
    ("config_file", "patches", "parameters"),
    [
        *[("demo_trunk.json", patches, None) for patches in PATCHES],
        ("fetalclip.json", "registers", 3_145_728),
    ],
)
def test_every_adapter_trains(config_file: str, patches: Patches, parameters: int | None) -> None:
    torch.manual_seed(0)
    trunk = TrunkConfig.read(RESOURCES / config_file)
    norms: Norms = "by-source" if patches == "registers" else "shared"
    network = AbdomenNet(NetworkConfig(trunk, 8, patches=patches, norms=norms))
    add_lora(network.trunk, LoraConfig())
    trainable = [parameter for parameter in network.trunk.parameters() if parameter.requires_grad]
    if parameters is not None:
        assert sum(parameter.numel() for parameter in trainable) == parameters
    assert dead_adapters(network, batch=1) == []


def test_a_fresh_adapter_changes_nothing(tiny_config: NetworkConfig) -> None:
    network = AbdomenNet(tiny_config).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = network(images)
        add_lora(network.trunk, LoraConfig())
        after = network(images)
    assert torch.equal(before.mask_logits, after.mask_logits)


@pytest.mark.parametrize("patches", PATCHES)
def test_merged_equals_unmerged(tiny_network: AbdomenNet, patches: Patches) -> None:
    tiny_network.eval().trunk_pass = TrunkPass(replace(tiny_network.config, patches=patches))
    images = torch.randn(2, 3, 32, 32)
    merged = copy.deepcopy(tiny_network)
    merge_lora(merged.trunk)
    assert not lora_layers(merged.trunk)
    with torch.no_grad():
        expected, found = tiny_network(images), merged(images)
        bare = copy.deepcopy(tiny_network)
        for layer in lora_layers(bare.trunk).values():
            layer.enable_adapters(False)
        assert not torch.allclose(expected.quality_logits, bare(images).quality_logits, atol=1e-3)
    assert torch.allclose(expected.mask_logits, found.mask_logits, atol=1e-4)
    assert torch.allclose(expected.quality_logits, found.quality_logits, atol=1e-4)


def test_a_bundles_adapters_are_merged_as_peft_does(tiny_network: AbdomenNet) -> None:
    config = LoraConfig(rank=2, alpha=4)
    state = {name: tensor.clone() for name, tensor in plain_state(tiny_network).items()}
    merged = merge_adapters(state, config)
    merge_lora(tiny_network.trunk)
    expected = tiny_network.state_dict()
    assert merged.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(merged[name], tensor), name
    assert not torch.equal(merged[QKV], state[QKV])


QKV = "trunk.transformer.resblocks.0.attn.qkv.weight"
DOWN = f"{QKV.removesuffix('.weight')}.lora_A.default.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop(DOWN), "no adapter of trunk.transformer.resblocks.0.attn.qkv"),
        (lambda state: state.update({DOWN: state[DOWN][:1]}), r"with shapes \[\(192, 2\), \(1, 64"),
        (lambda state: state.update({QKV: state[QKV][0]}), "an adapter of trunk.transformer"),
        (lambda state: state.update({f"x{DOWN}": state[DOWN]}), f"unexpected tensor x{DOWN}"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(
    tiny_network: AbdomenNet, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    state = plain_state(tiny_network)
    change(state)
    with pytest.raises(ValueError, match=message):
        merge_adapters(state, LoraConfig(rank=2, alpha=4))
