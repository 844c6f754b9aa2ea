"""Writes a set of cases in the layout of the challenge's training set.

images/stacked_fetal_ultrasound/<uuid>.mha      (840, 562, 744) uint8
masks/stacked_fetal_abdomen/<uuid>.mha          0 none, 1 optimal, 2 suboptimal
circumferences/fetal_abdominal_circumferences_per_sweep.csv

and beside them phantoms.json, by which whoever reads the set knows that it is simulated.
"""

import csv
import hashlib
import io
import time
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
from phantom.render import Renderer, mask_frame
from phantom.truth import truth


@dataclass(frozen=True)
class Row:
    """One case's line in the table; an AC is None where its sweep has no annotated frame."""

    case: int
    name: str
    subject: int
    ac_mm: tuple[float | None, ...]
    annotated_frames: int
    seconds: float

    def cells(self) -> list[str]:
        """The line as text."""
        acs = ("" if ac is None else repr(ac) for ac in self.ac_mm)
        return [self.name, f"{self.subject:03d}", *acs]


def case_name(seed: int, case: int) -> str:
    """The case's uuid, a function of (seed, case) alone."""
    digest = hashlib.sha256(f"phantom {seed} {case}".encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


def write_dataset(folder: Path, *, seed: int, cases: range, workers: int) -> list[Row]:
    """Write the cases and, when all of them stand, their table.

    Raises FileExistsError where `folder` already holds something, OSError where it cannot be
    written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"expected a new or empty folder, found that {folder} holds something"
        )
    for part in (IMAGES, MASKS, AC_TABLE.parent):
        (folder / part).mkdir(parents=True)
    made = {"seed": seed, "cases": [cases.start, cases.stop]}
    files.write_json(folder / SIMULATED, made, indent=None)
    job = partial(write_case, folder=folder, seed=seed)
    rows = sorted(in_processes(job, cases, workers, "phantoms"), key=lambda row: row.case)
    _write_table(folder / AC_TABLE, rows)
    return rows


def write_case(case: int, *, folder: Path, seed: int) -> Row:
    """Write one case's image and mask."""
    start = time.perf_counter()
    known, name = truth(seed, case), case_name(seed, case)
    renderer = Renderer(known)
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
        annotated_frames=int((known.quality() > 0).sum()),
        seconds=time.perf_counter() - start,
    )


def _write_table(path: Path, rows: list[Row]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TABLE_COLUMNS)
    writer.writerows(row.cells() for row in rows)
    files.write_text(path, text.getvalue())
