"""Sampling, folds, and whole runs on a small cache: resumed, distributed, finished."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from acouslic.bundle import load_bundle, save_bundle
from acouslic.calibration import Calibration
from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE, SPACING_MM
from acouslic.errors import InputError
from acouslic.expected_score import Evidence
from acouslic.files import sha256
from acouslic.lora import LoraConfig
from acouslic.metaimage import Geometry
from acouslic.network import AbdomenNet, NetworkConfig
from acouslic.pipeline import measure
from acouslic.preprocess import normalise
from acouslic.selection import SelectionConfig
from acouslic.stack import Stack
from acouslic.stopping import Stopped
from dataset import backends
from dataset.backends import Backend
from dataset.cache import Cache, CachedCase, finish_cache, open_cache, store_case
from dataset.folds import assign_folds, split
from dataset.labels import Labels
from evaluation.calibrate import fit as fit_calibration
from training import calibration as calibration_room
from training import cross_validate as crossing
from training import fit as fitting
from training import runs as runs_room
from training.__main__ import main
from training.adapters import merge_lora
from training.augment import NONE
from training.base import load_base, patches_for, save_base
from training.batches import (
    BalancedBatches,
    Batch,
    BatchPlan,
    Draw,
    FramePools,
    Mixture,
    TrainingFrames,
)
from training.calibration import CLAIMS, WITH_HEAD, HeldOut, calibrate, is_better, is_nearer
from training.cards import HONEST
from training.cross_validate import (
    HEAD_WEIGHTS,
    case_evidence,
    cross_validate,
    read_evidence,
    trained_network,
)
from training.curves import CURVES
from training.epochs import duration
from training.fit import adapted_network, fit, fit_all, fold_folder, of_fold
from training.history import HISTORY, read_history
from training.mixture import mixture_of
from training.module import AbdomenTraining
from training.options import (
    FitOptions,
    LossConfig,
    Machine,
    MixingConfig,
    PackOptions,
    Recipe,
    SweepHeadRecipe,
    Tokens,
)
from training.pack import pack
from training.runs import LAST, WEIGHTS, WholeCheckpoints
from training.sweep_head import train
from training.whole_stack import figures, judge_outline

ROOT = Path(__file__).resolve().parents[1]
SIZE = 32
T = 12
CASES = 6
CPU = Machine(precision="fp32", accelerator="cpu")
ALONE = Backend(workers=1)


def make_case(number: int, *, optimal: bool) -> tuple[Stack, np.ndarray]:
    """A stack of noise with a bright disc on frames 4 (suboptimal) and 5 (optimal, if any)."""
    rng = np.random.default_rng(number)
    frames = rng.integers(1, 60, (T, *FRAME_SHAPE), dtype=np.uint8) * CHALLENGE_FAN.mask()
    rows, columns = np.indices(FRAME_SHAPE)
    disc = np.hypot(rows - 300, columns - 370 - 10 * number) < 120
    labels = np.zeros_like(frames)
    for frame, label in ((4, 2), (5, 1))[: 2 if optimal else 1]:
        frames[frame][disc] += 120
        labels[frame] = disc * label
    geometry = Geometry.plain(SPACING_MM)
    return Stack(f"case-{number}", frames, geometry), labels


def store(folder: Path, number: int, *, subject: str, optimal: bool) -> None:
    stack, labels = make_case(number, optimal=optimal)
    ac_mm = [np.nan, np.nan, 2 * np.pi * 120 * SPACING_MM, np.nan, np.nan, np.nan]
    volume = Labels.from_volume(labels)
    store_case(folder, stack, volume, subject=subject, ac_mm=ac_mm, size=SIZE, fingerprint="test")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Six cases of five subjects; cases 1 and 4 have no optimal frame, 0 and 5 are one subject."""
    folder = tmp_path_factory.mktemp("cache")
    for number in range(CASES):
        store(folder, number, subject=f"s{number % 5}", optimal=number not in (1, 4))
    finish_cache(folder, [f"case-{number}" for number in range(CASES)], SIZE, simulated=True)
    return open_cache(folder)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Two other cases, of subjects with the numbers of two of the six."""
    folder = tmp_path_factory.mktemp("phantoms")
    for number in (CASES, CASES + 1):
        store(folder, number, subject=f"s{number - CASES}", optimal=True)
    finish_cache(folder, [f"case-{number}" for number in (CASES, CASES + 1)], SIZE, simulated=True)
    return open_cache(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = NetworkConfig.from_dict(
        {
            "trunk": {
                "image_size": SIZE,
                "patch_size": 8,
                "width": 64,
                "layers": 4,
                "embed_dim": 64,
            },
            "decoder_width": 4,
        }
    )
    torch.manual_seed(5)
    trunk = AbdomenNet(config).trunk
    folder = tmp_path_factory.mktemp("base") / "base"
    provenance = {"simulated": False, "what": "random"}
    save_base(folder, config.trunk, trunk.state_dict(), provenance, torch.float32)
    return folder


def options(**changes: Any) -> FitOptions:
    recipe = replace(Recipe(epochs=2, steps_per_epoch=2, batch_size=4, seed=3), **changes)
    return FitOptions(folds=2, decoder_width=4, lora=LoraConfig(rank=2), recipe=recipe)


# -- what a batch holds


def batches(
    cache: Cache, *, rank: int = 0, ranks: int = 1, first: int = 0, size: int = 8
) -> BalancedBatches:
    plan = BatchPlan(size, seed=1)
    return BalancedBatches(FramePools(cache), plan, first=first, count=300, rank=rank, ranks=ranks)


def same(ours: list[Draw], theirs: list[Draw]) -> bool:
    return len(ours) == len(theirs) and all(
        a[:2] == b[:2] and np.array_equal(a.uniform, b.uniform)
        for a, b in zip(ours, theirs, strict=True)
    )


def test_batches_have_the_planned_shares_and_negatives_from_empty_sweeps(cache: Cache) -> None:
    frames = TrainingFrames(cache)
    quality, in_empty = [], []
    for draws in batches(cache):
        quality += frames.__getitems__(draws).quality.tolist()
        in_empty += [cache.cases[draw.case].sweep[draw.row] != 2 for draw in draws]
    shares = np.bincount(quality, minlength=3) / len(quality)
    np.testing.assert_allclose(shares, (0.5, 0.25, 0.25), atol=0.03)
    negatives = np.array(in_empty)[np.array(quality) == 0]
    # Four cases have no other negative than those in empty sweeps; two have one in sweep 3.
    assert np.mean(negatives) == pytest.approx(0.5, abs=0.05)


def test_cases_are_drawn_alike_however_many_frames_they_have(cache: Cache) -> None:
    pools = FramePools(cache)
    numbers = np.random.default_rng(3).random((4000, 2))
    for pool, rows in enumerate(pools.pools):
        drawn = np.array([pools.frame(pool, *at) for at in numbers])
        cases = np.unique(rows[:, 0])
        shares = [(drawn[:, 0] == case).mean() for case in cases]
        np.testing.assert_allclose(shares, 1 / len(cases), atol=0.03)
        assert {tuple(pair) for pair in drawn} == {tuple(pair) for pair in rows}


def test_a_class_that_is_missing_gives_its_share_to_the_unannotated(cache: Cache) -> None:
    without = cache.select(["case-1", "case-4"])
    np.testing.assert_allclose(FramePools(without).weights(BatchPlan(8, 1)), (0.5, 0.25, 0.25, 0))


def test_ranks_share_one_batch_and_any_batch_can_be_the_first(cache: Cache) -> None:
    whole = next(iter(batches(cache, size=8, first=7)))
    halves = [next(iter(batches(cache, size=4, first=7, rank=rank, ranks=2))) for rank in (0, 1)]
    assert same(whole[0::2], halves[0]) and same(whole[1::2], halves[1])
    everything = list(batches(cache, size=8))
    assert same(everything[7], whole) and not same(everything[6], whole)


def test_masks_come_with_their_frames_and_only_with_annotated_ones(cache: Cache) -> None:
    batch = TrainingFrames(cache).__getitems__([*batches(cache).draw(0), *batches(cache).draw(1)])
    assert set(batch.quality.tolist()) == {0, 1, 2}
    for frame, mask, quality in zip(batch.frames, batch.masks, batch.quality, strict=True):
        assert bool(mask.any()) == bool(quality > 0)
        if quality > 0:
            assert frame[mask > 250].float().mean() > 100 > frame[mask == 0].float().mean()


# -- phantoms mixed in


def test_a_share_of_the_draws_are_phantoms_and_the_qualities_keep_theirs(
    cache: Cache, phantoms: Cache
) -> None:
    frames = TrainingFrames(cache, mixture=Mixture(phantoms, 0.25))
    plan = BatchPlan(8, seed=1)
    drawn, quality = [], []
    for draws in BalancedBatches(frames.pools, plan, first=0, count=300, rank=0, ranks=1):
        drawn += [draw.case for draw in draws]
        quality += frames.__getitems__(draws).quality.tolist()
    is_phantom = np.array(drawn) >= CASES
    assert is_phantom.mean() == pytest.approx(0.25, abs=0.03) and max(drawn) == CASES + 1
    for chosen in (is_phantom, ~is_phantom):
        shares = np.bincount(np.array(quality)[chosen], minlength=3) / chosen.sum()
        np.testing.assert_allclose(shares, (0.5, 0.25, 0.25), atol=0.06)


def test_a_phantom_comes_with_its_own_frame_mask_and_subject(cache: Cache, phantoms: Cache) -> None:
    frames = TrainingFrames(cache, mixture=Mixture(phantoms, 0.25))
    draws = [Draw(case, 5, np.zeros(1, np.float32)) for case in (0, 1, CASES, CASES + 1)]
    batch = frames.__getitems__(draws)
    own = phantoms.cases[1]
    assert np.array_equal(batch.frames[3], own.frames[5])
    assert np.array_equal(batch.masks[3], own.masks[own.mask_row[5]]) and batch.masks[3].any()
    assert batch.quality.tolist() == [2, 0, 2, 2]
    assert len(set(batch.subject.tolist())) == 4  # the phantoms' numbers are those of patients


def test_what_cannot_be_mixed_in_is_refused(cache: Cache, phantoms: Cache, tmp_path: Path) -> None:
    real, larger, empty = (tmp_path / name for name in ("real", "larger", "empty"))
    finish_cache(real, [], SIZE, simulated=False)
    finish_cache(larger, [], 2 * SIZE, simulated=True)
    finish_cache(empty, [], SIZE, simulated=True)
    assert mixture_of(cache, MixingConfig()) is None
    mixture = mixture_of(cache, MixingConfig(phantoms.folder, 0.2))
    assert mixture is not None and mixture.share == 0.2
    for mixing, message in (
        (MixingConfig(phantoms.folder), "--phantoms alone"),
        (MixingConfig(share=0.2), "--share alone"),
        *((MixingConfig(phantoms.folder, share), "above 0 and below 1") for share in (0, 1, 20)),
        (MixingConfig(phantoms.folder, float("nan")), "above 0 and below 1"),
        (MixingConfig(real, 0.2), "found real cases"),
        (MixingConfig(larger, 0.2), f"prepare it again with --size {SIZE}"),
        (MixingConfig(empty, 0.2), "no case in"),
        (MixingConfig(cache.folder, 0.2), "case-0 in both"),
        (MixingConfig(tmp_path, 0.2), "a finished training cache"),
    ):
        with pytest.raises(InputError, match=message):
            mixture_of(cache, mixing)


# -- folds


def test_folds_keep_subjects_together_and_every_case_is_held_out_once(cache: Cache) -> None:
    held_out = assign_folds(cache, folds=2, seed=0)
    assert sorted(held_out) == [case.facts.uuid for case in cache.cases]
    assert held_out["case-0"] == held_out["case-5"]
    assert {held_out["case-1"], held_out["case-4"]} == {
        0,
        1,
    }  # stratified: one without optimal each
    training, validation = split(cache, fold=0, folds=2, seed=0)
    assert {case.facts.uuid for case in validation.cases} == {
        uuid for uuid, fold in held_out.items() if fold == 0
    }
    assert len(training.cases) + len(validation.cases) == CASES


@pytest.mark.parametrize(("fold", "folds"), [(2, 2), (-1, 2), (0, 6), (0, 1)])
def test_impossible_folds_are_refused(cache: Cache, fold: int, folds: int) -> None:
    with pytest.raises(InputError, match="fold"):
        split(cache, fold=fold, folds=folds, seed=0)


# -- runs


@pytest.fixture(scope="module")
def finished(cache: Cache, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs that nothing interrupted."""
    runs = tmp_path_factory.mktemp("runs")
    fit(cache.folder, base, runs, 0, options(), replace(CPU, tensorboard=True))
    return fold_folder(runs, 0)


def test_a_run_leaves_weights_figures_history_and_curves(finished: Path) -> None:
    rows = read_history(finished)
    assert [int(row["step"]) for row in rows] == [2, 4]
    assert all(float(row["loss/total"]) > 0 for row in rows)
    result = json.loads((finished / "result.json").read_text())
    assert result["epoch"] == 1 and result["validation/score"] == float(
        rows[-1]["validation/score"]
    )
    assert (finished / "curves.png").stat().st_size > 5000
    assert list((finished / "tensorboard").glob("events.*"))


def test_a_run_may_never_judge_the_held_out_stacks(
    cache: Cache, base: Path, tmp_path: Path, finished: Path
) -> None:
    never = replace(options(), validate_every=3)
    result = fit(cache.folder, base, tmp_path, 0, never, CPU)
    assert result["epoch"] == 1 and "validation/score" not in result
    assert not [
        row for row in read_history(fold_folder(tmp_path, 0)) if row.get("validation/score")
    ]
    left = (fold_folder(tmp_path, 0) / WEIGHTS).read_bytes()
    assert left == (finished / WEIGHTS).read_bytes()


def test_every_adapter_and_head_has_moved_and_the_base_is_not_saved(
    finished: Path, base: Path
) -> None:
    saved = load_file(finished / WEIGHTS)
    frozen = load_base(base)[1].state_dict()
    assert not {f"trunk.{name}" for name in frozen} & set(saved)
    grown = [tensor for name, tensor in saved.items() if "lora_B" in name]
    assert len(grown) == 16 and all(tensor.any() for tensor in grown)
    checkpoint = torch.load(finished / LAST, weights_only=True)
    assert not [name for name in checkpoint["state_dict"] if "base_layer" in name]


def test_a_run_leaves_the_average_of_its_weights(finished: Path) -> None:
    saved = load_file(finished / WEIGHTS)
    checkpoint = torch.load(finished / LAST, weights_only=True)
    average = checkpoint["average"]
    assert average["steps"] == 4 and not [
        name for name in average["values"] if "base_layer" in name
    ]
    for name, tensor in average["values"].items():
        torch.testing.assert_close(saved[name], tensor)
    name = next(name for name in average["values"] if "lora_B" in name)
    assert not torch.equal(saved[name], checkpoint["state_dict"][f"network.{name}"])


def test_a_run_in_half_precision_leaves_weights_in_float32(
    cache: Cache, base: Path, tmp_path: Path
) -> None:
    fit(cache.folder, base, tmp_path, 0, options(epochs=1), replace(CPU, precision="bf16"))
    weights = load_file(fold_folder(tmp_path, 0) / WEIGHTS)
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert {value.dtype for value in weights.values()} <= {torch.float32, torch.int64}
    row = read_history(fold_folder(tmp_path, 0))[0]
    assert np.isfinite([float(row[f"loss/{name}"]) for name in ("dice", "bce", "quality")]).all()


def test_each_fold_has_a_seed_of_its_own() -> None:
    seeds = [of_fold(options(), fold).recipe.seed for fold in range(5)]
    assert len(set(seeds)) == 5 and of_fold(options(seed=0), 0).recipe.seed == 0
    assert of_fold(options(seed=1), 0).recipe.seed not in seeds


def test_a_finished_run_is_not_repeated_and_another_recipe_is_refused(
    finished: Path, cache: Cache, base: Path
) -> None:
    before = (finished / WEIGHTS).stat().st_mtime_ns
    result = fit(cache.folder, base, finished.parent, 0, options(), CPU)
    assert result == json.loads((finished / "result.json").read_text())
    assert (finished / WEIGHTS).stat().st_mtime_ns == before
    with pytest.raises(InputError, match="another --output"):
        fit(cache.folder, base, finished.parent, 0, options(seed=4), CPU)


def test_a_cache_of_another_size_is_refused(cache: Cache, base: Path, tmp_path: Path) -> None:
    finish_cache(tmp_path, [], 64, simulated=False)
    with pytest.raises(InputError, match="--size 32"):
        fit(tmp_path, base, tmp_path / "runs", 0, options(), CPU)


def command(cache: Cache, base: Path, runs: Path, *more: str) -> list[str]:
    fixed = {
        "--base": base, "--output": runs, "--fold": 0, "--folds": 2, "--seed": 3, "--epochs": 2,
        "--steps-per-epoch": 2, "--rank": 2, "--decoder-width": 4, "--precision": "fp32",
        "--accelerator": "cpu",
    }  # fmt: skip
    flags = [str(part) for pair in fixed.items() for part in pair]
    return [sys.executable, "-m", "training", "fit", str(cache.folder), *flags, *more]


def close(ours: Path, theirs: Path, tolerance: float) -> None:
    a, b = load_file(ours / WEIGHTS), load_file(theirs / WEIGHTS)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=tolerance, rtol=tolerance)


def test_killed_and_resumed_is_as_if_never_killed(
    finished: Path, cache: Cache, base: Path, tmp_path: Path
) -> None:
    arguments = command(cache, base, tmp_path, "--batch-size", "4")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(arguments, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    folder = fold_folder(tmp_path, 0)
    deadline = time.monotonic() + 120
    while not (folder / LAST).is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / WEIGHTS).is_file()
    assert len(read_history(folder)) < 3
    fit(cache.folder, base, tmp_path, 0, options(), CPU)
    close(folder, finished, 1e-6)
    assert (folder / HISTORY).read_text() == (finished / HISTORY).read_text()


def test_the_average_goes_on_where_a_broken_run_stopped(
    finished: Path, cache: Cache, base: Path, tmp_path: Path
) -> None:
    begins = AbdomenTraining.on_train_batch_start

    def breaks(module: AbdomenTraining, batch: Batch, batch_idx: int) -> None:
        if module.trainer.current_epoch == 1:
            raise ConnectionError("the plug was pulled")
        begins(module, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(ConnectionError):
        patch.setattr(AbdomenTraining, "on_train_batch_start", breaks)
        fit(cache.folder, base, tmp_path, 0, options(), CPU)
    folder = fold_folder(tmp_path, 0)
    assert torch.load(folder / LAST, weights_only=True)["average"]["steps"] == 2
    fit(cache.folder, base, tmp_path, 0, options(), CPU)
    close(folder, finished, 1e-6)
    assert (folder / HISTORY).read_text() == (finished / HISTORY).read_text()


@contextmanager
def training(arguments: list[str], until: Path) -> Iterator[subprocess.Popen[str]]:
    """A training process in a session of its own, once a file is there; killed at the end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not until.is_file():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        yield process
        process.kill()


def stop(process: subprocess.Popen[str]) -> list[str]:
    """Send SIGTERM; all that the process wrote to stderr, once it has ended as it should."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert time.monotonic() - began < 5
    assert process.stderr is not None
    return process.stderr.read().splitlines()


def test_sigterm_stops_with_a_checkpoint_and_resumed_is_as_if_never_stopped(
    finished: Path, cache: Cache, base: Path, tmp_path: Path
) -> None:
    folder = fold_folder(tmp_path, 0)
    with training(command(cache, base, tmp_path, "--batch-size", "4"), folder / LAST) as process:
        lines = stop(process)
    assert not (folder / WEIGHTS).is_file()
    kept = (
        f"error: terminated; {folder / LAST} holds epoch 1 of 2; the same command goes on after it"
    )
    assert lines[-1] == kept
    assert (folder / CURVES).stat().st_size > 5000
    fit(cache.folder, base, tmp_path, 0, options(), CPU)
    close(folder, finished, 1e-6)
    assert (folder / HISTORY).read_text() == (finished / HISTORY).read_text()


def test_without_a_terminal_each_line_is_said_once_and_nothing_else(
    cache: Cache, base: Path, tmp_path: Path
) -> None:
    arguments = command(cache, base, tmp_path, "--batch-size", "4")
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    assert not done.stdout
    figures = r"loss \d+\.\d{3}, held-out score \d\.\d{3}"
    expected = [
        r"fold-0: 3 cases to train on, 3 held out",
        r"case-\d: no abdomen is seen in any frame; a circle of 236 mm is written",
        r"case-\d: the AC read from the mask differs by [\d.]+ % from its outline's",
        rf"fold-0, epoch 1 of 2: {figures}, \d+ (s|min) left",
        rf"fold-0, epoch 2 of 2: {figures}",
    ]
    lines = done.stderr.splitlines()
    assert [line for line in lines if not any(re.fullmatch(e, line) for e in expected)] == []
    assert len({line.partition("%")[0][:60] for line in lines}) == len(lines)
    assert lines[0] == expected[0] and re.fullmatch(expected[-1], lines[-1])
    assert not list(tmp_path.rglob("events.*"))


def test_sigterm_in_the_first_epoch_says_that_nothing_is_kept(
    cache: Cache, base: Path, tmp_path: Path
) -> None:
    folder = fold_folder(tmp_path, 0)
    arguments = command(cache, base, tmp_path, "--batch-size", "4", "--steps-per-epoch", "100000")
    with training(arguments, folder / HISTORY) as process:
        lines = stop(process)
    assert not (folder / LAST).exists()
    last = "error: terminated; no epoch of fold-0 is finished; the same command starts it again"
    assert lines[-1] == last


def test_sigterm_stops_all_processes_of_a_run(cache: Cache, base: Path, tmp_path: Path) -> None:
    arguments = command(cache, base, tmp_path, "--devices", "2", "--steps-per-epoch", "100000")
    with training(arguments, fold_folder(tmp_path, 0) / HISTORY) as process:
        stop(process)
        deadline = time.monotonic() + 10
        with pytest.raises(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(process.pid, 0)
                time.sleep(0.1)


def test_two_processes_are_one_with_twice_the_batch(
    cache: Cache, base: Path, tmp_path: Path
) -> None:
    arguments = command(
        cache, base, tmp_path / "two", "--batch-size", "4", "--devices", "2", "--dropout", "0"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(arguments, cwd=ROOT, env=environment, check=True, capture_output=True)
    without_dropout = replace(options(batch_size=8), lora=LoraConfig(rank=2, dropout=0.0))
    fit(cache.folder, base, tmp_path / "one", 0, without_dropout, CPU)
    one, two = (fold_folder(tmp_path / name, 0) for name in ("one", "two"))
    for ours, theirs in zip(read_history(one), read_history(two), strict=True):
        for column in ("loss/total", "loss/dice", "loss/bce", "loss/quality"):
            assert float(ours[column]) == pytest.approx(float(theirs[column]), rel=1e-4)
    close(one, two, 1e-3)


class Code:
    """Runs a command where it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.proof),)


def test_a_checkpoint_that_would_run_code_is_one_error(tmp_path: Path) -> None:
    proof, path = tmp_path / "proof", tmp_path / LAST
    torch.save({"epoch": Code(proof)}, path)
    with pytest.raises(InputError, match="would run code"):
        runs_room._read_checkpoint(path)
    assert not proof.exists()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged"):
        runs_room._read_checkpoint(path)


def test_a_checkpoint_that_is_cut_short_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / LAST
    WholeCheckpoints().save_checkpoint({"epoch": 0}, path)

    def cut_short(_checkpoint: object, partial: Path) -> None:
        partial.write_bytes(b"half")
        raise Stopped(143)

    monkeypatch.setattr(torch, "save", cut_short)
    with pytest.raises(Stopped):
        WholeCheckpoints().save_checkpoint({"epoch": 1}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 0}
    assert list(tmp_path.iterdir()) == [path]


def test_without_tensorboard_one_line_says_what_to_install(
    cache: Cache,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert main([*command(cache, base, tmp_path, "--tensorboard")[3:]]) == 1
    assert "pip install -e '.[tensorboard]'" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5460, "1 h 31 min")],
)
def test_times_are_told_in_the_unit_that_suits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# -- all folds


def test_all_folds_are_trained_one_after_the_other(
    cache: Cache, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []

    def note(_cache: Path, _base: Path, output: Path, fold: int, *_how: object) -> None:
        trained.append(fold)
        fold_folder(output, fold).mkdir()
        (fold_folder(output, fold) / WEIGHTS).touch()

    monkeypatch.setattr(fitting, "fit", note)
    assert main([*command(cache, base, tmp_path)[3:], "--fold", "all"]) == 0
    assert trained == [0, 1]


def test_all_folds_refuse_a_finished_one_of_other_options(
    finished: Path, cache: Cache, base: Path
) -> None:
    with pytest.raises(InputError, match="other"):
        fit_all(cache.folder, base, finished.parent, options(epochs=9), CPU, ALONE)


@pytest.mark.parametrize("backend", ["local", "slurm"])
def test_workers_train_and_judge_all_folds_alike(
    backend: Literal["local", "slurm"],
    report: dict[str, Any],
    finished: Path,
    cache: Cache,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    two = Backend(backend, workers=2)
    fit_all(cache.folder, base, tmp_path, options(), CPU, two)
    for fold in range(2):
        theirs = load_file(fold_folder(finished.parent, fold) / WEIGHTS)
        for name, value in load_file(fold_folder(tmp_path, fold) / WEIGHTS).items():
            torch.testing.assert_close(value, theirs[name], atol=1e-4, rtol=1e-3)
    # As for the report: it is the workers that are compared, not what rounding decides.
    monkeypatch.setattr(calibration_room, "is_better", lambda _gain: False)
    found = cross_validate(cache.folder, base, tmp_path, torch.device("cpu"), two)
    scores, expected = (
        {uuid: case["score"] for uuid, case in judged["by_case"].items()}
        for judged in (found, report)
    )
    assert scores == pytest.approx(expected, abs=0.01)


def test_several_gpus_train_folds_side_by_side_and_a_fold_that_fails_is_named(
    cache: Cache, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in (fitting, backends):
        monkeypatch.setattr(room, "gpu_count", lambda: 2)
    (tmp_path / "fold-1").mkdir()
    (tmp_path / "fold-1" / "notes.txt").write_text("a stranger's")
    machine = Machine(precision="fp32")
    with pytest.raises(InputError, match=r"1 failed, the first being fold-1: "):
        fit_all(cache.folder, base, tmp_path, options(epochs=1), machine, Backend())
    assert (fold_folder(tmp_path, 0) / WEIGHTS).is_file()
    assert [path.name for path in (tmp_path / "fold-1").iterdir()] == ["notes.txt"]


def test_all_folds_on_several_devices_each_are_refused(
    cache: Cache, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="--devices 2"):
        fit_all(cache.folder, base, tmp_path, options(), replace(CPU, devices=2), Backend())


def test_accumulated_halves_have_the_loss_of_the_whole(cache: Cache, base: Path) -> None:
    """Without batch statistics, as those belong to a pass: the mean of two passes' losses."""
    network = adapted_network(base, cache, options()).eval()
    module = AbdomenTraining(network, options(augmentation=NONE).recipe, cache, cache)
    frames = TrainingFrames(cache)
    draws = batches(cache, size=8).draw(0)
    whole = module.losses(frames.__getitems__(draws))
    parts = [module.losses(frames.__getitems__(draws[k::2])) for k in (0, 1)]
    for name, value in whole.items():
        mean = sum(part[name] for part in parts) / 2
        torch.testing.assert_close(mean, value, atol=1e-5, rtol=1e-4)


def test_a_teacher_gives_the_masks_that_labels_do_not(cache: Cache, base: Path) -> None:
    network = adapted_network(base, cache, options()).eval()
    recipe = replace(options(augmentation=NONE).recipe, loss=LossConfig(empty_masks="none"))
    batch = TrainingFrames(cache, "none").__getitems__(batches(cache, size=8).draw(0))
    unknown = ~batch.teaches_mask
    assert unknown.any() and batch.teaches_mask.any()
    alone = AbdomenTraining(network, recipe, cache, cache)
    taught = AbdomenTraining(network, recipe, cache, cache, teacher=deepcopy(network))
    assert taught.state_dict().keys() == alone.state_dict().keys()
    with torch.no_grad():
        extra = taught.losses(batch)["bce"] - alone.losses(batch)["bce"]
        images = normalise(batch.frames, network.config.intensity)
        logits = network(images[unknown]).mask_logits
    # A network that is its own teacher pays the entropy of what it says.
    entropy = torch.distributions.Bernoulli(logits=logits).entropy().mean(dim=(1, 2, 3))  # type: ignore[no-untyped-call]
    torch.testing.assert_close(extra, entropy.sum() / len(unknown), atol=2e-3, rtol=1e-2)


def test_the_trunks_origin_chooses_its_patches_unless_told(cache: Cache, base: Path) -> None:
    def patches(tokens: Tokens) -> str:
        return adapted_network(base, cache, replace(options(), tokens=tokens)).config.patches

    assert (patches("auto"), patches("registers"), patches("all")) == ("fan", "registers", "all")
    assert patches_for("auto", {"model": "numansaeed/fetalclip-model"}) == "registers"


def test_checkpointing_changes_memory_and_not_the_gradients(cache: Cache, base: Path) -> None:
    draws = batches(cache, size=4).draw(0)
    undropped = replace(options(), lora=LoraConfig(rank=2, dropout=0.0))
    found = []
    for checkpointing in (False, True):
        network = adapted_network(base, cache, undropped)
        network.trunk.set_grad_checkpointing(checkpointing)
        module = AbdomenTraining(network, options().recipe, cache, cache)
        module.losses(TrainingFrames(cache).__getitems__(draws))["total"].backward()  # type: ignore[no-untyped-call]
        found.append({n: p.grad for n, p in network.named_parameters() if p.requires_grad})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name])


# -- from folds to a bundle


@pytest.fixture(scope="module")
def report(finished: Path, cache: Cache, base: Path) -> dict[str, Any]:
    """Both folds trained and cross-validated, in the folder of `finished`.

    The default choice is kept: whether six cases show a gain by chance, another processor's
    rounding decides.
    """
    fit(cache.folder, base, finished.parent, 1, options(), CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration_room, "is_better", lambda _gain: False)
        return cross_validate(cache.folder, base, finished.parent, torch.device("cpu"), ALONE)


def test_cross_validation_judges_each_case_by_the_fold_that_held_it_out(
    report: dict[str, Any], cache: Cache
) -> None:
    held_out = assign_folds(cache, folds=2, seed=0)
    assert {uuid: case["fold"] for uuid, case in report["by_case"].items()} == held_out
    calibration = Calibration.from_dict(report["calibration"])
    assert (calibration.annotated == Calibration().annotated) == (report["column"] == "default")
    scores = report["scores"]
    mean = np.mean([case["score"] for case in report["by_case"].values()])
    assert scores[report["column"]]["score"]["mean"] == pytest.approx(mean)
    low, high = scores["default"]["score"]["interval"]
    assert low <= scores["default"]["score"]["mean"] <= high
    assert {"without the sweep's number", "without the mask's goodness"} <= scores.keys()
    claims = report["claims"]
    assert 0 <= claims["ac_coverage"] <= 1
    assert claims["n_references"] <= len(report["by_case"])


def test_cross_validation_is_the_shipped_pipelines_own(
    report: dict[str, Any], cache: Cache, base: Path, finished: Path, tmp_path: Path
) -> None:
    """A bundle that chooses as the case was judged gives the very figures."""
    pack(finished.parent, base, tmp_path / "bundle", pack_options(merge=False))
    bundle = load_bundle(tmp_path / "bundle")
    config = replace(bundle.config, selection=SelectionConfig())
    case = split(cache, fold=0, folds=2, seed=0)[1].cases[0]
    number = int(case.facts.uuid.removeprefix("case-"))
    stack = make_case(number, optimal=number not in (1, 4))[0]
    measured = measure(stack, replace(bundle, config=config), fail_soft=True)
    judged = figures(judge_outline(case, measured.frame, measured))  # type: ignore[arg-type]
    assert report["by_case"][case.facts.uuid] == pytest.approx({"fold": 0, **asdict(judged)})


def test_answers_with_a_sweep_head_are_those_that_cross_validation_judged(
    report: dict[str, Any],
    cache: Cache,
    base: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The default calibration is kept, and the head is taken, whatever six cases say by chance."""
    clear = iter([False, True])
    monkeypatch.setattr(calibration_room, "is_better", lambda _gain: next(clear))
    runs = shutil.copytree(finished.parent, tmp_path / "runs")
    place = [str(cache.folder), "--base", str(base), "--runs", str(runs)]
    how = ["--device", "cpu", "--workers", "1", "--epochs", "3", "--rate", "0.1"]
    assert main(["sweep-head", *place, *how]) == 0
    told = json.loads((runs / "cross-validation.json").read_text())
    assert told["column"] == WITH_HEAD and told["sweep_head"]["upon"] == "default"
    pack(runs, base, tmp_path / "bundle", pack_options(merge=False))
    bundle = load_bundle(tmp_path / "bundle")
    assert f'the choice "{WITH_HEAD}"' in (tmp_path / "bundle" / "MODEL_CARD.md").read_text()

    cases = {case.facts.uuid: case for case in cache.cases}
    known = {
        uuid: HeldOut(
            cases[uuid],
            judged["fold"],
            read_evidence(fold_folder(runs, judged["fold"]) / "out-of-fold" / f"{uuid}.npz"),
        )
        for uuid, judged in told["by_case"].items()
    }
    recipe = SweepHeadRecipe(epochs=3, rate=0.1)
    others = [one.known for one in known.values() if one.fold == 1]
    of_all = train([one.known for one in known.values()], Calibration(), recipe)
    assert bundle.sweep_head is not None
    for name, value in bundle.sweep_head.state_dict().items():
        assert torch.equal(value, of_all.state_dict()[name])
    uuid = next(uuid for uuid, one in known.items() if one.fold == 0)
    number = int(uuid.removeprefix("case-"))
    stack = make_case(number, optimal=number not in (1, 4))[0]
    config = replace(bundle.config, selection=SelectionConfig())
    plain = replace(bundle, config=config, sweep_head=None)
    headed = replace(plain, sweep_head=train(others, Calibration(), recipe))
    measured = measure(stack, headed, fail_soft=True)
    judged = figures(judge_outline(cases[uuid], measured.frame, measured))  # type: ignore[arg-type]
    assert told["by_case"][uuid] == pytest.approx({"fold": 0, **asdict(judged)})
    without = measure(stack, plain, fail_soft=True).frame_scores
    assert np.abs(measured.frame_scores - without).max() > 0.01

    (runs / HEAD_WEIGHTS).write_bytes(b"another")
    with pytest.raises(InputError, match="sweep-head"):
        pack(runs, base, tmp_path / "other", pack_options(merge=False))


def test_with_a_clear_gain_the_fit_is_packed_and_else_the_default(
    cache: Cache, tiny_network: AbdomenNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [tiny_network.eval()]
    held_out = [
        HeldOut(case, k % 2, case_evidence(case, members)) for k, case in enumerate(cache.cases)
    ]
    held_out.sort(key=lambda one: one.fold)
    fitted = fit_calibration([one.known for one in held_out])
    assert fitted.annotated != Calibration().annotated
    for is_clear, column, expected in ((False, "default", Calibration()), (True, HONEST, fitted)):
        monkeypatch.setattr(calibration_room, "is_better", lambda _gain, clear=is_clear: clear)
        calibration, told, _ = calibrate(held_out, lambda _fold: members)
        assert told["column"] == column
        assert calibration.annotated == expected.annotated


@pytest.mark.parametrize(("lowest", "taken"), [(0.001, True), (-0.001, False), (0.0, False)])
def test_a_fit_takes_the_defaults_place_only_where_its_gain_is_above_chance(
    lowest: float, taken: bool
) -> None:
    assert is_better({"score": {"interval": [lowest, 0.1]}}) is taken


def test_what_a_network_says_is_computed_once_for_the_same_code_base_and_weights(
    report: dict[str, Any],
    finished: Path,
    cache: Cache,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    original = crossing.case_evidence

    def counted(case: CachedCase, members: Sequence[AbdomenNet]) -> Evidence:
        asked.append(case.facts.uuid)
        return original(case, members)

    monkeypatch.setattr(crossing, "case_evidence", counted)
    # As for the report, which is compared: rounding would decide whether the fit takes its place.
    monkeypatch.setattr(calibration_room, "is_better", lambda _gain: False)
    arguments = (cache.folder, base, finished.parent, torch.device("cpu"), ALONE)
    assert cross_validate(*arguments) == report
    assert asked == []
    monkeypatch.setattr(crossing, "code_version", lambda: "another commit")
    assert cross_validate(*arguments) == report
    assert sorted(asked) == sorted(report["by_case"])


def calibrate_anew(bundle: Path, cache: Cache, output: Path, *more: str) -> int:
    arguments = ["calibrate", str(bundle), str(cache.folder), "--output", str(output), *more]
    return main([*arguments, "--parts", "2", "--device", "cpu"])


def test_a_bundle_is_calibrated_anew_and_keeps_its_weights(
    report: dict[str, Any],
    finished: Path,
    cache: Cache,
    base: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    pack(finished.parent, base, tmp_path / "old", pack_options(merge=False))
    assert calibrate_anew(tmp_path / "old", cache, tmp_path / "new") == 0
    assert f"cases: {CASES} of {CASES}" in caplog.text
    old, new = load_bundle(tmp_path / "old"), load_bundle(tmp_path / "new")
    assert old.id != new.id
    for name in ("trunk.safetensors", "member_0.safetensors"):
        assert sha256(tmp_path / "old" / name) == sha256(tmp_path / "new" / name)
    told = new.provenance["calibration"]
    assert new.config.selection.calibration == Calibration.from_dict(told["calibration"])
    assert told["cases"] == CASES
    assert "Calibrated again" in (tmp_path / "new" / "MODEL_CARD.md").read_text()
    assert calibrate_anew(tmp_path / "old", cache, tmp_path / "new") == 1  # without --overwrite


def test_a_bundle_that_is_calibrated_anew_gets_a_sweep_head_where_one_is_clearly_better(
    report: dict[str, Any],
    finished: Path,
    cache: Cache,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The choice stays, and the head is taken or not, whatever six cases say by chance."""
    pack(finished.parent, base, tmp_path / "old", pack_options(merge=False))
    old = load_bundle(tmp_path / "old")
    for name, is_clear in (("headed", True), ("plain", False)):
        clear = iter([False, is_clear])
        monkeypatch.setattr(calibration_room, "is_better", lambda _gain, told=clear: next(told))
        assert calibrate_anew(tmp_path / "old", cache, tmp_path / name, "--sweep-head") == 0
    headed, plain = load_bundle(tmp_path / "headed"), load_bundle(tmp_path / "plain")
    assert plain.sweep_head is None and headed.sweep_head is not None
    known = [HeldOut(case, 0, case_evidence(case, old.members)).known for case in cache.cases]
    # Its answers are those of one trained upon the choice that stayed.
    expected = train(known, old.config.selection.calibration, SweepHeadRecipe())
    wanted, found = (
        head.correction(known[0].evidence).annotated for head in (expected, headed.sweep_head)
    )
    assert np.abs(wanted).max() > 0.1 and np.allclose(found, wanted, atol=0.05)
    for name in ("headed", "plain"):
        text = (tmp_path / name / "MODEL_CARD.md").read_text()
        assert "judged with a sweep head too" in text.split("Calibrated again")[1]


def test_claims_that_a_bundle_has_stay_where_a_fit_is_not_clearly_better(
    cache: Cache, tiny_network: AbdomenNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [tiny_network.eval()]
    held_out = [
        HeldOut(case, k // 3, case_evidence(case, members)) for k, case in enumerate(cache.cases)
    ]
    present = replace(Calibration(), claim_score=(1, 0.5), claim_annotated=(-1, 0.5), ac_scale=1.02)
    fitted: dict[str, Any] = {
        "claim_score": (0.3, 0.9),
        "claim_annotated": (0.4, 0.8),
        "ac_scale": 0.99,
    }
    monkeypatch.setattr(calibration_room, "is_better", lambda _gain: False)
    monkeypatch.setattr(calibration_room, "fit_outcomes", lambda _, known: replace(known, **fitted))
    for is_nearer_by_name in ((True, False), (False, True), (False, False)):
        told = iter(is_nearer_by_name)
        monkeypatch.setattr(calibration_room, "is_nearer", lambda *_, told=told: next(told))
        calibration, report, _ = calibrate(held_out, lambda _fold: members, present=present)
        kept = [name for name, nearer in zip(CLAIMS, is_nearer_by_name, strict=True) if not nearer]
        assert report["kept_claims"] == kept
        expected = fitted | {name: getattr(present, name) for name in kept}
        assert calibration == replace(present, **expected)
    # A bundle that was never calibrated has none to keep.
    assert calibrate(held_out, lambda _fold: members).calibration == replace(
        Calibration(), **fitted
    )


def test_a_claim_gives_way_to_one_that_is_nearer_by_more_than_chance() -> None:
    rng = np.random.default_rng(0)
    came = (rng.random(200) < 0.5).astype(float)
    subjects = [str(k) for k in range(200)]
    far, near, nearly = (np.full(200, came.mean() + away) for away in (0.4, 0.0, 0.03))
    assert is_nearer(near, far, came, subjects)
    assert not is_nearer(far, near, came, subjects)
    assert not is_nearer(near, nearly, came, subjects)


def test_an_untrained_fold_is_named(
    finished: Path, cache: Cache, base: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "fold-0")
    with pytest.raises(InputError, match=r"folds \[1\] unfinished"):
        cross_validate(cache.folder, base, tmp_path, torch.device("cpu"), ALONE)


def pack_options(*, merge: bool, folds: tuple[int, ...] = (0,)) -> PackOptions:
    return PackOptions("tiny", folds, merge=merge, dtype="fp32")


def test_packed_merged_and_apart_are_one_network_with_its_papers(
    report: dict[str, Any], finished: Path, cache: Cache, base: Path, tmp_path: Path
) -> None:
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    found = []
    for merge in (True, False):
        folder = tmp_path / str(merge)
        pack(finished.parent, base, folder, pack_options(merge=merge))
        bundle = load_bundle(folder)
        assert (bundle.config.lora is None) == merge
        calibration = Calibration.from_dict(report["calibration"])
        assert bundle.config.selection == SelectionConfig(calibration=calibration)
        assert bundle.provenance["simulated"] and bundle.provenance["folds"] == [0]
        card = (folder / "MODEL_CARD.md").read_text()
        assert "simulated" in card and "Intended use and limits" in card
        found.append(bundle.members[0](images))
    network = trained_network(finished, base)[0]
    for output in found:
        torch.testing.assert_close(output, network(images), atol=1e-4, rtol=1e-4)


def test_an_ensemble_is_packed_apart_over_one_base(
    report: dict[str, Any], finished: Path, base: Path, tmp_path: Path
) -> None:
    pack(finished.parent, base, tmp_path / "two", pack_options(merge=False, folds=(0, 1)))
    bundle = load_bundle(tmp_path / "two")
    assert len(bundle.members) == 2
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    first, second = (member(images).quality_logits for member in bundle.members)
    assert not torch.allclose(first, second)
    with pytest.raises(InputError, match="--no-merge"):
        pack(finished.parent, base, tmp_path / "no", pack_options(merge=True, folds=(0, 1)))
    with pytest.raises(InputError, match="folds from 0 to 1"):
        pack(finished.parent, base, tmp_path / "no", pack_options(merge=False, folds=(2,)))


def test_another_base_is_refused(finished: Path, base: Path, tmp_path: Path) -> None:
    config, trunk, provenance = load_base(base)
    state = {name: tensor + 1 for name, tensor in trunk.state_dict().items()}
    save_base(tmp_path / "other", config, state, provenance, torch.float32)
    with pytest.raises(InputError, match="--base"):
        trained_network(finished, tmp_path / "other")


# -- a bundle instead of a base


def test_a_bundles_trunk_serves_as_base_from_fit_to_pack_with_phantoms_mixed_in(
    cache: Cache, phantoms: Cache, tiny_bundle: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    arguments = command(cache, tiny_bundle, runs, "--epochs", "1", "--batch-size", "4")[3:]
    arguments += ["--phantoms", str(phantoms.folder), "--share", "0.25"]
    assert main([*arguments, "--fold", "all"]) == 0
    place = ["--base", str(tiny_bundle)]
    assert main(["cross-validate", str(cache.folder), *place, "--runs", str(runs)]) == 0
    output = ["--output", str(tmp_path / "packed"), "--folds", "0", "1", "--dtype", "fp16"]
    assert main(["pack", str(runs), *place, *output]) == 0
    trunk = tiny_bundle / "trunk.safetensors"
    packed = load_bundle(tmp_path / "packed")
    assert len(packed.members) == 2
    told = json.loads((runs / "fold-1" / "options.json").read_text())
    assert told["mixed_in"] == {"share": 0.25, "phantoms": ["case-6", "case-7"]}
    assert len(told["training"] + told["validation"]) == CASES  # phantoms are in no fold
    assert packed.provenance["mixed_in"] == [{"share": 0.25, "phantoms": 2}] * 2
    card = (tmp_path / "packed" / "MODEL_CARD.md").read_text()
    assert "25 % of the drawn frames: SIMULATED, of 2 phantoms" in card
    recorded = told["base_sha256"]
    assert recorded == sha256(trunk) == packed.provenance["base"]["sha256"]
    assert packed.provenance["base"]["what"].startswith("trunk of the bundle bundle")
    ours, theirs = load_file(tmp_path / "packed" / "trunk.safetensors"), load_file(trunk)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_demo_bundle_serves_as_base() -> None:
    demo = ROOT / "resources" / "demo"
    config, trunk, provenance = load_base(demo)
    assert config.image_size == 128 and provenance["simulated"]
    stored = load_file(demo / "trunk.safetensors")
    for name, tensor in trunk.state_dict().items():
        assert torch.equal(stored[f"trunk.{name}"].float(), tensor)


@pytest.mark.parametrize(
    ("is_merged", "simulated", "licence"),
    [(False, False, "CC BY-NC 4.0"), (True, True, "CC BY-NC 4.0 and CC BY-NC-SA 4.0")],
)
def test_a_bundles_trunk_is_under_the_licences_of_what_it_learnt_from(
    tiny_network: AbdomenNet, tmp_path: Path, is_merged: bool, simulated: bool, licence: str
) -> None:
    provenance = {
        "simulated": True,
        "name": "tiny",
        "data_licence": "CC BY-NC-SA 4.0",
        "base": {"simulated": False, "what": "visual tower", "licence": "CC BY-NC 4.0"},
    }
    if is_merged:
        merge_lora(tiny_network.trunk)
    save_bundle(
        tmp_path / "tiny",
        [tiny_network],
        name="tiny",
        selection=SelectionConfig(),
        lora=None if is_merged else LoraConfig(rank=2, alpha=4),
        provenance=provenance,
        card="",
    )
    origin = load_base(tmp_path / "tiny")[2]
    assert origin["simulated"] == simulated and origin["licence"] == licence
    assert origin["what"] == "trunk of the bundle tiny; visual tower"
