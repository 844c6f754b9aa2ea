"""The whole benchmark in one folder: trials that are not done yet, then the table of all that are.

options.json         what every system in the folder shares; whoever resumes must ask for the same
SYSTEM/trial-K/      a trial each
results.json         everything that the tables and plots show
table.md table.html  f1.png precision_recall.png sweep_scores.png embeddings.png
"""

import gc
import json
import logging
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

from acouslic import files
from acouslic.errors import AcouslicError, InputError
from benchmark.plots import draw_plots
from benchmark.protocol import Protocol, Tables, counts, split, tables
from benchmark.summary import summarise, trial_folder
from benchmark.systems import NATIVE_SIZE_PX, SYSTEMS, Plan, System
from benchmark.table import build_page, write_tables
from benchmark.trial import FAILED, Compute, Schedule, Setting, rehearse, run_trial
from benchmark.weights import WeightSource
from dataset.cache import Cache, open_cache
from training.provenance import code_version

OPTIONS, RESULTS = "options.json", "results.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What to benchmark. `note` is printed first in every table."""

    systems: tuple[str, ...]
    trials: int
    protocol: Protocol
    schedule: Schedule
    weights: WeightSource
    compute: Compute
    stand_ins: bool = False
    note: str = ""


def benchmark(cache_folder: Path, output: Path, request: Request) -> dict[str, Any]:
    """Run what is not done and write the tables of everything in `output`.

    Returns results.json's content. Raises InputError before anything is trained where the request
    does not fit the cache or the folder, and at the end where a trial failed.
    """
    cache = open_cache(cache_folder)
    chosen = _chosen(request)
    _check_size(cache, request)
    parts = split(cache, request.protocol)
    plain = tables(parts, request.protocol)
    found = counts(parts, plain)
    for part, figures in found.items():
        log.info("%s: %s", part, ", ".join(f"{name} {value}" for name, value in figures.items()))
    files.refuse_foreign_folder(output, OPTIONS, "a benchmark")
    _claim(output, cache, request)
    softened = tables(parts, request.protocol, soften_frames=request.schedule.soften_frames)
    for system in chosen:
        frames = softened if system.rates_quality else plain
        _run_system(output, _setting(system, cache, frames, request), request.trials)
    results: dict[str, Any] = {
        "warnings": _warnings(cache, request),
        "protocol": asdict(request.protocol),
        "schedule": asdict(request.schedule),
        "compute": asdict(request.compute),
        "size_px": cache.size,
        "code": code_version(),
        "counts": found,
        "failed": _failures(output),
        "systems": summarise(output, plain.test),
    }
    _write(output, results, plain)
    _complain(results["failed"], f"read its {FAILED}, mend it and run the same command again")
    return results


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


def _claim(output: Path, cache: Cache, request: Request) -> None:
    """Write down what all systems share; whoever adds to the folder must ask for the same."""
    facts = {
        "protocol": asdict(request.protocol),
        "schedule": asdict(request.schedule),
        "stand_ins": request.stand_ins,
        "size_px": cache.size,
        "cases": [case.facts.uuid for case in cache.cases],
    }
    text, path = json.dumps(facts, indent=1), output / OPTIONS
    if not path.is_file():
        files.write_text(path, text)
    elif path.read_text() != text:
        raise InputError(
            expected=f"the options with which {output} began ({OPTIONS})",
            found="others",
            advice="give the same options to go on there, or another --output",
        )


def _setting(system: System, cache: Cache, frames: Tables, request: Request) -> Setting:
    plan = Plan(cache.size, request.protocol, request.weights, request.stand_ins)
    return Setting(system, plan, frames, request.schedule, request.compute)


def rehearse_all(cache_folder: Path, request: Request) -> None:
    """One batch through every system, told in the log: what fits and learns, before days of it.

    Raises InputError where the request does not fit the cache, and at the end where a system
    failed.
    """
    cache = open_cache(cache_folder)
    chosen = _chosen(request)
    _check_size(cache, request)
    frames = tables(split(cache, request.protocol), request.protocol)
    failed = {}
    for system in chosen:
        try:
            log.info("%s: %s", system.name, rehearse(_setting(system, cache, frames, request)))
        # Whatever it is, it is this system's.
        except Exception as error:
            log.exception("%s failed", system.name)
            failed[system.name] = repr(error)
        finally:
            _free_memory()
    _complain(failed, "mend it and rehearse again")


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _run_system(output: Path, setting: Setting, trials: int) -> None:
    """All trials of a system, up to the first that fails; then its error is kept."""
    system = setting.system
    for trial in range(trials):
        folder = trial_folder(output, system.name, trial)
        log.info("%s, trial %d of %d", system.name, trial + 1, trials)
        try:
            run_trial(folder, setting, trial)
        # Whatever it is, it is this system's, and the others are not to wait for its cure.
        except Exception as error:
            folder.mkdir(parents=True, exist_ok=True)
            reason = str(error) if isinstance(error, AcouslicError) else repr(error)
            files.write_text(folder / FAILED, f"{reason}\n\n{traceback.format_exc()}")
            log.exception("%s failed in trial %d", system.name, trial)
            return
        finally:
            _free_memory()


def _failures(output: Path) -> dict[str, str]:
    """The first line of every failed trial's error, by system."""
    found = {}
    for path in sorted(output.glob(f"*/trial-*/{FAILED}")):
        reason = path.read_text().splitlines()[0]
        found[path.parent.parent.name] = f"{path.parent.name}: {reason}"
    return found


def _warnings(cache: Cache, request: Request) -> list[str]:
    found = [request.note] if request.note else []
    if cache.simulated:
        found.append(
            "Phantoms: these frames are simulated. The figures compare nothing but the software."
        )
    if request.stand_ins:
        found.append(
            "Stand-ins: every network is a small one of its family, not the architecture of the"
            " paper, so its figures are not comparable with the paper's."
        )
    return found


def _write(output: Path, results: dict[str, Any], frames: Tables) -> None:
    systems = results["systems"]
    for summary in systems.values():
        summary["best_title"] = systems[summary["best"]]["title"]
    files.write_json(output / RESULTS, results)
    caption = shorten(" ".join(results["warnings"]), 140, placeholder=" ...")
    plots = draw_plots(output, systems, frames.test, caption) if systems else []
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
    """cpu or cuda; `auto` takes the GPU that there is."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return {"gpu": "cuda"}.get(wanted, wanted)
