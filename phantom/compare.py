"""How phantom frames differ from real ones: image statistics of both, in one table.

A folder of real frames holds PNG files. A frame of 562 x 744 has its own gray levels and serves all
rows. A smaller one is a panel cut out of a figure, often stretched: it serves where its size and
its contrast do not matter. A mask lies in the subfolder masks, as <name>_gt.png. Panels whose names
differ only in a last number after "_t" are frames of one sweep.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE, ROWS
from acouslic.errors import InputError
from phantom.look import Look
from phantom.render import Renderer
from phantom.site import Site
from phantom.truth import Truth, truth

FRAMES_A_CASE = 4  # of each phantom case, drawn among all that are not black
LOWEST_PERCENTILE, HIGHEST_PERCENTILE = 5, 95
SHARE_AIMED_AT = 0.8  # of the rows, with the real median between the two percentiles

SKIN_PX = 45.0  # so deep reach skin and fat in the real frames
FAN_MARGIN_PX = 4  # pixels so near the fan's edge count in no texture
# Texture is counted where a pixel's surroundings, of this SD in pixels, have a known mean.
LOCAL_PX = 8.0
FINEST_PX = 2.0  # the finest structure is what a Gaussian of this SD takes away
BRIGHTNESS = ((5, 15), (15, 30), (30, 60), (60, 110))  # ranges of the local mean, gray levels
LEAST_PIXELS = 500  # fewer have no standard deviation worth a row
BANDS_PX = ((4, 8), (8, 16), (16, 32))  # structures of such sizes: twice the Gaussians' SDs
SKEWED_PX = (4, 16)
DARK_GRAY = 5
# Point spread: on lines this far apart, of structure finer than a Gaussian of this SD in steps.
LINE_DEG, FINE_STEPS = 0.25, 6.0
DEPTHS_PX = {"near": (60, 180), "mid": (180, 340), "far": (340, 520)}
MOST_STEPS = 16  # no half width is larger
# Contrast: rings of this width as shares of the outline's radius, this far from the outline.
RING, RING_GAP = 0.12, 0.04
# A panel's finest structure, pixels of the panel.
PANEL_FINE_PX = 2.0
NEAR_LAG, FAR_LAG = 1, 5
PANEL_STRETCH = (1, 99)  # percentiles that a panel's gray levels are stretched to


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One frame, with its mask where that is known."""

    name: str
    """The file's name without its end."""
    gray: np.ndarray
    """Gray levels, (H, W) uint8."""
    mask: np.ndarray | None
    """The abdomen's mask, (H, W) bool."""

    @property
    def is_whole(self) -> bool:
        """Whether it has a frame's size and so its own gray levels."""
        return self.gray.shape == FRAME_SHAPE


def comparison_of_looks(
    folder: Path, *, seed: int, cases: range, look: Look, site: Site | None = None
) -> str:
    """A Markdown table: real frames' median beside the phantoms' range, row by row.

    Args:
        folder: of real frames.
        seed: the phantoms' seed.
        cases: their numbers.
        look: how they are rendered, where no site says so.
        site: where they are scanned.

    Raises:
        InputError: the folder holds no frame, or a file of it cannot be read.
    """
    shots = read_shots(folder)
    real = {**_rows_of_frames(shots), **_rows_of_sweeps(_sweeps_among(shots))}
    known = [truth(seed, case, site) for case in cases]
    frames, sweeps = _phantoms(known, look, _panel_shape(shots))
    simulated = {**_rows_of_frames(frames), **_rows_of_sweeps(sweeps)}
    kind = look.value if site is None else f"site {site.value}"
    return _table(real, simulated, f"phantoms, seed {seed}, {kind}")


def read_shots(folder: Path) -> list[Shot]:
    """Read all PNG files of a folder.

    Raises:
        InputError: there are none, or one is no image.
    """
    paths = sorted(folder.glob("*.png"))
    if not paths:
        raise InputError(
            expected=f"PNG files of frames in {folder}",
            found="none",
            advice="give --compare the folder that holds the frames themselves",
        )
    return [_shot(path) for path in paths]


def measures(gray: np.ndarray) -> dict[str, float]:
    """The statistics of one frame of full size, by the row's name; NaN where there are too few."""
    fan, frame = CHALLENGE_FAN.mask(), gray.astype(np.float32)
    inside = frame[fan]
    return {
        "mean": float(inside.mean()),
        "SD": float(inside.std()),
        "99th percentile": float(np.percentile(inside, 99)),
        "maximum": float(inside.max()),
        f"share below {DARK_GRAY}": float((inside < DARK_GRAY).mean()),
        "grey levels used": float(len(np.unique(inside))),
        **_texture(frame),
        **_gradients(frame),
        **_point_spread(frame),
    }


def contrast(gray: np.ndarray, mask: np.ndarray) -> float:
    """How much brighter it is inside the mask's outline than outside, -1 to 1, inside the fan."""
    radius = np.sqrt(mask.sum() / np.pi)
    fan = _resized(CHALLENGE_FAN.mask(), gray.shape)
    within_px, beyond_px = (
        np.asarray(cv2.distanceTransform(side.astype(np.uint8), cv2.DIST_L2, 5))
        for side in (mask, ~mask)
    )
    distance = (within_px - beyond_px) / radius
    inside = (distance > RING_GAP) & (distance < RING_GAP + RING) & fan
    outside = (-distance > RING_GAP) & (-distance < RING_GAP + RING) & fan
    if not inside.any() or not outside.any():
        return float("nan")
    within, around = float(gray[inside].mean()), float(gray[outside].mean())
    return (within - around) / max(within + around, 1.0)


def _shot(path: Path) -> Shot:
    gray = _read_png(path)
    mask_path = path.parent / "masks" / f"{path.stem}_gt.png"
    mask = _read_png(mask_path) > 0 if mask_path.exists() else None
    gray, mask = _without_padding(gray), None if mask is None else _without_padding(mask)
    if mask is not None and mask.shape != gray.shape:
        raise InputError(
            expected=f"a mask of {gray.shape} in {mask_path}",
            found=f"{mask.shape}",
            advice="give a mask the size of its frame",
        )
    return Shot(name=path.stem, gray=gray, mask=mask)


def _read_png(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise InputError(
            expected=f"an image in {path}", found="none", advice="copy or remove the file"
        )
    return np.asarray(pixels)


def _without_padding(pixels: np.ndarray) -> np.ndarray:
    """A square panel is padded below: its frame has the width's share of a frame's height."""
    height, width = pixels.shape
    return pixels[: round(width * ROWS / FRAME_SHAPE[1])] if height >= width - 1 else pixels


def _resized(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    size = (shape[1], shape[0])
    resized = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized) > 0


def _texture(frame: np.ndarray) -> dict[str, float]:
    deep, local = _deep(), _smooth(frame, LOCAL_PX)
    finest = frame - _smooth(frame, FINEST_PX)
    rows = {}
    low, high = SKEWED_PX
    rows[f"skewness, {low}-{high} px"] = _skewness(_band(frame, low, high)[deep])
    for low, high in BRIGHTNESS:
        values = finest[deep & (local >= low) & (local < high)]
        enough = len(values) >= LEAST_PIXELS
        rows[f"SD of the finest, mean {low}-{high}"] = float(values.std()) if enough else np.nan
    mean = max(float(frame[deep].mean()), 1.0)
    for low, high in BANDS_PX:
        rows[f"relative SD, {low}-{high} px"] = float(_band(frame, low, high)[deep].std()) / mean
    return rows


def _gradients(frame: np.ndarray) -> dict[str, float]:
    down, across = np.diff(frame, axis=0)[:, :-1] ** 2, np.diff(frame, axis=1)[:-1] ** 2
    deep, skin = _deep()[:-1, :-1], _skin()[:-1, :-1]
    return {
        "gradient energy, vertical": float(down[deep].mean()),
        "gradient energy, horizontal": float(across[deep].mean()),
        "gradient energy of the skin": float(down[skin].mean()),
    }


def _point_spread(frame: np.ndarray) -> dict[str, float]:
    """Half widths at half height of the autocorrelation, across and along the beam."""
    beams = cv2.remap(frame, *_beam_maps(), cv2.INTER_CUBIC)
    fine = beams - cv2.GaussianBlur(beams, (0, 0), FINE_STEPS)
    rows = {}
    for name, (top, bottom) in DEPTHS_PX.items():
        width = _half_width(fine[top:bottom], axis=1) * LINE_DEG
        rows[f"half width across, {name}, degrees"] = width
    top, bottom = DEPTHS_PX["near"][0], DEPTHS_PX["far"][1]
    rows["half width along, px"] = _half_width(fine[top:bottom], axis=0)
    return rows


def _half_width(fine: np.ndarray, axis: int) -> float:
    """Where the autocorrelation falls to a half, in steps along an axis."""
    length = fine.shape[axis]
    before = 1.0
    for lag in range(1, MOST_STEPS):
        first = np.take(fine, range(length - lag), axis=axis)
        second = np.take(fine, range(lag, length), axis=axis)
        now = float((first * second).mean() / max(float((fine * fine).mean()), 1e-6))
        if now < 0.5:
            return lag - 1 + (before - 0.5) / (before - now)
        before = now
    return float(MOST_STEPS)


def _beam_maps() -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of points on lines inside the fan, a pixel apart along each."""
    fan = CHALLENGE_FAN
    half = fan.half_angle_deg - 1  # the outermost lines are cut by the fan's edge
    angles = np.radians(np.arange(-half, half, LINE_DEG))[None]
    radii = np.arange(fan.near_px, fan.far_px)[:, None]
    columns = fan.apex_x_px + radii * np.sin(angles)
    rows = fan.apex_y_px + radii * np.cos(angles)
    return columns.astype(np.float32), rows.astype(np.float32)


def _smooth(frame: np.ndarray, sd_px: float) -> np.ndarray:
    """A Gaussian mean over the fan's pixels alone."""
    fan = CHALLENGE_FAN.mask().astype(np.float32)
    weight = cv2.GaussianBlur(fan, (0, 0), sd_px)
    return np.asarray(cv2.GaussianBlur(frame * fan, (0, 0), sd_px) / np.maximum(weight, 1e-3))


def _band(frame: np.ndarray, low_px: float, high_px: float) -> np.ndarray:
    """The structures of sizes between two."""
    return np.asarray(_smooth(frame, low_px / 2) - _smooth(frame, high_px / 2))


def _skewness(values: np.ndarray) -> float:
    values = values - values.mean()
    return float((values**3).mean() / max(float((values**2).mean()), 1e-6) ** 1.5)


def _depth_px() -> np.ndarray:
    rows, columns = np.indices(FRAME_SHAPE, dtype=np.float32)
    fan = CHALLENGE_FAN
    return np.asarray(np.hypot(columns - fan.apex_x_px, rows - fan.apex_y_px) - fan.near_px)


def _deep() -> np.ndarray:
    size = 2 * FAN_MARGIN_PX + 1
    eroded = cv2.erode(CHALLENGE_FAN.mask().astype(np.uint8), np.ones((size, size), np.uint8))
    return np.asarray((np.asarray(eroded) > 0) & (_depth_px() > SKIN_PX))


def _skin() -> np.ndarray:
    depth = _depth_px()
    return np.asarray(CHALLENGE_FAN.mask() & (depth < SKIN_PX) & (depth > FAN_MARGIN_PX / 2))


def _sweeps_among(shots: list[Shot]) -> list[dict[int, np.ndarray]]:
    """Panels that are frames of one sweep, by their numbers; only where two are near enough."""
    sweeps: dict[str, dict[int, np.ndarray]] = {}
    for shot in shots:
        numbered = re.fullmatch(r"(.*_t)(\d+)", shot.name)
        if numbered:
            sweeps.setdefault(numbered[1], {})[int(numbered[2])] = shot.gray
    near = [s for s in sweeps.values() if any(b - a <= FAR_LAG for a, b in combinations(s, 2))]
    return near


def _panel_shape(shots: list[Shot]) -> tuple[int, int] | None:
    """The size of panels of one sweep, (H, W), if there are any."""
    sweeps = _sweeps_among(shots)
    if not sweeps:
        return None
    height, width = next(iter(sweeps[0].values())).shape
    return height, width


def _phantoms(
    cases: list[Truth], look: Look, panel: tuple[int, int] | None
) -> tuple[list[Shot], list[dict[int, np.ndarray]]]:
    """Frames of phantoms: some of any kind and the first annotated one; and panels of a run."""
    shots: list[Shot] = []
    sweeps: list[dict[int, np.ndarray]] = []
    for known in cases:
        case, renderer = known.case, Renderer(known, look)
        rng = np.random.default_rng([known.seed, case])
        for index in rng.choice(np.flatnonzero(known.tissue()), FRAMES_A_CASE, replace=False):
            gray = renderer.frame(int(index))
            shots.append(Shot(name=f"{case} {index}", gray=gray, mask=None))
        run = _first_run(known)
        gray, mask = renderer.frame(run[0]), known.outline(run[0]) & CHALLENGE_FAN.mask()
        shots.append(Shot(name=f"{case} {run[0]}", gray=gray, mask=mask))
        if panel is not None:
            chosen = [i for i in (run[0], run[0] + NEAR_LAG, run[0] + FAR_LAG) if i in run]
            sweeps.append({i: _as_panel(renderer.frame(i), panel) for i in chosen})
    return shots, sweeps


def _first_run(known: Truth) -> range:
    """The first run of annotated frames."""
    annotated = known.quality() > 0
    start = int(np.argmax(annotated))
    rest = annotated[start:]
    return range(start, start + (len(rest) if rest.all() else int(np.argmin(rest))))


def _as_panel(gray: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Shrunk and stretched as a figure shows it."""
    small = cv2.resize(gray, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    low, high = np.percentile(small, PANEL_STRETCH)
    stretched = (small - low) * (255 / max(float(high - low), 1.0))
    return np.asarray(np.clip(stretched, 0, 255).astype(np.uint8))


def _rows_of_frames(shots: Iterable[Shot]) -> dict[str, list[float]]:
    rows: dict[str, list[float]] = {}
    for shot in shots:
        if shot.is_whole:
            for name, value in measures(shot.gray).items():
                rows.setdefault(name, []).append(value)
        if shot.mask is not None:
            rows.setdefault("contrast along the outline", []).append(contrast(shot.gray, shot.mask))
    return rows


def _rows_of_sweeps(sweeps: list[dict[int, np.ndarray]]) -> dict[str, list[float]]:
    rows = {
        f"fine correlation, lag {NEAR_LAG}": _correlations(sweeps, NEAR_LAG, _fine_of_panel),
        f"fine correlation, lag {FAR_LAG}": _correlations(sweeps, FAR_LAG, _fine_of_panel),
        f"frame correlation, lag {FAR_LAG}": _correlations(sweeps, FAR_LAG, _whole_panel),
    }
    return {name: values for name, values in rows.items() if values}


def _correlations(
    sweeps: list[dict[int, np.ndarray]], lag: int, of: Callable[[np.ndarray], np.ndarray]
) -> list[float]:
    return [
        float(np.corrcoef(of(sweep[first]), of(sweep[first + lag]))[0, 1])
        for sweep in sweeps
        for first in sweep
        if first + lag in sweep
    ]


def _fine_of_panel(panel: np.ndarray) -> np.ndarray:
    gray, fan = panel.astype(np.float32), _inner_fan(panel.shape)
    return np.asarray((gray - cv2.GaussianBlur(gray, (0, 0), PANEL_FINE_PX))[fan])


def _whole_panel(panel: np.ndarray) -> np.ndarray:
    return np.asarray(panel[_inner_fan(panel.shape)], np.float32)


def _inner_fan(shape: tuple[int, ...]) -> np.ndarray:
    fan = _resized(CHALLENGE_FAN.mask(), shape).astype(np.uint8)
    size = 2 * FAN_MARGIN_PX + 1
    return np.asarray(cv2.erode(fan, np.ones((size, size), np.uint8))) > 0


def _table(real: dict[str, list[float]], simulated: dict[str, list[float]], title: str) -> str:
    lines = [
        f"| | real median (n) | {title}: median | "
        f"p{LOWEST_PERCENTILE} to p{HIGHEST_PERCENTILE} | real inside |",
        "|---|---|---|---|---|",
    ]
    rows_inside = 0
    shared = [name for name in simulated if name in real]
    for name in shared:
        values = np.array(real[name])[~np.isnan(real[name])]
        others = np.array(simulated[name])[~np.isnan(simulated[name])]
        low, middle, high = np.percentile(others, (LOWEST_PERCENTILE, 50, HIGHEST_PERCENTILE))
        median = float(np.median(values))
        inside = int(((values >= low) & (values <= high)).sum())
        fits = low <= median <= high
        rows_inside += fits
        lines.append(
            f"| {name} | {median:.3g} ({len(values)}) | {middle:.3g} | {low:.3g} to {high:.3g} | "
            f"{inside} of {len(values)}{'' if fits else ', median outside'} |"
        )
    lines.append(
        f"\nReal median between p{LOWEST_PERCENTILE} and p{HIGHEST_PERCENTILE}: {rows_inside} of "
        f"{len(shared)} rows ({rows_inside / len(shared):.0%}; aimed at: {SHARE_AIMED_AT:.0%})."
    )
    return "\n".join(lines)
