"""The registry: every system of the benchmark, in the paper's order.

To add a baseline of timm, add a `timm_system` to SYSTEMS. Whatever else can build a
BenchmarkNetwork is a `System`.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import timm
import torch

from acouslic.backbones import BackboneName, View, build_backbone
from acouslic.heads import AREA_THRESHOLD
from acouslic.lora import TARGETS, LoraConfig
from acouslic.network import (
    AbdomenNet,
    DecoderName,
    NetworkConfig,
    Norms,
    NumberHeadName,
    TrunkConfig,
)
from benchmark import published as paper
from benchmark.networks import (
    BenchmarkNetwork,
    Joint,
    Segmenter,
    add_adapters,
    parameter_counts,
    reference_attention,
    timm_classifier,
    trunk_classifier,
)
from benchmark.options import Protocol, QualityParts, WeightSource
from benchmark.quality import Quality
from benchmark.weights import RANDOM, at_hand, timm_model, trunk_with_weights
from training.adapters import add_lora
from training.base import patches_for
from training.mixup import MixupConfig
from training.options import Intensity, Tokens

# The layers that the paper's code adapts, and those it leaves out: q, k, v are one layer.
REFERENCE_TIMM_TARGETS = ("proj", "fc1", "fc2")
TIMM_TARGETS = ("qkv", *REFERENCE_TIMM_TARGETS)
REFERENCE_TRUNK_TARGETS = ("c_fc", "c_proj", "out_proj")
# timm's own centre crops: 224 of 256 px for these CNNs, of 248 px for Swin.
CNN_CROP, SWIN_CROP = 0.875, 0.9
# As in training, and small for a trial.
DECODER_WIDTH, STAND_IN_DECODER_WIDTH = 32, 8
# As `fit` has it.
NORMS: Norms = "by-source"
LORA = LoraConfig()
# Quality is 0, 0.6 or 1: halfway to the lowest annotated one.
QUALITY_THRESHOLD = 0.3
CMX = MixupConfig()
# The side of the images that all real architectures here take.
NATIVE_SIZE_PX = 224

Kind = Literal["published", "ours", "interpretation"]


@dataclass(frozen=True)
class Plan:
    """What a system is built for."""

    size_px: int
    """The frames' side."""
    protocol: Protocol
    """Where adapters go, and what is cropped or frozen."""
    weights: WeightSource
    """What the network begins with."""
    stand_ins: bool = False
    """Whether a small network of the family takes its place, unless its weights are at hand."""
    tokens: Tokens = "auto"
    """Patches that go through the trunk of `joint`, see `BenchmarkOptions`."""
    norms: Norms = NORMS
    """What brings the features of `joint` to one scale."""
    intensity: Intensity = "as-is"
    """What becomes of the frames' brightness, see `BenchmarkOptions`."""


@dataclass(frozen=True)
class Built:
    """A network ready to be trained."""

    network: BenchmarkNetwork
    """The network."""
    network_name: str
    """Its architecture, for people."""
    origin: str
    """Where its weights come from, for people."""
    trained: str
    """What of it is trained, for people."""
    whole: bool = False
    """Whether all of it is trained."""
    backbone: str | None = None
    """Name of its network in timm, or of a small one in its place; None for FetalCLIP's trunk."""
    stand_in: bool = False
    """Whether it is a small network in the place of the real one."""


@dataclass(frozen=True)
class System:
    """One row of the table."""

    name: str
    """Its name on the command line."""
    title: str
    """Its name for people."""
    build: Callable[[Plan], Built]
    """Builds the network."""
    published: paper.Published | None = None
    """What the paper says of it."""
    threshold: float = 0.5
    """What `score` is compared with under a fixed threshold."""
    rates_quality: bool = False
    """Whether `quality` is one, and not just the probability of an annotation."""
    mixup: MixupConfig | None = None
    """How its batches are planned and mixed; None draws them at random."""
    draws_masks: bool = False
    """Whether it outlines the abdomen, and not just rates the frame."""
    shares_weights: bool = False
    """Whether, under `shared_weights`, its trials may begin with each other's weights."""
    kind: Kind = "published"
    """Whether a paper gives it, it is this project's, or our interpretation of an abstract."""


@cache
def real_parameters(system: System, protocol: Protocol) -> tuple[int, int]:
    """Numbers of trainable and of all parameters of the real architecture, without any weights."""
    with torch.device("meta"):
        plan = Plan(NATIVE_SIZE_PX, protocol, WeightSource(pretrained=False))
        return parameter_counts(system.build(plan).network)


def timm_system(
    name: str,
    title: str,
    timm_name: str,
    *,
    adapters: bool,
    stand_in: BackboneName,
    crop: float = 1.0,
    figures: paper.Published | None = None,
    kind: Kind = "published",
) -> System:
    """A classifier of timm.

    A stand-in has no pretrained weights that could be adapted, so it is trained whole.

    Args:
        name: its name on the command line.
        title: its name for people.
        timm_name: the model's name in timm.
        adapters: whether LoRA and the head are trained, not all of it.
        stand_in: name of the small network that may take its place.
        crop: share of the side that timm's own centre crop leaves.
        figures: what the paper says of it.
        kind: whose it is.

    Returns:
        The system.
    """

    def build(plan: Plan) -> Built:
        small = plan.stand_ins and not at_hand(timm_name, plan.weights)
        used = stand_in if small else timm_name
        if small:
            model, origin = build_backbone(stand_in, plan.size_px), RANDOM
        else:
            model, origin = timm_model(timm_name, plan.weights)
        view = _timm_view(model, crop if plan.protocol.centre_crop else 1.0)
        adapt = adapters and not small
        if adapt:
            targets = REFERENCE_TIMM_TARGETS if plan.protocol.reference_adapters else TIMM_TARGETS
            add_adapters(model, targets, LORA)
            model.get_classifier().requires_grad_(True)
        trained = f"LoRA on {', '.join(targets)} and the head" if adapt else "every parameter"
        return Built(
            timm_classifier(model, view),
            _named(used, stand_in=small),
            origin,
            trained,
            whole=not adapt,
            backbone=used,
            stand_in=small,
        )

    # A stand-in is trained whole, whether or not the real one is.
    return System(name, title, build, figures, shares_weights=True, kind=kind)


def _named(network: str, *, stand_in: bool) -> str:
    return f"stand-in: {network}" if stand_in else network


def _timm_view(model: Any, crop: float) -> View:
    known = model.pretrained_cfg if hasattr(model, "pretrained_cfg") else {}
    default = timm.data.constants
    return View(
        mean=tuple(known.get("mean", default.IMAGENET_DEFAULT_MEAN)),
        std=tuple(known.get("std", default.IMAGENET_DEFAULT_STD)),
        crop=crop,
        interpolation=known.get("interpolation") or "bicubic",
    )


def _trunk(plan: Plan) -> tuple[TrunkConfig, Any, str, dict[str, Any]]:
    """The trunk's dimensions, the trunk, its name, and where it comes from: at least `what`."""
    size = plan.size_px if plan.stand_ins else None
    source = plan.weights
    if plan.stand_ins and source.base is None:
        source = WeightSource(pretrained=False)
    config, trunk, provenance = trunk_with_weights(source, size)
    name = f"ViT-{config.layers}x{config.width}"
    whose = "" if plan.stand_ins else " (FetalCLIP's trunk)"
    return config, trunk, _named(f"{name}{whose}", stand_in=plan.stand_ins), provenance


def _may_adapt(plan: Plan) -> bool:
    """A stand-in without a base has nothing worth freezing."""
    return not (plan.stand_ins and plan.weights.base is None)


def _adapt_fairly(trunk: Any, plan: Plan) -> str:
    """Adapt the trunk where that makes sense; returns what is trained of it, in words."""
    if not _may_adapt(plan):
        return "every parameter of the trunk"
    add_lora(trunk, LORA)
    return f"LoRA on {', '.join(TARGETS)}"


def _fetalclip_cls(plan: Plan) -> Built:
    config, trunk, name, provenance = _trunk(plan)
    if plan.protocol.reference_adapters and _may_adapt(plan):
        reference_attention(trunk)
        add_adapters(trunk, REFERENCE_TRUNK_TARGETS, LORA)
        trained = f"LoRA on {', '.join(REFERENCE_TRUNK_TARGETS)} (the last one dead)"
    else:
        trained = _adapt_fairly(trunk, plan)
    return Built(
        trunk_classifier(trunk, config),
        name,
        provenance["what"],
        f"{trained} and the head",
        stand_in=plan.stand_ins,
    )


def _fetalclip_seg(decoder: DecoderName) -> Callable[[Plan], Built]:
    def build(plan: Plan) -> Built:
        config, trunk, name, provenance = _trunk(plan)
        if plan.protocol.frozen_segmentation_encoder and _may_adapt(plan):
            trunk.requires_grad_(False)
            trained = "the decoder; the trunk is frozen, its LoRA never trains in the paper's code"
        else:
            trained = f"{_adapt_fairly(trunk, plan)} and the decoder"
        network = _network(trunk, NetworkConfig(
            config,
            _decoder_width(plan),
            intensity=plan.intensity,
            decoder=decoder,
            head="area",
            patches="all",
        ))  # fmt: skip
        alone = decoder == "published" and plan.protocol.dice_alone
        return Built(
            Segmenter(network, dice_alone=alone),
            name,
            provenance["what"],
            trained,
            stand_in=plan.stand_ins,
        )

    return build


def _network(trunk: Any, config: NetworkConfig) -> AbdomenNet:
    network = AbdomenNet(config)
    network.trunk = trunk
    return network


def _joint(plan: Plan) -> Built:
    config, trunk, name, provenance = _trunk(plan)
    patches = patches_for(plan.tokens, provenance)
    network = _network(trunk, NetworkConfig(
        config,
        _decoder_width(plan),
        intensity=plan.intensity,
        patches=patches,
        norms=plan.norms,
    ))  # fmt: skip
    trained = _adapt_fairly(network.trunk, plan)
    return Built(
        Joint(network),
        name,
        provenance["what"],
        f"{trained}, decoder and quality head",
        stand_in=plan.stand_ins,
    )


def _decoder_width(plan: Plan) -> int:
    return STAND_IN_DECODER_WIDTH if plan.stand_ins else DECODER_WIDTH


def quality_without(uses: QualityParts) -> System:
    """The system of quality as a number, named after what of the paper it leaves out."""
    lacking = [name for name, used in vars(uses).items() if not used]
    return quality_system(
        quality_name(uses),
        "Quality" + "".join(f", no {name}" for name in lacking),
        head="fusion" if uses.fusion else "rating",
        mixup=CMX if uses.cmx else None,
        correlation=uses.correlation,
    )


def quality_system(
    system: str,
    title: str,
    *,
    head: NumberHeadName = "fusion",
    mixup: MixupConfig | None = CMX,
    correlation: bool = True,
) -> System:
    """A system of quality as a number.

    Args:
        system: its name on the command line.
        title: its name for people.
        head: what rates a frame.
        mixup: how features are mixed; None mixes none.
        correlation: whether the correlation is part of the loss.

    Returns:
        The system.
    """

    def build(plan: Plan) -> Built:
        config, trunk, name, provenance = _trunk(plan)
        trained = _adapt_fairly(trunk, plan)
        network = Quality(trunk, config, head, mixup=mixup, correlation=correlation)
        return Built(
            network,
            name,
            provenance["what"],
            f"{trained} and the {head} head",
            stand_in=plan.stand_ins,
        )

    return System(
        system,
        title,
        build,
        threshold=QUALITY_THRESHOLD,
        rates_quality=True,
        mixup=mixup,
        kind="interpretation",
    )


def quality_name(uses: QualityParts) -> str:
    """`quality`, with `-no-NAME` for all that is left out."""
    lacking = [f"-no-{name}" for name, used in vars(uses).items() if not used]
    return "quality" + "".join(lacking)


def _registry(*systems: System) -> dict[str, System]:
    return {system.name: system for system in systems}


_ELEVEN = _registry(
    timm_system(
        "densenet",
        "DenseNet",
        "densenet121",
        adapters=False,
        stand_in="small-densenet",
        crop=CNN_CROP,
        figures=paper.DENSENET,
    ),
    timm_system(
        "efficientnet",
        "EfficientNet",
        "efficientnet_b0",
        adapters=False,
        stand_in="small-efficientnet",
        crop=CNN_CROP,
        figures=paper.EFFICIENTNET,
    ),
    timm_system(
        "vgg",
        "VGG",
        "vgg16",
        adapters=False,
        stand_in="small-vgg",
        crop=CNN_CROP,
        figures=paper.VGG,
    ),
    timm_system(
        "swin",
        "Swin",
        "swin_large_patch4_window7_224.ms_in22k_ft_in1k",
        adapters=True,
        stand_in="small-swin",
        crop=SWIN_CROP,
        figures=paper.SWIN,
    ),
    timm_system(
        "deit",
        "DeiT",
        "deit3_large_patch16_224.fb_in22k_ft_in1k",
        adapters=True,
        stand_in="small-deit",
        figures=paper.DEIT,
    ),
    timm_system(
        "vit",
        "ViT 400M",
        "vit_large_patch14_clip_224.openai_ft_in12k_in1k",
        adapters=True,
        stand_in="small-vit",
        figures=paper.VIT,
    ),
    System(
        "fetalclip_cls",
        "FetalCLIP_CLS",
        _fetalclip_cls,
        paper.FETALCLIP_CLS,
    ),
    System(
        "fetalclip_seg",
        "FetalCLIP_SEG",
        _fetalclip_seg("published"),
        paper.FETALCLIP_SEG,
        threshold=AREA_THRESHOLD,
        draws_masks=True,
    ),
    System(
        "fetalclip_seg_ours",
        "FetalCLIP_SEG, our decoder",
        _fetalclip_seg("own"),
        threshold=AREA_THRESHOLD,
        draws_masks=True,
        kind="ours",
    ),
    System("joint", "Joint (ours)", _joint, rates_quality=True, draws_masks=True, kind="ours"),
    quality_without(QualityParts()),
)
SYSTEMS = _ELEVEN | _registry(
    # Its weights come with a package of Python, see docs/benchmark.md.
    timm_system(
        "efficientnet_lite0",
        "EfficientNet-Lite0",
        "tf_efficientnet_lite0",
        adapters=False,
        stand_in="small-efficientnet",
        crop=CNN_CROP,
        kind="ours",
    ),
    *(
        quality_without(QualityParts(*used))
        for used in itertools.product((True, False), repeat=3)
        if not all(used)
    ),
    # Other readings of the same abstract.
    quality_system("quality-fusion-concat", "Quality, early fusion", head="fusion-concat"),
    quality_system("quality-fusion-late", "Quality, late fusion", head="fusion-late"),
    quality_system(
        "quality-cmx-any", "Quality, CMX in a cluster", mixup=MixupConfig(partners="any")
    ),
    quality_system(
        "quality-cmx-across", "Quality, CMX across clusters", mixup=MixupConfig(partners="across")
    ),
)
# The others run where their names, or the ablations' flags, ask for them.
DEFAULT_SYSTEMS = tuple(_ELEVEN)
