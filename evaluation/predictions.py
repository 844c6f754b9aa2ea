"""Finding and reading predictions: the platform's evaluation input, or one folder a case.

Platform: predictions.json, and <pk>/output/<relative path> for every job in it.
Plain:    <uuid>/ with what inference.py writes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acouslic.challenge import (
    CIRCUMFERENCE_FILE,
    FRAME_FILE,
    FRAME_SLUG,
    MASK_FOLDER,
    MASK_SLUG,
    SPACING_MM,
    SPACING_TOLERANCE_MM,
    STACK_SLUG,
)
from acouslic.errors import AcouslicError, InputError
from acouslic.files import read_json
from acouslic.metaimage import PixelTypeError
from acouslic.stack import require_inside
from dataset.labels import Labels, read_labels

JOBS_FILE = "predictions.json"
# What `run` writes beside a case's answer: every frame's score.
SCORES_FILE = "frame_scores.json"
# The image files that the official tool looks for. A volume has to be an .mha on the platform.
IMAGE_PATTERNS = ("*.mha", "*.tiff")
# Larger numbers than any count of frames need not be printed.
MOST_FRAME = 2**31
# The files of an answer but for its mask have some 600 bytes.
MOST_ANSWER_BYTES = 1 << 16
MOST_QUOTED = 60
# What our answers say of themselves, in a file beside the challenge's own.
CLAIMS = ("confidence", "p_annotated", "ac_interval_mm")


class PredictionError(AcouslicError):
    """A case's prediction is missing or broken."""


@dataclass(frozen=True)
class PredictionFiles:
    """Where a case's answer lies."""

    case: str
    """The case's name, its stack's file without .mha."""
    mask_folder: Path
    """The folder of the mask volume, the only image in it."""
    frame_path: Path
    """The file with the chosen frame's number."""
    folder: Path
    """The folder that none of the files may lie outside of, by a link either."""
    problem: str | None = None
    """Why the list of jobs does not say where the answer lies; None where it does."""

    @classmethod
    def plain(cls, folder: Path) -> "PredictionFiles":
        """Those of a folder <uuid> that holds what inference.py writes."""
        return cls(folder.name, folder / MASK_FOLDER, folder / FRAME_FILE, folder.parent)


@dataclass(frozen=True)
class Prediction:
    """A case's answer."""

    frame: int
    """The chosen frame, from 0; -1 where there is none."""
    mask: np.ndarray
    """(H, W), that frame's mask of 0 and 1; zeros where the frame is not in the stack."""
    warnings: tuple[str, ...]
    """What the official tool lets pass and a reviewer wants to know."""
    claims: Mapping[str, Any]
    """What the answer says of itself, by CLAIMS; None for what it does not say."""


def find_predictions(folder: Path) -> dict[str, PredictionFiles]:
    """Find all predictions below a folder, in either layout.

    Returns:
        Where they lie, by case.

    Raises:
        InputError: there is none, the list of jobs cannot be read, or two jobs answer one case.
    """
    listed = (folder / JOBS_FILE).is_file()
    answers = _listed_jobs(folder) if listed else _plain_folders(folder)
    if not answers:
        raise InputError(
            expected=f"{JOBS_FILE}, or a folder <uuid> a case, in {folder}",
            found="neither",
            advice="give the platform's evaluation input or what `python -m evaluation run` wrote",
        )
    by_case = {answer.case: answer for answer in answers}
    for answer in answers:
        if by_case[answer.case] is not answer:
            raise InputError(
                expected=f"one prediction for case {answer.case}",
                found=f"several in {folder / JOBS_FILE}",
                advice="keep one job a case",
            )
    return by_case


def read_prediction(files: PredictionFiles, shape: tuple[int, ...]) -> Prediction:
    """Read and check a case's answer.

    Args:
        files: where it lies.
        shape: (T, H, W) of the case's truth.

    Returns:
        The answer.

    Raises:
        PredictionError: it is missing or not of the challenge's form; names the case.
    """
    if files.problem is not None:
        raise _broken(files, "a job with its outputs", files.problem)
    frame = _read_frame(files)
    path = _mask_file(files)
    try:
        require_inside(path, files.folder)
        volume = read_labels(path, shape)
    except PixelTypeError as error:
        wanted = "a mask of 8 bit, as the platform refuses any other segmentation"
        raise _broken(files, wanted, str(error)) from error
    except InputError as error:
        raise _broken(files, "a mask volume that can be read", str(error)) from error
    if not all(np.isin(mask, (0, 1)).all() for mask in volume.frames.values()):
        values = np.unique(np.stack(list(volume.frames.values())))
        raise _broken(files, "a mask of 0 and 1", f"the values {values[:5].tolist()} in {path}")
    warnings = tuple(_oddities(frame, volume))
    return Prediction(frame, volume.frame(frame), warnings, _read_claims(files))


def _read_claims(files: PredictionFiles) -> dict[str, Any]:
    """The claims of an answer of ours; None for all of them in any other answer."""
    nothing = dict.fromkeys(CLAIMS)
    try:
        described = _read_small(files, files.frame_path.with_name(CIRCUMFERENCE_FILE.name))
        claims = {name: described[name] for name in CLAIMS}
        low, high = claims["ac_interval_mm"]
        numbers = (claims["confidence"], claims["p_annotated"], low, high)
    except (InputError, ValueError, KeyError, TypeError):
        return nothing
    is_sound = all(isinstance(number, float) and math.isfinite(number) for number in numbers)
    return claims if is_sound and all(0 <= number <= 1 for number in numbers[:2]) else nothing


def _oddities(frame: int, volume: Labels) -> list[str]:
    """The warnings about an answer that can be scored."""
    warnings = []
    if not 0 <= frame < volume.n_frames:
        ends = "" if frame == -1 else "; the official tool fails on it"
        warnings.append(f"frame {frame} is not in the stack: scored as an empty mask{ends}")
    elif frame not in volume.frames:
        warnings.append(f"the mask of the chosen frame {frame} is empty")
    others = len(volume.frames.keys() - {frame})
    if others:
        warnings.append(f"the mask is filled on {others} frames besides the chosen one: ignored")
    if any(abs(step - SPACING_MM) > SPACING_TOLERANCE_MM for step in volume.spacing_mm[:2]):
        warnings.append(
            f"the mask's spacing is {volume.spacing_mm[0]:g} x {volume.spacing_mm[1]:g} mm: "
            f"measured with {SPACING_MM} mm, as the official tool does"
        )
    return warnings


def _read_frame(files: PredictionFiles) -> int:
    try:
        frame = _read_small(files, files.frame_path)
    except InputError as error:
        raise _broken(files, "a frame number", str(error)) from error
    if not isinstance(frame, int) or isinstance(frame, bool) or abs(frame) > MOST_FRAME:
        raise _broken(files, "one integer", f"{str(frame)[:40]!r} in {files.frame_path}")
    return frame


def _read_small(files: PredictionFiles, path: Path) -> Any:
    """The JSON of one of an answer's small files."""
    require_inside(path, files.folder)
    return read_json(path, most_bytes=MOST_ANSWER_BYTES)


def _mask_file(files: PredictionFiles) -> Path:
    paths = [path for name in IMAGE_PATTERNS for path in sorted(files.mask_folder.glob(name))]
    if len(paths) != 1:
        raise _broken(files, "exactly one .mha", f"{len(paths)} images in {files.mask_folder}")
    return paths[0]


def _plain_folders(folder: Path) -> list[PredictionFiles]:
    cases = sorted(path for path in folder.glob("[!.]*") if path.is_dir())
    return [PredictionFiles.plain(path) for path in cases]


def _listed_jobs(folder: Path) -> list[PredictionFiles]:
    path = folder / JOBS_FILE
    try:
        require_inside(path, folder)
        jobs = read_json(path)
        return [_job_files(folder, job) for job in jobs]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            expected=f"a list of jobs with pk, inputs and outputs in {path}",
            found=f"{type(error).__name__} ({error})",
            advice="give the file as the platform makes it",
        ) from error


def _job_files(folder: Path, job: Mapping[str, Any]) -> PredictionFiles:
    output = folder / _path_below(str(job["pk"])) / "output"
    case = Path(_value_of(job["inputs"], STACK_SLUG)["image"]["name"]).stem
    try:
        mask, frame = (_value_of(job["outputs"], slug) for slug in (MASK_SLUG, FRAME_SLUG))
    except KeyError as error:
        return PredictionFiles(case, output, output, folder, f"no output {error}")
    return PredictionFiles(
        case=case,
        mask_folder=output / _path_below(_socket(mask)["relative_path"]),
        frame_path=output / _path_below(_socket(frame)["relative_path"]),
        folder=folder,
    )


def _path_below(text: str) -> Path:
    """A path that leads into a folder and not out of it.

    Raises:
        ValueError: it may lead out.
    """
    path = Path(text)
    if path.is_absolute() or ".." in path.parts or not path.parts or not text.isprintable():
        raise ValueError(f"the path {text[:MOST_QUOTED]!r}, which may lead out of the folder")
    return path


def _value_of(values: Sequence[Mapping[str, Any]], slug: str) -> Mapping[str, Any]:
    for value in values:
        if _socket(value)["slug"] == slug:
            return value
    raise KeyError(slug)


def _socket(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The platform calls it `socket` since 2025 and `interface` before."""
    socket: Mapping[str, Any] = value["socket"] if "socket" in value else value["interface"]
    return socket


def _broken(files: PredictionFiles, expected: str, found: str) -> PredictionError:
    return PredictionError(
        expected=f"for case {files.case} {expected}",
        found=found,
        advice="run the case again, or score it as the worst with --allow-missing",
    )
