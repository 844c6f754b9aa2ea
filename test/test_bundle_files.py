"""What a bundle may hold: wrong values, foreign files and damaged weights are one error."""

import hashlib
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from acouslic import files
from acouslic.bundle import copy_bundle, load_bundle, save_bundle
from acouslic.errors import BundleError
from acouslic.lora import LoraConfig
from acouslic.network import AbdomenNet
from acouslic.selection import SelectionConfig

# Mutations of each text in a run of the tests; docs/proofs.md tells of a longer one.
MUTATIONS = int(os.environ.get("ACOUSLIC_MUTATIONS", "100"))
Change = Callable[[dict[str, Any]], object]


def rewrite_manifest(folder: Path) -> None:
    """As somebody would who changes a file on purpose."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["sha256"]:
        manifest["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def rewrite(folder: Path, name: str, change: Change) -> None:
    values = json.loads((folder / name).read_text())
    change(values)
    (folder / name).write_text(json.dumps(values))
    if name != "manifest.json":
        rewrite_manifest(folder)


def refusal(folder: Path) -> str:
    """The one line that a bundle is refused with; anything else that is raised fails the test."""
    with pytest.raises(BundleError) as refused:
        load_bundle(folder)
    text = str(refused.value)
    assert "\n" not in text and len(text) < 1000
    return text


def at(*keys: str | int, value: Any) -> Change:
    """A change that puts a value into nested objects."""

    def change(values: dict[str, Any]) -> None:
        inner: Any = values
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


WRONG_CONFIG = {
    "no format": lambda config: config.pop("format"),
    "format as number": at("format", value=2),
    "unknown key": at("depth", value=1),
    "network as text": at("network", value="vit"),
    "network missing": lambda config: config.pop("network"),
    "trunk as list": at("network", "trunk", value=[32, 8, 64, 4, 64]),
    "size as text": at("network", "trunk", "image_size", value="32"),
    "size as float": at("network", "trunk", "image_size", value=32.0),
    "size zero": at("network", "trunk", "image_size", value=0),
    "size negative": at("network", "trunk", "image_size", value=-32),
    "size no multiple of patches": at("network", "trunk", "image_size", value=33),
    "patch zero": at("network", "trunk", "patch_size", value=0),
    "width true": at("network", "trunk", "width", value=True),
    "width null": at("network", "trunk", "width", value=None),
    "width of half a head": at("network", "trunk", "width", value=96),
    "width enormous": at("network", "trunk", "width", value=10**30),
    "layers two": at("network", "trunk", "layers", value=2),
    "layers a million": at("network", "trunk", "layers", value=10**6),
    "decoder negative": at("network", "decoder_width", value=-4),
    "lora as list": at("lora", value=[2, 4, 0.1]),
    "rank zero": at("lora", "rank", value=0),
    "rank enormous": at("lora", "rank", value=10**9),
    "dropout of all": at("lora", "dropout", value=1.0),
    "no members": at("members", value=0),
    "members as text": at("members", value="1"),
    "members negative": at("members", value=-1),
    "a million members": at("members", value=10**6),
    "two members of one": at("members", value=2),
    "selection null": at("selection", value=None),
    "threshold beyond 1": at("selection", "mask_threshold", value=1.5),
    "threshold zero": at("selection", "mask_threshold", value=0),
    "threshold NaN": at("selection", "mask_threshold", value=float("nan")),
    "smallest above largest": at("selection", "smallest_mm", value=400.0),
    "largest infinite": at("selection", "largest_mm", value=float("inf")),
    "sweep prior as number": at("selection", "sweep_prior", value=1),
    "calibration in the selection": at("selection", "calibration", value={}),
    "no calibration": lambda config: config.pop("calibration"),
    "calibration null": at("calibration", value=None),
    "calibration empty": at("calibration", value={}),
    "calibration of version true": at("calibration", "version", value=True),
    "prior of two": at("calibration", "prior", value=[0.9, 0.1]),
    "prior of texts": at("calibration", "prior", value=["0.9", "0.05", "0.05"]),
    "prior of sum two": at("calibration", "prior", value=[0.9, 0.6, 0.5]),
    "prior with zero": at("calibration", "prior", value=[1.0, 0.0, 0.0]),
    "sweeps of five": at("calibration", "sweeps", value=[0.0] * 5),
    "smoothing negative": at("calibration", "smoothing_frames", value=-1.0),
    "dice above 1": at("calibration", "dice", value=1.1),
    "scale zero": at("calibration", "ac_scale", value=0.0),
    "scale as object": at("calibration", "ac_scale", value={}),
    "spread negative": at("calibration", "ac_spread", value=[-0.1, 0.3]),
}
WRONG_MANIFEST = {
    "no name": lambda manifest: manifest.pop("name"),
    "name as number": at("name", value=7),
    "name empty": at("name", value=""),
    "name of two lines": at("name", value="a\nerror: b"),
    "name with an escape": at("name", value="\x1b[2J"),
    "name too long": at("name", value="a" * 101),
    "unknown key": at("url", value="a"),
    "no hashes": lambda manifest: manifest.pop("sha256"),
    "hashes as list": at("sha256", value=[]),
    "hashes null": at("sha256", value=None),
    "hash as number": at("sha256", "config.json", value=0),
    "hash short": at("sha256", "config.json", value="00"),
    "hash in capitals": at("sha256", "config.json", value="A" * 64),
    "hash with a line's end": at("sha256", "config.json", value="a" * 64 + "\n"),
    "file above": at("sha256", "../config.json", value="a" * 64),
    "file of the system": at("sha256", "/etc/passwd", value="a" * 64),
    "file in a folder": at("sha256", "a/config.json", value="a" * 64),
    "file without a name": at("sha256", "", value="a" * 64),
    "file with a zero": at("sha256", "a\0b", value="a" * 64),
    "second member": at("sha256", "member_1.safetensors", value="a" * 64),
    "code": at("sha256", "load.py", value="a" * 64),
}


@pytest.mark.parametrize("change", WRONG_CONFIG.values(), ids=WRONG_CONFIG)
def test_a_wrong_value_in_the_config_is_one_error(tiny_bundle: Path, change: Change) -> None:
    rewrite(tiny_bundle, "config.json", change)
    refusal(tiny_bundle)


@pytest.mark.parametrize("change", WRONG_MANIFEST.values(), ids=WRONG_MANIFEST)
def test_a_wrong_value_in_the_manifest_is_one_error(tiny_bundle: Path, change: Change) -> None:
    rewrite(tiny_bundle, "manifest.json", change)
    assert "manifest.json" in refusal(tiny_bundle)


WRONG_TEXT = {
    "empty": b"",
    "no JSON": b"weights",
    "no UTF-8": b'{"name": "\xff"}',
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "a key twice": b'{"name": "a", "name": "b"}',
    "deep": b"[" * 100_000,
    "a deep object": b'{"a":' * 100_000,
    "a number of 5,000 digits": b'{"name": ' + b"1" * 5000 + b"}",
    "NaN": b'{"name": NaN}',
    "cut": b'{"name": "tiny", "sha',
    "large": b'{"name": "' + b"a" * 3_000_000 + b'"}',
}


@pytest.mark.parametrize("name", ["manifest.json", "config.json", "provenance.json"])
@pytest.mark.parametrize("text", WRONG_TEXT.values(), ids=WRONG_TEXT)
def test_a_text_that_is_no_strict_json_object_is_one_error(
    tiny_bundle: Path, name: str, text: bytes
) -> None:
    (tiny_bundle / name).write_bytes(text)
    if name != "manifest.json":
        rewrite_manifest(tiny_bundle)
    assert name in refusal(tiny_bundle)


def mutated(text: bytes, chance: random.Random) -> bytes:
    """The text after one to four random changes of some bytes, or of one value."""
    odd = (b"null", b"-1", b"1e999", b"[]", b"{}", b'""', b"true", b"0", b"99999999999", b"NaN")
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(text) + 1)
        stop = min(len(text), start + chance.randint(0, 12))
        kind = chance.randrange(4)
        if kind == 0:
            text = text[:start] + chance.randbytes(chance.randint(0, 4)) + text[stop:]
        elif kind == 1:
            text = text[:stop] + text[start:stop] + text[stop:]
        elif values := list(re.finditer(rb"-?[\d.]+|\"[^\"]*\"|true|false|null", text)):
            value = chance.choice(values)
            text = text[: value.start()] + chance.choice(odd) + text[value.end() :]
    return text


@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
def test_a_mutated_text_loads_or_is_one_error(tiny_bundle: Path, name: str) -> None:
    whole, manifest = (tiny_bundle / name).read_bytes(), tiny_bundle / "manifest.json"
    listed, refused = manifest.read_bytes(), 0
    for seed in range(MUTATIONS):
        manifest.write_bytes(listed)
        (tiny_bundle / name).write_bytes(mutated(whole, random.Random(seed)))
        if name != "manifest.json":
            rewrite_manifest(tiny_bundle)
        try:
            load_bundle(tiny_bundle)
        except BundleError as error:
            assert "\n" not in str(error), seed
            refused += 1
    assert refused > MUTATIONS / 2


def test_a_mutated_header_of_tensors_loads_or_is_one_error(tiny_bundle: Path) -> None:
    path = tiny_bundle / "member_0.safetensors"
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for seed in range(MUTATIONS):
        path.write_bytes(mutated(whole[:header], random.Random(seed)) + whole[header:])
        rewrite_manifest(tiny_bundle)
        try:
            load_bundle(tiny_bundle)
        except BundleError as error:
            assert "\n" not in str(error), seed


def test_an_architecture_that_fits_no_memory_is_refused_by_its_weights(tiny_bundle: Path) -> None:
    def enlarge(config: dict[str, Any]) -> None:
        config["network"]["trunk"] |= {"width": 4096, "layers": 128, "embed_dim": 4096}

    rewrite(tiny_bundle, "config.json", enlarge)
    assert "architecture" in refusal(tiny_bundle)


@pytest.mark.parametrize("simulated", ["false", 0, None, []])
def test_whether_images_were_simulated_is_told_by_true_or_false(
    tiny_bundle: Path, simulated: object
) -> None:
    rewrite(tiny_bundle, "provenance.json", at("simulated", value=simulated))
    assert "`simulated`" in refusal(tiny_bundle)


# ---- files that are no part of a bundle, or no plain files


def test_a_member_that_the_manifest_does_not_list_is_refused(tiny_bundle: Path) -> None:
    tensors = load_file(tiny_bundle / "member_0.safetensors")
    save_file(tensors, tiny_bundle / "member_1.safetensors")
    assert "'member_1.safetensors'" in refusal(tiny_bundle)
    rewrite(tiny_bundle, "config.json", at("members", value=2))
    assert "member_1.safetensors listed" in refusal(tiny_bundle)


@pytest.mark.parametrize("name", ["load.py", "extra.safetensors", ".hidden", "na\udce9"])
def test_a_file_beside_those_of_the_manifest_is_refused(tiny_bundle: Path, name: str) -> None:
    (tiny_bundle / name).touch()
    text = refusal(tiny_bundle)
    assert repr(name) in text
    text.encode()


def test_what_people_keep_in_a_folder_of_weights_may_stay(tiny_bundle: Path) -> None:
    (tiny_bundle / "README.md").touch()
    (tiny_bundle / ".gitignore").touch()
    (tiny_bundle / "lost+found").mkdir()
    load_bundle(tiny_bundle)


@pytest.mark.parametrize("name", ["manifest.json", "config.json", "trunk.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "dangling link", "device"])
def test_only_plain_files_are_read(tmp_path: Path, tiny_bundle: Path, name: str, kind: str) -> None:
    path = tiny_bundle / name
    path.rename(tmp_path / name)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        ends = {"link": tmp_path / name, "device": Path("/dev/zero")}
        path.symlink_to(ends.get(kind, tmp_path / "nothing"))
    assert name in refusal(tiny_bundle)


def test_a_device_is_no_plain_file() -> None:
    with pytest.raises(ValueError, match="no plain file"):
        files.read_regular(Path("/dev/zero"), 10)


def test_the_folder_itself_may_be_a_link(tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "link").symlink_to(tiny_bundle)
    assert load_bundle(tmp_path / "link").id == load_bundle(tiny_bundle).id


def test_what_was_hashed_is_what_is_used(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that change places with others once they are read change nothing."""
    whole, read = load_bundle(tiny_bundle), files.read_regular
    path = tiny_bundle / "member_0.safetensors"
    times = []

    def read_then_swap(file: Path, limit: int, *, follow: bool) -> bytes:
        data = read(file, limit, follow=follow)
        times.append(file.name)
        if file == path:
            other = {name: tensor + 1 for name, tensor in load_file(path).items()}
            save_file(other, path)
        return data

    monkeypatch.setattr(files, "read_regular", read_then_swap)
    swapped = load_bundle(tiny_bundle)
    assert sorted(times) == sorted({*times}), "a file is read twice"
    for name, tensor in whole.members[0].state_dict().items():
        assert torch.equal(tensor, swapped.members[0].state_dict()[name]), name
    with pytest.raises(BundleError, match="sha256"):
        load_bundle(tiny_bundle)


# ---- numbers that are none


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["trunk.safetensors", "member_0.safetensors"])
def test_one_weight_that_is_not_finite_is_refused(
    tiny_bundle: Path, name: str, number: float
) -> None:
    tensors = load_file(tiny_bundle / name)
    key = max(tensors, key=lambda key: tensors[key].numel())
    tensors[key].view(-1)[7] = number
    save_file(tensors, tiny_bundle / name)
    rewrite_manifest(tiny_bundle)
    text = refusal(tiny_bundle)
    assert f"{number} in {key}" in text and name in text


def test_what_float16_cannot_hold_is_not_saved(tmp_path: Path, tiny_network: AbdomenNet) -> None:
    weight = tiny_network.get_parameter("quality_head.logits.weight")
    with torch.no_grad():
        weight[0, 0] = 1e5

    def save(dtype: torch.dtype) -> None:
        save_bundle(
            tmp_path / "bundle",
            [tiny_network],
            name="tiny",
            selection=SelectionConfig(),
            lora=LoraConfig(rank=2, alpha=4),
            provenance={},
            card="",
            dtype=dtype,
        )

    with pytest.raises(BundleError, match=r"inf in quality_head\.logits\.weight.*fp32"):
        save(torch.float16)
    assert not (tmp_path / "bundle").exists()
    save(torch.float32)
    loaded = load_bundle(tmp_path / "bundle").members[0]
    assert loaded.get_parameter("quality_head.logits.weight")[0, 0] == 1e5


def test_statistics_of_norms_keep_float32(tmp_path: Path, tiny_network: AbdomenNet) -> None:
    tiny_network.get_buffer("decoder.image.0.1.running_var")[0] = 1e5
    tiny_network.get_buffer("decoder.image.0.1.running_mean")[0] = 1 + 2**-20
    save_bundle(
        tmp_path / "bundle",
        [tiny_network],
        name="tiny",
        selection=SelectionConfig(),
        lora=LoraConfig(rank=2, alpha=4),
        provenance={},
        card="",
        dtype=torch.float16,
    )
    stored = load_file(tmp_path / "bundle" / "member_0.safetensors")
    assert stored["decoder.image.0.1.weight"].dtype == torch.float16
    loaded = load_bundle(tmp_path / "bundle").members[0]
    assert loaded.get_buffer("decoder.image.0.1.running_var")[0] == 1e5
    assert loaded.get_buffer("decoder.image.0.1.running_mean")[0] == 1 + 2**-20


def test_whole_numbers_are_no_weights(tiny_bundle: Path) -> None:
    path = tiny_bundle / "member_0.safetensors"
    tensors = load_file(path)
    tensors["quality_head.logits.weight"] = tensors["quality_head.logits.weight"].to(torch.int32)
    save_file(tensors, path)
    rewrite_manifest(tiny_bundle)
    assert r"int32 in quality_head.logits.weight" in refusal(tiny_bundle)


# ---- writing


@pytest.mark.parametrize("name", ["", "a\nb", "a" * 101])
def test_a_bundle_gets_no_name_that_could_not_be_read(
    tmp_path: Path, tiny_network: AbdomenNet, name: str
) -> None:
    with pytest.raises(BundleError, match="a name of 1 to 100"):
        save_bundle(
            tmp_path / "bundle",
            [tiny_network],
            name=name,
            selection=SelectionConfig(),
            lora=LoraConfig(rank=2, alpha=4),
            provenance={},
            card="",
        )
    assert not (tmp_path / "bundle").exists()


def test_a_copy_has_the_weights_that_were_verified(tmp_path: Path, tiny_bundle: Path) -> None:
    copy = tmp_path / "copy"
    copy_bundle(tiny_bundle, copy, SelectionConfig(largest_mm=390.0), {"simulated": True}, "")
    assert load_bundle(copy).config.selection.largest_mm == 390.0
    (tiny_bundle / "trunk.safetensors").write_bytes(b"other")
    with pytest.raises(BundleError, match="sha256"):
        copy_bundle(tiny_bundle, tmp_path / "no", SelectionConfig(), {}, "")
    assert not (tmp_path / "no").exists()
