"""The whole benchmark in one folder: the trials that are still to do, then the table of all.

options.json         what all systems in the folder share; who goes on there must ask for the same
SYSTEM/trial-K/      one trial
results.json         everything that the tables and plots show
table.md table.html  f1.png precision_recall.png sweep_scores.png embeddings.png
"""

import logging
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import Any

from acouslic import files
from acouslic.errors import InputError
from benchmark.images import read_image_options
from benchmark.jobs import BenchmarkJobs, Stage, free_memory, tasks_to_do
from benchmark.marks import differences
from benchmark.plots import PLOTS, draw_plots
from benchmark.protocol import Tables, counts, split, tables
from benchmark.request import Request
from benchmark.summary import summarise, trial_folder
from benchmark.systems import NATIVE_SIZE_PX, NORMS, SYSTEMS, System
from benchmark.table import TABLE_MARKS, build_page, write_tables
from benchmark.trial import FAILED, Setting, rehearse
from dataset.backends import Needs, run_jobs
from dataset.cache import Cache, open_cache
from evaluation.intervals import few_subjects
from evaluation.style import PNG_MARK
from training.provenance import code_version

OPTIONS, RESULTS = "options.json", "results.json"
# A field of the protocol, which both hold.
OPTIONS_MARK = '"frozen_segmentation_encoder"'
# VGG: weights, gradients, two moments and the best epoch are 2.7 GB; PyTorch and batches the rest.
WORKER_MIB = 6000
log = logging.getLogger(__name__)


def benchmark(cache_folder: Path, output: Path, request: Request) -> dict[str, Any]:
    """Run the trials that are still to do and write the tables of everything in `output`.

    Args:
        cache_folder: the prepared frames.
        output: the benchmark's folder, new or one that the same request began.
        request: what to benchmark.

    Returns:
        The content of results.json.

    Raises:
        InputError: before anything is trained, the request does not fit the cache or the folder;
            at the end, a trial failed.
        OutputError: something in the folder is not ours.
    """
    cache = open_cache(cache_folder)
    _chosen(request)
    _check_size(cache, request)
    images = _image_options(cache, request)
    _refuse_strangers(output)
    cases = split(cache, request.protocol, request.test_cache)
    plain = tables(cases, request.protocol)
    held = counts(cases, plain)
    for part, figures in held.items():
        log.info("%s: %s", part, ", ".join(f"{name} {value}" for name, value in figures.items()))
    _claim(output, cache, cases.test, request, images)
    stages: tuple[Stage, ...] = ("train", "judge")
    for stage in stages:
        _run_stage(cache_folder, output, request, stage)
    results: dict[str, Any] = {
        "warnings": _warnings(cache, request, held["test"]["subjects"]),
        "protocol": asdict(request.protocol),
        "images": images,
        "schedule": asdict(request.schedule),
        "compute": asdict(request.compute),
        "size_px": cache.size,
        "code": code_version(),
        "counts": held,
        "failed": _failures(output),
        "systems": summarise(
            output, plain.test, differences(request.protocol, request.schedule, images)
        ),
    }
    _write(output, results, plain)
    _complain(results["failed"], f"read its {FAILED}, mend it and run the same command again")
    return results


def _run_stage(cache_folder: Path, output: Path, request: Request, stage: Stage) -> None:
    """Do what is still to do of a stage, on the workers that the request names."""
    tasks = tasks_to_do(output, request, stage)
    for task in tasks:
        for trial in task.trials:
            (trial_folder(output, task.system, trial) / FAILED).unlink(missing_ok=True)
    if tasks:
        on_gpu = request.compute.device == "cuda"
        jobs = BenchmarkJobs(cache_folder, output, request, stage, tasks)
        run_jobs(jobs, request.where, Needs(gpu=on_gpu, memory_mib=WORKER_MIB))


def _refuse_strangers(output: Path) -> None:
    """Make sure that all that is written may be: the folder and its files are new, or ours."""
    files.refuse_foreign_folder(output, OPTIONS, "a benchmark")
    for name, mark in ((OPTIONS, OPTIONS_MARK), (RESULTS, OPTIONS_MARK), *TABLE_MARKS.items()):
        files.refuse_foreign_file(output / name, mark, "a benchmark's")
    for name in PLOTS:
        files.refuse_foreign_file(output / name, PNG_MARK, "a benchmark's")


def _chosen(request: Request) -> list[System]:
    unknown = [name for name in request.systems if name not in SYSTEMS]
    if unknown:
        raise InputError(
            expected=f"systems out of {', '.join(SYSTEMS)}",
            found=", ".join(unknown),
            advice="name others with --systems",
        )
    return [system for name, system in SYSTEMS.items() if name in request.systems]


def _check_size(cache: Cache, request: Request) -> None:
    if cache.size != NATIVE_SIZE_PX and not request.stand_ins:
        raise InputError(
            expected=f"frames of {NATIVE_SIZE_PX} px, as the real architectures take",
            found=f"a cache of {cache.size} px",
            advice=f"prepare it with --size {NATIVE_SIZE_PX}, or add --stand-ins",
        )


def _image_options(cache: Cache, request: Request) -> dict[str, bool] | None:
    """How the images were made that the protocol asks for; None for the cache's own."""
    if not request.protocol.reference_images:
        return None
    if not request.protocol.annotated_sweeps_only:
        raise InputError(
            expected="only sweeps whose AC is given: of others there are no --reference-images",
            found="--no-annotated-sweeps-only",
            advice="add --no-reference-images",
        )
    images = read_image_options(cache.folder)
    if request.test_cache is not None and read_image_options(request.test_cache) != images:
        raise InputError(
            expected=f"images in {request.test_cache} that were made as those in {cache.folder}",
            found="others",
            advice="give `python -m benchmark prepare` the same options for both",
        )
    return images


def _claim(
    output: Path, cache: Cache, test: Cache, request: Request, images: dict[str, bool] | None
) -> None:
    """Write down what all systems share; who adds to the folder must ask for the same."""
    facts = {
        "protocol": asdict(request.protocol),
        "images": images,
        "schedule": asdict(request.schedule),
        "stand_ins": request.stand_ins,
        "tokens": request.tokens,
        "norms": NORMS,
        "intensity": request.intensity,
        "size_px": cache.size,
        "cases": [case.facts.uuid for case in cache.cases],
    }
    if request.test_cache is not None:
        facts["test_cases"] = [case.facts.uuid for case in test.cases]
    files.begin_or_resume(output / OPTIONS, facts, str(output))


def _setting(system: System, cache: Cache, frames: Tables, request: Request) -> Setting:
    return Setting(system, request.plan(cache.size), frames, request.schedule, request.compute)


def rehearse_all(cache_folder: Path, request: Request) -> None:
    """Train every system on one batch and log what it takes, before days of training.

    Raises:
        InputError: the request does not fit the cache; or, at the end, a system failed.
    """
    cache = open_cache(cache_folder)
    chosen = _chosen(request)
    _check_size(cache, request)
    _image_options(cache, request)
    frames = tables(split(cache, request.protocol, request.test_cache), request.protocol)
    failed = {}
    for system in chosen:
        try:
            log.info("%s: %s", system.name, rehearse(_setting(system, cache, frames, request)))
        # Whatever it is, it belongs to this system.
        except Exception as error:
            log.exception("%s failed", system.name)
            failed[system.name] = repr(error)
        finally:
            free_memory()
    _complain(failed, "mend it and rehearse again")


def _failures(output: Path) -> dict[str, str]:
    """The first line of every failed trial's error, by system."""
    reasons = {}
    for path in sorted(output.glob(f"*/trial-*/{FAILED}")):
        reason = path.read_text().splitlines()[0]
        reasons[path.parent.parent.name] = f"{path.parent.name}: {reason}"
    return reasons


def _warnings(cache: Cache, request: Request, n_test_subjects: int) -> list[str]:
    warnings = [request.note] if request.note else []
    if cache.simulated:
        warnings.append(
            "Phantoms: these frames are simulated. The figures compare nothing but the software."
        )
    if request.stand_ins:
        warnings.append(
            "Stand-ins: small networks, marked below, take the place of the papers' architectures,"
            " so their figures are not comparable with the papers'."
        )
    if request.intensity == "fan":
        warnings.append(
            "Brightness: every system is shown frames with the mean and the spread of a usual one"
            " inside the fan, which neither paper has."
        )
    if request.test_cache is not None:
        warnings.append(
            "Another hospital: the test part is a cache of its own. A subject's name that training"
            " has too may be another person's."
        )
    if (few := few_subjects(n_test_subjects)) is not None:
        warnings.append(f"Test subjects: {few}")
    return warnings


def _write(output: Path, results: dict[str, Any], frames: Tables) -> None:
    systems = results["systems"]
    for summary in systems.values():
        summary["best_title"] = systems[summary["best"]]["title"]
    files.write_json(output / RESULTS, results)
    # As long as the narrowest plot is wide.
    caption = shorten(" ".join(results["warnings"]), 140, placeholder=" ...")
    plots = draw_plots(output, systems, frames.test, caption) if systems else {}
    write_tables(output, build_page(results, plots))
    log.info("the tables are in %s", output)


def _complain(failed: dict[str, str], advice: str) -> None:
    if failed:
        name, why = next(iter(failed.items()))
        raise InputError(
            expected="every system to finish",
            found=f"{len(failed)} failed, the first being {name}: {why}",
            advice=advice,
        )


def device_name(wanted: str) -> str:
    """Torch's name of a device; `auto` takes a GPU where there is one."""
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return {"gpu": "cuda"}.get(wanted, wanted)
