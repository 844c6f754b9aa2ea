"""No command that writes deletes or changes a file of somebody else's.

Each command runs as its user would run it, in a folder where a stranger's file, or folder, already
has a name that the command needs, or another one. It may do its work or refuse; the file stays.
"""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from benchmark_cache import write_cache
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from scored_run import write_bundle
from test_training_cards import REPORT
from test_training_import import CONFIG
from test_training_runs import CASES, SIZE, store
from unrendered import store_unrendered

from acouslic.__main__ import main as acouslic
from acouslic.calibration import Calibration
from acouslic.challenge import (
    AC_TABLE,
    CHALLENGE_FAN,
    FRAME_SHAPE,
    IMAGES,
    INPUT_FOLDER,
    MASKS,
    SPACING_MM,
    TABLE_COLUMNS,
)
from acouslic.network import AbdomenNet
from benchmark.__main__ import main as benchmark
from dataset.cache import finish_cache
from evaluation.__main__ import main as evaluation
from inference import main as inference
from phantom import dataset as phantom_dataset
from phantom.__main__ import main as phantom
from phantom.look import Look
from phantom.site import Site
from training.__main__ import main as training
from training.adapters import add_lora
from training.base import load_base, save_base
from training.demo import build

DEMO = Path(__file__).resolve().parents[1] / "resources" / "demo"
NOTES = "notes.txt"
CONTENT = b"years of somebody's work\n"
STACKS = ("case-a", "case-b")


@dataclass(frozen=True)
class World:
    """What the commands read."""

    dataset: Path
    bundle: Path
    cache: Path
    runs: Path
    answers: Path
    scored: Path
    benchmark_cache: Path
    checkpoint: Path


def write_volume(path: Path, volume: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing((SPACING_MM,) * 3)
    sitk.WriteImage(image, str(path))


def write_dataset(folder: Path) -> None:
    """Two cases of twelve frames: noise, with a disc that is annotated on frame 1."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices(FRAME_SHAPE)
    disc = np.hypot(rows - 300, columns - 370) < 120
    lines = [list(TABLE_COLUMNS)]
    for number, case in enumerate(STACKS):
        frames = rng.integers(1, 90, (12, *FRAME_SHAPE), dtype=np.uint8) * CHALLENGE_FAN.mask()
        frames[1][disc] += 90
        labels = np.zeros_like(frames)
        labels[1][disc] = 1
        write_volume(folder / IMAGES / f"{case}.mha", frames)
        write_volume(folder / MASKS / f"{case}.mha", labels)
        lines.append([case, f"s{number}", "211.1", *[""] * 5])
    (folder / AC_TABLE).parent.mkdir(parents=True)
    with (folder / AC_TABLE).open("w", newline="") as file:
        csv.writer(file).writerows(lines)


def write_checkpoint(folder: Path) -> None:
    """A small CLIP of random weights, and open_clip's config of it."""
    folder.mkdir()
    config: dict[str, Any] = dict(CONFIG)
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    vision, text = CLIPVisionCfg(**config["vision_cfg"]), CLIPTextCfg(**config["text_cfg"])
    model = CLIP(config["embed_dim"], vision, text)
    torch.save({"state_dict": model.state_dict()}, folder / "weights.pt")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    world = World(*(root / field.name for field in fields(World)))
    write_dataset(world.dataset)
    write_bundle(world.bundle)
    write_checkpoint(world.checkpoint)
    for number in range(CASES):
        store(world.cache, number, subject=f"s{number % 5}", optimal=number not in (1, 4))
    finish_cache(world.cache, [f"case-{number}" for number in range(CASES)], SIZE, simulated=True)
    write_cache(world.benchmark_cache, 20)
    assert run_fit(world, world.runs) == 0
    assert run_cross_validate(world, world.runs) == 0
    assert run_answers(world, world.answers) == 0
    assert run_score(world, world.scored) == 0
    return world


# ---- the commands, each writing into a folder that it is given


def run_import(world: World, output: Path, *more: str) -> int:
    checkpoint, config = world.checkpoint / "weights.pt", world.checkpoint / "config.json"
    place = ["--output", str(output), "--config", str(config)]
    return training(["import-fetalclip", str(checkpoint), *place, *more])


def run_prepare(world: World, output: Path) -> int:
    return training(["prepare", str(world.dataset), "--output", str(output), "--size", "32"])


def run_fit(world: World, output: Path) -> int:
    options = ["--folds", "2", "--epochs", "1", "--steps-per-epoch", "1", "--batch-size", "4"]
    machine = ["--rank", "2", "--decoder-width", "4", "--precision", "fp32", "--accelerator", "cpu"]
    place = ["--base", str(world.bundle), "--output", str(output), "--fold", "all"]
    return training(["fit", str(world.cache), *place, *options, *machine])


def run_cross_validate(world: World, runs: Path) -> int:
    """With the figures of `world.runs` taken away."""
    if not (runs / "fold-0" / "options.json").exists():
        leave_out = shutil.ignore_patterns("cross-validation.json", "out-of-fold")
        shutil.copytree(world.runs, runs, dirs_exist_ok=True, ignore=leave_out)
    place = ["--base", str(world.bundle), "--runs", str(runs), "--device", "cpu"]
    return training(["cross-validate", str(world.cache), *place])


def run_calibrate(world: World, output: Path, *more: str) -> int:
    place = ["--output", str(output), "--parts", "2", "--device", "cpu"]
    return training(["calibrate", str(world.bundle), str(world.cache), *place, *more])


def run_pack(world: World, output: Path, *more: str) -> int:
    place = ["--base", str(world.bundle), "--output", str(output)]
    return training(["pack", str(world.runs), *place, *more])


def run_demo(_world: World, folder: Path, *more: str) -> int:
    """Without its hours: phantoms are not rendered, and no stage is trained."""

    def unrendered(cache: Path, phantoms: build.Phantoms, *, size: int, workers: int) -> list[str]:
        numbers = range(phantoms.training + phantoms.validation)
        return [store_unrendered(cache, phantoms.seed, number, size) for number in numbers]

    def trained(_folder: Path, base: Path, *_: object) -> None:
        if base.exists():
            return
        config, trunk, provenance = load_base(DEMO)
        save_base(base, config, trunk.state_dict(), provenance["base"], torch.float16)

    def adapted(
        _folder: Path,
        base: Path,
        _decoder: object,
        _cache: object,
        options: build.DemoOptions,
        *_: object,
    ) -> AbdomenNet:
        _config, trunk, _provenance = load_base(base)
        network = AbdomenNet(options.network)
        network.trunk.load_state_dict(trunk.state_dict())
        add_lora(network.trunk, options.lora)
        return network.eval()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_add_phantoms", unrendered)
        patch.setattr(build, "_train_foundation", trained)
        patch.setattr(build, "_adapt", adapted)
        patch.setattr(build, "_calibrate", lambda *_: (Calibration(), REPORT))
        place = ["--output", str(folder / "bundle"), "--work", str(folder / "work")]
        size = ["--cases", "1", "1", "--held-out", "1", "1"]
        return training(["demo", *place, *size, *more])


def run_answers(world: World, output: Path) -> int:
    place = ["--model", str(world.bundle), "--output", str(output), "--device", "cpu"]
    return evaluation(["run", str(world.dataset), *place, "--engine", "torch", "--fail-soft"])


def run_score(world: World, output: Path) -> int:
    place = [str(world.answers), str(world.dataset), "--output", str(output)]
    return evaluation(["score", *place, "--workers", "1"])


def run_compare(world: World, output: Path) -> int:
    return evaluation(["compare", str(world.scored), str(world.scored), "--output", str(output)])


def run_report(world: World, output: Path) -> int:
    place = ["--output", str(output / "report.html"), "--workers", "1"]
    return evaluation(["report", str(world.scored), *place])


def run_view(world: World, output: Path) -> int:
    place = ["--model", str(world.bundle), "--output", str(output), "--device", "cpu"]
    return evaluation(["view", str(world.dataset / IMAGES / "case-a.mha"), *place])


def run_benchmark(world: World, output: Path) -> int:
    what = ["--systems", "efficientnet", "--trials", "1", "--stand-ins", "--precision", "fp32"]
    size = ["--epochs", "1", "--frames-per-epoch", "12", "--batch-size", "12"]
    place = [str(world.benchmark_cache), "--output", str(output), "--accelerator", "cpu"]
    return benchmark(["run", *place, *what, *size])


# The answers' network is random and may see no abdomen, so all are asked for with --fail-soft.
def run_file(world: World, output: Path, *more: str) -> int:
    stack = world.dataset / IMAGES / "case-a.mha"
    place = ["--output", str(output / "case-a"), "--model", str(world.bundle), "--device", "cpu"]
    return acouslic([str(stack), *place, "--fail-soft", "--preview", *more])


def run_folder(world: World, output: Path, *more: str) -> int:
    place = ["--output", str(output), "--model", str(world.bundle), "--device", "cpu"]
    return acouslic([str(world.dataset / IMAGES), *place, "--fail-soft", *more])


def run_inference(world: World, output: Path) -> int:
    """The folder of its answer is the platform's; that of the preview is not."""
    given = world.dataset.parent / "given"
    if not given.exists():
        (given / INPUT_FOLDER).mkdir(parents=True)
        shutil.copy2(world.dataset / IMAGES / "case-a.mha", given / INPUT_FOLDER)
    place = ["--input", str(given), "--output", str(output / "answer"), "--device", "cpu"]
    preview = ["--preview", str(output / "preview.png")]
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["inference.py", *place, "--model", str(world.bundle), *preview]
        arguments.append("--fail-soft")
        patch.setattr(sys, "argv", arguments)
        return inference()


def run_phantom(_world: World, output: Path) -> int:
    def unrendered(
        case: int, *, folder: Path, seed: int, look: Look, site: Site | None
    ) -> phantom_dataset.Row:
        assert look is Look.PLAIN and site is None
        name = phantom_dataset.case_name(seed, case)
        (folder / IMAGES / f"{name}.mha").write_bytes(b"")
        return phantom_dataset.Row(case=case, name=name, subject="1-000", ac_mm=(200.0,) * 6)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom_dataset, "write_case", unrendered)
        return phantom([str(output), "--cases", "1", "--seed", "1"])


@dataclass(frozen=True)
class Writer:
    """A command that writes into a folder."""

    run: Callable[..., int]
    """Takes the world, the folder, and more options."""
    writes: tuple[str, ...]
    """Files that it writes there; a stranger may have one of each name."""
    folders: tuple[str, ...] = ()
    """Folders that it makes there; a stranger may have one of each name."""
    may_overwrite: bool = False
    """Whether it has --overwrite."""


BUNDLE_FILES = ("manifest.json", "config.json", "provenance.json", "MODEL_CARD.md")
PHANTOM = phantom_dataset.case_name(1001, 0)
WRITERS = {
    "import-fetalclip": Writer(
        run_import, ("config.json", "trunk.safetensors", "provenance.json"), may_overwrite=True
    ),
    "prepare": Writer(run_prepare, ("cache.json",), STACKS),
    "fit": Writer(run_fit, ("fold-0/options.json",), ("fold-0", "fold-1")),
    "cross-validate": Writer(
        run_cross_validate, ("cross-validation.json", "fold-0/out-of-fold/case-0.npz")
    ),
    "pack": Writer(run_pack, BUNDLE_FILES, may_overwrite=True),
    "calibrate": Writer(run_calibrate, BUNDLE_FILES, may_overwrite=True),
    "demo": Writer(
        run_demo,
        (
            *(f"bundle/{name}" for name in BUNDLE_FILES),
            "work/base/trunk.safetensors",
            "work/foundation-cache/cache.json",
            "work/foundation-cache/phantoms.json",
        ),
        (f"work/foundation-cache/{PHANTOM}", "work/base", "bundle"),
        may_overwrite=True,
    ),
    "evaluation run": Writer(run_answers, ("run.json",), STACKS),
    "evaluation score": Writer(run_score, ("metrics.json", "cases.csv")),
    "evaluation compare": Writer(
        run_compare,
        ("comparison.json", "leaderboard.json", "leaderboard.html", "leaderboard.tex"),
    ),
    "evaluation report": Writer(run_report, ("report.html",)),
    "evaluation view": Writer(run_view, ("case-a.html",)),
    "benchmark": Writer(
        run_benchmark,
        ("options.json", "results.json", "table.md", "table.html", "f1.png"),
        ("efficientnet",),
    ),
    "acouslic FILE": Writer(
        run_file,
        ("case-a/fetal-abdomen-frame-number.json", "case-a/preview.png"),
        ("case-a",),
        may_overwrite=True,
    ),
    # The answer first: the summary is brought up to date by every run.
    "acouslic FOLDER": Writer(
        run_folder,
        ("case-a/fetal-abdomen-frame-number.json", "summary.csv"),
        STACKS,
        may_overwrite=True,
    ),
    "inference.py": Writer(run_inference, ("preview.png",)),
    "phantom": Writer(run_phantom, ("phantoms.json", str(AC_TABLE)), ("images", "masks")),
}
PLACES = [
    (name, place)
    for name, writer in WRITERS.items()
    for place in (NOTES, *writer.writes, *(f"{folder}/{NOTES}" for folder in writer.folders))
]


def leave(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CONTENT)


@pytest.mark.parametrize("name", WRITERS)
def test_without_strangers_the_command_writes_what_it_is_said_to(
    name: str, world: World, tmp_path: Path
) -> None:
    """Without this, a stranger could survive because nothing was ever written there."""
    writer, output = WRITERS[name], tmp_path / "output"
    assert writer.run(world, output) == 0
    for place in writer.writes:
        assert (output / place).is_file(), place
    for place in writer.folders:
        assert (output / place).is_dir(), place


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_a_strangers_file_survives(name: str, place: str, world: World, tmp_path: Path) -> None:
    output = tmp_path / "output"
    leave(output / place)
    assert WRITERS[name].run(world, output) in (0, 1)
    assert (output / place).read_bytes() == CONTENT


@pytest.mark.parametrize("name", [name for name in WRITERS if WRITERS[name].may_overwrite])
def test_a_strangers_file_in_a_folder_of_ours_survives_overwrite(
    name: str, world: World, tmp_path: Path
) -> None:
    writer, output = WRITERS[name], tmp_path / "output"
    assert writer.run(world, output) == 0
    folders = {(output / place).parent for place in writer.writes} | {output}
    for folder in folders:
        leave(folder / NOTES)
    assert writer.run(world, output, "--overwrite") in (0, 1)
    for folder in folders:
        assert (folder / NOTES).read_bytes() == CONTENT


@pytest.mark.parametrize("name", [name for name in WRITERS if WRITERS[name].may_overwrite])
def test_what_is_ours_is_replaced_only_where_that_is_asked_for(
    name: str, world: World, tmp_path: Path
) -> None:
    writer, output = WRITERS[name], tmp_path / "output"
    assert writer.run(world, output) == 0
    first = output / writer.writes[0]
    before = first.stat().st_ino, first.read_bytes()
    writer.run(world, output)
    assert (first.stat().st_ino, first.read_bytes()) == before
    assert writer.run(world, output, "--overwrite") == 0
    assert first.read_bytes()
