"""Appearance: all numbers of one case's look, drawn from one of two tables.

REALISTIC was fitted to the real frames' statistics and by eye (docs/simulation.md). RANDOM is far
beyond what is plausible, so that a network cannot rely on how one machine shows one tissue.
Levels are dB relative to average soft tissue.
"""

from dataclasses import dataclass, replace

import numpy as np

from phantom.chance import Range
from phantom.materials import SKULL_RIM_DB_MM, Material, Shell

# A tissue that attenuates so much is bone: `materials` has no other. What follows is chosen by eye.
BONE_FROM_DB_MM = 0.2
WILD_ECHO_DB = Range(-18.0, 8.0)  # of a structure whose echo is drawn without regard to what it is
VISIBLE_SHARE, HIDDEN = 0.75, 0.2  # organs that differ from the trunk as they should; the others'
# Annotators go by stomach and umbilical vein: they are never hidden, and differ at least so much.
LANDMARK_CONTRAST = 0.9
BONES_DIFFER = 0.5  # share of a bone's echo that is drawn
RIM_FACTOR = Range(0.3, 1.3)  # between rims of one case
LEAST_GRAIN = 0.4  # of the grainiest structure's
# The skull's rim is strong in every look, and brain is darker than the trunk by so much at least.
SKULL_DB, SKULL_DIFFUSE, SKULL_HALF_WIDTH_MM = Range(17.0, 26.0), Range(0.3, 0.6), Range(2.5, 4.2)
BRAIN_BELOW_TRUNK_DB = Range(0.0, 8.0)
# An abdomen that is nearly as bright as what touches it has a rim, or nobody could outline it.
ALIKE_DB, ALIKE_SKIN_DB = 4.0, 11.0
# What a haze of 1 changes; as the plain look has it, clutter in place of a fixed level.
HAZY_CONTRAST_LOSS, HAZY_LOSS_DB_MM, HAZY_CLUTTER_DB = 0.25, 0.05, 6.0


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """The numbers of one case's look."""

    # ---- echoes
    trunk_db: float
    """The trunk's echo."""
    around_db: float
    """Echo of what touches the trunk in place of fluid, beside the trunk's."""
    fluid_from: float
    """Where the broad unevenness exceeds this, there is fluid: -3 everywhere, 3 nowhere."""
    fluid_db: float
    """The fluid's echo."""
    contrast: float
    """Factor on the organs' differences from the trunk."""
    echo_sd_db: float
    """Standard deviation of what is added to each structure's echo."""
    wild_share: float
    """Share of the structures whose echo has no regard to what they are."""
    bone: float
    """Factor on the echo of bones."""
    # ---- texture
    texture: float
    """Factor on the tissue's unevenness."""
    grain_db: float
    """Fine echoes of the most grainy structure."""
    strokes_db: float
    """Bright strokes of the structure that has most of them."""
    # ---- rims and shadows
    rim: float
    """Factor on all rims but the skull's."""
    skin_db: float
    """Echo that the trunk's skin adds where the beam meets it squarely."""
    skin_half_width_mm: float
    """Half width of the trunk's skin."""
    skin_diffuse: float
    """Share of it that comes back whatever the beam's direction."""
    sharpness: float
    """Power of the squared cosine between beam and surface."""
    gaps: float
    """How far rims come and go."""
    shadow: float
    """Factor on the attenuation of bones and grazed skin."""
    attenuation_sd: float
    """Standard deviation of what is added to each structure's attenuation, dB per mm."""
    lining_db: float
    """Echo of the uterus's lining."""
    # ---- machine
    gray: float
    """Gray level of average tissue near the probe."""
    gray_per_db: float
    """Contrast before the convex gray map."""
    convexity: float
    """Power of the gray map, beside the device's own lookup."""
    knee: float
    """Width over which gray levels bend into the black."""
    speckle_db: float
    """Standard deviation of the speckle."""
    speckle_size: float
    """Factor on the point spread."""
    speckle_mm: float
    """Elevation over which the speckle changes."""
    anew: float
    """Share of the speckle's power that is new in every frame."""
    blur_lines: float
    """Standard deviation of the beam's width, lines of the coarse grid."""
    loss_db_mm: float
    """What the gain curve does not make up for in the depth."""
    near_db: float
    """What is added at the probe's surface."""
    far_db: float
    """What the gain curve adds in the far field."""
    edge_db: float
    """What lines near the fan's edges lose."""
    waves_db: float
    """Standard deviation of the gain along depth and from line to line."""
    layers_db: float
    """Standard deviation of the skin's layers."""
    layers_mm: float
    """Depth over which they fade by a factor e."""
    streaks_db: float
    """Standard deviation of what beams lose on their way, full at the far end."""
    clutter_db: float
    """Echo that haze puts even into fluid."""
    ring_gray: float
    """Amplitude of the rings below a probe without contact."""
    haze_gray: float
    """Gray level of the haze without contact."""


REALISTIC = {
    "trunk_db": Range(-6.0, 1.0),
    "around_db": Range(-4.0, 4.0),
    "fluid_from": Range(-1.0, 3.0),
    "fluid_db": Range(-19.0, -12.0),
    "contrast": Range(0.3, 0.9),
    "echo_sd_db": Range(0.5, 2.0),
    "wild_share": Range(0.0, 0.0),
    "bone": Range(0.5, 1.0),
    "texture": Range(0.6, 1.2),
    "grain_db": Range(2.0, 5.0),
    "strokes_db": Range(6.0, 18.0),
    "rim": Range(0.5, 1.4),
    "skin_db": Range(8.0, 20.0),
    "skin_half_width_mm": Range(1.2, 2.6),
    "skin_diffuse": Range(0.0, 0.1),
    "sharpness": Range(0.8, 2.5),
    "gaps": Range(0.3, 0.8),
    "shadow": Range(0.4, 1.0),
    "attenuation_sd": Range(0.0, 0.02),
    "lining_db": Range(2.0, 11.0),
    "gray": Range(45.0, 115.0),
    "gray_per_db": Range(3.2, 4.4),
    "convexity": Range(0.9, 1.2),
    "knee": Range(4.0, 10.0),
    "speckle_db": Range(3.4, 4.3),
    "speckle_size": Range(0.95, 1.05),
    "speckle_mm": Range(1.2, 2.6),
    "anew": Range(0.15, 0.4),
    "blur_lines": Range(0.8, 1.4),
    "loss_db_mm": Range(0.05, 0.15),
    "near_db": Range(4.0, 12.0),
    "far_db": Range(0.0, 5.0),
    "edge_db": Range(0.0, 5.0),
    "waves_db": Range(0.8, 2.2),
    "layers_db": Range(4.0, 7.0),
    "layers_mm": Range(6.0, 14.0),
    "streaks_db": Range(2.0, 5.0),
    "clutter_db": Range(-30.0, -18.0),
    "ring_gray": Range(10.0, 30.0),
    "haze_gray": Range(15.0, 55.0),
}
RANDOM = {
    "trunk_db": Range(-10.0, 6.0),
    "around_db": Range(-12.0, 12.0),
    "fluid_from": Range(-2.5, 3.0),
    "fluid_db": Range(-24.0, -8.0),
    "contrast": Range(0.0, 1.2),
    "echo_sd_db": Range(0.5, 5.0),
    "wild_share": Range(0.0, 0.6),
    "bone": Range(0.1, 1.3),
    "texture": Range(0.2, 2.0),
    "grain_db": Range(0.0, 6.0),
    "strokes_db": Range(0.0, 28.0),
    "rim": Range(0.0, 2.0),
    "skin_db": Range(0.0, 26.0),
    "skin_half_width_mm": Range(0.8, 3.5),
    "skin_diffuse": Range(0.0, 0.6),
    "sharpness": Range(0.5, 4.0),
    "gaps": Range(0.0, 1.2),
    "shadow": Range(0.0, 1.6),
    "attenuation_sd": Range(0.0, 0.06),
    "lining_db": Range(0.0, 14.0),
    "gray": Range(30.0, 160.0),
    "gray_per_db": Range(1.8, 5.0),
    "convexity": Range(0.6, 2.2),
    "knee": Range(4.0, 30.0),
    "speckle_db": Range(0.5, 6.0),
    "speckle_size": Range(0.7, 2.0),
    "speckle_mm": Range(1.0, 10.0),
    "anew": Range(0.0, 0.8),
    "blur_lines": Range(0.3, 3.0),
    "loss_db_mm": Range(-0.05, 0.22),
    "near_db": Range(0.0, 14.0),
    "far_db": Range(-4.0, 8.0),
    "edge_db": Range(0.0, 14.0),
    "waves_db": Range(0.0, 3.0),
    "layers_db": Range(0.0, 9.0),
    "layers_mm": Range(2.0, 18.0),
    "streaks_db": Range(0.0, 9.0),
    "clutter_db": Range(-32.0, -8.0),
    "ring_gray": Range(0.0, 40.0),
    "haze_gray": Range(0.0, 70.0),
}


def sample_appearance(rng: np.random.Generator, table: dict[str, Range], haze: float) -> Appearance:
    """Draw the numbers of one case's look.

    Args:
        rng: the look's stream.
        table: REALISTIC or RANDOM.
        haze: 0 to 1, how poorly the mother images.
    """
    drawn = Appearance(**{name: float(rng.uniform(*ends)) for name, ends in table.items()})
    is_alike = abs(drawn.around_db) < ALIKE_DB
    return replace(
        drawn,
        skin_db=max(drawn.skin_db, ALIKE_SKIN_DB) if is_alike else drawn.skin_db,
        gray_per_db=drawn.gray_per_db * (1 - HAZY_CONTRAST_LOSS * haze),
        loss_db_mm=drawn.loss_db_mm + HAZY_LOSS_DB_MM * haze,
        clutter_db=drawn.clutter_db + HAZY_CLUTTER_DB * haze,
    )


class Wardrobe:
    """Gives every structure of a case its look; one draw a structure, always in the same order."""

    def __init__(self, rng: np.random.Generator, appearance: Appearance) -> None:
        """Start with nothing dressed.

        Args:
            rng: the look's stream.
            appearance: the case's.
        """
        self._rng, self._appearance = rng, appearance

    def dressed(
        self,
        material: Material,
        *,
        base_db: float,
        base_plain_db: float,
        most_db: float = np.inf,
        least_contrast: float = 0.0,
    ) -> Material:
        """A material as this case shows it.

        Args:
            material: as the plain look has it.
            base_db: echo of what the structure lies in, in this case.
            base_plain_db: the same in the plain look.
            most_db: the echo may not exceed this.
            least_contrast: least factor on its difference from the trunk.
        """
        rng, look = self._rng, self._appearance
        is_bone = material.attenuation_db_mm >= BONE_FROM_DB_MM
        (hidden, duller, tame), wild_db = rng.random(3), rng.uniform(*WILD_ECHO_DB)
        noise_db, noise_db_mm = rng.normal(0, 1, 2) * (look.echo_sd_db, look.attenuation_sd)
        grain, stroke = rng.uniform(LEAST_GRAIN, 1), rng.random()
        if is_bone:
            echo_db = base_db + look.bone * material.echo_db * (1 - BONES_DIFFER * duller)
            attenuation = material.attenuation_db_mm * look.shadow
        else:
            factor = look.contrast * (1 if hidden < VISIBLE_SHARE else HIDDEN)
            factor = max(factor, least_contrast)
            echo_db = base_db + factor * (material.echo_db - base_plain_db) + noise_db
            echo_db = wild_db if tame < look.wild_share else echo_db
            attenuation = material.attenuation_db_mm + noise_db_mm
        return replace(
            material,
            echo_db=float(min(echo_db, most_db)),
            attenuation_db_mm=float(attenuation),
            texture_db=material.texture_db * look.texture,
            shell=None if material.shell is None else self.rim(material.shell),
            grain_db=float(look.grain_db * grain),
            strokes_db=float(look.strokes_db * stroke**2),
        )

    def rim(self, shell: Shell) -> Shell:
        """A rim as this case shows it: of any strength, sharp, and broken."""
        look = self._appearance
        return replace(
            shell,
            echo_db=shell.echo_db * look.rim * float(self._rng.uniform(*RIM_FACTOR)),
            sharpness=look.sharpness,
            gaps=look.gaps,
        )

    def skull(self, material: Material, *, trunk_db: float) -> Material:
        """Skull and brain: the rim always strong, the inside never brighter than the trunk."""
        rng, most_db = self._rng, trunk_db - self._rng.uniform(*BRAIN_BELOW_TRUNK_DB)
        brain = self.dressed(
            replace(material, shell=None),
            base_db=trunk_db,
            base_plain_db=0.0,
            most_db=most_db,
        )
        rim = Shell(
            echo_db=float(rng.uniform(*SKULL_DB)),
            half_width_mm=float(rng.uniform(*SKULL_HALF_WIDTH_MM)),
            diffuse=float(rng.uniform(*SKULL_DIFFUSE)),
            attenuation_db_mm=float(rng.uniform(*SKULL_RIM_DB_MM)) * self._appearance.shadow,
            gaps=self._appearance.gaps / 2,
        )
        return replace(brain, shell=rim)
