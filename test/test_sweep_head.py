"""The sweep head in what ships: neutral untrained, bound to its sweep, part of a bundle."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_bundle_files import at, refusal, rewrite, rewrite_manifest

from acouslic.bundle import copy_bundle, load_bundle, save_bundle, with_engine
from acouslic.calibration import Calibration
from acouslic.challenge import SPACING_MM, SWEEPS
from acouslic.errors import BundleError
from acouslic.expected_score import Evidence, expected_score, posterior_odds, posteriors
from acouslic.lora import LoraConfig
from acouslic.metaimage import Geometry
from acouslic.network import AbdomenNet
from acouslic.pipeline import measure
from acouslic.selection import SelectionConfig
from acouslic.stack import Stack
from acouslic.sweep_head import SweepHead, SweepHeadConfig, sweep_features
from evaluation.explain import explain

T, PER_SWEEP = 240, 40


def evidence() -> Evidence:
    """Of frames at random; the end of each sweep is black."""
    rng = np.random.default_rng(3)
    tissue = np.tile(np.arange(PER_SWEEP) < PER_SWEEP - 6, SWEEPS)
    quality = rng.dirichlet((3, 1, 1), T).astype(np.float32) * tissue[:, None]
    return Evidence(quality, rng.random(T).astype(np.float32) * tissue, tissue)


def some_head(seed: int = 0, config: SweepHeadConfig | None = None) -> SweepHead:
    """A head whose every weight is at random."""
    head = SweepHead(config or SweepHeadConfig())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(std=0.5, generator=generator)
    return head.eval().requires_grad_(False)


def test_an_untrained_head_leaves_every_score_as_it_is() -> None:
    said, calibration = evidence(), Calibration()
    corrected = posteriors(
        said, calibration, correction=SweepHead(SweepHeadConfig()).correction(said)
    )
    plain = posteriors(said, calibration)
    assert np.array_equal(
        expected_score(corrected, calibration), expected_score(plain, calibration)
    )
    assert np.array_equal(corrected.reference, plain.reference)


def test_a_correction_is_added_to_the_log_odds() -> None:
    said, calibration, correction = evidence(), Calibration(), some_head().correction(evidence())
    odds = posterior_odds(said, calibration)
    corrected = posteriors(said, calibration, correction=correction)
    tissue = said.tissue
    for name in ("annotated", "optimal"):
        total = (getattr(odds, name) + getattr(correction, name))[tissue]
        np.testing.assert_allclose(getattr(corrected, name)[tissue], 1 / (1 + np.exp(-total)))
        assert not getattr(corrected, name)[~tissue].any()
    total = odds.reference + correction.reference
    np.testing.assert_allclose(corrected.reference, 1 / (1 + np.exp(-total)))
    assert corrected.no_optimal != posteriors(said, calibration).no_optimal


def test_a_head_sees_31_frames_to_either_side_and_no_other_sweep() -> None:
    head, said = some_head(), evidence()
    changed = replace(said, quality=said.quality.copy())
    changed.quality[PER_SWEEP] = (0.1, 0.2, 0.7)  # the first frame of the second sweep
    before, after = head.correction(said), head.correction(changed)
    moved = np.flatnonzero(before.annotated != after.annotated)
    assert moved.min() == PER_SWEEP and moved.max() == PER_SWEEP + 31
    assert np.flatnonzero(before.reference != after.reference).tolist() == [1]


def test_black_frames_say_nothing_and_are_as_a_sweeps_end() -> None:
    head, features = some_head(), torch.from_numpy(sweep_features(evidence()))
    frames, sweeps = head(features)
    shorter = head(features[:, :, : PER_SWEEP - 6])
    torch.testing.assert_close(frames[:, :, : PER_SWEEP - 6], shorter[0])
    torch.testing.assert_close(sweeps, shorter[1])
    assert not frames[:, :, PER_SWEEP - 6 :].any()
    black = head(torch.zeros_like(features))
    assert not black[0].any() and not black[1].any()


# -- in a bundle


@pytest.fixture
def with_head(tmp_path: Path, tiny_bundle: Path, tiny_network: AbdomenNet) -> Path:
    """The tiny bundle, with a head of its own size."""
    bundle, folder = load_bundle(tiny_bundle), tmp_path / "with head"
    save_bundle(
        folder,
        [tiny_network],
        name="headed",
        selection=bundle.config.selection,
        lora=LoraConfig(rank=2, alpha=4),
        provenance={"simulated": True},
        card="",
        sweep_head=some_head(config=SweepHeadConfig(4, (1, 3))),
    )
    # The tiny bundle's decoder marks something.
    for name in ("trunk.safetensors", "member_0.safetensors"):
        (folder / name).write_bytes((tiny_bundle / name).read_bytes())
    rewrite_manifest(folder)
    return folder


def test_a_bundle_gives_its_head_back_to_the_last_digit(with_head: Path) -> None:
    bundle = load_bundle(with_head)
    assert bundle.config.sweep_head == SweepHeadConfig(4, (1, 3))
    assert bundle.sweep_head is not None
    expected = some_head(config=SweepHeadConfig(4, (1, 3))).correction(evidence())
    found = bundle.sweep_head.correction(evidence())
    assert np.array_equal(found.annotated, expected.annotated) and found.annotated.any()
    assert np.array_equal(found.reference, expected.reference)
    assert with_engine(bundle, "torch").sweep_head is bundle.sweep_head


def test_a_bundle_without_a_head_says_nothing_of_one(tiny_bundle: Path) -> None:
    assert "sweep_head" not in json.loads((tiny_bundle / "config.json").read_text())
    assert load_bundle(tiny_bundle).sweep_head is None


def test_answers_and_explanations_go_by_the_head(with_head: Path, frames: np.ndarray) -> None:
    stack, bundle = Stack("case", frames, Geometry.plain(SPACING_MM)), load_bundle(with_head)
    measured = measure(stack, bundle)
    plain = measure(stack, replace(bundle, sweep_head=None))
    untrained = measure(stack, replace(bundle, sweep_head=SweepHead(SweepHeadConfig())))
    assert not np.array_equal(measured.frame_scores, plain.frame_scores)
    assert np.array_equal(untrained.frame_scores, plain.frame_scores)
    assert (untrained.frame, untrained.confidence) == (plain.frame, plain.confidence)
    explained = explain(stack, bundle)
    assert np.array_equal(explained.scores, measured.frame_scores)
    assert explained.chosen == measured.frame


def test_a_copy_has_the_head_that_it_is_given_or_none(with_head: Path, tmp_path: Path) -> None:
    copy_bundle(with_head, tmp_path / "copy", SelectionConfig(), {"simulated": True}, "")
    assert load_bundle(tmp_path / "copy").sweep_head is None
    assert not (tmp_path / "copy" / "sweep_head.safetensors").exists()
    head = some_head(config=SweepHeadConfig(4, (1, 3)))
    copy_bundle(
        with_head, tmp_path / "its-own", SelectionConfig(), {"simulated": True}, "", sweep_head=head
    )
    assert load_bundle(tmp_path / "its-own").sweep_head is not None
    broken = some_head(config=SweepHeadConfig(4, (1, 3)))
    next(broken.parameters()).data[...] = torch.nan
    with pytest.raises(BundleError, match="sweep head"):
        copy_bundle(with_head, tmp_path / "no", SelectionConfig(), {}, "", sweep_head=broken)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    "head",
    [
        "small",
        {"channels": 0, "dilations": [1, 3]},
        {"channels": 4, "dilations": []},
        {"channels": 4, "dilations": [0]},
        {"channels": 4, "dilations": [1, 100_000]},
        {"channels": 4, "dilations": [1, 3], "kernel": 5},
    ],
)
def test_a_head_of_another_form_is_refused(with_head: Path, head: object) -> None:
    rewrite(with_head, "config.json", at("sweep_head", value=head))
    with pytest.raises(BundleError, match="another form"):
        load_bundle(with_head)


def without_file(folder: Path) -> None:
    (folder / "sweep_head.safetensors").unlink()


def of_another_width(folder: Path) -> None:
    head = some_head(config=SweepHeadConfig(5, (1, 3)))
    save_file(head.state_dict(), folder / "sweep_head.safetensors")
    rewrite_manifest(folder)


def not_finite(folder: Path) -> None:
    tensors = load_file(folder / "sweep_head.safetensors")
    tensors["enter.bias"][0] = float("nan")
    save_file(tensors, folder / "sweep_head.safetensors")
    rewrite_manifest(folder)


def not_asked_for(folder: Path) -> None:
    rewrite(folder, "config.json", at("sweep_head", value=None))


DAMAGES: dict[Callable[[Path], None], str] = {
    without_file: "sweep_head.safetensors",
    of_another_width: "weights of the architecture",
    not_finite: "found nan in enter.bias",
    not_asked_for: "'sweep_head.safetensors'",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_head_is_one_error(with_head: Path, damage: Callable[[Path], None]) -> None:
    damage(with_head)
    assert DAMAGES[damage] in refusal(with_head)


def test_a_head_that_is_not_finite_is_not_saved(tmp_path: Path, tiny_network: AbdomenNet) -> None:
    head = some_head()
    head.sweep_odds.bias.fill_(float("inf"))
    with pytest.raises(BundleError, match="finite numbers in the weights of the sweep head"):
        save_bundle(
            tmp_path / "b",
            [tiny_network],
            name="b",
            selection=SelectionConfig(),
            lora=LoraConfig(rank=2, alpha=4),
            provenance={},
            card="",
            sweep_head=head,
        )
    assert not (tmp_path / "b").exists()
