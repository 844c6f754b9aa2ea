import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from acouslic.bundle import (
    choose_bundle,
    load_bundle,
    save_bundle,
    without_sweep_prior,
)
from acouslic.calibration import Calibration
from acouslic.engine import choose_device
from acouslic.errors import BundleError, InputError
from acouslic.lora import LoraConfig
from acouslic.network import AbdomenNet, NetworkConfig
from acouslic.selection import SelectionConfig
from training.adapters import merge_lora

CALIBRATION = Calibration(annotated=(2.0, 1.0, 0.25), nae=0.04)


def save(folder: Path, members: Sequence[AbdomenNet], *, lora: LoraConfig | None = None) -> None:
    save_bundle(
        folder,
        members,
        name="test",
        selection=SelectionConfig(largest_mm=390.0, calibration=CALIBRATION),
        lora=lora,
        provenance={"simulated": True},
        card="",
        dtype=torch.float32,
    )


def test_a_decoders_filters_lie_channels_last_in_memory_and_plain_in_files(
    tmp_path: Path, tiny_network: AbdomenNet
) -> None:
    """safetensors writes no other layout; a bundle that was loaded can be written again."""
    name = "levels.0.1.weight"
    fresh = AbdomenNet(replace(tiny_network.config, image_levels=2))
    save(tmp_path / "first", [fresh])
    (network,) = load_bundle(tmp_path / "first").members
    weight = network.decoder.get_parameter(name)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    save(tmp_path / "again", [network])
    stored = load_file(tmp_path / "again" / "member_0.safetensors")
    assert torch.equal(stored[f"decoder.{name}"], fresh.decoder.get_parameter(name))


def test_a_bundle_of_the_first_format_loads_with_the_default_calibration(
    tiny_bundle: Path,
) -> None:
    path = tiny_bundle / "config.json"
    config = json.loads(path.read_text())
    del config["calibration"]
    config["format"] = "acouslic-bundle-1"
    config["selection"] = {
        "smoothing_frames": 3.0,
        "mask_weight": 0.5,
        "mask_threshold": 0.4,
        "smallest_mm": 120.0,
        "largest_mm": 380.0,
    }
    path.write_text(json.dumps(config))
    rewrite_manifest(tiny_bundle)
    selection = load_bundle(tiny_bundle).config.selection
    assert selection == SelectionConfig(mask_threshold=0.4, calibration=Calibration())


def test_the_sweeps_numbers_can_be_left_out(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    assert bundle.config.selection.sweep_prior
    assert not without_sweep_prior(bundle).config.selection.sweep_prior


def rewrite_manifest(folder: Path) -> None:
    """As somebody would who changes a file on purpose."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["sha256"]:
        manifest["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_bundle_gives_back_what_was_saved(tmp_path: Path, tiny_network: AbdomenNet) -> None:
    save(tmp_path / "b", [tiny_network], lora=LoraConfig(rank=2, alpha=4))
    bundle = load_bundle(tmp_path / "b")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected, found = tiny_network.eval()(images), bundle.members[0](images)
    assert torch.allclose(expected.mask_logits, found.mask_logits, atol=1e-4)
    assert torch.allclose(expected.quality_logits, found.quality_logits, atol=1e-4)
    assert bundle.config.selection.largest_mm == 390.0
    assert bundle.config.selection.calibration == CALIBRATION
    assert bundle.id.startswith("test-")


def test_a_bundle_knows_its_patches_and_norms(tmp_path: Path, tiny_config: NetworkConfig) -> None:
    torch.manual_seed(0)
    config = replace(tiny_config, patches="registers", norms="by-source")
    network = AbdomenNet(config).eval()
    save(tmp_path / "b", [network])
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected, found = network(images), load_bundle(tmp_path / "b").members[0](images)
        plain = AbdomenNet(tiny_config).eval()
        plain.load_state_dict(network.state_dict())
        assert not torch.allclose(plain(images).quality_logits, expected.quality_logits, atol=1e-3)
    torch.testing.assert_close(found.mask_logits, expected.mask_logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.quality_logits, expected.quality_logits, atol=1e-4, rtol=1e-4)


def test_any_user_may_read_a_bundle(tiny_bundle: Path) -> None:
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in tiny_bundle.iterdir())


def test_merged_and_unmerged_bundles_say_the_same(tmp_path: Path, tiny_network: AbdomenNet) -> None:
    save(tmp_path / "apart", [tiny_network], lora=LoraConfig(rank=2, alpha=4))
    merge_lora(tiny_network.trunk)
    save(tmp_path / "merged", [tiny_network])
    images = torch.randn(2, 3, 32, 32)
    apart, merged = (load_bundle(tmp_path / name).members[0] for name in ("apart", "merged"))
    assert torch.allclose(apart(images).mask_logits, merged(images).mask_logits, atol=1e-4)


def test_an_ensemble_shares_its_base(
    tmp_path: Path, tiny_config: NetworkConfig, tiny_network: AbdomenNet
) -> None:
    save(tmp_path / "b", [tiny_network, tiny_network], lora=LoraConfig(rank=2, alpha=4))
    assert len(load_bundle(tmp_path / "b").members) == 2
    with pytest.raises(ValueError, match="share"):
        save(tmp_path / "c", [AbdomenNet(tiny_config), AbdomenNet(tiny_config)])


def test_half_precision_is_smaller(
    tmp_path: Path, tiny_bundle: Path, tiny_network: AbdomenNet
) -> None:
    save(tmp_path / "full", [tiny_network], lora=LoraConfig(rank=2, alpha=4))
    half = (tiny_bundle / "trunk.safetensors").stat().st_size
    assert half < 0.6 * (tmp_path / "full" / "trunk.safetensors").stat().st_size


def test_an_altered_file_is_refused(tiny_bundle: Path) -> None:
    with (tiny_bundle / "trunk.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(BundleError, match=r"trunk\.safetensors with sha256"):
        load_bundle(tiny_bundle)


@pytest.mark.parametrize(
    "name", ["manifest.json", "config.json", "trunk.safetensors", "member_0.safetensors"]
)
def test_a_missing_file_is_refused(tiny_bundle: Path, name: str) -> None:
    (tiny_bundle / name).unlink()
    with pytest.raises(BundleError, match=name):
        load_bundle(tiny_bundle)


def test_a_file_outside_the_manifest_is_refused(tiny_bundle: Path) -> None:
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    del manifest["sha256"]["member_0.safetensors"]
    (tiny_bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"member_0\.safetensors listed"):
        load_bundle(tiny_bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config["network"]["trunk"].update(width=128), "architecture"),
        (lambda config: config["network"]["trunk"].update(layers=8), "architecture"),
        (lambda config: config["network"]["trunk"].update(depth=8), "another form"),
        (lambda config: config.update(lora=None), "architecture"),
        (lambda config: config.update(format="acouslic-bundle-9"), "another form"),
    ],
)
def test_another_architecture_is_refused(
    tiny_bundle: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    path = tiny_bundle / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    rewrite_manifest(tiny_bundle)
    with pytest.raises(BundleError, match=message):
        load_bundle(tiny_bundle)


def test_missing_and_damaged_tensors_are_refused(tiny_bundle: Path) -> None:
    path = tiny_bundle / "member_0.safetensors"
    tensors = load_file(path)
    tensors.pop("quality_head.logits.weight")
    save_file(tensors, path)
    rewrite_manifest(tiny_bundle)
    with pytest.raises(BundleError, match=r"quality_head\.logits\.weight"):
        load_bundle(tiny_bundle)
    path.write_bytes(b"no tensors")
    rewrite_manifest(tiny_bundle)
    with pytest.raises(BundleError, match="safetensors in"):
        load_bundle(tiny_bundle)


EMPTY = {
    "missing": lambda folder: None,
    "empty": Path.mkdir,
    "a README alone": lambda folder: (folder.mkdir(), (folder / "README.md").touch()),
    "a file system's own": lambda folder: (folder / "lost+found").mkdir(parents=True),
    "a file": Path.touch,
    "a dangling link": lambda folder: folder.symlink_to("nowhere"),
}


@pytest.mark.parametrize("make", EMPTY.values(), ids=EMPTY)
def test_without_a_bundle_only_the_switch_gives_the_demo(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    model, demo = tmp_path / "model", tmp_path / "demo"
    make(model)
    with pytest.raises(BundleError, match=r"upload model\.tar\.gz .* ACOUSLIC_DEMO=1"):
        choose_bundle(model, demo=None)
    assert choose_bundle(model, demo=demo) == demo


def test_a_bundle_is_never_passed_over_for_the_demo(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    assert choose_bundle(tmp_path, demo=None) == tmp_path
    with pytest.raises(BundleError, match="leave out --demo"):
        choose_bundle(tmp_path, demo=tmp_path / "demo")


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(InputError, match="a GPU"):
        choose_device("cuda")
