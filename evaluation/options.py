"""All that evaluation can be told: the fields are the command line's options, with their help.

No module that is slow to import is needed here, so that help is quick.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from acouslic.engine_names import EngineName, Precision, PrecisionName
from dataset.backends import Backend
from dataset.command import INLINE, POSITIONAL
from evaluation.intervals import SEED

RuleName = Literal[
    "shipped", "quality-times-mask", "largest-area", "highest-probability", "peak-probability"
]


@dataclass(frozen=True)
class RunOptions:
    """What to run over what."""

    dataset: Annotated[Path, POSITIONAL]
    """Data set in the training set's layout, or a folder of stacks (.mha)."""
    model: Path
    """Bundle of weights."""
    output: Path
    """Folder for the answers, one folder a case; a run that was stopped goes on there."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; auto takes a GPU where there is one."""
    engine: EngineName = "auto"
    """What computes it; auto takes PyTorch on a GPU, on a CPU OpenVINO where it is installed."""
    precision: PrecisionName = "auto"
    """The numbers it is computed in; auto takes fp16 on a GPU, fp32 on a CPU."""
    limit: int | None = None
    """Number of cases, the first ones by name; None takes all."""
    cases: tuple[str, ...] | None = None
    """Names of the only cases to run, without .mha; None takes all."""
    rule: RuleName = "shipped"
    """How the frame is chosen; all but shipped are for comparisons."""
    sweep_prior: Literal["calibrated", "none"] = "calibrated"
    """Whether a sweep's number counts in the choice; none: for a site that sweeps otherwise."""
    fail_soft: bool = False
    """Answer a stack that cannot be measured with confidence 0, as the image does."""
    shard: str | None = None
    """Part of the cases, I/N with I from 0, for machines without a shared disk; /N takes I from
    SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX, None takes both from SLURM's. See `merge`."""
    where: Annotated[Backend, INLINE] = field(default_factory=Backend)


@dataclass(frozen=True)
class RetryOptions:
    """Which run to complete."""

    output: Annotated[Path, POSITIONAL]
    """An --output of run, of which cases failed."""
    model: Path
    """The bundle of that run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; auto takes a GPU where there is one."""
    engine: EngineName = "auto"
    """What computes it; auto takes PyTorch on a GPU, on a CPU OpenVINO where it is installed."""
    precision: PrecisionName = "auto"
    """The numbers it is computed in; auto takes fp16 on a GPU, fp32 on a CPU."""
    where: Annotated[Backend, INLINE] = field(default_factory=Backend)


@dataclass(frozen=True)
class MergeOptions:
    """Which shards to put together."""

    shards: Annotated[tuple[Path, ...], POSITIONAL]
    """The --output folders of all shards of a run."""
    output: Path
    """Folder for the whole; answers are linked where the disk can, else copied."""


@dataclass(frozen=True)
class SimulateOptions:
    """Which label sequences to compare rules on, and how well the simulated networks see."""

    labels: Annotated[Path, POSITIONAL]
    """Data set in the training set's layout, or a folder with the two public tables of labels."""
    detectors: tuple[Literal["weak", "middle", "strong"], ...] = ("weak", "middle", "strong")
    """Simulated networks, by how well they tell frames apart."""
    repeats: int = 3
    """Number of simulations of each; scores are their means."""
    seed: int = 1
    """Seed of the first simulation; the others follow it."""


@dataclass(frozen=True)
class ScoreOptions:
    """What to score against what."""

    predictions: Annotated[Path, POSITIONAL]
    """Answers: an --output of run, or the platform's evaluation input."""
    truth: Annotated[Path, POSITIONAL]
    """Truth: a data set in the training set's layout, or the evaluator's ground truth."""
    output: Path
    """Folder for metrics.json and cases.csv."""
    fov_mask: Path | None = None
    """Image file of the field of view; None takes the project's own fan."""
    subjects: Path | None = None
    """Csv with the columns uuid and subject_id; None takes what the truth says."""
    cases: tuple[str, ...] | None = None
    """Names of the only cases to score, without .mha; None takes all."""
    allow_missing: bool = False
    """Give a missing or broken answer the worst value of every metric instead of stopping."""
    seed: int = SEED
    """Seed of the bootstrap that gives the intervals."""
    where: Annotated[Backend, INLINE] = field(default_factory=Backend)


@dataclass(frozen=True)
class FramesOptions:
    """Which single frames to try a bundle on."""

    folder: Annotated[Path, POSITIONAL]
    """Folder of images with index.csv (columns file, annotated, case) and masks/<stem>_gt.png."""
    model: Path
    """Bundle of weights."""
    output: Path
    """Folder for frames.json and frames.png."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What computes; auto takes a GPU where there is one."""


@dataclass(frozen=True)
class CompareOptions:
    """Which scored runs to compare; between two, differences are the second minus the first."""

    a: Annotated[Path, POSITIONAL]
    """An --output of score."""
    b: Annotated[Path, POSITIONAL]
    """An --output of score, of the same cases."""
    more: Annotated[tuple[Path, ...], POSITIONAL] = ()
    """Further ones, to be ranked with them."""
    output: Path | None = None
    """Folder for the leaderboard (.json, .html, .tex), and comparison.json of two runs; None writes
    nothing."""
    names: tuple[str, ...] | None = None
    """What to call the runs, in their order; None takes the folders' names."""
    seed: int = SEED
    """Seed of the bootstrap that gives the intervals."""


@dataclass(frozen=True)
class ReportOptions:
    """Which scored run to report on."""

    scored: Annotated[Path, POSITIONAL]
    """An --output of score."""
    output: Path | None = None
    """The page's file; None writes report.html into that folder."""
    images: Path | None = None
    """Folder of the stacks, <uuid>.mha, where the truth has none."""
    groups: Path | None = None
    """Csv with the column uuid and others such as site; each other one divides into subgroups."""
    workers: int | None = None
    """Number of processes; None takes one a core."""


@dataclass(frozen=True)
class ViewOptions:
    """Which cases to show, and with which bundle."""

    case: Annotated[str, POSITIONAL]
    """Name of a case of the scored run, or a stack's file (.mha)."""
    model: Path
    """Bundle of weights that chooses the frame."""
    more: Annotated[tuple[str, ...], POSITIONAL] = ()
    """Further cases."""
    scored: Path | None = None
    """An --output of score: it knows the cases' stacks and their truth."""
    output: Path | None = None
    """Folder for the pages; None takes SCORED/cases, or the current folder."""
    images: Path | None = None
    """Folder of the stacks, <uuid>.mha, where the truth has none."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What computes; auto takes a GPU where there is one."""


@dataclass(frozen=True)
class SpeedOptions:
    """What to time, and on how much of it."""

    stack: Annotated[Path, POSITIONAL]
    """A stack's file (.mha)."""
    model: Path
    """Bundle of weights."""
    output: Path
    """Folder for speed.json and speed.md."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run; auto takes a GPU where there is one."""
    engines: tuple[Literal["torch", "openvino"], ...] = ("torch", "openvino")
    """What computes; an engine that is not there is left out."""
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    """The numbers to compute in; one that the processor does not have is left out."""
    repeats: int = 3
    """Runs of each, in turns, each in a process of its own; the table has their medians."""
    frames: int | None = None
    """Frames with tissue to compute, evenly spaced; times are told for all of them. None takes
    all."""
    peer: bool = False
    """Also time a ViT-L/14 of random weights as the reference computes it, and as this does."""
    peer_frames: int = 4
    """Frames of that."""
    threads: int | None = None
    """Threads that compute; None takes the cores that the process may use."""
