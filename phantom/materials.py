"""How tissues look to the machine: tables of their echo, attenuation and grain.

Echoes are dB relative to average soft tissue. Attenuation is dB per mm of path beyond what the
machine's own gain curve makes up for, so it is negative in fluid: what lies behind looks brighter.

No value is a measurement: all of them were chosen by eye.
"""

from dataclasses import dataclass, replace

from phantom.chance import Range


@dataclass(frozen=True, kw_only=True)
class Shell:
    """The bright rim of a tissue, where the beam meets its surface."""

    echo_db: float
    """Echo added where the beam meets the surface squarely."""
    half_width_mm: float
    """Half width of the rim; its brightest line lies half of that inside the outline."""
    diffuse: float
    """Share of the echo that comes back whatever the beam's direction, 0 to 1."""
    attenuation_db_mm: float = 0.0
    """Attenuation added in the rim, which casts a shadow."""
    sharpness: float = 1.0
    """Power of the squared cosine between beam and normal; the plain look keeps 1."""
    gaps: float = 0.0
    """How far the rim comes and goes with the tissue's broad unevenness; the plain look keeps 0."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """The look of one tissue."""

    echo_db: float
    """Mean echo."""
    attenuation_db_mm: float
    """Attenuation of the inside."""
    texture_db: float
    """Standard deviation of the echo's unevenness."""
    edge_mm: float
    """Width of the edge, over which the tissue passes into its surroundings."""
    shell: Shell | None = None
    """The bright rim, if there is one."""
    grain_db: float = 0.0
    """Standard deviation of the fine echoes; the plain look has none."""
    strokes_db: float = 0.0
    """Echo of short bright strokes across the beam; the plain look has none."""

    def with_echo(self, echo_db: float) -> "Material":
        """The same tissue, brighter or darker."""
        return replace(self, echo_db=echo_db)


_SMOOTH_DIFFUSE = 0.15  # chosen by eye
FLUID_DB = -19.0  # chosen by eye


def _smooth(*, echo_db: float, half_width_mm: float) -> Shell:
    """The rim of a smooth surface: nearly a mirror."""
    return Shell(echo_db=echo_db, half_width_mm=half_width_mm, diffuse=_SMOOTH_DIFFUSE)


# ---- in the uterus, beside the fetus; chosen by eye

AMNIOTIC_FLUID_DB_MM = -0.06
PLACENTA = Material(
    echo_db=1.0,
    attenuation_db_mm=0.02,
    texture_db=2.2,
    edge_mm=1.4,
    shell=_smooth(echo_db=6.0, half_width_mm=1.5),
)
CORD = Material(
    echo_db=-11.0,
    attenuation_db_mm=0.0,
    texture_db=1.0,
    edge_mm=1.4,
    shell=_smooth(echo_db=10.0, half_width_mm=1.3),
)

# ---- the fetus's trunk and abdomen; chosen by eye

TRUNK_ECHO_DB = Range(-7.0, -0.5)  # between fetuses
TRUNK = Material(echo_db=0.0, attenuation_db_mm=0.035, texture_db=1.8, edge_mm=1.4)
STOMACH = Material(
    echo_db=FLUID_DB,
    attenuation_db_mm=-0.10,
    texture_db=0.3,
    edge_mm=1.0,
    shell=_smooth(echo_db=5.0, half_width_mm=1.2),
)
BLADDER = replace(STOMACH, edge_mm=1.4)
UMBILICAL_VEIN = Material(
    echo_db=-16.0,
    attenuation_db_mm=-0.03,
    texture_db=0.3,
    edge_mm=0.9,
    shell=_smooth(echo_db=6.0, half_width_mm=1.0),
)
GREAT_VESSEL = Material(
    echo_db=-12.0,
    attenuation_db_mm=0.0,
    texture_db=0.3,
    edge_mm=0.9,
    shell=_smooth(echo_db=3.0, half_width_mm=1.0),
)
GALL_BLADDER = Material(
    echo_db=-14.0,
    attenuation_db_mm=0.0,
    texture_db=0.3,
    edge_mm=1.0,
    shell=_smooth(echo_db=3.0, half_width_mm=1.0),
)
BOWEL_ECHO_DB = Range(-7.0, 6.0)  # between loops
BOWEL = Material(echo_db=0.0, attenuation_db_mm=0.0, texture_db=2.0, edge_mm=2.5)
KIDNEY = Material(
    echo_db=-7.0,
    attenuation_db_mm=0.0,
    texture_db=1.5,
    edge_mm=1.4,
    shell=_smooth(echo_db=5.0, half_width_mm=1.5),
)
KIDNEY_PELVIS = Material(
    echo_db=-13.0,
    attenuation_db_mm=0.0,
    texture_db=0.5,
    edge_mm=1.4,
    shell=_smooth(echo_db=4.0, half_width_mm=1.0),
)
SPINE = Material(echo_db=15.0, attenuation_db_mm=1.3, texture_db=3.0, edge_mm=1.6)

# ---- the fetus's chest; chosen by eye

LUNG = Material(echo_db=2.0, attenuation_db_mm=0.0, texture_db=1.5, edge_mm=3.0)
HEART = Material(
    echo_db=-3.0,
    attenuation_db_mm=0.0,
    texture_db=1.0,
    edge_mm=1.4,
    shell=_smooth(echo_db=4.0, half_width_mm=1.4),
)
HEART_CHAMBER = Material(
    echo_db=-16.0,
    attenuation_db_mm=0.0,
    texture_db=0.3,
    edge_mm=1.0,
    shell=_smooth(echo_db=2.0, half_width_mm=1.0),
)

# ---- the fetus's head; chosen by eye

NECK = Material(echo_db=-3.0, attenuation_db_mm=0.0, texture_db=1.5, edge_mm=1.4)
SKULL_RIM = Shell(echo_db=21.0, half_width_mm=4.2, diffuse=0.30)
SKULL_RIM_DB_MM = Range(0.3, 0.9)  # attenuation, between fetuses
BRAIN = Material(echo_db=-9.0, attenuation_db_mm=0.02, texture_db=1.8, edge_mm=2.0)
MIDLINE = Material(echo_db=0.0, attenuation_db_mm=0.0, texture_db=1.0, edge_mm=1.2)
THALAMUS = Material(echo_db=-12.0, attenuation_db_mm=0.0, texture_db=0.8, edge_mm=1.4)
PLEXUS = Material(echo_db=1.0, attenuation_db_mm=0.0, texture_db=1.5, edge_mm=1.4)
VENTRICLE = Material(echo_db=-16.0, attenuation_db_mm=0.0, texture_db=0.5, edge_mm=1.4)
CAVUM = Material(
    echo_db=FLUID_DB,
    attenuation_db_mm=0.0,
    texture_db=0.3,
    edge_mm=1.4,
    shell=_smooth(echo_db=4.0, half_width_mm=1.0),
)
FACE = Material(echo_db=9.0, attenuation_db_mm=0.25, texture_db=3.0, edge_mm=2.0)

# ---- the fetus's limbs; chosen by eye

LIMB = Material(
    echo_db=-3.0,
    attenuation_db_mm=0.02,
    texture_db=1.5,
    edge_mm=1.4,
    shell=_smooth(echo_db=7.0, half_width_mm=1.4),
)
LIMB_BONE = Material(echo_db=17.0, attenuation_db_mm=1.5, texture_db=2.0, edge_mm=1.5)
HAND_OR_FOOT = Material(
    echo_db=3.0,
    attenuation_db_mm=0.1,
    texture_db=4.0,
    edge_mm=1.4,
    shell=_smooth(echo_db=8.0, half_width_mm=1.4),
)
