"""Writes a set of cases in the layout of the challenge's training set.

images/stacked_fetal_ultrasound/<uuid>.mha      (840, 562, 744) uint8
masks/stacked_fetal_abdomen/<uuid>.mha          0 none, 1 optimal, 2 suboptimal
circumferences/fetal_abdominal_circumferences_per_sweep.csv

and beside them phantoms.json, by which whoever reads the set knows that it is simulated.
"""

import csv
import hashlib
import io
import json
import logging
import multiprocessing
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from acouslic.fan import SPACING_MM, SWEEPS
from phantom.metaimage import write_mha, write_whole
from phantom.render import FRAMES, Renderer, mask_frame
from phantom.truth import truth

IMAGES = Path("images", "stacked_fetal_ultrasound")
MASKS = Path("masks", "stacked_fetal_abdomen")
TABLE = Path("circumferences", "fetal_abdominal_circumferences_per_sweep.csv")
SIMULATED = "phantoms.json"
COLUMNS = ("uuid", "subject_id", *(f"sweep_{i + 1}_ac_mm" for i in range(SWEEPS)))

log = logging.getLogger("phantom")


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
    for part in (IMAGES, MASKS, TABLE.parent):
        (folder / part).mkdir(parents=True)
    made = json.dumps({"seed": seed, "cases": [cases.start, cases.stop]})
    write_whole(folder / SIMULATED, [made.encode()])
    on_terminal = sys.stderr.isatty()
    rows = []
    for row in tqdm(
        _write_cases(folder, seed, cases, workers),
        total=len(cases),
        unit="case",
        disable=not on_terminal,
    ):
        rows.append(row)
        if not on_terminal:
            log.info(
                "case %d (%d of %d): %s, %d annotated frames, %.1f s",
                row.case,
                len(rows),
                len(cases),
                row.name,
                row.annotated_frames,
                row.seconds,
            )
    rows.sort(key=lambda row: row.case)
    _write_table(folder / TABLE, rows)
    return rows


def write_case(case: int, *, folder: Path, seed: int) -> Row:
    """Write one case's image and mask."""
    start = time.perf_counter()
    known, name = truth(seed, case), case_name(seed, case)
    renderer = Renderer(known)
    write_mha(
        folder / IMAGES / f"{name}.mha", map(renderer.frame, range(FRAMES)), spacing_mm=SPACING_MM
    )
    masks = (mask_frame(known, index) for index in range(FRAMES))
    write_mha(folder / MASKS / f"{name}.mha", masks, spacing_mm=SPACING_MM)
    return Row(
        case=case,
        name=name,
        subject=known.subject,
        ac_mm=tuple(label.ac_mm for label in known.labels),
        annotated_frames=int((known.quality() > 0).sum()),
        seconds=time.perf_counter() - start,
    )


def _write_cases(folder: Path, seed: int, cases: range, workers: int) -> Iterator[Row]:
    job = partial(write_case, folder=folder, seed=seed)
    if workers == 1:
        yield from map(job, cases)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(job, cases)


def _write_table(path: Path, rows: list[Row]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(row.cells() for row in rows)
    write_whole(path, [text.getvalue().encode()])
