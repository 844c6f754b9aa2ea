"""`evaluation frames`: single frames in, figures and a sheet of pictures out."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE
from acouslic.errors import InputError
from evaluation.__main__ import main
from evaluation.frames import LabelledFrame, figures, read_frames

DEMO = Path(__file__).resolve().parents[1] / "resources" / "demo"
FAN = CHALLENGE_FAN.mask()


def disc(shape: tuple[int, int]) -> np.ndarray:
    """A disc in the middle of frames of any size, 0 or 255."""
    rows, columns = np.indices(shape)
    distance = np.hypot(rows - shape[0] / 2, columns - shape[1] / 2)
    return np.where(distance < shape[1] / 6, 255, 0).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "masks").mkdir()
    small = disc((281, 372))
    square = np.zeros((256, 256), np.uint8)
    square[:193] = disc((193, 256))
    for name, image in (("full", disc(FRAME_SHAPE)), ("small", small), ("square", square)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    cv2.imwrite(str(tmp_path / "masks" / "square_gt.png"), square)
    (tmp_path / "index.csv").write_text("file,annotated\nfull.png,1\nsmall.png,0\nsquare.png,1\n")
    return tmp_path


def test_frames_of_any_size_come_to_the_challenges(folder: Path) -> None:
    frames = read_frames(folder)
    assert [frame.annotated for frame in frames] == [True, False, True]
    expected = (disc(FRAME_SHAPE) > 127) & FAN
    for frame in frames:
        assert frame.pixels.shape == FRAME_SHAPE and not frame.pixels[~FAN].any()
        assert (((frame.pixels > 127) != expected) & FAN).mean() < 0.01
    assert frames[0].mask is None
    assert frames[2].mask is not None and (frames[2].mask != expected).mean() < 0.01


def test_figures_count_what_is_missed_and_what_is_seen_too_much() -> None:
    mask, empty = disc(FRAME_SHAPE) > 0, np.zeros(FRAME_SHAPE, bool)
    rng = np.random.default_rng(0)

    def frame(name: str, case: str, true: np.ndarray | None, *, annotated: bool) -> LabelledFrame:
        pixels = rng.integers(0, 255, FRAME_SHAPE, dtype=np.uint8)
        return LabelledFrame(name, case, pixels, annotated, true)

    frames = [
        frame("a", "one", mask, annotated=True),
        frame("b", "one", mask, annotated=True),
        frame("c", "two", mask, annotated=True),
        frame("d", "three", None, annotated=False),
    ]
    masks = np.stack([mask, empty, mask, mask])
    result = figures(frames, masks, np.array([0.9, 0.8, 0.3, 0.5]))
    assert result["dice"] == {"one": 0.5, "two": 1.0} and result["mean_dice"] == 0.75
    assert (result["annotated"], result["empty_on_annotated"]) == (3, 1)
    assert (result["others"], result["masks_on_others"]) == (1, 1)
    assert result["roc_area"] == pytest.approx(2 / 3)


def test_the_command_writes_figures_and_a_sheet(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    command = ["frames", str(folder), "--model", str(DEMO), "--output", str(output)]
    assert main(command) == 0
    assert "Dice" in capsys.readouterr().out
    result = json.loads((output / "frames.json").read_text())
    assert result["annotated"] == 2 and set(result["dice"]) == {"square"}
    assert cv2.imread(str(output / "frames.png")) is not None
    assert main(command) == 0  # its own files may be replaced


@pytest.mark.parametrize(
    ("index", "said"),
    [(None, "no such file"), ("a,b\n1,2\n", "a, b"), ("file,annotated\nno.png,1\n", "no.png")],
)
def test_a_folder_that_is_none_is_one_clear_error(
    tmp_path: Path, index: str | None, said: str
) -> None:
    if index is not None:
        (tmp_path / "index.csv").write_text(index)
    with pytest.raises(InputError, match=said):
        read_frames(tmp_path)
