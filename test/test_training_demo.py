"""The demo bundle from seeds: every stage once, on phantoms that are not rendered."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from unrendered import store_unrendered

from acouslic.bundle import Bundle, load_bundle, plain_state
from acouslic.network import TrunkConfig
from dataset.cache import open_cache
from training.base import base_sha256, load_base
from training.demo import build
from training.demo.build import DemoOptions, Phantoms, _train_foundation, build_demo, demo_options
from training.options import DemoSize, Machine
from training.runs import OPTIONS, WEIGHTS

SIZE = 32
TRUNK = TrunkConfig(image_size=SIZE, patch_size=8, width=64, layers=4, embed_dim=32)


@pytest.fixture(scope="module")
def options() -> DemoOptions:
    small = DemoSize(
        cases=(2, 1),
        frames=30,
        epochs=(1, 1),
        held_out=(1, 2),
        members=2,
        steps_per_epoch=2,
        batch_size=4,
    )
    return replace(demo_options(small), trunk=TRUNK, decoder_width=4)


@pytest.fixture(scope="module")
def work(options: DemoOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")

    def unrendered(folder: Path, phantoms: Phantoms, *, size: int, workers: int) -> list[str]:
        numbers = range(phantoms.training + phantoms.validation)
        return [store_unrendered(folder, phantoms.seed, number, size) for number in numbers]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_add_phantoms", unrendered)
        build_demo(folder, folder / "bundle", options, Machine("fp32", "cpu"))
    return folder


@pytest.fixture(scope="module")
def bundle(work: Path) -> Bundle:
    return load_bundle(work / "bundle")


def cases_of(run: Path, part: str) -> list[str]:
    cases: list[str] = json.loads((run / OPTIONS).read_text())[part]
    return cases


def test_members_share_a_trunk_and_differ_in_all_they_learnt(bundle: Bundle) -> None:
    first, second = (plain_state(member) for member in bundle.members)
    differ = {name for name in first if not torch.equal(first[name], second[name])}
    assert "trunk.conv1.weight" not in differ
    for part in (
        "trunk.transformer.resblocks.0.attn.qkv",
        "decoder.merges.0.0.3",
        "quality_head.logits",
    ):
        assert f"{part}.weight" in differ


def test_the_foundation_sees_no_held_out_phantom(work: Path) -> None:
    training, held_out = (
        cases_of(work / "foundation", part) for part in ("training", "validation")
    )
    assert len(training) == 2 and len(held_out) == 1
    assert not set(training) & set(held_out)


def test_the_adaptation_goes_on_with_the_decoder_of_the_foundation(work: Path) -> None:
    foundation, member = (load_file(work / run / WEIGHTS) for run in ("foundation", "member-0"))
    name = "decoder.logit.1.weight"
    start = foundation[name]
    assert not torch.equal(start, member[name])
    torch.testing.assert_close(start, member[name], atol=0.02, rtol=0)


def test_adaptation_sees_other_phantoms_than_the_foundation(work: Path) -> None:
    foundation = work / "foundation"
    known = {*cases_of(foundation, "training"), *cases_of(foundation, "validation")}
    assert not known & set(cases_of(work / "member-0", "training"))


def test_the_bundle_says_what_it_is(work: Path) -> None:
    provenance = json.loads((work / "bundle" / "provenance.json").read_text())
    assert provenance["simulated"] and provenance["base"]["simulated"]
    assert provenance["calibration"]["cases"] == 2
    card = (work / "bundle" / "MODEL_CARD.md").read_text()
    assert "Trained on phantoms, not on patients" in card


def test_the_foundation_can_go_on_from_another_trunk(
    work: Path, options: DemoOptions, tmp_path: Path
) -> None:
    cache = open_cache(work / "foundation-cache")
    machine = Machine("fp32", "cpu")
    decoder = _train_foundation(
        tmp_path / "run", tmp_path / "base", cache, options, machine, work / "bundle"
    )
    provenance = json.loads((tmp_path / "base" / "provenance.json").read_text())
    assert provenance["start"]["sha256"] == base_sha256(work / "bundle")
    assert provenance["start"]["provenance"]["simulated"] and decoder
    (before, after) = (
        load_base(folder)[1].conv1.weight for folder in (work / "bundle", tmp_path / "base")
    )
    torch.testing.assert_close(before, after, atol=0.02, rtol=0)
    assert not torch.equal(before, after)


def test_made_again_from_finished_stages_it_is_the_same(
    work: Path, options: DemoOptions, bundle: Bundle, tmp_path: Path
) -> None:
    build_demo(work, tmp_path / "again", options, Machine("fp32", "cpu"))
    assert load_bundle(tmp_path / "again").id == bundle.id
