from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from torch import nn
from torch.nn import functional

from acouslic.network import (
    AbdomenNet,
    Decoded,
    Decoder,
    NetworkConfig,
    Norms,
    Patches,
    SourceNorm,
    TrunkConfig,
    TrunkFeatures,
    TrunkPass,
    attend,
    build_trunk,
    patches_in_fan,
    pool_under_mask,
    register_shares,
    trunk_state_from_open_clip,
)

VIT_L = TrunkConfig(image_size=224, patch_size=14, width=1024, layers=24, embed_dim=768)


def test_shapes_and_types_of_one_pass(tiny_config: NetworkConfig) -> None:
    output = AbdomenNet(tiny_config)(torch.zeros(2, 3, 32, 32))
    assert output.mask_logits.shape == (2, 1, 32, 32)
    assert output.quality_logits.shape == (2, 3)
    assert output.mask_logits.dtype == output.quality_logits.dtype == torch.float32


def test_vit_l_has_the_published_size_taps_and_map() -> None:
    config = NetworkConfig(VIT_L, decoder_width=32)
    with torch.device("meta"):
        network = AbdomenNet(config)
    assert sum(parameter.numel() for parameter in network.trunk.parameters()) == 303_966_208
    assert VIT_L.tap_blocks == (5, 11, 17, 23)
    assert network.decoder.size == 256
    assert network(torch.zeros(1, 3, 224, 224, device="meta")).mask_logits.shape == (1, 1, 256, 256)


def test_config_survives_its_json(tiny_config: NetworkConfig) -> None:
    assert NetworkConfig.from_dict(tiny_config.to_dict()) == tiny_config


def test_a_config_from_before_the_images_own_maps_is_of_the_same_network(
    tiny_config: NetworkConfig,
) -> None:
    known = {key: tiny_config.to_dict()[key] for key in ("trunk", "decoder_width")}
    assert NetworkConfig.from_dict(known) == tiny_config


@pytest.mark.parametrize("image_levels", [1, 2, 3, 4])
def test_every_size_of_the_frame_reaches_the_mask(
    tiny_config: NetworkConfig, image_levels: int
) -> None:
    torch.manual_seed(0)
    network = AbdomenNet(replace(tiny_config, image_levels=image_levels))
    output = network(torch.rand(2, 3, 32, 32))
    assert output.mask_logits.shape == (2, 1, 32, 32)
    output.mask_logits.square().mean().backward()
    assert isinstance(network.decoder, Decoder)
    assert len(network.decoder.levels) == image_levels - 1
    for level in (network.decoder.image, *network.decoder.levels):
        assert all(parameter.grad is not None for parameter in level.parameters())


def test_trunk_equals_open_clip_with_the_same_weights() -> None:
    config = TrunkConfig(image_size=28, patch_size=14, width=128, layers=4, embed_dim=32)
    vision = {"image_size": 28, "patch_size": 14, "width": 128, "layers": 4}
    text = {"context_length": 8, "vocab_size": 16, "width": 64, "heads": 1, "layers": 1}
    reference = open_clip.CLIP(32, vision, text).visual.eval()
    trunk = build_trunk(config).eval()
    trunk.load_state_dict(trunk_state_from_open_clip(reference.state_dict()))
    images = torch.randn(3, 3, 28, 28)
    with torch.no_grad():
        assert torch.allclose(trunk(images), reference(images), atol=1e-5)


def test_an_unknown_vision_option_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"embed_dim": 8, "vision_cfg": {"image_size": 32, "qk_norm": true}}')
    with pytest.raises(TypeError, match="qk_norm"):
        TrunkConfig.read(path)


def test_no_attention_hides_its_weights(tiny_config: NetworkConfig) -> None:
    trunk = build_trunk(tiny_config.trunk)
    assert not any(isinstance(module, nn.MultiheadAttention) for module in trunk.modules())


@pytest.mark.parametrize("patches", ["fan", "all", "registers"])
def test_patches_outside_the_fan_count_as_they_are_told(
    tiny_config: NetworkConfig, patches: Patches
) -> None:
    torch.manual_seed(0)
    network = AbdomenNet(replace(tiny_config, patches=patches)).eval()
    size, patch, grid = 32, tiny_config.trunk.patch_size, tiny_config.trunk.grid
    images = torch.randn(1, 3, size, size)
    seen = torch.from_numpy(patches_in_fan(tiny_config.trunk))
    assert 0.5 * grid**2 < seen.sum() < grid**2
    unseen = (~seen).repeat_interleave(patch, 0).repeat_interleave(patch, 1)
    changed = torch.where(unseen, images + 5, images)
    with torch.no_grad():
        before, after = network.trunk_features(images), network.trunk_features(changed)
    assert torch.equal(before.pooled, after.pooled) is (patches == "fan")
    for old, new in zip(before.taps, after.taps, strict=True):
        assert torch.equal(old[:, :, seen], new[:, :, seen]) is (patches == "fan")
        assert bool(old[:, :, ~seen].any()) is (patches == "all")


def test_all_patches_give_the_trunks_own_feature(tiny_config: NetworkConfig) -> None:
    network = AbdomenNet(replace(tiny_config, patches="all")).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.trunk_features(images).pooled, network.trunk(images))


def test_registers_are_means_over_what_lies_outside_the_fan() -> None:
    through = TrunkPass(NetworkConfig(VIT_L, decoder_width=1, patches="registers"))
    assert (len(through.patches), len(through.registers)) == (148, 4)
    torch.testing.assert_close(through.registers.sum(dim=1), torch.ones(4))
    stood_for = (through.registers > 0).sum(dim=0)
    expected = torch.ones(256, dtype=torch.int64)
    expected[through.patches] = 0
    assert torch.equal(stood_for, expected)
    corner = np.zeros((4, 4), bool)
    corner[0, :2] = True
    assert register_shares(corner).tolist() == [[0.5, 0.5, *([0.0] * 14)]]
    assert register_shares(np.zeros((4, 4), bool)).shape == (0, 16)


def test_the_trunks_own_norm_brings_its_taps_to_one_scale(tiny_config: NetworkConfig) -> None:
    torch.manual_seed(0)
    network = AbdomenNet(replace(tiny_config, norms="by-source")).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        nn.init.normal_(network.trunk.ln_post.weight)
        normed = network.trunk_features(images)
        network.trunk_pass = TrunkPass(tiny_config)
        raw = network.trunk_features(images)
        expected = [network.trunk.ln_post(token) for token in raw.class_tokens]
    assert torch.equal(raw.pooled, normed.pooled)
    torch.testing.assert_close(normed.class_tokens, expected)
    torch.testing.assert_close(normed.class_tokens[-1] @ network.trunk.proj, normed.pooled)
    seen = raw.taps[0].any(dim=1)
    assert torch.equal(normed.taps[0].any(dim=1), seen)


def test_a_norm_over_one_source_is_a_layer_norm_and_over_several_one_for_each() -> None:
    torch.manual_seed(0)
    sizes, scales = (8, 16, 4), (1.0, 100.0, 0.1)
    sources = zip(sizes, scales, strict=True)
    joined = torch.cat([scale * torch.randn(3, size) for size, scale in sources], dim=1)
    plain, shared, each = nn.LayerNorm(28), SourceNorm((28,)), SourceNorm(sizes)
    for name in ("weight", "bias"):
        nn.init.normal_(plain.get_parameter(name))
    for norm in (shared, each):
        norm.load_state_dict(plain.state_dict())
    assert torch.equal(shared(joined), plain(joined))
    of_each = ((each(joined) - each.bias) / each.weight).split(sizes, dim=1)
    for source in of_each:
        assert source.mean(dim=1).abs().max() < 1e-4
        assert 0.9 < source.std(dim=1, correction=0).min() < 1.01


@pytest.mark.parametrize("norms", ["shared", "by-source"])
def test_large_tokens_drown_the_pooled_feature_only_in_a_shared_norm(
    tiny_config: NetworkConfig, norms: Norms
) -> None:
    torch.manual_seed(0)
    head = AbdomenNet(replace(tiny_config, norms=norms)).quality_head
    decoded = Decoded(torch.randn(1, 1, 32, 32), [torch.rand(1, n, 8, 8) for n in (16, 8, 4)])
    pooled, taps = torch.randn(1, 64), [100 * torch.randn(1, 64, 4, 4)]
    told = [head(TrunkFeatures(x, taps, []), decoded) for x in (pooled, pooled.roll(1, dims=1))]
    moved = (told[0] - told[1]).abs().max()
    assert bool(moved > 0.05) is (norms == "by-source"), moved


def test_pooling_under_a_mask_takes_what_the_mask_covers() -> None:
    tap = torch.zeros(1, 2, 4, 4)
    tap[0, 0, :2], tap[0, 1, 2:] = 3.0, 5.0
    logits = torch.full((1, 1, 16, 16), -20.0)
    logits[:, :, :8] = 20.0
    assert torch.allclose(pool_under_mask(tap, logits), torch.tensor([[3.0, 0.0]]), atol=1e-3)


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_attention_is_the_scaled_dot_product_in_every_precision(
    kind: torch.dtype, tolerance: float
) -> None:
    whole = torch.randn(3, 2, 3, 20, 16, generator=torch.Generator().manual_seed(0))
    found = attend(*whole.to(kind))
    expected = functional.scaled_dot_product_attention(*whole)
    assert found.dtype == kind
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)
