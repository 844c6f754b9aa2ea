"""`ablation`: every arm is trained and judged once, on phantoms that are not rendered."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from unrendered import store_unrendered

from acouslic.challenge import CHALLENGE_FAN, Quality
from acouslic.errors import OutputError
from acouslic.network import TrunkConfig
from phantom.truth import Sight
from training.augment import NUMBERS
from training.batches import Draw
from training.demo import ablation, build
from training.demo.ablation import ADAPTATIONS, FOUNDATIONS, Arm, OnlyAnnotated
from training.demo.anatomy import case_numbers
from training.demo.build import DemoOptions, Phantoms, demo_options
from training.demo.foundation import AnatomyFrames
from training.options import AblationSize, DemoSize, Machine

TRUNK = TrunkConfig(image_size=32, patch_size=8, width=64, layers=4, embed_dim=32)
SIZE = AblationSize(
    cases=1, frames=30, judged=1, epochs=1, steps_per_epoch=3, batch_size=32, seeds=2
)
CPU = Machine("fp32", "cpu")


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    def unrendered(folder: Path, phantoms: Phantoms, *, size: int, workers: int) -> list[str]:
        numbers = range(phantoms.training + phantoms.validation)
        return [store_unrendered(folder, phantoms.seed, number, size) for number in numbers]

    def smaller(size: DemoSize) -> DemoOptions:
        return replace(demo_options(size), trunk=TRUNK, decoder_width=4)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_add_phantoms", unrendered)
        patch.setattr(ablation, "demo_options", smaller)
        yield


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    (folder / "masks").mkdir()
    fan = CHALLENGE_FAN.mask()
    rows, columns = np.indices(fan.shape)
    disc = (np.hypot(rows - 300, columns - 360) < 120) & fan
    cv2.imwrite(str(folder / "one.png"), np.where(disc, 200, 20).astype(np.uint8) * fan)
    cv2.imwrite(str(folder / "masks" / "one_gt.png"), disc.astype(np.uint8) * 255)
    cv2.imwrite(str(folder / "two.png"), np.uint8(20) * fan)
    (folder / "index.csv").write_text("file,annotated\none.png,1\ntwo.png,0\n")
    return folder


@pytest.fixture(scope="module")
def output(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    ablation.ablation(folder, frames, SIZE, CPU)
    return folder


def test_every_arm_has_a_row_with_both_seeds_and_a_sheet(output: Path) -> None:
    arms: list[Arm] = [*FOUNDATIONS, *ADAPTATIONS]
    results = json.loads((output / "parts.json").read_text())
    assert sorted((one["arm"], one["seed"]) for one in results) == sorted(
        (arm.title, seed) for arm in arms for seed in (0, 1)
    )
    assert all(0 <= one["phantom_dice"] <= 1 and one["annotated"] == 1 for one in results)
    # A foundation's quality head is a fresh one.
    unrated = {one["arm"] for one in results if one["roc_area"] is None}
    assert unrated == {arm.title for arm in FOUNDATIONS}
    lines = (output / "parts.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {arm.title}" for arm in arms]
    assert all(line.split(" | ")[1].count(",") == 1 for line in lines[2:])
    for arm in arms:
        assert (output / f"{arm.name}-seed-1" / "frames.png").is_file()


def test_arms_differ_in_what_they_learnt(output: Path) -> None:
    # Nothing is rendered here, so that the looks are alike.
    looks_alike = {"realistic", "random", "mixed"}
    names = {arm.name for arm in (*FOUNDATIONS, *ADAPTATIONS)} - looks_alike
    learnt: dict[bytes, str] = {}
    for name in sorted(names):
        weights = (output / f"{name}-seed-0" / "weights.safetensors").read_bytes()
        assert weights not in learnt, f"{name} learnt what {learnt[weights]} did"
        learnt[weights] = name


def test_nothing_is_trained_twice(
    output: Path, frames: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (output / "parts.md").read_text()
    monkeypatch.setattr("training.runs._train", lambda *_: pytest.fail("trained again"))
    assert ablation.ablation(output, frames, SIZE, CPU) == before


def test_variations_are_judged_in_both_halves_of_their_networks(output: Path, frames: Path) -> None:
    text = ablation.ablation(output, frames, SIZE, CPU, "variations")
    results = json.loads((output / "variations.json").read_text())
    assert [one["seed"] for one in results].count(1) == len(results) / 2 == 8
    assert (output / "variations.md").read_text() == text
    learnt = {
        (output / f"varied-{number}-seed-{one['seed']}" / "weights.safetensors").read_bytes()
        for number, one in enumerate(results)
    }
    assert len(learnt) == len(results)


def test_a_strangers_folder_stays(frames: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError):
        ablation.ablation(tmp_path, frames, SIZE, CPU)


def test_background_is_what_nobody_annotated(output: Path) -> None:
    data = Phantoms(build.FOUNDATION_PHANTOMS_SEED, 1, 0, "plain", SIZE.frames)
    cache = build.phantom_cache(output / f"phantoms-{data.seed}-plain", data, size=32, workers=1)
    numbers = case_numbers(data.seed, 1)
    draws = [Draw(0, row, np.ones(NUMBERS, np.float32)) for row in range(len(cache.cases[0].sweep))]
    known, only = (
        kind(cache, data.seed, numbers).__getitems__(draws)
        for kind in (AnatomyFrames, OnlyAnnotated)
    )
    annotated = only.quality != Quality.NONE
    assert (only.anatomy.sight[annotated] == Sight.WELL).all()
    assert (only.anatomy.sight[~annotated] == Sight.NONE).all()
    assert (known.anatomy.sight[~annotated] != Sight.NONE).any(), "or nothing was tested"
    assert not only.anatomy.abdomen[~annotated].any()
    assert torch.equal(only.anatomy.abdomen[annotated], known.anatomy.abdomen[annotated])
