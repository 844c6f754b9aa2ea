"""Looks of phantoms: the same numbers give the same stack, and figures like real frames'."""

import hashlib
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE, FRAMES_PER_SWEEP
from acouslic.errors import InputError
from phantom.__main__ import main
from phantom.appearance import RANDOM, REALISTIC, sample_appearance
from phantom.compare import contrast, measures, read_shots
from phantom.device import LEVELS, NEVER
from phantom.fields import Course, speckle
from phantom.look import Look
from phantom.render import Renderer
from phantom.speckle import SAMPLES
from phantom.styled import sample_clothes
from phantom.truth import truth

HASH = """
import hashlib
from phantom.look import Look
from phantom.render import Renderer
from phantom.truth import truth
frames = Renderer(truth(9, 2), Look.{look}).frames([20, 300, 700])
print(hashlib.sha256(frames.tobytes()).hexdigest())
"""


@pytest.mark.parametrize("look", [Look.REALISTIC, Look.RANDOM])
def test_frames_do_not_depend_on_process_or_on_which_others_are_rendered(look: Look) -> None:
    known = truth(9, 2)
    frames = Renderer(known, look).frames([20, 300, 700])
    np.testing.assert_array_equal(Renderer(known, look).frame(300), frames[1])
    code = HASH.format(look=look.name)
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == hashlib.sha256(frames.tobytes()).hexdigest()


def test_a_mixed_case_is_realistic_or_random_by_its_own_numbers() -> None:
    looks = [Look.MIXED.of_case(4, case) for case in range(200)]
    assert looks == [Look.MIXED.of_case(4, case) for case in range(200)]
    assert set(looks) == {Look.REALISTIC, Look.RANDOM}
    assert 0.4 < np.mean([look is Look.RANDOM for look in looks]) < 0.6
    known = truth(4, 0)
    index = int(np.flatnonzero(known.tissue())[50])
    np.testing.assert_array_equal(
        Renderer(known, Look.MIXED).frame(index), Renderer(known, looks[0]).frame(index)
    )


@pytest.mark.parametrize("look", [Look.REALISTIC, Look.RANDOM])
def test_frames_have_the_fan_and_the_devices_levels(look: Look) -> None:
    known, fan = truth(5, 4), CHALLENGE_FAN.mask()
    renderer = Renderer(known, look)
    for index in (15, 200, 500):
        frame = renderer.frame(index)
        assert frame.shape == FRAME_SHAPE and frame.dtype == np.uint8
        assert not frame[~fan].any() and frame[fan].any()
        assert not np.isin(frame, NEVER).any()
    assert not renderer.frame(FRAMES_PER_SWEEP - 1).any()  # the sweep is padded with black


def test_the_devices_lookup_is_convex() -> None:
    assert (np.diff(LEVELS) >= 0).all() and LEVELS[0] == 0 and LEVELS[-1] == 255
    steps = [np.diff(part.astype(float)).mean() for part in np.array_split(LEVELS, 4)]
    assert steps == sorted(steps)


def test_heads_are_told_apart_from_trunks_even_at_random() -> None:
    for case in range(12):
        known = truth(8, case)
        rng = np.random.default_rng(case)
        look = sample_appearance(rng, RANDOM, known.haze)
        clothes = sample_clothes(rng, look, known.scene)
        parts = known.scene.fetus.before_trunk
        (skull,) = [i for i, part in enumerate(parts) if part.name == "skull"]
        material = clothes.before_trunk[skull]
        assert material.shell is not None and material.shell.echo_db >= 17
        for inside in clothes.before_trunk[skull:]:
            assert inside.echo_db <= clothes.trunk.echo_db


def test_random_is_wider_than_realistic_in_every_number() -> None:
    assert list(RANDOM) == list(REALISTIC)
    for name, (low, high) in REALISTIC.items():
        assert RANDOM[name].low <= low and high <= RANDOM[name].high, name


def test_speckle_belongs_to_the_tissue() -> None:
    """It stays while the probe stays, and is another one a few millimetres on."""
    field = speckle(np.random.default_rng(1), 2.0, 1.0)
    way_mm = np.array([0.0, 0.0, 0.4, 40 * 2.0 / 9])  # after eight keys it would come again
    course = Course(
        elevation_mm=np.repeat(way_mm[:, None], SAMPLES, axis=1),
        lines=np.zeros(4),
        rows=np.zeros(4),
    )
    first, same, near, far = (field.at(course, frame).ravel() for frame in range(4))
    np.testing.assert_array_equal(first, same)
    assert np.corrcoef(first, near)[0, 1] > 0.9
    assert abs(np.corrcoef(first, far)[0, 1]) < 0.1
    assert first.std() == pytest.approx(1, abs=0.05) and near.std() == pytest.approx(1, abs=0.05)


def test_figures_of_realistic_phantoms_are_near_those_of_real_frames() -> None:
    """The bounds hold the medians of six real frames; plain phantoms fail most of them."""
    rows: dict[str, list[float]] = {}
    for case in range(6):
        known = truth(12, case)
        renderer, rng = Renderer(known, Look.REALISTIC), np.random.default_rng(case)
        for index in rng.choice(np.flatnonzero(known.tissue()), 2, replace=False):
            for name, value in measures(renderer.frame(int(index))).items():
                rows.setdefault(name, []).append(value)
    medians = {name: float(np.nanmedian(values)) for name, values in rows.items()}
    assert 20 < medians["mean"] < 45
    assert 95 < medians["99th percentile"] < 145
    assert medians["skewness, 4-16 px"] > 0.6
    assert 2.5 < medians["SD of the finest, mean 5-15"] < 4.3
    assert 7.8 < medians["SD of the finest, mean 60-110"] < 11.5
    assert 45 < medians["gradient energy, vertical"] < 100
    assert 120 < medians["gradient energy of the skin"] < 280
    far, near = (medians[f"half width across, {x}, degrees"] for x in ("far", "near"))
    assert 0.85 < far / near < 1.1


def test_contrast_is_that_of_the_two_sides_of_the_outline() -> None:
    rows, columns = np.indices(FRAME_SHAPE)
    mask = np.hypot(rows - 300, columns - 372) < 90
    gray = np.where(mask, 90, 30).astype(np.uint8)
    assert contrast(gray, mask) == pytest.approx(0.5)
    assert contrast(np.full(FRAME_SHAPE, 40, np.uint8), mask) == pytest.approx(0)


def test_frames_of_a_folder_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The phantoms' own frames lie within their range; a panel serves where its size allows."""
    renderer = Renderer(truth(3, 0))
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "full_a.png"), renderer.frame(30))
    cv2.imwrite(str(tmp_path / "square.png"), np.zeros((200, 200), np.uint8))
    mask = np.zeros((200, 200), np.uint8)
    mask[50:100, 60:120] = 255
    cv2.imwrite(str(tmp_path / "masks" / "square_gt.png"), mask)
    for number in (60, 61, 65):
        small = cv2.resize(renderer.frame(number), (216, 163), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(tmp_path / f"small_t{number:03d}.png"), small)
    assert main(["--compare", str(tmp_path), "--cases", "1", "--seed", "3"]) == 0
    table = capsys.readouterr().out
    assert "| mean | " in table and " rows (" in table
    assert "contrast along the outline | 0 (1)" in table  # the black square's
    assert "| fine correlation, lag 1 | " in table and "(1)" in table
    square = next(shot for shot in read_shots(tmp_path) if shot.name == "square")
    assert square.gray.shape == (151, 200) and square.mask is not None


def test_a_folder_without_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="PNG"):
        read_shots(tmp_path)
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(InputError, match="image"):
        read_shots(tmp_path)
    assert main(["--compare", str(tmp_path), "--cases", "1", "--seed", "3"]) == 1
