"""The anatomy of phantoms' frames, which the demo's foundation stage learns from.

FetalCLIP's trunk learnt from images and the names of what they show; the demo's learns from
phantoms and the outlines of what they show. A target is drawn from a frame's ellipses when it is
needed: on any grid, and wherever augmentation has taken the frame. Lengths are millimetres in the
image plane, from the fan's apex.
"""

from typing import NamedTuple

import numpy as np
import torch

from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE, FRAMES_PER_SWEEP, SPACING_MM
from acouslic.preprocess import padding
from dataset.cache import CachedCase
from phantom.dataset import case_name
from phantom.shapes import Sections
from phantom.truth import Sight, truth

# Each landmark and its number of ellipsoids.
LANDMARKS = {"body": 3, "skull": 1, "heart": 1, "stomach": 1, "vein": 2, "spine": 3, "kidney": 2}
ELLIPSES = sum(LANDMARKS.values())
# Abdominal radii: beyond them lie head and hips, and it makes no difference how far.
FARTHEST = 2.0


class Anatomy(NamedTuple):
    """The anatomy of N frames; (u, v) are a point's millimetres across and down from the apex."""

    ellipses: torch.Tensor
    """(N, ELLIPSES, 6) float32: a section's centre, its quadratic form, and whether it is cut."""
    height: torch.Tensor
    """(N, 3) float32: (u, v) is |h0 + h1 u + h2 v| abdominal radii from the standard plane."""
    abdomen: torch.Tensor
    """(N, 1, 6) float32: the abdomen's section, as in `ellipses`; cut where it is well in view."""
    sight: torch.Tensor
    """(N,) uint8, values of `phantom.truth.Sight`."""


def case_numbers(seed: int, count: int) -> dict[str, int]:
    """The first `count` cases of a seed, by uuid."""
    return {case_name(seed, number): number for number in range(count)}


def anatomy_of(case: CachedCase, seed: int, number: int) -> Anatomy:
    """The anatomy of every cached frame of a phantom.

    Args:
        case: the cached phantom.
        seed: its data set's seed.
        number: its number there.
    """
    ellipses = np.zeros((case.facts.n_frames, ELLIPSES, 6), np.float32)
    height = np.zeros((case.facts.n_frames, 3), np.float32)
    abdomen = np.zeros((case.facts.n_frames, 1, 6), np.float32)
    known = truth(seed, number)
    for index, (sweep, label) in enumerate(zip(known.sweeps, known.labels, strict=True)):
        scene = sweep.scene
        planes = sweep.planes.seen_from(scene.rotation, scene.position)
        at = slice(index * FRAMES_PER_SWEEP, index * FRAMES_PER_SWEEP + len(sweep))
        shapes = scene.fetus.landmarks()
        for k, shape in enumerate(shape for name in LANDMARKS for shape in shapes[name]):
            ellipses[at, k] = _columns(shape.sections(planes))
        abdomen[at, 0] = _columns(label.sections)
        abdomen[at, 0, -1] = label.sight == Sight.WELL
        axes = (planes.origin, planes.lateral, planes.depth)
        height[at] = np.stack([axis[:, 2] for axis in axes], axis=1) / scene.fetus.radius_mm
    rows = case.frame_index
    arrays = (ellipses[rows], height[rows], abdomen[rows], known.sight()[rows])
    return Anatomy(*map(torch.from_numpy, arrays))


def _columns(sections: Sections) -> np.ndarray:
    """The ellipses of N frames as numbers, (N, 6)."""
    fields = ("centre_u", "centre_v", "quu", "quv", "qvv", "cut")
    return np.stack([getattr(sections, field) for field in fields], axis=1)


def draw(anatomy: Anatomy, where: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw what is to be learnt from B frames.

    Args:
        anatomy: of the frames.
        where: (B, G, G, 2), the points to draw at, (x, y) on the network's grid as grid_sample
            counts them: -1 to 1 from edge to edge.

    Returns:
        The landmarks' maps (B, K, G, G) in 0..1, 0 outside the fan, and the distance from the
        standard plane in abdominal radii (B, G, G), at most FARTHEST.
    """
    u, v = _millimetres(where)
    inside = _in_fan(u, v)
    groups = torch.split(_covered(anatomy.ellipses, u, v), list(LANDMARKS.values()), dim=1)
    maps = torch.stack([group.any(dim=1) & inside for group in groups], dim=1).float()
    h0, hu, hv = anatomy.height[..., None, None].unbind(dim=1)
    return maps, (h0 + hu * u + hv * v).abs().clamp_max(FARTHEST)


def draw_abdomen(anatomy: Anatomy, where: torch.Tensor) -> torch.Tensor:
    """Draw the abdomen of B frames where it is well in view, annotated or not.

    Args:
        anatomy: of the frames.
        where: see `draw`.

    Returns:
        (B, G, G) float32 in 0..1, 0 outside the fan.
    """
    u, v = _millimetres(where)
    return (_covered(anatomy.abdomen, u, v)[:, 0] & _in_fan(u, v)).float()


def _in_fan(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Whether points lie in the fan, bool."""
    fan = CHALLENGE_FAN
    radius, angle = torch.hypot(u, v) / SPACING_MM, torch.atan2(u, v).rad2deg().abs()
    return (angle <= fan.half_angle_deg) & (radius >= fan.near_px) & (radius <= fan.far_px)


def _covered(ellipses: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Whether ellipses (B, K, 6) cover points (B, G, G), (B, K, G, G) bool."""
    centre_u, centre_v, quu, quv, qvv, cut = ellipses[..., None, None].unbind(dim=2)
    du, dv = u[:, None] - centre_u, v[:, None] - centre_v
    return (quu * du * du + 2 * quv * du * dv + qvv * dv * dv <= 1) & (cut > 0)


def _millimetres(where: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    left, _, top, _ = padding(FRAME_SHAPE)
    pixels = (where + 1) * (max(FRAME_SHAPE) / 2) - 0.5
    x, y = pixels.unbind(dim=-1)
    return (
        (x - left - CHALLENGE_FAN.apex_x_px) * SPACING_MM,
        (y - top - CHALLENGE_FAN.apex_y_px) * SPACING_MM,
    )
