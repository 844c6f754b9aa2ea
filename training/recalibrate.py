"""`calibrate`: a bundle's calibration, fitted to labelled cases that its networks never saw.

No network is trained, but a sweep head if one is asked for. What the bundle has stays where a fit
is not clearly better on cases that it was not fitted to.
"""

import logging
from typing import Any

from acouslic import files
from acouslic.bundle import BUNDLE, copy_bundle, load_bundle
from acouslic.calibration import Calibration
from acouslic.engine import choose_device
from acouslic.errors import InputError
from dataset.cache import open_cache
from dataset.processes import progress
from training.calibration import HeldOut, calibrate, describe, in_parts, with_calibration
from training.cards import card_of
from training.cross_validate import case_evidence
from training.options import Calibrate, SweepHeadRecipe
from training.provenance import code_version

log = logging.getLogger(__name__)


def recalibrate(options: Calibrate) -> dict[str, Any]:
    """Write the bundle with a calibration fitted to the cache's cases.

    Returns:
        The report, see `calibrate`.

    Raises:
        InputError: the cases are of too few subjects, or the bundle takes frames of another size.
        OutputError: the output folder holds something that must not be replaced.
    """
    files.refuse_stranger(options.output, BUNDLE, overwrite=options.overwrite)
    bundle = load_bundle(options.bundle, choose_device(options.device))
    cache = open_cache(options.cache)
    cache.require_size(bundle.config.network.trunk.image_size, "as the bundle takes")
    subjects = len({case.facts.subject for case in cache.cases})
    if not 2 <= options.parts <= subjects:
        raise InputError(
            expected=f"--parts from 2 to {subjects}, as there are that many subjects",
            found=str(options.parts),
            advice="give fewer parts or more cases",
        )
    held_out = [
        HeldOut(case, part, case_evidence(case, bundle.members))
        for case, part in progress(in_parts(cache.cases, options.parts), len(cache.cases), "cases")
    ]
    if bundle.sweep_head is not None:
        log.warning(
            "%s has a sweep head, which was trained upon its calibration: left out", bundle.id
        )
    present = bundle.config.selection.calibration
    # One that never was fitted, or that a head corrects, is not held on to.
    is_fitted = bundle.sweep_head is None and present != Calibration()
    calibration, report, head = calibrate(
        held_out,
        lambda _part: bundle.members,
        SweepHeadRecipe() if options.sweep_head else None,
        present if is_fitted else None,
    )
    log.info("%s", describe(report))
    provenance = dict(bundle.provenance)
    # What was fitted to other cases before, and told of them, is not this bundle's any more.
    provenance["calibration"] = {
        **{key: value for key, value in report.items() if key != "by_case"},
        "simulated": cache.simulated,
        "code": code_version(),
    }
    copy_bundle(
        options.bundle,
        options.output,
        with_calibration(calibration),
        provenance,
        card_of(provenance),
        sweep_head=head,
        overwrite=options.overwrite,
    )
    log.info("%s: bundle %s", options.output, load_bundle(options.output).id)
    return report
