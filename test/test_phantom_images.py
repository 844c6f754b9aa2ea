"""Rendered phantom frames and the data set's files; only a few frames are rendered in full."""

import csv
import hashlib
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from acouslic.challenge import (
    AC_TABLE,
    CHALLENGE_FAN,
    FRAME_SHAPE,
    FRAMES,
    FRAMES_PER_SWEEP,
    IMAGES,
    MASKS,
    SIMULATED,
    SPACING_MM,
    SWEEPS,
    TABLE_COLUMNS,
    Quality,
    labels_of_quality,
)
from acouslic.metaimage import Geometry, write_frames
from phantom import dataset
from phantom.__main__ import main
from phantom.dataset import case_name
from phantom.render import Renderer, mask_frame
from phantom.truth import truth

HASH = """
import hashlib
from phantom.render import Renderer
from phantom.truth import truth
frames = Renderer(truth(9, 2)).frames([20, 300, 700])
print(hashlib.sha256(frames.tobytes()).hexdigest())
"""


def test_frames_do_not_depend_on_process_or_on_which_others_are_rendered() -> None:
    known = truth(9, 2)
    frames = Renderer(known).frames([20, 300, 700])
    np.testing.assert_array_equal(Renderer(known).frame(300), frames[1])
    other = subprocess.run([sys.executable, "-c", HASH], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == hashlib.sha256(frames.tobytes()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Golden:
    """What a case was when these figures were written down."""

    hazy: bool
    runs: list[tuple[int, int, Quality]]
    """First frame, frame after the last, and quality of all annotated runs."""
    ac_mm: list[float | None]
    gray: list[tuple[float, ...]]
    """Mean inside the fan of GOLDEN_FRAMES, sweep by sweep."""


GOLDEN_FRAMES = (15, 40, 55, 75)  # of every sweep
GOLDEN = {
    (1, 0): Golden(
        hazy=False,
        runs=[
            (73, 77, Quality.SUBOPTIMAL),
            (77, 84, Quality.OPTIMAL),
            (84, 86, Quality.SUBOPTIMAL),
            (226, 240, Quality.SUBOPTIMAL),
        ],
        ac_mm=[168.41, 170.96, None, None, None, None],
        gray=[
            (36.174, 65.196, 44.271, 72.522),
            (59.164, 60.849, 59.759, 61.388),
            (48.183, 49.506, 47.823, 45.876),
            (48.433, 68.258, 69.818, 68.596),
            (69.462, 68.041, 49.902, 65.004),
            (58.951, 68.529, 68.016, 64.977),
        ],
    ),
    (5, 4): Golden(
        hazy=True,
        runs=[(73, 76, Quality.SUBOPTIMAL)],
        ac_mm=[151.11, None, None, None, None, None],
        gray=[
            (31.418, 35.068, 36.094, 34.673),
            (10.543, 0.638, 13.808, 17.137),
            (16.610, 16.172, 5.061, 16.258),
            (33.942, 34.907, 34.746, 34.529),
            (29.997, 31.981, 31.788, 34.747),
            (29.498, 32.506, 38.137, 36.084),
        ],
    ),
    (77, 3): Golden(
        hazy=False,
        runs=[
            (488, 504, Quality.SUBOPTIMAL),
            (645, 655, Quality.SUBOPTIMAL),
            (655, 666, Quality.OPTIMAL),
            (666, 668, Quality.SUBOPTIMAL),
        ],
        ac_mm=[None, None, None, 269.58, 294.63, None],
        gray=[
            (46.913, 41.777, 37.377, 27.511),
            (48.307, 42.629, 50.850, 51.402),
            (51.447, 53.891, 55.253, 48.767),
            (39.408, 41.659, 44.474, 44.674),
            (45.989, 53.742, 33.063, 42.640),
            (47.925, 43.060, 45.812, 37.023),
        ],
    ),
}


@pytest.mark.parametrize(("seed", "case"), GOLDEN)
def test_cases_are_what_they_always_were(seed: int, case: int) -> None:
    """Who changes the phantom on purpose writes down its new figures, and says so in the log.

    Hashes would break without a reason: without the processor's newer vector instructions 39 of the
    30 million pixels of these frames were one gray level off, and a mean at most 0.00002.
    """
    golden, known = GOLDEN[seed, case], truth(seed, case)
    assert (known.haze > 0) == golden.hazy
    quality = np.full(FRAMES, Quality.NONE)
    for first, stop, value in golden.runs:
        quality[first:stop] = value
    np.testing.assert_array_equal(known.quality(), quality)
    for label, ac_mm in zip(known.labels, golden.ac_mm, strict=True):
        assert label.ac_mm == (None if ac_mm is None else pytest.approx(ac_mm, abs=0.01))
    renderer = Renderer(known)
    fan = CHALLENGE_FAN.mask()
    for sweep, gray in enumerate(golden.gray):
        frames = [renderer.frame(sweep * FRAMES_PER_SWEEP + frame) for frame in GOLDEN_FRAMES]
        assert [frame[fan].mean() for frame in frames] == pytest.approx(gray, abs=0.002)


def test_gray_levels_are_those_of_a_dark_ultrasound_picture() -> None:
    fan = CHALLENGE_FAN.mask()
    means, highs, annotated = [], [], []
    for case in range(5):
        known = truth(12, case)
        renderer = Renderer(known)
        rng = np.random.default_rng(case)
        for index in rng.choice(np.flatnonzero(known.tissue()), 4, replace=False):
            frame = renderer.frame(int(index))
            assert frame.shape == FRAME_SHAPE and frame.dtype == np.uint8
            assert not frame[~fan].any() and frame[fan].any()
            means.append(frame[fan].mean())
            highs.append(np.percentile(frame[fan], 99))
        best = renderer.frame(int(np.flatnonzero(known.quality())[0]))
        annotated.append(best[fan].mean())
    # Two real frames with good contact have a mean of 34 and 42 and 99 % below 113 and 130.
    assert 20 < np.mean(means) < 45
    assert 85 < np.mean(highs) < 140
    assert 25 < np.mean(annotated) < 55


def test_speckle_widens_with_depth_as_the_beams_diverge() -> None:
    known = truth(12, 1)
    renderer = Renderer(known)
    near: list[float] = []
    far: list[float] = []
    for index in np.flatnonzero(known.quality())[:3]:
        frame = renderer.frame(int(index)).astype(float)
        for rows, widths in ((slice(40, 100), near), (slice(400, 500), far)):
            patch = frame[rows, 300:440]
            step = np.diff(patch, axis=1).std() / patch.std()
            widths.append(step)
    assert np.mean(far) < np.mean(near)


def test_stomach_is_darker_than_the_liver_about_it() -> None:
    darker = []
    for case in range(4):
        known = truth(12, case)
        for frame in np.flatnonzero(known.quality() == Quality.OPTIMAL)[:1]:
            sweep, at = divmod(int(frame), FRAMES_PER_SWEEP)
            scene, planes = known.sweeps[sweep].scene, known.sweeps[sweep].planes
            fetal = planes.seen_from(scene.rotation, scene.position)
            section = scene.fetus.stomach.sections(fetal)
            column = section.centre_u[at] / SPACING_MM + CHALLENGE_FAN.apex_x_px
            row = section.centre_v[at] / SPACING_MM + CHALLENGE_FAN.apex_y_px
            picture = Renderer(known).frame(int(frame))
            y, x = round(float(row)), round(float(column))
            centre = picture[y - 4 : y + 5, x - 4 : x + 5].mean()
            darker.append(centre < picture[mask_frame(known, int(frame)) > 0].mean())
    assert len(darker) >= 2 and np.mean(darker) > 0.6


@pytest.fixture
def few_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Render every fortieth frame, and leave the others black."""
    whole = Renderer.frame

    def sometimes(self: Renderer, index: int) -> np.ndarray:
        return whole(self, index) if index % 40 == 0 else np.zeros(FRAME_SHAPE, np.uint8)

    monkeypatch.setattr(Renderer, "frame", sometimes)


def test_dataset_has_the_challenges_layout(tmp_path: Path, few_frames: None) -> None:
    assert main([str(tmp_path), "--cases", "1", "--seed", "6", "--first", "3"]) == 0
    name = case_name(6, 3)
    files = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.*"))
    assert files == sorted(
        [Path(SIMULATED), AC_TABLE, IMAGES / f"{name}.mha", MASKS / f"{name}.mha"]
    )
    _check_case(tmp_path, name, case=3)


def test_cases_do_not_depend_on_the_set(
    tmp_path: Path, few_frames: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "FRAMES", FRAMES_PER_SWEEP)
    assert main([str(tmp_path / "two"), "--cases", "2", "--seed", "6", "--first", "3"]) == 0
    assert main([str(tmp_path / "one"), "--cases", "1", "--seed", "6", "--first", "4"]) == 0
    names = [case_name(6, 3), case_name(6, 4)]
    _check_table(tmp_path / "two" / AC_TABLE, names)
    for folder in (IMAGES, MASKS):
        alone = (tmp_path / "one" / folder / f"{names[1]}.mha").read_bytes()
        assert alone == (tmp_path / "two" / folder / f"{names[1]}.mha").read_bytes()
        assert alone != (tmp_path / "two" / folder / f"{names[0]}.mha").read_bytes()


def test_a_set_goes_on_and_grows(
    tmp_path: Path, few_frames: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "FRAMES", FRAMES_PER_SWEEP)
    grown, whole = tmp_path / "grown", tmp_path / "whole"
    assert main([str(grown), "--cases", "1", "--seed", "6", "--first", "4"]) == 0
    first = grown / IMAGES / f"{case_name(6, 4)}.mha"
    written = first.stat().st_mtime_ns
    (grown / MASKS / first.name).unlink()  # as if it had been interrupted here
    assert main([str(grown), "--cases", "1", "--seed", "6", "--first", "3"]) == 0
    assert first.stat().st_mtime_ns == written
    assert main([str(whole), "--cases", "2", "--seed", "6", "--first", "3"]) == 0
    for path in (path for path in whole.rglob("*") if path.is_file()):
        assert (grown / path.relative_to(whole)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ["--seed", "7", "--first", "3"],
        ["--seed", "6", "--first", "3", "--look", "random"],
        ["--seed", "6", "--first", "5"],
    ],
)
def test_a_set_of_other_cases_is_left_alone(
    options: list[str], tmp_path: Path, few_frames: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "FRAMES", FRAMES_PER_SWEEP)
    assert main([str(tmp_path), "--cases", "1", "--seed", "6", "--first", "3"]) == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main([str(tmp_path), "--cases", "1", *options]) == 1
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def _check_case(folder: Path, name: str, *, case: int) -> None:
    known = truth(6, case)
    image = sitk.ReadImage(str(folder / IMAGES / f"{name}.mha"))
    mask = sitk.ReadImage(str(folder / MASKS / f"{name}.mha"))
    for volume in (image, mask):
        assert volume.GetSize() == (744, 562, 840)
        assert volume.GetSpacing() == (SPACING_MM,) * 3
        assert volume.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
        assert volume.GetPixelID() == sitk.sitkUInt8
    pixels = sitk.GetArrayViewFromImage(image)
    np.testing.assert_array_equal(pixels[280], Renderer(known).frame(280))
    assert not pixels[FRAMES_PER_SWEEP - 1 :: FRAMES_PER_SWEEP].any()
    labels = sitk.GetArrayViewFromImage(mask).reshape(FRAMES, -1)
    np.testing.assert_array_equal(labels.max(axis=1), labels_of_quality(known.quality()))


def _check_table(path: Path, names: list[str]) -> None:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == TABLE_COLUMNS
    assert [row["uuid"] for row in rows] == names
    for row, case in zip(rows, (3, 4), strict=True):
        assert str(uuid.UUID(row["uuid"])) == row["uuid"]
        known = truth(6, case)
        assert row["subject_id"] == f"6-{known.subject:03d}"  # nobody of another seed
        for index in range(SWEEPS):
            text, ac_mm = row[f"sweep_{index + 1}_ac_mm"], known.labels[index].ac_mm
            assert (text == "") if ac_mm is None else (float(text) == ac_mm)


def test_folder_that_holds_something_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert main([str(tmp_path), "--cases", "1", "--seed", "1"]) == 1
    message = capsys.readouterr().err.strip()
    assert "new or empty folder" in message and "\n" not in message
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["out", "--cases", "0", "--seed", "1"],
        ["out", "--cases", "2", "--seed", "-1"],
        ["out", "--cases", "two", "--seed", "1"],
        ["out", "--cases", "2"],
        ["--cases", "2", "--seed", "1"],
        ["out", "--cases", "2", "--seed", "1", "--statistics"],
        ["--cases", "2", "--seed", "1", "--statistics", "--ideal-observer"],
        ["out", "--cases", "2", "--seed", "1", "--reference", "x"],
        ["out", "--cases", "2", "--seed", "1", "--workers", "0"],
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("error:") and "\n" not in message
    assert not list(tmp_path.iterdir())


def test_mha_is_read_back_by_simpleitk_and_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (3, 5, 7), np.uint8)
    write_frames(tmp_path / "a.mha", frames, Geometry.plain(0.5))
    image = sitk.ReadImage(str(tmp_path / "a.mha"))
    assert image.GetSpacing() == (0.5, 0.5, 0.5)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), frames)

    wrong: list[list[np.ndarray]] = [[], [frames[0], frames[1, :4]], [frames[0].astype(np.int16)]]
    for bad in wrong:
        with pytest.raises(ValueError, match="expected"):
            write_frames(tmp_path / "b.mha", bad, Geometry.plain(0.5))
    assert [p.name for p in tmp_path.iterdir()] == ["a.mha"]
