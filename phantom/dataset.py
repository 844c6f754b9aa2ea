"""Writes a set of cases in the layout of the challenge's training set.

images/stacked_fetal_ultrasound/<uuid>.mha      (840, 562, 744) uint8
masks/stacked_fetal_abdomen/<uuid>.mha          0 none, 1 optimal, 2 suboptimal
circumferences/fetal_abdominal_circumferences_per_sweep.csv

Beside them lies phantoms.json: by it whoever reads the set knows that it is simulated.
"""

import csv
import hashlib
import io
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from acouslic import files
from acouslic.challenge import (
    AC_TABLE,
    FRAMES,
    IMAGES,
    MASKS,
    SIMULATED,
    SPACING_MM,
    TABLE_COLUMNS,
)
from acouslic.metaimage import Geometry, write_frames
from dataset.processes import in_processes
from phantom.look import Look
from phantom.render import Renderer, mask_frame
from phantom.truth import truth

_UUID_BYTES, _UUID_VERSION = 16, 4  # RFC 9562; version 4 is a random one, as the real set's


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case's line in the table of circumferences."""

    case: int
    """The case's number."""
    name: str
    """Its uuid."""
    subject: int
    """The case that first shows the same subject."""
    ac_mm: tuple[float | None, ...]
    """AC of each sweep; None where no frame is annotated."""

    def cells(self) -> list[str]:
        """The line as text, in the order of TABLE_COLUMNS."""
        acs = ("" if ac is None else repr(ac) for ac in self.ac_mm)
        return [self.name, f"{self.subject:03d}", *acs]


def case_name(seed: int, case: int) -> str:
    """The case's uuid, a function of (seed, case) alone."""
    digest = hashlib.sha256(f"phantom {seed} {case}".encode()).digest()
    return str(uuid.UUID(bytes=digest[:_UUID_BYTES], version=_UUID_VERSION))


def write_dataset(
    folder: Path, *, seed: int, cases: range, workers: int, look: Look = Look.PLAIN
) -> None:
    """Write cases and, when all of them stand, their table.

    Args:
        folder: where to; new or empty.
        seed: the data set's seed.
        cases: numbers of the cases.
        workers: number of processes.
        look: how the frames are rendered.

    Raises:
        FileExistsError: the folder holds something.
        OSError: the folder cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"expected a new or empty folder, found that {folder} holds something"
        )
    for subfolder in (IMAGES, MASKS, AC_TABLE.parent):
        (folder / subfolder).mkdir(parents=True)
    made = {"seed": seed, "cases": [cases.start, cases.stop], "look": look.value}
    files.write_json(folder / SIMULATED, made, indent=None)
    job = partial(write_case, folder=folder, seed=seed, look=look)
    rows = sorted(in_processes(job, cases, workers, "phantoms"), key=lambda row: row.case)
    _write_table(folder / AC_TABLE, rows)


def write_case(case: int, *, folder: Path, seed: int, look: Look = Look.PLAIN) -> Row:
    """Write one case's image and mask.

    Args:
        case: its number.
        folder: of the data set.
        seed: the data set's seed.
        look: how the frames are rendered.

    Returns:
        The case's line in the table.
    """
    known, name = truth(seed, case), case_name(seed, case)
    renderer = Renderer(known, look)
    geometry = Geometry.plain(SPACING_MM)
    frames = map(renderer.frame, range(FRAMES))
    write_frames(folder / IMAGES / f"{name}.mha", frames, geometry)
    masks = (mask_frame(known, index) for index in range(FRAMES))
    write_frames(folder / MASKS / f"{name}.mha", masks, geometry)
    return Row(
        case=case,
        name=name,
        subject=known.subject,
        ac_mm=tuple(label.ac_mm for label in known.labels),
    )


def _write_table(path: Path, rows: list[Row]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TABLE_COLUMNS)
    writer.writerows(row.cells() for row in rows)
    files.write_text(path, text.getvalue())
