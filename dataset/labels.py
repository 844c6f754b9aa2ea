"""Label volumes: only their few frames that are not empty are kept.

A stack's labels are 351 MB, in which a few frames are not zero. Read a frame at a time and never
held whole, they cost a tenth of the time and of the memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from acouslic.challenge import LABELS, SWEEPS, Quality, quality_of_labels
from acouslic.errors import InputError
from acouslic.metaimage import read_filled_frames, read_header


@dataclass(frozen=True)
class Labels:
    """The labels of a stack."""

    n_frames: int
    """Frames of the stack."""
    frame_shape: tuple[int, int]
    """Rows and columns of each."""
    frames: Mapping[int, np.ndarray]
    """(H, W) labels of the frames that are not empty, by index."""
    spacing_mm: tuple[float, ...] = ()
    """Spacing in the order x, y, frames; empty where it is not known."""

    @classmethod
    def from_volume(cls, volume: np.ndarray, spacing_mm: tuple[float, ...] = ()) -> "Labels":
        """Make them of a whole (T, H, W) array."""
        filled = np.flatnonzero(volume.any(axis=(1, 2))).tolist()
        return cls(
            len(volume), volume.shape[1:], {frame: volume[frame] for frame in filled}, spacing_mm
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, H, W)."""
        return (self.n_frames, *self.frame_shape)

    @cached_property
    def filled(self) -> np.ndarray:
        """(T,) bool: the frames that are not empty."""
        filled = np.zeros(self.n_frames, bool)
        filled[list(self.frames)] = True
        return filled

    def frame(self, index: int) -> np.ndarray:
        """One frame's labels, (H, W); zeros where it is empty, or not in the volume."""
        return self.frames.get(index, np.zeros(self.frame_shape, np.uint8))

    def quality_of(self, frame: int) -> Quality:
        """How well a frame suits the measurement; one that mixes labels counts as the better."""
        return self._qualities.get(frame, Quality.NONE)

    @cached_property
    def _qualities(self) -> Mapping[int, Quality]:
        """Of the frames that are not empty; the metrics ask for each many times."""
        return {frame: _quality(labels) for frame, labels in self.frames.items()}

    def quality(self) -> np.ndarray:
        """The quality of every frame, (T,) uint8."""
        quality = np.zeros(self.n_frames, np.uint8)
        for frame, value in self._qualities.items():
            quality[frame] = value
        return quality

    def problems(self) -> list[str]:
        """What no annotation of the challenge has, a line each: other labels, or two in a frame."""
        values = {frame: set(np.unique(labels).tolist()) for frame, labels in self.frames.items()}
        strange = [frame for frame, present in values.items() if not present <= {0, *LABELS}]
        mixed = [frame for frame, present in values.items() if present >= set(LABELS)]
        lines = []
        if strange:
            lines.append(f"the mask has labels other than 0, 1, 2 on frames {_some(strange)}")
        if mixed:
            lines.append(f"the mask mixes optimal and suboptimal on frames {_some(mixed)}")
        return lines

    def sweep_of(self, frame: int) -> int | None:
        """The 1-based sweep that holds a frame, None outside of the volume."""
        if not 0 <= frame < self.n_frames:
            return None
        return frame // (self.n_frames // SWEEPS) + 1


def read_labels(path: Path, shape: tuple[int, ...] | None = None) -> Labels:
    """Read a label volume, a frame at a time.

    Args:
        path: the .mha file.
        shape: (T, H, W) that it must have; None takes any of six equal sweeps.

    Raises:
        InputError: the file cannot be read, is damaged, or is no such volume.
    """
    header = read_header(path)
    if len(header.shape) != 3 or header.shape[0] % SWEEPS:
        raise InputError(
            expected=f"labels (frames, rows, columns) of {SWEEPS} equal sweeps in {path}",
            found=f"shape {header.shape}",
            advice="give one label a pixel for all frames of the stack",
        )
    if shape not in (None, header.shape):
        raise InputError(
            expected=f"labels of shape {shape}",
            found=f"{header.shape} in {path}",
            advice="give the labels of this stack",
        )
    n_frames, rows, columns = header.shape
    frames = read_filled_frames(path, header)
    return Labels(n_frames, (rows, columns), frames, header.geometry.spacing_mm)


def _quality(labels: np.ndarray) -> Quality:
    """The best quality in a frame's labels (H, W)."""
    present = [label for label in LABELS if (labels == label).any()]
    return Quality(quality_of_labels(np.array([0, *present])).max())


def _some(frames: list[int]) -> str:
    return ", ".join(map(str, frames[:5])) + (" ..." if len(frames) > 5 else "")
