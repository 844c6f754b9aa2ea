"""All that the benchmark can be told: the fields are the command line's options, with their help.

No module that is slow to import is needed here, so that help is quick.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from dataset.backends import Backend
from dataset.command import INLINE, POSITIONAL
from training.options import Intensity, Tokens

Precision = Literal["bf16", "fp16", "fp32"]


@dataclass(frozen=True)
class Protocol:
    """How systems are compared: every difference between the paper's run and the fair one."""

    name: str
    """`paper` (arXiv 2507.22802, as its code does it) or `strict` (the fair one)."""
    group_by_subject: bool
    """No subject is in two parts; False is the paper's split, by case."""
    annotated_sweeps_only: bool
    """Sweeps without an AC are left out of training AND test."""
    fixed_threshold: bool
    """Each system has its own fixed threshold; False takes the one of validation's best F1."""
    shared_weights: bool
    """A fully trained baseline begins trial k with the best weights of trial k - 1."""
    centre_crop: bool
    """CNNs see the middle 0.875 of the image's side, Swin 0.9, which cuts the fan."""
    reference_adapters: bool
    """LoRA where the paper put it: no q, k, v, and FetalCLIP's `out_proj` dead."""
    frozen_segmentation_encoder: bool
    """FetalCLIP_SEG trains its decoder only."""
    dice_alone: bool
    """FetalCLIP_SEG has no cross-entropy beside Dice, so frames without abdomen teach nothing."""
    offline_copies: bool
    """The original and two fixed variations of each frame; False varies every frame anew."""
    reference_images: bool
    """Frames, masks and copies of `python -m benchmark prepare`; False takes the cache's."""
    whole_batches: bool
    """What is left at an epoch's end and fills no batch is not trained on."""


PAPER = Protocol(
    name="paper",
    group_by_subject=False,
    annotated_sweeps_only=True,
    fixed_threshold=True,
    shared_weights=True,
    centre_crop=True,
    reference_adapters=True,
    frozen_segmentation_encoder=True,
    dice_alone=True,
    offline_copies=True,
    reference_images=True,
    whole_batches=True,
)
STRICT = Protocol(
    name="strict",
    group_by_subject=True,
    annotated_sweeps_only=False,
    fixed_threshold=False,
    shared_weights=False,
    centre_crop=False,
    reference_adapters=False,
    frozen_segmentation_encoder=False,
    dice_alone=False,
    offline_copies=False,
    reference_images=False,
    whole_batches=False,
)
PROTOCOLS = {protocol.name: protocol for protocol in (PAPER, STRICT)}


@dataclass(frozen=True)
class ImageOptions:
    """How the paper's code makes its images: each point can be turned off by itself."""

    opencv_resize: bool = True
    """Shrink frames by OpenCV's cubic interpolation without antialias; off: antialiased."""
    filled_masks: bool = True
    """Fill masks inside their outer contour."""
    full_size_copies: bool = True
    """Vary copies at full size, before they shrink; off: after it."""
    always_varied: bool = False
    """Give all copies jitter and CLAHE, and not half of them each."""


@dataclass(frozen=True)
class PrepareOptions:
    """`prepare`."""

    dataset: Annotated[Path, POSITIONAL]
    """Data set that the cache was made of."""
    cache: Annotated[Path, POSITIONAL]
    """Training cache; the images go into its folder `reference`, 50 kB each at 224 px."""
    workers: int = 1
    """Processes, of 1 GB each."""
    images: Annotated[ImageOptions, INLINE] = field(default_factory=ImageOptions)


@dataclass(frozen=True)
class ProtocolChanges:
    """Parts of the protocol, each turned on or off by itself; None leaves what --protocol says."""

    group_by_subject: bool | None = None
    """Keep all cases of a subject in one part; None: as --protocol."""
    annotated_sweeps_only: bool | None = None
    """Leave sweeps without an AC out of training and test; None: as --protocol."""
    fixed_threshold: bool | None = None
    """Take each system's own threshold and not the one of validation's best F1;
    None: as --protocol."""
    shared_weights: bool | None = None
    """Begin a fully trained baseline with its last trial's best weights; None: as --protocol."""
    centre_crop: bool | None = None
    """Show CNNs the middle 0.875 of the image's side, Swin 0.9; None: as --protocol."""
    reference_adapters: bool | None = None
    """Put LoRA where the paper put it, without q, k, v; None: as --protocol."""
    frozen_segmentation_encoder: bool | None = None
    """Train the decoder of FetalCLIP_SEG only; None: as --protocol."""
    dice_alone: bool | None = None
    """Train FetalCLIP_SEG by Dice without cross-entropy; None: as --protocol."""
    offline_copies: bool | None = None
    """Train on two fixed copies of each frame and not on new variations within the fan;
    None: as --protocol."""
    reference_images: bool | None = None
    """Take frames, masks and copies as `python -m benchmark prepare` made them; None: as
    --protocol."""
    whole_batches: bool | None = None
    """Leave out what fills no whole batch at an epoch's end; None: as --protocol."""


@dataclass(frozen=True)
class Schedule:
    """How every system is trained; the defaults are the paper's."""

    epochs: int = 5
    """Number of epochs; the one of the least validation loss counts."""
    batch_size: int = 32
    """Frames a step."""
    learning_rate: float = 3e-4
    """AdamW's learning rate."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    frames_per_epoch: int | None = None
    """Frames drawn at random for each epoch; None takes all."""
    soften_frames: float = 0.0
    """Frames over which quality fades beside an annotated run, to 1/e; 0 does not soften."""
    seed: int = 0
    """Seed of weights, batches and copies; trial k adds k to a thousand of it."""


@dataclass(frozen=True)
class QualityParts:
    """The parts of the system `quality`; without any a Linear on the pooled feature is left."""

    fusion: bool = True
    """Fuse features of four depths."""
    cmx: bool = True
    """Mix the features of similar frames while training."""
    correlation: bool = True
    """Add the correlation to the loss."""


@dataclass(frozen=True)
class WeightSource:
    """Where the systems' first weights come from."""

    pretrained: bool = True
    """Timm's systems start from published weights, else from random numbers."""
    folder: Path | None = None
    """Where these weights lie as files; None lets timm fetch them."""
    base: Path | None = None
    """Folder by `import-fetalclip` or of the demo, for every system on FetalCLIP's trunk."""


@dataclass(frozen=True)
class Compute:
    """What a trial uses."""

    device: str = "cpu"
    """`cpu` or `cuda`."""
    precision: Precision = "bf16"
    """What a pass is computed in: bf16 or fp16 (autocast), or fp32."""
    readers: int = 0
    """Processes that read batches ahead; 0 reads in the training process."""


@dataclass(frozen=True)
class WeightOptions:
    """What the networks begin with."""

    base: Path | None = None
    """Folder by `python -m training import-fetalclip`, for the systems on FetalCLIP's trunk."""
    weights: Literal["timm", "none"] = "timm"
    """First weights of the baselines: published ones of timm, or random numbers."""
    pretrained_dir: Path | None = None
    """Folder of TIMM_NAME.safetensors or .pth files; None lets timm fetch them."""
    stand_ins: bool = False
    """Put a small network of its family in the place of each whose weights are not in
    --pretrained-dir, for a trial."""


@dataclass(frozen=True)
class MachineOptions:
    """What computes."""

    precision: Precision | Literal["auto"] = "auto"
    """Numbers that most of a pass is computed in, scores apart, which are always fp32; auto: bf16
    where the hardware has it, else fp16 on a GPU (a T4) and fp32 on a processor."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """What computes; auto takes a GPU where there is one."""
    readers: int = 0
    """Processes of each worker that read batches ahead; 0 reads in the training process."""
    where: Annotated[Backend, INLINE] = field(default_factory=Backend)


@dataclass(frozen=True)
class PackOptions:
    """`pack`."""

    benchmark: Annotated[Path, POSITIONAL]
    """Folder of a benchmark, the --output of `run`."""
    cache: Annotated[Path, POSITIONAL]
    """Training cache that it ran on."""
    system: str
    """Name of the system, such as fetalclip_cls."""
    output: Path
    """Folder of the bundle."""
    trial: int = 0
    """Number of the trial, from 0."""
    overwrite: bool = False
    """Replace an older bundle in --output."""
    weights: Annotated[WeightOptions, INLINE] = field(default_factory=WeightOptions)


@dataclass(frozen=True)
class BenchmarkOptions:
    """What to benchmark."""

    cache: Annotated[Path, POSITIONAL]
    """Folder by `python -m training prepare`, of --size 224 unless --stand-ins."""
    output: Path
    """Folder for trials and tables; a benchmark that was stopped goes on there."""
    systems: tuple[str, ...] | None = None
    """Names out of densenet, efficientnet, vgg, swin, deit, vit, fetalclip_cls, fetalclip_seg,
    fetalclip_seg_ours, joint, quality; None takes all these eleven."""
    protocol: Literal["paper", "strict"] = "strict"
    """What the paper did, or the fair comparison."""
    test_cache: Path | None = None
    """Folder of a cache of other cases, of another hospital perhaps, which all are the test part;
    those of the first cache are trained and validated on. None tests on a part of that."""
    trials: int = 5
    """Trainings of each system, each from its own seed."""
    rehearse: bool = False
    """Put one batch through every system, say what it trains and takes, and stop."""
    note: str = ""
    """A remark on top of every table."""
    schedule: Annotated[Schedule, INLINE] = field(default_factory=Schedule)
    weights: Annotated[WeightOptions, INLINE] = field(default_factory=WeightOptions)
    quality: Annotated[QualityParts, INLINE] = field(default_factory=QualityParts)
    tokens: Tokens = "auto"
    """Patches that go through the trunk of joint: fan, those with a pixel in the fan; all;
    registers, the fan's and four tokens that stand for the others; auto: registers on FetalCLIP's
    trunk, else fan. The papers' systems take all."""
    intensity: Intensity = "as-is"
    """as-is: brightness as the machine made it, as in both papers; fan: mean and spread as usual
    inside the fan, for every system, as `fit` has it."""
    changes: Annotated[ProtocolChanges, INLINE] = field(default_factory=ProtocolChanges)
    machine: Annotated[MachineOptions, INLINE] = field(default_factory=MachineOptions)
