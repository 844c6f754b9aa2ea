"""The checker of outputs: right ones pass, and each way of being wrong is named."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import validate_output

FRAMES, ROWS, COLUMNS = 12, 8, 10  # two frames a sweep
FRAME = 5  # sweep 3
SEMI_MAJOR_MM, SEMI_MINOR_MM = 40.0, 30.0
AC_MM = 221.0  # of an ellipse with those semi-axes (exactly 221.03)
SPACING_MM = (0.28, 0.28, 0.28)
NAME = "case"


@dataclass(frozen=True)
class Case:
    """A stack with a right output and its truth; tests spoil one thing each."""

    root: Path

    @property
    def stack(self) -> Path:
        return self.root / f"input/{validate_output.INPUT_FOLDER}/{NAME}.mha"

    @property
    def mask(self) -> Path:
        return self.root / f"output/{validate_output.MASK_FOLDER}/output.mha"

    @property
    def frame_file(self) -> Path:
        return self.root / "output" / validate_output.FRAME_FILE

    @property
    def circumference_file(self) -> Path:
        return self.root / "output" / validate_output.CIRCUMFERENCE_FILE

    def change_measurement(self, **values: Any) -> None:
        found = json.loads(self.circumference_file.read_text())
        self.circumference_file.write_text(json.dumps(found | values))

    def problems(self, *, truth: bool = True) -> list[str]:
        return validate_output.validate(
            self.root / "input", self.root / "output", self.root / "truth" if truth else None
        )


def write_volume(path: Path, volume: np.ndarray, spacing: tuple[float, ...] = SPACING_MM) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))


def right_mask() -> np.ndarray:
    volume = np.zeros((FRAMES, ROWS, COLUMNS), np.uint8)
    volume[FRAME, 2:6, 3:7] = 1
    return volume


def write_truth(root: Path, quality: int = 2, sweep_3: str = "215.0") -> None:
    annotation = np.zeros((FRAMES, ROWS, COLUMNS), np.uint8)
    annotation[FRAME, 2:6, 3:7] = quality
    write_volume(root / f"masks/stacked_fetal_abdomen/{NAME}.mha", annotation)
    table = root / "circumferences/fetal_abdominal_circumferences_per_sweep.csv"
    table.parent.mkdir(exist_ok=True)
    columns = ",".join(f"sweep_{k}_ac_mm" for k in range(1, 7))
    table.write_text(f"uuid,subject_id,{columns}\n{NAME},s1,,,{sweep_3},,,\n")


@pytest.fixture
def case(tmp_path: Path) -> Case:
    case = Case(tmp_path)
    write_volume(case.stack, np.full((FRAMES, ROWS, COLUMNS), 9, np.uint8))
    write_volume(case.mask, right_mask())
    write_truth(tmp_path / "truth")
    case.frame_file.write_text(str(FRAME))
    measurement = {
        "ac_mm": AC_MM,
        "frame": FRAME,
        "sweep": 3,
        "ellipse": {
            "centre_x_px": 5.0,
            "centre_y_px": 4.0,
            "semi_major_mm": SEMI_MAJOR_MM,
            "semi_minor_mm": SEMI_MINOR_MM,
            "angle_deg": 12,
        },
        "ac_interval_mm": [AC_MM - 10, AC_MM + 10],
        "confidence": 0.9,
        "p_annotated": 0.8,
        "bundle_id": "demo-1",
    }
    case.circumference_file.write_text(json.dumps(measurement))
    return case


def test_a_right_output_passes(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert case.problems() == []
    printed = capsys.readouterr().out
    assert "frame 5 (sweep 3), AC 221.0 mm" in printed
    assert "suboptimal" in printed
    assert "reference AC: 215.0 mm, error +2.8 %" in printed


def spoil_mask(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Case], None]:
    return lambda case: write_volume(case.mask, change(right_mask()))


def with_value(frame: int, value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(volume: np.ndarray) -> np.ndarray:
        volume[frame, 3, 4] = value
        return volume

    return change


def text(name: str, content: str) -> Callable[[Case], object]:
    return lambda case: (case.root / "output" / name).write_text(content)


FRAME_FILE = validate_output.FRAME_FILE
WRONG: dict[str, tuple[Callable[[Case], object], str]] = {
    "two masks": (
        lambda case: write_volume(case.mask.with_name("other.mha"), right_mask()),
        "exactly one file",
    ),
    "no mask": (lambda case: case.mask.unlink(), "exactly one file"),
    "mask of another kind": (
        lambda case: case.mask.rename(case.mask.with_suffix(".nii")),
        "expected an .mha",
    ),
    "mask cut short": (
        lambda case: case.mask.write_bytes(case.mask.read_bytes()[:-100]),
        "expected an image",
    ),
    "signed pixels": (spoil_mask(lambda mask: mask.astype(np.int16)), "8-bit unsigned"),
    "float pixels": (spoil_mask(lambda mask: mask.astype(np.float32)), "8-bit unsigned"),
    "frame missing": (spoil_mask(lambda mask: mask[:-1]), "expected size"),
    "rows and columns exchanged": (
        spoil_mask(lambda mask: mask.transpose(0, 2, 1).copy()),
        "expected size",
    ),
    "spacing of one": (
        lambda case: write_volume(case.mask, right_mask(), (1.0, 1.0, 1.0)),
        "expected spacing",
    ),
    "value 2": (spoil_mask(with_value(FRAME, 2)), "found up to 2"),
    "another frame filled too": (spoil_mask(with_value(8, 1)), "expected only frame 5"),
    "nothing filled": (spoil_mask(np.zeros_like), "expected only frame 5"),
    "frame number missing": (lambda case: case.frame_file.unlink(), "strict JSON"),
    "frame number as text": (text(FRAME_FILE, '"5"'), "expected an integer"),
    "frame number as a float": (text(FRAME_FILE, "5.0"), "expected an integer"),
    "frame number as a truth value": (text(FRAME_FILE, "true"), "expected an integer"),
    "frame number in a list": (text(FRAME_FILE, "[5]"), "expected an integer"),
    "frame number NaN": (text(FRAME_FILE, "NaN"), "NaN is not JSON"),
    "frame number as NumPy shows it": (text(FRAME_FILE, "np.int64(5)"), "strict JSON"),
    "no frame": (text(FRAME_FILE, "-1"), "expected a frame in 0..11"),
    "frame beyond the stack": (text(FRAME_FILE, "12"), "expected a frame in 0..11"),
    "another frame": (text(FRAME_FILE, "6"), "expected only frame 6"),
    "AC NaN": (
        lambda case: case.change_measurement(ac_mm=float("nan")),
        "NaN is not JSON",
    ),
    "AC as text": (lambda case: case.change_measurement(ac_mm="221.0"), "ac_mm"),
    "AC zero": (lambda case: case.change_measurement(ac_mm=0), "ac_mm"),
    "AC missing": (lambda case: case.change_measurement(ac_mm=None), "ac_mm"),
    "frame in the measurement": (lambda case: case.change_measurement(frame=4), "frame: expected"),
    "sweep from 0": (lambda case: case.change_measurement(sweep=2), "sweep: expected 3"),
    "confidence above 1": (lambda case: case.change_measurement(confidence=1.1), "confidence"),
    "p_annotated missing": (
        lambda case: case.change_measurement(p_annotated=None),
        "p_annotated",
    ),
    "interval beside the AC": (
        lambda case: case.change_measurement(ac_interval_mm=[AC_MM + 1, AC_MM + 2]),
        "ac_interval_mm",
    ),
    "interval with one end": (
        lambda case: case.change_measurement(ac_interval_mm=[AC_MM]),
        "ac_interval_mm",
    ),
    "no bundle": (lambda case: case.change_measurement(bundle_id=""), "bundle_id"),
    "no ellipse": (lambda case: case.change_measurement(ellipse=None), "ellipse"),
    "measurement in a list": (text(validate_output.CIRCUMFERENCE_FILE, "[]"), "an object"),
    "input missing": (lambda case: case.stack.unlink(), "exactly one file"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_format_is_named(case: Case, kind: str) -> None:
    spoil, named = WRONG[kind]
    spoil(case)
    problems = case.problems(truth=False)
    assert problems
    assert any(named in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("axes", "named"),
    [
        ((2 * SEMI_MAJOR_MM, 2 * SEMI_MINOR_MM), "far from the AC"),
        ((SEMI_MINOR_MM, SEMI_MAJOR_MM), "semi-major >= semi-minor"),
        ((SEMI_MAJOR_MM, 0.0), "semi-minor > 0"),
        ((SEMI_MAJOR_MM, "30"), "finite numbers"),
    ],
)
def test_a_wrong_ellipse_is_named(case: Case, axes: tuple[Any, Any], named: str) -> None:
    ellipse = json.loads(case.circumference_file.read_text())["ellipse"]
    ellipse |= {"semi_major_mm": axes[0], "semi_minor_mm": axes[1]}
    case.change_measurement(ellipse=ellipse)
    (problem,) = case.problems(truth=False)
    assert named in problem


def test_a_frame_without_annotation_is_wrong(case: Case) -> None:
    write_truth(case.root / "truth", quality=0)
    (problem,) = case.problems()
    assert "expected an annotated frame" in problem


def test_a_sweep_without_reference_is_wrong(case: Case) -> None:
    write_truth(case.root / "truth", sweep_3="")
    (problem,) = case.problems()
    assert "expected one with a reference" in problem


@pytest.mark.parametrize(
    ("reference_mm", "is_right"),
    [(AC_MM / 1.079, True), (AC_MM / 1.081, False), (AC_MM / 0.921, True), (AC_MM / 0.919, False)],
)
def test_ac_within_eight_percent_of_the_reference(
    case: Case, reference_mm: float, is_right: bool
) -> None:
    write_truth(case.root / "truth", sweep_3=str(reference_mm))
    assert (case.problems() == []) is is_right


def test_a_truth_that_does_not_know_the_stack_is_wrong(case: Case) -> None:
    table = case.root / "truth/circumferences/fetal_abdominal_circumferences_per_sweep.csv"
    table.write_text(table.read_text().replace(NAME, "another"))
    (problem,) = case.problems()
    assert "expected the truth of case" in problem


@pytest.mark.parametrize("is_right", [True, False])
def test_the_command_says_it_by_its_exit_code(
    case: Case,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_right: bool,
) -> None:
    if not is_right:
        case.frame_file.write_text("6")
    arguments = ["--input", str(case.root / "input"), "--output", str(case.root / "output")]
    monkeypatch.setattr("sys.argv", ["validate_output.py", *arguments])
    assert validate_output.main() == (0 if is_right else 1)
    assert ("wrong: mask" in capsys.readouterr().err) is not is_right
