"""The tissue of looks other than the plain one: other materials, textures, rims and neighbours."""

from dataclasses import dataclass, replace

import numpy as np

from phantom import materials
from phantom.appearance import LANDMARK_CONTRAST, Appearance, Wardrobe
from phantom.canvas import Canvas, Window
from phantom.materials import AMNIOTIC_FLUID_DB_MM, Material, Shell
from phantom.mother import Wall, paint_beyond
from phantom.organ import Part
from phantom.scene import Scene
from phantom.shapes import Planes
from phantom.tissue import (
    GRAZING_COS2,
    GRAZING_DB_MM,
    RIB_DB,
    RIB_DB_MM,
    SweepTissue,
)

FLUID_EDGE = 0.7  # over so much of the broad unevenness tissue passes into fluid; chosen by eye
FINE_GAPS = 0.5  # share of the fine unevenness in where rims come and go; chosen by eye
MOST_RIM = 2.0  # times its mean strength a broken rim has at most; chosen by eye
AROUND_DB_MM = 0.03  # attenuation of what touches the trunk in place of fluid; as the trunk's


@dataclass(frozen=True)
class StyledCanvas(Canvas):
    """A canvas that also holds how strong fine echoes and strokes are."""

    grain: np.ndarray
    """Standard deviation of the fine echoes, dB."""
    strokes: np.ndarray
    """Echo of bright strokes, dB."""

    def fill(self, window: Window, inside: np.ndarray, material: Material) -> None:
        """Replace what is there by a material, its fine echoes too."""
        super().fill(window, inside, material)
        self.grain[window] += inside * (np.float32(material.grain_db) - self.grain[window])
        self.strokes[window] += inside * (np.float32(material.strokes_db) - self.strokes[window])

    def _paint_shell(
        self, window: Window, shell: Shell, rim: np.ndarray, facing: np.ndarray
    ) -> None:
        whole = rim * self.unbroken(window, shell.gaps)
        super()._paint_shell(window, shell, whole, facing ** np.float32(shell.sharpness))

    def unbroken(self, window: Window, gaps: float) -> np.ndarray:
        """How much of a rim is there, 1 on average: it comes and goes with the tissue."""
        uneven = self.swell[window] + np.float32(FINE_GAPS) * self.texture[window]
        return np.asarray(np.clip(1 + np.float32(gaps) * uneven, 0, MOST_RIM))


class StyledTissue(SweepTissue):
    """Echo, attenuation and fine echoes of any frame of one sweep."""

    def __init__(
        self,
        scene: Scene,
        planes: Planes,
        texture: np.ndarray,
        wall: Wall,
        beyond_db: float,
        appearance: Appearance,
        clothes: "Clothes",
    ) -> None:
        """Cut all that there is with all planes, and dress it.

        Args:
            scene: what is scanned.
            planes: the sweep's, in maternal axes.
            texture: the scan's, as `sample_texture` gives it.
            wall: the scan's.
            beyond_db: mean echo of what lies beyond the uterus.
            appearance: the case's.
            clothes: materials of all structures.
        """
        fetus = scene.fetus
        dressed = replace(
            fetus,
            trunk_material=clothes.trunk,
            before_trunk=_with_materials(fetus.before_trunk, clothes.before_trunk),
            inside_trunk=_with_materials(fetus.inside_trunk, clothes.inside_trunk),
        )
        super().__init__(replace(scene, fetus=dressed), planes, texture, wall, beyond_db)
        loops = [(clothes.cord, sections) for _, sections in self._before[1 : 1 + len(scene.cord)]]
        self._before[: 1 + len(loops)] = [(clothes.placenta, self._before[0][1]), *loops]
        self._appearance, self._around = appearance, clothes.around
        self._look_alike = [
            (material, part.shape.sections(planes))
            for material, part in zip(clothes.look_alike, scene.look_alike, strict=False)
        ]
        self.skin_half_width_mm = appearance.skin_half_width_mm
        self.rib_db, self.rib_db_mm = RIB_DB * appearance.bone, RIB_DB_MM * appearance.shadow

    def styled(self, frame: int) -> StyledCanvas:
        """All grids of one frame."""
        texture, swell = self._texture_of(frame)
        look, around = self._appearance, self._around
        fluid = np.clip((swell - np.float32(look.fluid_from)) / FLUID_EDGE + 0.5, 0, 1)
        tissue_db = np.float32(around.echo_db) + np.float32(around.texture_db) * texture
        canvas = StyledCanvas(
            echo=tissue_db + fluid * (np.float32(look.fluid_db) - tissue_db),
            attenuation=AROUND_DB_MM + fluid * np.float32(AMNIOTIC_FLUID_DB_MM - AROUND_DB_MM),
            texture=texture,
            swell=swell,
            grain=(1 - fluid) * np.float32(around.grain_db),
            strokes=(1 - fluid) * np.float32(around.strokes_db),
        )
        self._paint(canvas, frame)
        return canvas

    def _paint_beyond(self, canvas: Canvas, frame: int) -> None:
        look = self._appearance
        calm = replace(
            canvas, texture=canvas.texture * look.texture, swell=canvas.swell * look.texture
        )
        paint_beyond(calm, self._lumen, frame, self._beyond_db, look.lining_db)
        for material, sections in self._look_alike:
            canvas.paint(material, sections, frame)

    def _paint_skin(
        self, canvas: Canvas, window: Window, skin: np.ndarray, facing: np.ndarray
    ) -> None:
        look = self._appearance
        rim = skin
        if isinstance(canvas, StyledCanvas):
            rim = skin * canvas.unbroken(window, look.gaps)
        square = facing ** np.float32(look.sharpness)
        reflected = look.skin_diffuse + (1 - look.skin_diffuse) * square
        canvas.brighten(window, np.float32(look.skin_db) * rim * reflected)
        grazed = skin * np.maximum(1 - facing / GRAZING_COS2, 0)
        canvas.shadow(window, GRAZING_DB_MM * look.shadow * grazed)


@dataclass(frozen=True, kw_only=True)
class Clothes:
    """Materials of all structures of a case."""

    trunk: Material
    """The trunk's."""
    before_trunk: list[Material]
    """Of the parts that are painted before the trunk."""
    inside_trunk: list[Material]
    """Of the parts inside it."""
    placenta: Material
    """The placenta's."""
    cord: Material
    """The cord's."""
    around: Material
    """Of what touches the trunk in place of fluid."""
    look_alike: tuple[Material, Material]
    """Of a look-alike's body and hole: as the trunk with its skin, and as the stomach."""


def sample_clothes(rng: np.random.Generator, appearance: Appearance, scene: Scene) -> Clothes:
    """Dress all structures of a case.

    Args:
        rng: the look's stream.
        appearance: the case's.
        scene: the case's; the fetus has the same parts in each of its sweeps.
    """
    wardrobe = Wardrobe(rng, appearance)
    trunk_db, fetus = appearance.trunk_db, scene.fetus
    around_db = trunk_db + appearance.around_db
    trunk = wardrobe.dressed(fetus.trunk_material, base_db=trunk_db, base_plain_db=0.0)
    around = wardrobe.dressed(materials.PLACENTA, base_db=around_db, base_plain_db=0.0)
    placenta = wardrobe.dressed(materials.PLACENTA, base_db=around_db, base_plain_db=0.0)
    cord = wardrobe.dressed(materials.CORD, base_db=around_db, base_plain_db=0.0)
    plain_db = fetus.trunk_material.echo_db
    inside = [
        wardrobe.dressed(
            part.material,
            base_db=trunk_db,
            base_plain_db=plain_db,
            least_contrast=LANDMARK_CONTRAST if part.name in ("stomach", "vein") else 0.0,
        )
        for part in fetus.inside_trunk
    ]
    trunk = replace(trunk, echo_db=trunk_db)
    (stomach,) = (
        material
        for part, material in zip(fetus.inside_trunk, inside, strict=True)
        if part.name == "stomach"
    )
    return Clothes(
        trunk=trunk,
        before_trunk=_before_trunk(wardrobe, fetus.before_trunk, trunk_db),
        inside_trunk=inside,
        placenta=placenta,
        cord=cord,
        around=around,
        look_alike=(replace(trunk, shell=_skin(appearance)), stomach),
    )


def _skin(appearance: Appearance) -> Shell:
    return Shell(
        echo_db=appearance.skin_db,
        half_width_mm=appearance.skin_half_width_mm,
        diffuse=appearance.skin_diffuse,
        sharpness=appearance.sharpness,
        gaps=appearance.gaps,
    )


def _before_trunk(wardrobe: Wardrobe, parts: tuple[Part, ...], trunk_db: float) -> list[Material]:
    """Limbs, neck and head; what lies inside the skull follows it in painting order."""
    clothes, most_db = [], np.inf
    for part in parts:
        if part.name == "skull":
            clothes.append(wardrobe.skull(part.material, trunk_db=trunk_db))
            most_db = trunk_db
        else:
            clothes.append(
                wardrobe.dressed(part.material, base_db=0.0, base_plain_db=0.0, most_db=most_db)
            )
    return clothes


def _with_materials(parts: tuple[Part, ...], clothes: list[Material]) -> tuple[Part, ...]:
    return tuple(
        replace(part, material=material) for part, material in zip(parts, clothes, strict=True)
    )
