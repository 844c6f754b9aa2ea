"""Writes a set of cases in the layout of the challenge's training set.

images/stacked_fetal_ultrasound/<uuid>.mha      (840, 562, 744) uint8
masks/stacked_fetal_abdomen/<uuid>.mha          0 none, 1 optimal, 2 suboptimal
circumferences/fetal_abdominal_circumferences_per_sweep.csv

Beside them lies phantoms.json: by it whoever reads the set knows that it is simulated.
"""

import csv
import hashlib
import io
import json
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
from phantom.site import Site
from phantom.truth import truth

_UUID_BYTES, _UUID_VERSION = 16, 4  # RFC 9562; version 4 is a random one, as the real set's


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case's line in the table of circumferences."""

    case: int
    """The case's number."""
    name: str
    """Its uuid."""
    subject: str
    """Its subject's name."""
    ac_mm: tuple[float | None, ...]
    """AC of each sweep; None where no frame is annotated."""

    def cells(self) -> list[str]:
        """The line as text, in the order of TABLE_COLUMNS."""
        acs = ("" if ac is None else repr(ac) for ac in self.ac_mm)
        return [self.name, self.subject, *acs]


def case_name(seed: int, case: int, site: Site | None = None) -> str:
    """The case's uuid, a function of seed, case and site alone."""
    place = "" if site is None else f" {site.value}"
    digest = hashlib.sha256(f"phantom {seed} {case}{place}".encode()).digest()
    return str(uuid.UUID(bytes=digest[:_UUID_BYTES], version=_UUID_VERSION))


def subject_name(seed: int, subject: int) -> str:
    """What a subject is called: the same at every site, and nobody of another seed.

    Args:
        seed: of the data set.
        subject: the first case that shows the subject, see `phantom.truth.Truth`.
    """
    return f"{seed}-{subject:03d}"


def write_dataset(
    folder: Path,
    *,
    seed: int,
    cases: range,
    workers: int,
    look: Look = Look.PLAIN,
    site: Site | None = None,
) -> None:
    """Write cases and, when all of them stand, their table; a set begun before goes on and grows.

    Args:
        folder: where to; new or empty, or a set of the same seed, look and site.
        seed: the data set's seed.
        cases: numbers of the cases; those that the set has, or began with, are added to them.
        workers: number of processes.
        look: how the frames are rendered, where no site says so.
        site: where the cases are scanned and annotated.

    Raises:
        FileExistsError: the folder holds something else.
        OSError: the folder cannot be written.
    """
    before = _begun(folder, seed=seed, look=look, site=site)
    whole = cases if before is None else _joined(before, cases)
    for subfolder in (IMAGES, MASKS, AC_TABLE.parent):
        (folder / subfolder).mkdir(parents=True, exist_ok=True)
    if whole != before:
        (folder / AC_TABLE).unlink(missing_ok=True)  # a set without its table is not complete
    files.write_json(folder / SIMULATED, _record(seed, whole, look, site), indent=None)
    job = partial(write_case, folder=folder, seed=seed, look=look, site=site)
    rows = sorted(in_processes(job, whole, workers, "phantoms"), key=lambda row: row.case)
    _write_table(folder / AC_TABLE, rows)


def write_case(
    case: int, *, folder: Path, seed: int, look: Look = Look.PLAIN, site: Site | None = None
) -> Row:
    """Write one case's image and mask, unless they are there: both are written whole or not.

    Args:
        case: its number.
        folder: of the data set.
        seed: the data set's seed.
        look: how the frames are rendered, where no site says so.
        site: where the case is scanned and annotated.

    Returns:
        The case's line in the table.
    """
    known, name = truth(seed, case, site), case_name(seed, case, site)
    image, mask = (folder / place / f"{name}.mha" for place in (IMAGES, MASKS))
    geometry = Geometry.plain(SPACING_MM)
    if not image.is_file():
        write_frames(image, map(Renderer(known, look).frame, range(FRAMES)), geometry)
    if not mask.is_file():
        write_frames(mask, (mask_frame(known, index) for index in range(FRAMES)), geometry)
    return Row(
        case=case,
        name=name,
        subject=subject_name(seed, known.subject),
        ac_mm=tuple(label.ac_mm for label in known.labels),
    )


def _record(seed: int, cases: range, look: Look, site: Site | None) -> dict[str, object]:
    place = None if site is None else site.value
    return {
        "seed": seed,
        "cases": [cases.start, cases.stop],
        "look": look.value,
        "site": place,
    }


def _begun(folder: Path, *, seed: int, look: Look, site: Site | None) -> range | None:
    """The cases that a set of this seed, look and site began with; None where nothing is.

    Raises:
        FileExistsError: the folder holds something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        record = json.loads((folder / SIMULATED).read_text())
        cases = range(*record["cases"])
        # Sets of before there were looks, or sites, have none in their record.
        complete = {"look": Look.PLAIN.value, "site": None, **record}
        if complete == _record(seed, cases, look, site):
            return cases
    except (OSError, ValueError, KeyError, TypeError):
        pass  # something else, then
    place = "no site" if site is None else f"site {site.value}"
    raise FileExistsError(
        f"expected a new or empty folder, or a set of seed {seed} and {place} that looks "
        f"{look.value}; found that {folder} holds something else"
    )


def _joined(before: range, cases: range) -> range:
    """Both together, if there is no gap between them.

    Raises:
        FileExistsError: there is one.
    """
    if cases.start > before.stop or cases.stop < before.start:
        raise FileExistsError(
            f"expected cases that join those of the set, {before.start} to {before.stop - 1}; "
            f"found {cases.start} to {cases.stop - 1}"
        )
    return range(min(before.start, cases.start), max(before.stop, cases.stop))


def _write_table(path: Path, rows: list[Row]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TABLE_COLUMNS)
    writer.writerows(row.cells() for row in rows)
    files.write_text(path, text.getvalue())
