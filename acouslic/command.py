"""What the commands share: options, errors in one line, exit codes, the bundle that answers.

Nothing that takes seconds to import is imported here before it is needed: `--help` answers at once.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from acouslic.engine_names import EngineName, PrecisionName
from acouslic.errors import AcouslicError, BundleError, InputError, machine_problem
from acouslic.stopping import INTERRUPTED, TERMINATED, Stopped, leave, signals_raise
from acouslic.version import version_line

if TYPE_CHECKING:
    from acouslic.bundle import Bundle

# A wheel has no such folder: it holds this package alone.
DEMO_BUNDLE = Path(__file__).resolve().parents[1] / "resources" / "demo"
# In the environment: whether the demo weights are asked for, whether an odd stack is answered all
# the same, and the only bundle that may answer.
DEMO, FAIL_SOFT, BOUND = "ACOUSLIC_DEMO", "ACOUSLIC_FAIL_SOFT", "ACOUSLIC_BUNDLE_ID"
# The platform's own folders. The last one is a phase's, for the container that scores.
INPUT, OUTPUT, MODEL = Path("/input"), Path("/output"), Path("/opt/ml/model")
GROUND_TRUTH = Path("/opt/ml/input/data/ground_truth")
# Whoever sends SIGTERM sends SIGKILL some seconds later; 2 s are promised.
GRACE_S = 1.5
WHOLE = "nothing is half written"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compute:
    """What computes the network: the options of all commands that measure."""

    device: str = "auto"
    """auto, cpu or cuda."""
    engine: EngineName = "auto"
    """What computes; see `bundle.with_engine`."""
    precision: PrecisionName = "auto"
    """The numbers that are computed in."""

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Compute":
        """What the options of `add_shared_options` say."""
        return cls(options.device, options.engine, options.precision)


def add_platform_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the container's two entry points."""
    parser.add_argument(
        "--input",
        type=Path,
        default=INPUT,
        metavar="DIR",
        help="folder with one stack, where its inputs.json says, or without one in "
        "images/stacked-fetal-ultrasound/ (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=OUTPUT,
        metavar="DIR",
        help="folder that the three files of the answer go to (default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=MODEL,
        metavar="DIR",
        help="bundle of weights (default: %(default)s)",
    )
    parser.add_argument(
        "--preview",
        type=Path,
        metavar="FILE",
        help="also write a picture of the answer for people, a PNG outside --output, which the "
        "platform takes whole (default: none)",
    )


def add_shared_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every command that measures."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where the network runs; auto: a GPU where there is one, else the CPU (default: auto)",
    )
    parser.add_argument(
        "--engine",
        choices=get_args(EngineName),
        default="auto",
        help="what computes the network; auto: torch on a GPU, on a CPU OpenVINO where it is "
        "installed (default: auto)",
    )
    parser.add_argument(
        "--precision",
        choices=get_args(PrecisionName),
        default="auto",
        help="the numbers that the network is computed in; auto: fp16 on a GPU, fp32 on a "
        "CPU (default: auto)",
    )
    parser.add_argument(
        "--threads",
        type=_at_least_one,
        metavar="N",
        help="threads that compute (default: OMP_NUM_THREADS, or else the cores that the process "
        "may use, by its affinity and its container's quota)",
    )
    parser.add_argument(
        "--sweep-prior",
        choices=("calibrated", "none"),
        default="calibrated",
        help="whether a sweep's number counts in the choice of the frame; none: for a site that "
        "sweeps otherwise than the challenge (default: calibrated)",
    )
    parser.add_argument(
        "--demo",
        action="store_true",
        help="use the demo weights, which were trained on simulated images and mean nothing for "
        "patients; ACOUSLIC_DEMO=1 does the same (default: no)",
    )
    parser.add_argument(
        "--fail-soft",
        action=argparse.BooleanOptionalAction,
        help="whether a stack that can be read but not measured gets an answer of confidence 0 "
        "that says why, in place of an error (default: what ACOUSLIC_FAIL_SOFT says: 1 in the "
        "image, else 0)",
    )
    add_version_option(parser)


def add_version_option(parser: argparse.ArgumentParser) -> None:
    """Add --version."""
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print version and git revision, and exit"
    )


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


class _Version(argparse.Action):
    """Looks the revision up only when it is asked for, which takes a run of git."""

    def __call__(self, parser: argparse.ArgumentParser, *_values: object) -> None:
        print(version_line())
        parser.exit()


def run_entry_point(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], object]
) -> int:
    """Run a container's entry point with its options, and log to stdout.

    Returns:
        The exit code, see `exit_code`. A wrong option ends the process here, with code 2.
    """
    options = parser.parse_args()
    # The last line of stderr is what the platform tells whoever submitted.
    logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(name)s: %(message)s", level="INFO")
    return exit_code(lambda: run(options))


def exit_code(run: Callable[[], object]) -> int:
    """Run a command; an error that the user can fix becomes one line on stderr.

    Returns:
        0, or 1 after an error, or 130 after Ctrl-C. After SIGTERM the process ends here, with code
        143.
    """
    try:
        with signals_raise(GRACE_S, f"terminated; {WHOLE}"):
            run()
    except (KeyboardInterrupt, Stopped) as stop:
        if isinstance(stop, Stopped) and stop.code == TERMINATED:
            print(f"error: terminated; {WHOLE}", file=sys.stderr)
            leave(TERMINATED)
        print(f"error: interrupted; {WHOLE}; give the same command to go on", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        line = error_line(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 1
    return 0


def error_line(error: Exception) -> str | None:
    """What the user is told of an error; None for one that he cannot fix: a bug."""
    if isinstance(error, AcouslicError):
        return str(error)
    library = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and library not in ("", "acouslic"):
        return (
            f"expected the library {library}; found none; install acouslic again, with all that "
            "it depends on"
        )
    return machine_problem(error)


def is_set(variable: str) -> bool:
    """Whether a switch is on in the environment: 1; not set, empty or 0 is off.

    Raises:
        InputError: it has another value.
    """
    value = os.environ.get(variable, "")
    if value not in ("", "0", "1"):
        raise InputError(
            expected=f"0 or 1 in {variable}", found=repr(value), advice="set one of them"
        )
    return value == "1"


def asks_for_demo(options: argparse.Namespace) -> bool:
    """Whether the demo weights are asked for, by --demo or by the environment."""
    return options.demo or is_set(DEMO)


def fails_soft(options: argparse.Namespace) -> bool:
    """Whether an odd stack is answered all the same, by --fail-soft or by the environment."""
    return is_set(FAIL_SOFT) if options.fail_soft is None else bool(options.fail_soft)


def load(model: Path, compute: Compute, *, sweep_prior: str) -> "Bundle":
    """Load a bundle, and say so in the log.

    Args:
        model: its folder.
        compute: what computes it.
        sweep_prior: whether a sweep's number counts in the choice: calibrated or none.

    Raises:
        BundleError: the bundle is not whole, or not the one that this image is bound to.
        InputError: there is no such device or engine, or it has too little memory.
    """
    from acouslic.bundle import with_engine, without_sweep_prior
    from acouslic.bundle_files import BundleFolder

    bound = os.environ.get(BOUND, "")
    if bound and (given := BundleFolder(model).id) != bound:
        raise BundleError(
            expected=f"bundle {bound}, to which {BOUND} binds this image",
            found=f"{given} in {model}",
            advice="upload that bundle, or an image that was built for this one",
        )
    bundle = with_engine(_load_somewhere(model, compute), compute.engine, compute.precision)
    bundle = replace(bundle, cpu_too=compute.device == "auto")
    if sweep_prior == "none":
        bundle = without_sweep_prior(bundle)
    engine = bundle.engine
    log.info("bundle %s on %s, %s in %s", bundle.id, engine.device, engine.name, engine.precision)
    if bundle.is_simulated:
        log.warning(
            "these weights were trained on simulated images; they mean nothing for patients"
        )
    return bundle


def _load_somewhere(model: Path, compute: Compute) -> "Bundle":
    """Load a bundle on a device; with auto on the CPU where the GPU has no memory for it."""
    from acouslic.bundle import load_bundle
    from acouslic.engine import choose_device, is_out_of_memory

    chosen = choose_device(compute.device, compute.engine)
    try:
        return load_bundle(model, chosen)
    except RuntimeError as error:
        if chosen.type == "cpu" or not is_out_of_memory(error):
            raise
    if compute.device != "auto":
        raise InputError(
            expected="memory for the weights on the GPU",
            found="too little",
            advice="end what else uses it, or use --device auto or cpu",
        )
    log.warning("the GPU has too little memory for the weights; the CPU computes, which is slower")
    return load_bundle(model, "cpu")


def load_model(options: argparse.Namespace) -> "Bundle":
    """Load the bundle of --model, or the demo's where it is asked for; see `load`."""
    from acouslic.bundle import choose_bundle

    demo = DEMO_BUNDLE if asks_for_demo(options) else None
    model = choose_bundle(options.model, demo=demo)
    return load(model, Compute.of(options), sweep_prior=options.sweep_prior)
