"""The whole command on a tiny cache: results, tables, resuming, failures, the reference's traps."""

import json
import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_cache import SIZE, write_cache

from acouslic.bundle import load_bundle
from acouslic.errors import InputError, OutputError
from benchmark import systems, trial
from benchmark.challenge_score import MEASURES
from benchmark.command import pack, request_of, run_benchmark
from benchmark.options import (
    PAPER,
    STRICT,
    BenchmarkOptions,
    Compute,
    PackOptions,
    Protocol,
    ProtocolChanges,
    Schedule,
    WeightOptions,
    WeightSource,
)
from benchmark.protocol import split, tables
from benchmark.run import benchmark, device_name
from benchmark.systems import Built, Plan, System
from benchmark.trial import Setting, evaluate
from dataset import command

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    write_cache(folder, 20)
    return folder


def arguments(cache: Path, output: Path, *more: str) -> BenchmarkOptions:
    given = [str(cache), "--output", str(output), "--stand-ins", "--precision", "fp32"]
    given += ["--epochs", "1", "--frames-per-epoch", "24", "--batch-size", "12"]
    parsed = []

    def keep(options: BenchmarkOptions) -> None:
        parsed.append(options)

    given += ["--accelerator", "cpu", *more]
    assert command.run(keep, prog="benchmark", description="", arguments=given) == 0
    return parsed[0]


def run(cache: Path, output: Path, *more: str) -> dict[str, Any]:
    return benchmark(cache, output, request_of(arguments(cache, output, *more)))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> System:
    """A system whose building fails until `mended` is called."""

    def build(plan: Plan) -> Built:
        raise RuntimeError("out of memory, say")

    system = System("broken", "Broken", build)
    monkeypatch.setitem(systems.SYSTEMS, "broken", system)
    return system


def test_results_tables_and_plots(cache_folder: Path, tmp_path: Path) -> None:
    results = run(
        cache_folder, tmp_path, "--systems", "efficientnet", "quality", "--trials", "2",
        "--protocol", "paper", "--note", "made in a test",
    )  # fmt: skip
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["systems"] == json.loads(json.dumps(results["systems"]))
    quality = written["systems"]["quality"]
    f1 = [one["f1"] for one in quality["trials"]]
    assert quality["mean"]["f1"] == pytest.approx(np.mean(f1))
    assert quality["sd"]["f1"] == pytest.approx(np.std(f1, ddof=1))
    assert {"plcc", "case_krocc", "wfss"} <= set(quality["mean"])
    assert quality["thresholds"] == [0.3, 0.3]
    # Four test subjects: from fewer than five there is no interval.
    assert set(quality["interval"].values()) == {None}
    efficientnet = written["systems"]["efficientnet"]
    assert efficientnet["real_parameters"] == {"paper": 4_008_829, "strict": 4_008_829}
    for name in ("table.md", "table.html"):
        text = (tmp_path / name).read_text()
        assert "made in a test" in text
        assert "Stand-ins" in text
        assert "Phantoms: these frames are simulated" in text
        assert "0.7253 ± 0.030" in text
        assert "4,008,829" in text
        assert "EfficientNet †§: stand-in: small-efficientnet, from random weights" in text
    for name in ("f1", "precision_recall", "sweep_scores", "embeddings"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_another_cache_is_the_test_part_whole(cache_folder: Path, tmp_path: Path) -> None:
    write_cache(tmp_path / "other", 6, first=20)
    output = tmp_path / "output"
    names = ("--systems", "efficientnet", "--trials", "1")
    results = run(cache_folder, output, *names, "--test-cache", str(tmp_path / "other"))
    assert {part: held["cases"] for part, held in results["counts"].items()} == {
        "training": 18,
        "validation": 2,
        "test": 6,
    }
    assert results["counts"]["test"]["frames"] == 6 * 60
    assert results["systems"]["efficientnet"]["interval"]["f1"] is not None
    assert any("Another hospital" in warning for warning in results["warnings"])
    with pytest.raises(InputError, match=r"options\.json"):
        run(cache_folder, output, *names)
    with pytest.raises(InputError, match="20 of its cases"):
        run(cache_folder, output, *names, "--test-cache", str(cache_folder))


def test_resuming_trains_only_what_is_missing(cache_folder: Path, tmp_path: Path) -> None:
    run(cache_folder, tmp_path, "--systems", "efficientnet", "--trials", "1")
    first = tmp_path / "efficientnet/trial-0/result.json"
    stamp = first.stat().st_mtime_ns
    results = run(cache_folder, tmp_path, "--systems", "efficientnet", "--trials", "2")
    assert first.stat().st_mtime_ns == stamp
    assert len(results["systems"]["efficientnet"]["trials"]) == 2
    with pytest.raises(InputError, match=r"options\.json"):
        run(cache_folder, tmp_path, "--systems", "efficientnet", "--seed", "7")


@pytest.mark.parametrize("name", ["results.json", "table.md", "table.html", "f1.png"])
def test_a_strangers_file_in_a_benchmarks_folder_is_not_replaced(
    name: str, cache_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "options.json").write_text('{"protocol": {"frozen_segmentation_encoder": true}}')
    (tmp_path / name).write_text("# Benchmark of mine")
    with pytest.raises(OutputError, match=name):
        run(cache_folder, tmp_path, "--systems", "efficientnet", "--trials", "1")
    assert (tmp_path / name).read_text() == "# Benchmark of mine"
    assert not (tmp_path / "efficientnet").exists()


def test_ablations_gather_in_one_table(cache_folder: Path, tmp_path: Path) -> None:
    run(cache_folder, tmp_path, "--systems", "quality", "--trials", "1", "--no-cmx")
    results = run(
        cache_folder, tmp_path, "--systems", "quality", "--trials", "1",
        "--no-fusion", "--no-cmx", "--no-correlation",
    )  # fmt: skip
    assert list(results["systems"]) == ["quality-no-cmx", "quality-no-fusion-no-cmx-no-correlation"]
    assert "Quality, no cmx" in (tmp_path / "table.md").read_text()


def test_a_failed_system_is_told_and_does_not_lose_the_others(
    cache_folder: Path, tmp_path: Path, broken: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("--systems", "broken", "efficientnet", "--trials", "1")
    with pytest.raises(InputError, match="out of memory"):
        run(cache_folder, tmp_path, *names)
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["systems"]) == ["efficientnet"]
    assert "out of memory" in results["failed"]["broken"]
    assert "Traceback" in (tmp_path / "broken/trial-0/failed.txt").read_text()
    assert "out of memory" in (tmp_path / "table.md").read_text()
    mended = replace(broken, build=systems.SYSTEMS["efficientnet"].build)
    monkeypatch.setitem(systems.SYSTEMS, "broken", mended)
    assert run(cache_folder, tmp_path, *names)["failed"] == {}


def test_a_rehearsal_shows_every_system_a_batch(
    cache_folder: Path, tmp_path: Path, broken: System, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    names = ("--systems", "broken", "vit", "quality", "--rehearse", "--batch-size", "6")
    with pytest.raises(InputError, match=r"1 failed, the first being broken: .*out of memory"):
        run_benchmark(arguments(cache_folder, tmp_path, *names))
    told = {record.message.split(":")[0]: record.message for record in caplog.records}
    assert "0 without gradient" in told["vit"] and "6 frames" in told["vit"]
    assert "quality" in told
    assert not list(tmp_path.iterdir())


def test_a_stopped_trial_goes_on_after_its_last_epoch_and_ends_alike(
    cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("--systems", "quality", "--trials", "1", "--epochs", "3")
    run(cache_folder, tmp_path / "whole", *names)
    told = 0

    def stop(*arguments: Any) -> None:
        nonlocal told
        told += 1
        if told == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trial, "_tell", stop)
        run(cache_folder, tmp_path / "stopped", *names)
    folder = tmp_path / "stopped/quality/trial-0"
    assert (folder / "epoch.ckpt").is_file() and not (folder / "result.json").exists()
    run(cache_folder, tmp_path / "stopped", *names)
    assert not (folder / "epoch.ckpt").exists()
    scores = [
        np.load(tmp_path / name / "quality/trial-0/predictions.npz")["score"]
        for name in ("whole", "stopped")
    ]
    assert np.array_equal(*scores)


def test_trials_are_jobs_and_every_family_is_judged_packed_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    cache_folder, output = tmp_path / "cache", tmp_path / "output"
    write_cache(cache_folder, 20, of_full_size=True)
    results = run(
        cache_folder, output, "--systems", "efficientnet", "fetalclip_cls", "fetalclip_seg",
        "joint", "quality", "--trials", "1", "--workers", "1",
    )  # fmt: skip
    line = next(text for text in caplog.messages if text.startswith("joint, trial 1, epoch 1 of 1"))
    assert re.search(r"loss \d.*, validation loss \d.*, F1 \d.*; 0 s left", line)
    for name, system in results["systems"].items():
        assert set(system["challenge"]["mean"]) == set(MEASURES), name
        options = PackOptions(output, cache_folder, name, tmp_path / name)
        pack(replace(options, weights=WeightOptions(weights="none")))
        bundle = load_bundle(tmp_path / name)
        assert bundle.is_simulated and bundle.provenance["stand_in"]
    text = (output / "table.tex").read_text()
    assert r"\begin{tabular}" in text and r"$^\dagger$" in text and "†" not in text
    assert "What the challenge would give" in (output / "table.html").read_text()
    with pytest.raises(InputError, match=r"challenge\.json"):
        pack(PackOptions(output, cache_folder, "vgg", tmp_path / "vgg"))


def test_trials_go_to_workers_side_by_side(cache_folder: Path, tmp_path: Path) -> None:
    names = ("--systems", "efficientnet", "vit", "--trials", "1", "--workers", "2")
    results = run(cache_folder, tmp_path, *names)
    assert list(results["systems"]) == ["efficientnet", "vit"]
    assert not (tmp_path / ".claims").exists()


def test_without_the_network_that_draws_masks_a_classifier_is_not_judged(
    cache_folder: Path, tmp_path: Path
) -> None:
    results = run(cache_folder, tmp_path, "--systems", "efficientnet", "--trials", "1")
    assert results["systems"]["efficientnet"]["challenge"] is None
    assert "What the challenge would give" not in (tmp_path / "table.md").read_text()


def test_unknown_systems_and_other_sizes_are_refused(cache_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="resnet"):
        run(cache_folder, tmp_path, "--systems", "resnet")
    request = replace(request_of(arguments(cache_folder, tmp_path)), stand_ins=False)
    with pytest.raises(InputError, match="224 px"):
        benchmark(cache_folder, tmp_path, request)


def test_weights_are_shared_between_trials_only_by_the_papers_protocol(
    cache_folder: Path, tmp_path: Path
) -> None:
    for protocol, more, shared in (
        ("paper", (), True),
        ("paper", ("--no-shared-weights",), False),
        ("strict", (), False),
    ):
        output = tmp_path / f"{protocol}{len(more)}"
        names = ("--systems", "densenet", "--trials", "2", "--protocol", protocol)
        results = run(cache_folder, output, *names, *more)
        begun = results["systems"]["densenet"]["begun_from"]
        assert begun[0] == "random weights"
        assert (begun[1] == "the best weights of trial 0") is shared
        assert len(list(output.rglob("carried-*"))) == int(shared)


def test_strict_takes_the_threshold_from_validation(cache_folder: Path, tmp_path: Path) -> None:
    results = run(cache_folder, tmp_path, "--systems", "efficientnet", "--trials", "1")
    assert results["protocol"]["name"] == "strict"
    assert results["systems"]["efficientnet"]["thresholds"] != [0.5]
    assert results["counts"]["test"]["subjects_also_in_training"] == 0


def test_each_part_of_a_protocol_is_an_option(cache_folder: Path, tmp_path: Path) -> None:
    options = arguments(cache_folder, tmp_path, "--protocol", "paper", "--no-centre-crop")
    assert request_of(options).protocol == replace(PAPER, centre_crop=False)
    options = arguments(cache_folder, tmp_path, "--frozen-segmentation-encoder")
    assert request_of(options).protocol == replace(STRICT, frozen_segmentation_encoder=True)


def test_every_part_of_a_protocol_can_be_changed_and_told(cache_folder: Path) -> None:
    name, *names = (field.name for field in fields(Protocol))
    assert (name, names) == ("name", [field.name for field in fields(ProtocolChanges)])
    flags = ["--" + part.replace("_", "-") for part in names]
    assert all(vars(arguments(cache_folder, cache_folder, *flags).changes).values())


def test_help_is_quick_and_has_a_sentence_for_every_option() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "benchmark", "run", "--help"]
    environment = os.environ | {"COLUMNS": "1000"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    options = re.findall(r"^│ (?:--|[A-Z])", done.stdout, re.MULTILINE)
    told = re.findall(r"\S\. \((?:required|default: .+)\)", done.stdout)
    assert len(options) == len(told) == 43
    assert all(re.search(rf"\b{name}\b", done.stdout) for name in systems.DEFAULT_SYSTEMS)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "tyro" in imported
    assert not {name.partition(".")[0] for name in imported} & {"torch", "matplotlib", "timm"}


def test_black_frames_score_like_any_one_of_them(cache_folder: Path) -> None:
    from dataset.cache import open_cache

    torch.manual_seed(0)
    cache = open_cache(cache_folder)
    frames = tables(split(cache, PAPER), PAPER)
    system = systems.SYSTEMS["densenet"]
    plan = Plan(SIZE, PAPER, WeightSource(), stand_ins=True)
    setting = Setting(system, plan, frames, Schedule(batch_size=16), Compute(precision="fp32"))
    network = system.build(plan).network.eval()
    table = frames.validation
    result = evaluate(network, table, setting)
    with torch.no_grad():
        black = network(torch.zeros(1, SIZE, SIZE)).score.item()
    assert (table.row < 0).any()
    assert result.score[table.row < 0] == pytest.approx(black, abs=1e-6)
    p = np.clip(result.score.astype(float), 1e-9, 1 - 1e-9)
    labels = table.quality > 0
    assert result.loss == pytest.approx(-np.log(np.where(labels, p, 1 - p)).mean(), rel=1e-3)


def test_devices_have_torchs_names() -> None:
    assert device_name("cpu") == "cpu"
    assert device_name("gpu") == "cuda"
