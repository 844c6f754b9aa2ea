"""The frames of a case and their annotation: its truth, made visible."""

from collections.abc import Iterable

import cv2
import numpy as np

from acouslic.challenge import (
    CHALLENGE_FAN,
    FRAME_SHAPE,
    FRAMES,
    FRAMES_PER_SWEEP,
    Quality,
    labels_of_quality,
)
from phantom.appearance import RANDOM, REALISTIC, sample_appearance
from phantom.canvas import ANGLES_DEG
from phantom.chance import Range, Stream, stream
from phantom.device import Device, sample_streaks
from phantom.fields import course_of
from phantom.look import Look
from phantom.machine import sample_machine
from phantom.mother import BEYOND_DB, sample_wall
from phantom.styled import StyledTissue, sample_clothes
from phantom.tissue import SweepTissue, sample_texture
from phantom.truth import Truth
from phantom.ultrasound import Picture


class Renderer:
    """Renders single frames of one case; a frame does not depend on which others are rendered."""

    def __init__(self, truth: Truth, look: Look = Look.PLAIN) -> None:
        """Draw all that the frames of a case share.

        Args:
            truth: the case's.
            look: how it is rendered; a case of a site always looks as the site does.
        """
        # One thread: cases are spread over processes, and threads would fight for the same cores.
        cv2.setNumThreads(1)
        self._truth = truth
        of_case = look.of_case(truth.seed, truth.case)
        if truth.site is not None:
            self._shown: _Plain | _Styled = _Styled(truth, truth.site.table())
        elif of_case is Look.PLAIN:
            self._shown = _Plain(truth)
        else:
            self._shown = _Styled(truth, REALISTIC if of_case is Look.REALISTIC else RANDOM)

    def frame(self, index: int) -> np.ndarray:
        """Frame `index` of the stack, (562, 744) uint8; zero where the stack is padded."""
        sweep, at = divmod(index, FRAMES_PER_SWEEP)
        if at >= len(self._truth.sweeps[sweep]):
            return np.zeros(FRAME_SHAPE, np.uint8)
        contact = self._truth.sweeps[sweep].contact
        gain_db = contact.gain_db(np.array([at]), ANGLES_DEG[None])[0]
        return self._shown.frame(sweep, at, gain_db)

    def frames(self, indices: Iterable[int] | None = None) -> np.ndarray:
        """Frames of the stack, (N, 562, 744) uint8; all of them by default."""
        chosen = range(FRAMES) if indices is None else list(indices)
        out = np.zeros((len(chosen), *FRAME_SHAPE), np.uint8)
        for place, index in enumerate(chosen):
            out[place] = self.frame(index)
        return out


class _Plain:
    """The plain look of one case."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        rng = stream(truth.seed, truth.case, Stream.PICTURE)
        self._picture = Picture(rng, sample_machine(rng, truth.haze))
        texture = sample_texture(rng)
        wall = sample_wall(rng, truth.scene.subject.mother)
        beyond_db = rng.uniform(*BEYOND_DB)
        self._tissue = [
            SweepTissue(sweep.scene, sweep.planes, texture, wall, beyond_db)
            for sweep in truth.sweeps
        ]

    def frame(self, sweep: int, at: int, gain_db: np.ndarray) -> np.ndarray:
        echo, attenuation = self._tissue[sweep].grids(at)
        # The stream without a further number is the scan's, so frames count from 1.
        index = sweep * FRAMES_PER_SWEEP + at + 1
        rng = stream(self._truth.seed, self._truth.case, Stream.PICTURE, index)
        return self._picture.frame(rng, echo, attenuation, gain_db)


class _Styled:
    """The realistic or the random look of one case, or a site's."""

    def __init__(self, truth: Truth, table: dict[str, Range]) -> None:
        self._truth = truth
        rng = stream(truth.seed, truth.case, Stream.STYLE)
        appearance = sample_appearance(rng, table, truth.haze)
        texture = sample_texture(rng)
        wall = sample_wall(rng, truth.scene.subject.mother)
        beyond_db = rng.uniform(*BEYOND_DB)
        clothes = sample_clothes(rng, appearance, truth.scene)
        self._device = Device(rng, appearance)
        self._tissue = [
            StyledTissue(s.scene, s.planes, texture, wall, beyond_db, appearance, clothes)
            for s in truth.sweeps
        ]
        self._courses = [course_of(s.planes) for s in truth.sweeps]
        self._streaks = [sample_streaks(rng, appearance, len(s)) for s in truth.sweeps]

    def frame(self, sweep: int, at: int, gain_db: np.ndarray) -> np.ndarray:
        index = sweep * FRAMES_PER_SWEEP + at + 1
        rng = stream(self._truth.seed, self._truth.case, Stream.STYLE, index)
        canvas, streaks_db = self._tissue[sweep].styled(at), self._streaks[sweep][at]
        return self._device.frame(rng, canvas, self._courses[sweep], at, gain_db, streaks_db)


def mask_frame(truth: Truth, index: int) -> np.ndarray:
    """The annotation of frame `index`, clipped by the fan.

    Returns:
        (562, 744) uint8: the challenge's label inside the outline, 0 elsewhere.
    """
    quality = truth.quality()[index]
    if quality == Quality.NONE:
        return np.zeros(FRAME_SHAPE, np.uint8)
    return np.where(truth.outline(index) & CHALLENGE_FAN.mask(), labels_of_quality(quality), 0)
