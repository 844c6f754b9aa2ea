"""`frames`: a bundle on single frames, such as papers and notebooks show, with their labels.

index.csv            columns `file`, `annotated` (1 or 0) and, where several are of a stack, `case`
<file>               a frame: an image of any size, padded below to a square or not
masks/<stem>_gt.png  the abdomen on it, where it is known

Nothing here is a score of the challenge: a few frames tell whether a network sees abdomens at all.
"""

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from acouslic import files
from acouslic.bundle import load_bundle
from acouslic.challenge import CHALLENGE_FAN, COLUMNS, ROWS, Quality
from acouslic.engine import Engine, choose_device
from acouslic.errors import InputError
from acouslic.preprocess import to_grid
from acouslic.segment import full_size, predict
from evaluation import style
from evaluation.options import FramesOptions
from evaluation.reliability import roc_area

INDEX, MASK_FOLDER, MASK_SUFFIX = "index.csv", "masks", "_gt.png"
RESULT, SHEET = "frames.json", "frames.png"
MARK = '"trivial_roc_area"'
# A picture of at most this ratio of width to height was padded to a square.
SQUARE_RATIO = 1.1
# A mask of less than this share of the fan is called empty: 20 mm across.
EMPTY_SHARE = 0.01
SHEET_COLUMNS = 6


@dataclass(frozen=True)
class LabelledFrame:
    """One frame of the folder, at the challenge's size."""

    name: str
    """Its file's name without the extension."""
    case: str
    """The stack it is of, or its own name."""
    pixels: np.ndarray
    """(H, W) uint8, 0 outside the fan."""
    annotated: bool
    """Whether an annotator chose it."""
    mask: np.ndarray | None
    """(H, W) bool inside the fan, or None where it is not known."""


def judge_frames(options: FramesOptions) -> str:
    """Judge a bundle on a folder of frames, and write figures and a sheet of pictures.

    Returns:
        The figures as text for people.

    Raises:
        InputError: the folder has no index, or a file that it names is missing or no image.
        OutputError: a file that is to be written is somebody else's.
    """
    result_file, sheet_file = options.output / RESULT, options.output / SHEET
    files.refuse_foreign_file(result_file, MARK, "figures of frames")
    files.refuse_foreign_file(sheet_file, style.PNG_MARK, "a sheet of frames")
    frames = read_frames(options.folder)
    bundle = load_bundle(options.model, choose_device(options.device))
    size = bundle.config.network.trunk.image_size
    masks, p_annotated = outline(bundle.engine, size, np.stack([frame.pixels for frame in frames]))
    result = {"bundle_id": bundle.id, **figures(frames, masks, p_annotated)}
    options.output.mkdir(parents=True, exist_ok=True)
    files.write_json(result_file, result)
    style.write_png(sheet(frames, masks, p_annotated), sheet_file)
    return describe(result)


def read_frames(folder: Path) -> list[LabelledFrame]:
    """Read the frames that a folder's index names.

    Raises:
        InputError: see `judge_frames`.
    """
    index = folder / INDEX
    if not index.is_file():
        raise InputError(
            expected=f"{INDEX} with the columns file and annotated in {folder}",
            found="no such file",
            advice="write one line a frame",
        )
    with index.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    if not rows or not {"file", "annotated"} <= rows[0].keys():
        raise InputError(
            expected=f"the columns file and annotated in {index}",
            found=", ".join(rows[0]) if rows else "no rows",
            advice="write one line a frame",
        )
    return [_read_frame(folder, row) for row in rows]


def _read_frame(folder: Path, row: dict[str, str]) -> LabelledFrame:
    path = folder / row["file"]
    mask_path = folder / MASK_FOLDER / f"{path.stem}{MASK_SUFFIX}"
    mask = read_image(mask_path, is_mask=True) > 0 if mask_path.is_file() else None
    return LabelledFrame(
        name=path.stem,
        case=row.get("case") or path.stem,
        pixels=read_image(path),
        annotated=row["annotated"] == "1",
        mask=mask,
    )


def read_image(path: Path, *, is_mask: bool = False) -> np.ndarray:
    """Read a picture of a frame.

    Args:
        path: an image of any size, padded below to a square or not.
        is_mask: whether it holds labels, which are not mixed.

    Returns:
        Grey levels at the challenge's size, (H, W) uint8, 0 outside the fan.

    Raises:
        InputError: it is no image.
    """
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise InputError(
            expected=f"an image {path}",
            found="none that can be read",
            advice="mend the index, or take the file away",
        )
    rows, columns = image.shape
    if columns < SQUARE_RATIO * rows:
        image = image[: round(rows * ROWS / COLUMNS)]
    grows = columns < COLUMNS
    smooth = cv2.INTER_LINEAR if grows else cv2.INTER_AREA
    way = cv2.INTER_NEAREST if is_mask else smooth
    resized = cv2.resize(image, (COLUMNS, ROWS), interpolation=way)
    return np.asarray(resized * CHALLENGE_FAN.mask())


def outline(engine: Engine, size: int, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What networks see on frames.

    Args:
        engine: what computes them.
        size: side of the frames that they take, in pixels.
        frames: (N, H, W) uint8.

    Returns:
        Masks (N, H, W) bool, and the quality head's probability that a frame is annotated, (N,).
    """
    prediction = predict(engine, to_grid(frames, size), np.ones(len(frames), bool))
    fan = CHALLENGE_FAN.mask()
    masks = np.stack([(full_size(prediction, k) > 0) & fan for k in range(len(frames))])
    return masks, 1 - prediction.quality[:, Quality.NONE]


def figures(
    frames: Sequence[LabelledFrame], masks: np.ndarray, p_annotated: np.ndarray | None
) -> dict[str, Any]:
    """Count what masks and qualities are worth on the frames.

    Args:
        frames: N frames.
        masks: (N, H, W) bool, the predicted ones.
        p_annotated: (N,), see `outline`; None for networks that rate no frame yet.

    Returns:
        Dice of each case whose mask is known, and their mean; how many annotated frames have an
        empty mask, and how many others have one that is not; the ROC area of `p_annotated`, and
        that of minus SD / mean of the grey levels in the fan, which needs no network at all.
    """
    fan = CHALLENGE_FAN.mask()
    annotated = np.array([frame.annotated for frame in frames])
    empty = masks[:, fan].mean(axis=1) < EMPTY_SHARE
    grey = np.stack([frame.pixels[fan] for frame in frames]).astype(float)
    evenness = -grey.std(axis=1) / np.maximum(grey.mean(axis=1), 1)
    by_case: dict[str, list[float]] = defaultdict(list)
    for frame, mask in zip(frames, masks, strict=True):
        if frame.mask is not None:
            by_case[frame.case].append(_dice(mask, frame.mask))
    dice = {case: float(np.mean(values)) for case, values in sorted(by_case.items())}
    return {
        "annotated": int(annotated.sum()),
        "empty_on_annotated": int((empty & annotated).sum()),
        "others": int((~annotated).sum()),
        "masks_on_others": int((~empty & ~annotated).sum()),
        "dice": dice,
        "mean_dice": float(np.mean(list(dice.values()))) if dice else None,
        "roc_area": None if p_annotated is None else roc_area(p_annotated, annotated),
        "trivial_roc_area": roc_area(evenness, annotated),
    }


def describe(result: dict[str, Any]) -> str:
    """The figures in a few lines."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    lines = [
        f"{result['annotated']} annotated frames, {result['empty_on_annotated']} of empty mask",
        f"{result['others']} others, {result['masks_on_others']} with a mask",
        *(f"Dice {number(value)}  {case}" for case, value in result["dice"].items()),
        f"Dice {number(result['mean_dice'])}  mean by case",
        f"ROC area {number(result['roc_area'])} for annotated; of minus SD / mean, which sees "
        f"nothing, {number(result['trivial_roc_area'])}",
    ]
    return "\n".join(lines)


def sheet(
    frames: Sequence[LabelledFrame], masks: np.ndarray, p_annotated: np.ndarray | None
) -> Figure:
    """All frames with the predicted outline and, where it is known, the true one.

    Arguments as those of `figures`.
    """
    rows = -(-len(frames) // SHEET_COLUMNS)
    ratings = [""] * len(frames) if p_annotated is None else [f", P {p:.2f}" for p in p_annotated]
    with style.styled():
        figure = Figure(figsize=(2.6 * SHEET_COLUMNS, 2.45 * rows), layout="constrained")
        axes = figure.subplots(rows, SHEET_COLUMNS, squeeze=False).ravel()
        for ax in axes:
            ax.set_axis_off()
        for ax, frame, mask, rating in zip(axes, frames, masks, ratings, strict=False):
            ax.imshow(frame.pixels, cmap="gray", vmin=0, vmax=255)
            for known, colour in (
                (frame.mask, style.TRUE_ON_BLACK),
                (mask, style.PREDICTED_ON_BLACK),
            ):
                if known is not None and known.any():
                    ax.contour(known, levels=[0.5], colors=[colour], linewidths=1.2)
            label = "annotated" if frame.annotated else "not annotated"
            ax.set_title(f"{frame.name}\n{label}{rating}", fontsize=7)
    return figure


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / max(1, one.sum() + other.sum()))
