"""All that training can be told: the fields are the command line's options, with their help.

No module that is slow to import is needed here, so that help is quick.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from acouslic.lora import LoraConfig
from dataset.backends import Backend
from dataset.command import INLINE, POSITIONAL

RESOURCES = Path(__file__).resolve().parents[1] / "resources"
Device = Literal["auto", "cpu", "cuda"]
StoredType = Literal["fp16", "fp32"]
# preprocess.Intensity, which would bring torch; mypy holds the two to the same words.
Intensity = Literal["as-is", "fan"]
# network.Patches, likewise, and what leaves the choice to the trunk.
Tokens = Literal["auto", "fan", "all", "registers"]
# network.Norms and network.HeadName, likewise.
Norms = Literal["shared", "by-source"]
HeadName = Literal["joint", "class", "area", "rating", "fusion", "fusion-concat", "fusion-late"]
# Which frames without annotation teach an empty mask. Next to annotated frames, and in sweeps that
# nobody looked through, abdomens are well in view that no mask tells of.
EmptyMasks = Literal["all", "far", "none"]
# What an ablation tries.
Study = Literal["parts", "variations"]


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss's terms."""

    dice: float = 1.0
    """Weight of 1 - soft Dice, of annotated frames."""
    bce: float = 1.0
    """Weight of the mask's cross-entropy a pixel."""
    quality: float = 1.0
    """Weight of the quality's cross-entropy."""
    empty_masks: EmptyMasks = "far"
    """Frames without annotation that teach an empty mask; far: 15 or more from any annotated."""


@dataclass(frozen=True)
class Augmentation:
    """How far training frames are varied.

    A ratio r draws a factor between 1/r and r, evenly on a log scale. The defaults are mild: what
    another setting of the machine or another tilt of the probe could change. From `blur` to
    `rings`, half of the frames keep clear of each change.
    """

    gain_ratio: float = 1.5
    """Greatest factor on the brightness; 1 leaves it."""
    gamma_ratio: float = 1.4
    """Greatest exponent on the brightness; 1 leaves it."""
    depth: float = 0.8
    """Greatest change of log brightness from the fan's near end to its far end; 0 leaves it."""
    angle_deg: float = 12.0
    """Greatest turn about the fan's apex to either side, in degrees; 0 leaves it."""
    scale_ratio: float = 1.15
    """Greatest factor on the size, about the fan's apex; 1 leaves it."""
    flip: bool = True
    """Whether half of the frames are mirrored about the fan's axis."""
    blur: float = 0.7
    """Greatest share of a frame that is replaced by itself blurred, 0 to 1; 0 leaves it."""
    grain: float = 0.15
    """Greatest standard deviation of noise on the log brightness; 0 adds none."""
    bands: float = 0.5
    """Greatest change of log brightness in bands across the depth; 0 leaves it."""
    shadow: float = 0.9
    """Greatest share of the brightness that a shadow along the rays takes, 0 to 1; 0 casts none."""
    contact: float = 0.3
    """Greatest share of the fan, from one side, that loses contact, 0 to 1; 0 keeps all."""
    rings: float = 0.15
    """Greatest brightness of rings below the probe, 1 is white; 0 draws none."""
    floor: float = 0.06
    """Greatest brightness that is cut to black, or filled by haze, 1 is white; 0 leaves it."""
    curve: float = 0.6
    """Greatest bend of the grey map, 0 to 1; 0 leaves it."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: batches are drawn, so an epoch is just a number of steps."""

    epochs: int = 20
    """Number of epochs."""
    steps_per_epoch: int = 250
    """Optimiser steps an epoch."""
    batch_size: int = 32
    """Frames in one pass of one process."""
    seed: int = 0
    """Seed of first weights, batches, augmentation and dropout."""
    accumulate: int = 1
    """Passes whose gradients make one optimiser step."""
    head_rate: float = 1e-3
    """Learning rate of the heads after the warm-up."""
    trunk_rate: float = 3e-4
    """Learning rate of the trunk's adapters after the warm-up."""
    weight_decay: float = 0.01
    """AdamW's weight decay, of matrices only."""
    warmup: float = 0.1
    """Share of all steps in which the rates rise from 0; then they fall as a cosine."""
    clip_norm: float = 1.0
    """Greatest norm of a step's gradient; a longer one is shortened to it."""
    average: float = 0.999
    """Share of the average of weights that a step leaves as it was; 0 keeps the last weights."""
    shares: tuple[float, float, float] = (0.5, 0.25, 0.25)
    """Shares of a batch without annotation, suboptimal and optimal; their sum is 1."""
    loss: LossConfig = field(default_factory=LossConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class Machine:
    """What a run uses. Only rounding depends on it, and on devices x nodes a step's batch."""

    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Numbers that most of a pass is computed in; auto: bf16 where the hardware has it, else fp16
    on a GPU (a T4) and fp32 on a processor."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """What computes; auto takes a GPU where there is one."""
    devices: int = 1
    """Devices of each node that train one network together; each adds --batch-size frames."""
    num_nodes: int = 1
    """Computers that train one network together."""
    workers: int = 0
    """Processes that read batches ahead; 0 reads in the training process."""
    checkpointing: bool = False
    """Recompute the trunk on the way back: slower, with much less memory."""
    tensorboard: bool = False
    """Write events for TensorBoard into the run's folder too."""


@dataclass(frozen=True)
class RatingConfig:
    """How heads learn that say quality as a number; docs/benchmark.md has the formulas."""

    cmx: bool = True
    """Mix the features of similar frames, where the head says quality as a number."""
    correlation: bool = True
    """Add the correlation to the loss, where the head says quality as a number."""


@dataclass(frozen=True)
class MixingConfig:
    """Which simulated frames are mixed into training; no held-out case ever is one."""

    phantoms: Path | None = None
    """Training cache of phantoms, whose frames are mixed in; needs --share."""
    share: float | None = None
    """Share of the drawn frames that are phantoms', above 0 and below 1; needs --phantoms."""


@dataclass(frozen=True)
class FitOptions:
    """What is fitted: the same for all folds."""

    folds: int = 5
    """Number of folds the subjects are divided into."""
    split_seed: int = 0
    """Seed of that division."""
    decoder_width: int = 32
    """Channels of the mask decoder."""
    image_levels: int = 1
    """Sizes of the frame that the decoder convolves itself, 1 to 4."""
    intensity: Intensity = "fan"
    """as-is: brightness as the machine made it; fan: mean and spread as usual inside the fan."""
    tokens: Tokens = "auto"
    """Patches that go through the trunk: fan, those with a pixel in the fan; all; registers, the
    fan's and four tokens that stand for the others; auto: registers on FetalCLIP's trunk, else
    fan."""
    norms: Norms = "by-source"
    """by-source: the trunk's own last norm on the tokens that the heads see, and a norm for each
    source of the joint head; shared, as before: tokens as they are, one norm over all sources."""
    head: HeadName = "joint"
    """What rates a frame: joint is this project's; class, area: as FetalCLIP_CLS and _SEG; rating,
    fusion: quality as a number, the latter from features of four depths."""
    rating: Annotated[RatingConfig, INLINE] = field(default_factory=RatingConfig)
    mixing: Annotated[MixingConfig, INLINE] = field(default_factory=MixingConfig)
    lora: Annotated[LoraConfig, INLINE] = field(default_factory=LoraConfig)
    recipe: Annotated[Recipe, INLINE] = field(default_factory=Recipe)
    validate_every: int = 1
    """Epochs from one judging of the held-out stacks to the next; above --epochs, never."""


@dataclass(frozen=True)
class SweepHeadRecipe:
    """How a sweep head is trained."""

    epochs: int = 60
    """Times that each stack is gone through."""
    batch_size: int = 16
    """Stacks a step."""
    rate: float = 3e-3
    """Highest learning rate, after a warm-up; then it falls as a cosine."""
    weight_decay: float = 0.1
    """AdamW's weight decay, of matrices only."""
    channels: int = 16
    """Channels of each of its five layers."""
    seed: int = 0
    """Seed of first weights and of the order of stacks."""


@dataclass(frozen=True)
class PackOptions:
    """Which folds become a bundle, and how."""

    name: str = "acouslic-fetalclip"
    """Name of the bundle; its id is the name and 12 digits of its hash."""
    folds: tuple[int, ...] = (0,)
    """Folds to pack, from 0; several are an ensemble, which takes as many times longer."""
    merge: bool = False
    """Add the adapters to the trunk: a plain network, for one fold only."""
    dtype: StoredType = "fp16"
    """Numbers that the weights are stored in."""
    overwrite: bool = False
    """Replace an older bundle in --output."""


@dataclass(frozen=True)
class DemoSize:
    """How much a demo bundle learns from, and how long."""

    cases: tuple[int, int] = (960, 480)
    """Phantoms of the foundation, and of the adaptation."""
    frames: int = 64
    """Frames of each phantom that is trained on."""
    epochs: tuple[int, int] = (72, 30)
    """Epochs of the foundation, and of the adaptation."""
    held_out: tuple[int, int] = (16, 40)
    """Phantoms that the foundation holds out; whole stacks that the calibration is fitted on."""
    steps_per_epoch: int = 80
    """Optimiser steps an epoch."""
    batch_size: int = 32
    """Frames a step of the foundation; the adaptation takes half as many."""
    members: int = 1
    """Networks in the ensemble."""


@dataclass(frozen=True)
class AblationSize:
    """How much each network of an ablation learns from, and how long."""

    cases: int = 160
    """Phantoms of each look, and as many that are adapted to."""
    frames: int = 64
    """Frames of each."""
    judged: int = 16
    """Other phantoms, half of them realistic and half random, that networks are judged on."""
    epochs: int = 6
    """Epochs of each network."""
    steps_per_epoch: int = 80
    """Optimiser steps an epoch."""
    batch_size: int = 24
    """Frames a step of a foundation; an adaptation takes half as many."""
    seeds: int = 2
    """Networks of each arm; for variations, two seeds are one round of its 16 networks."""


# ---- the options of each command


@dataclass(frozen=True)
class Prepare:
    """`prepare`."""

    dataset: Annotated[Path, POSITIONAL]
    """Data set in the challenge's training layout, version 1.1, or one of phantoms."""
    output: Path
    """Folder of the cache; cases that it already holds are not read again."""
    size: int = 224
    """Side of the cached frames, in pixels: 224 for FetalCLIP, 128 for the demo's trunk."""
    workers: int = 1
    """Processes, of 1 GB each."""
    more: Annotated[tuple[Path, ...], POSITIONAL] = ()
    """More data sets, of other hospitals, into the same cache."""


@dataclass(frozen=True)
class Demo:
    """`demo`."""

    output: Path = Path("resources", "demo")
    """Folder of the bundle."""
    work: Path = Path("demo-work")
    """Folder for caches and runs; what is finished there is not made again."""
    start: Path | None = None
    """Bundle or base whose trunk the foundation goes on from; None starts from random weights."""
    size: Annotated[DemoSize, INLINE] = field(default_factory=DemoSize)
    machine: Annotated[Machine, INLINE] = field(default_factory=Machine)
    overwrite: bool = False
    """Replace an older bundle in --output."""


@dataclass(frozen=True)
class Ablation:
    """`ablation`."""

    frames: Annotated[Path, POSITIONAL]
    """Folder of labelled frames, as `python -m evaluation frames` reads it."""
    output: Path
    """Folder for caches, runs and the table; what is finished there is not made again."""
    study: Study = "parts"
    """parts: one part of the recipe left out at a time; variations: each variation of the frames,
    switched on in half of 16 networks."""
    size: Annotated[AblationSize, INLINE] = field(default_factory=AblationSize)
    machine: Annotated[Machine, INLINE] = field(default_factory=Machine)


@dataclass(frozen=True)
class ImportFetalclip:
    """`import-fetalclip`."""

    checkpoint: Annotated[Path, POSITIONAL]
    """FetalCLIP_weights.pt from its authors' model page."""
    output: Path
    """Folder of the base."""
    config: Path = RESOURCES / "fetalclip.json"
    """open_clip's model config of the checkpoint."""
    images: Path | None = None
    """Folder of frames (.png) to try --intensity and --tokens on; None takes a phantom's."""
    dtype: StoredType = "fp16"
    """Numbers that the weights are stored in."""
    overwrite: bool = False
    """Replace an older base in --output."""


@dataclass(frozen=True)
class Fit:
    """`fit`."""

    cache: Annotated[Path, POSITIONAL]
    """Training cache that `prepare` wrote."""
    base: Path
    """Base that `import-fetalclip` wrote, or a bundle, of which the trunk is taken."""
    output: Path
    """Folder of all folds' runs; fold K goes into fold-K."""
    fold: int | Literal["all"]
    """Fold to hold out, from 0; `all`: each in turn, by the workers of --where."""
    training: Annotated[FitOptions, INLINE] = field(default_factory=FitOptions)
    machine: Annotated[Machine, INLINE] = field(default_factory=Machine)
    where: Backend = field(default_factory=Backend)


@dataclass(frozen=True)
class CrossValidate:
    """`cross-validate`."""

    cache: Annotated[Path, POSITIONAL]
    """Training cache that the folds were trained on."""
    base: Path
    """Base, or bundle, that the folds were trained on."""
    runs: Path
    """Folder of all folds' runs, the --output of `fit`; cross-validation.json goes there."""
    device: Device = "auto"
    """What computes; auto takes a GPU where there is one."""
    where: Annotated[Backend, INLINE] = field(default_factory=Backend)


@dataclass(frozen=True)
class TrainSweepHead:
    """`sweep-head`."""

    cache: Annotated[Path, POSITIONAL]
    """Training cache that the folds were trained on."""
    base: Path
    """Base, or bundle, that the folds were trained on."""
    runs: Path
    """Folder of all folds' runs; cross-validation.json there is written anew, with the head."""
    recipe: Annotated[SweepHeadRecipe, INLINE] = field(default_factory=SweepHeadRecipe)
    device: Device = "auto"
    """What computes the networks; auto takes a GPU where there is one."""
    where: Annotated[Backend, INLINE] = field(default_factory=Backend)


@dataclass(frozen=True)
class Calibrate:
    """`calibrate`."""

    bundle: Annotated[Path, POSITIONAL]
    """Bundle of weights."""
    cache: Annotated[Path, POSITIONAL]
    """Training cache of cases that it never saw, at their real shares of qualities."""
    output: Path
    """Folder of the same bundle with the new calibration."""
    parts: int = 4
    """Parts of the cases; each is judged with the calibration that the others fit."""
    sweep_head: bool = False
    """Try a head along each sweep too; it is taken where its gain in score is above chance."""
    device: Device = "auto"
    """What computes; auto takes a GPU where there is one."""
    overwrite: bool = False
    """Replace an older bundle in the output folder."""


@dataclass(frozen=True)
class Pack:
    """`pack`."""

    runs: Annotated[Path, POSITIONAL]
    """Folder of all folds' runs, with cross-validation.json."""
    base: Path
    """Base, or bundle, that the folds were trained on."""
    output: Path
    """Folder of the bundle; a README.md that is there stays."""
    bundle: Annotated[PackOptions, INLINE] = field(default_factory=PackOptions)
