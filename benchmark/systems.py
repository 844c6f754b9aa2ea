"""The registry: every system of the benchmark, in the paper's order.

To add a baseline of timm, add a `timm_system` to SYSTEMS. Whatever else can build a
BenchmarkNetwork is a `System`.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
import torch
from timm.models.vgg import VGG
from torch import nn

from acouslic.lora import TARGETS, LoraConfig
from acouslic.network import AbdomenNet, NetworkConfig, TrunkConfig
from benchmark import published as paper
from benchmark.mixup import MixupConfig
from benchmark.networks import (
    BenchmarkNetwork,
    Joint,
    Segmenter,
    View,
    add_adapters,
    parameter_counts,
    reference_attention,
    timm_classifier,
    trunk_classifier,
)
from benchmark.options import Protocol, QualityParts, WeightSource
from benchmark.quality import Quality
from benchmark.weights import (
    RANDOM,
    STAND_IN_GRID,
    timm_model,
    trunk_with_weights,
)
from training.adapters import add_lora

# The layers that the paper's code adapts, and those it leaves out: q, k, v are one layer.
REFERENCE_TIMM_TARGETS = ("proj", "fc1", "fc2")
TIMM_TARGETS = ("qkv", *REFERENCE_TIMM_TARGETS)
REFERENCE_TRUNK_TARGETS = ("c_fc", "c_proj", "out_proj")
# timm's own centre crop for these CNNs: 224 of 256 px.
CNN_CROP = 0.875
# As in training, and small for a trial.
DECODER_WIDTH, STAND_IN_DECODER_WIDTH = 32, 8
LORA = LoraConfig()
# Quality is 0, 0.6 or 1: halfway to the lowest annotated one.
QUALITY_THRESHOLD = 0.3
# The paper's: the share of the pixels that FetalCLIP_SEG has to find.
AREA_THRESHOLD = 0.01
# The side of the images that all real architectures here take.
NATIVE_SIZE_PX = 224


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
    """Whether a small network of the family takes its place."""


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


@cache
def real_parameters(system: System, protocol: Protocol) -> tuple[int, int]:
    """Numbers of trainable and of all parameters of the real architecture, without any weights."""
    with torch.device("meta"):
        plan = Plan(NATIVE_SIZE_PX, protocol, WeightSource(pretrained=False))
        return parameter_counts(system.build(plan).network)


StandIn = Callable[[int], tuple[Any, str]]


def timm_system(
    name: str,
    title: str,
    timm_name: str,
    *,
    adapters: bool,
    stand_in: StandIn,
    crop: float = 1.0,
    figures: paper.Published | None = None,
) -> System:
    """A classifier of timm.

    A stand-in has no pretrained weights that could be adapted, so it is trained whole.

    Args:
        name: its name on the command line.
        title: its name for people.
        timm_name: the model's name in timm.
        adapters: whether LoRA and the head are trained, not all of it.
        stand_in: builds the small network that may take its place.
        crop: share of the side that the paper's centre crop leaves.
        figures: what the paper says of it.

    Returns:
        The system.
    """

    def build(plan: Plan) -> Built:
        if plan.stand_ins:
            (model, network_name), origin = stand_in(plan.size_px), RANDOM
        else:
            (model, origin), network_name = timm_model(timm_name, plan.weights), timm_name
        view = _timm_view(model, crop if plan.protocol.centre_crop else 1.0)
        adapt = adapters and not plan.stand_ins
        if adapt:
            targets = REFERENCE_TIMM_TARGETS if plan.protocol.reference_adapters else TIMM_TARGETS
            add_adapters(model, targets, LORA)
            model.get_classifier().requires_grad_(True)
        trained = f"LoRA on {', '.join(targets)} and the head" if adapt else "every parameter"
        return Built(timm_classifier(model, view), network_name, origin, trained, whole=not adapt)

    return System(name, title, build, figures)


def _timm_view(model: Any, crop: float) -> View:
    colours = model.pretrained_cfg if hasattr(model, "pretrained_cfg") else {}
    default = timm.data.constants
    return View(
        mean=tuple(colours.get("mean", default.IMAGENET_DEFAULT_MEAN)),
        std=tuple(colours.get("std", default.IMAGENET_DEFAULT_STD)),
        crop=crop,
    )


def _small_densenet(size: int) -> tuple[nn.Module, str]:
    model = timm.create_model(
        "densenet121", num_classes=1, growth_rate=12, block_config=(2, 4, 4, 2)
    )
    return model, "stand-in: DenseNet of 12 layers, growth 12"


def _small_efficientnet(size: int) -> tuple[nn.Module, str]:
    return timm.create_model("test_efficientnet", num_classes=1), "stand-in: timm test_efficientnet"


def _small_vgg(size: int) -> tuple[nn.Module, str]:
    stages = [[16], [32], [32, 32], [64, 64], [64]]
    config = [layer for stage in stages for layer in (*stage, "M")]
    return VGG(config, num_classes=1, mlp_ratio=1 / 64), "stand-in: VGG of 7 convolutions"


def _small_swin(size: int) -> tuple[nn.Module, str]:
    model = timm.create_model(
        "swin_large_patch4_window7_224",
        num_classes=1,
        img_size=size,
        window_size=size // 32,
        embed_dim=32,
        depths=(1, 1, 2, 1),
        num_heads=(1, 2, 4, 8),
    )
    return model, "stand-in: Swin of 5 blocks, width 32"


def _small_vit(timm_name: str, label: str) -> StandIn:
    def build(size: int) -> tuple[nn.Module, str]:
        model = timm.create_model(
            timm_name,
            num_classes=1,
            img_size=size,
            patch_size=max(1, size // STAND_IN_GRID),
            embed_dim=96,
            depth=4,
            num_heads=3,
        )
        return model, f"stand-in: {label} of 4 blocks, width 96"

    return build


def _trunk(plan: Plan) -> tuple[TrunkConfig, Any, str, str]:
    """The trunk's dimensions, the trunk, its name, and where its weights come from."""
    size = plan.size_px if plan.stand_ins else None
    source = plan.weights
    if plan.stand_ins and source.base is None:
        source = WeightSource(pretrained=False)
    config, trunk, origin = trunk_with_weights(source, size)
    name = f"ViT-{config.layers}x{config.width}"
    if plan.stand_ins:
        return config, trunk, f"stand-in: {name}", origin
    return config, trunk, f"{name} (FetalCLIP's trunk)", origin


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
    config, trunk, name, origin = _trunk(plan)
    if plan.protocol.reference_adapters and _may_adapt(plan):
        reference_attention(trunk)
        add_adapters(trunk, REFERENCE_TRUNK_TARGETS, LORA)
        trained = f"LoRA on {', '.join(REFERENCE_TRUNK_TARGETS)} (the last one dead)"
    else:
        trained = _adapt_fairly(trunk, plan)
    return Built(trunk_classifier(trunk, config), name, origin, f"{trained} and the head")


def _fetalclip_seg(plan: Plan) -> Built:
    config, trunk, name, origin = _trunk(plan)
    if plan.protocol.frozen_segmentation_encoder and _may_adapt(plan):
        trunk.requires_grad_(False)
        trained = "the decoder; the trunk is frozen, its LoRA never trains in the paper's code"
    else:
        trained = f"{_adapt_fairly(trunk, plan)} and the decoder"
    network = Segmenter(trunk, config, _decoder_width(plan))
    return Built(network, name, origin, trained)


def _joint(plan: Plan) -> Built:
    config, trunk, name, origin = _trunk(plan)
    network = AbdomenNet(NetworkConfig(config, _decoder_width(plan)))
    network.trunk = trunk
    trained = _adapt_fairly(network.trunk, plan)
    return Built(Joint(network), name, origin, f"{trained}, decoder and quality head")


def _decoder_width(plan: Plan) -> int:
    return STAND_IN_DECODER_WIDTH if plan.stand_ins else DECODER_WIDTH


def quality_system(uses: QualityParts) -> System:
    """The system of quality as a number, named after what of the paper it leaves out."""
    lacking = [name for name, used in vars(uses).items() if not used]
    mixup = MixupConfig() if uses.cmx else None

    def build(plan: Plan) -> Built:
        config, trunk, name, origin = _trunk(plan)
        trained = _adapt_fairly(trunk, plan)
        network = Quality(trunk, config, uses, mixup or MixupConfig())
        head = "the fusion head" if uses.fusion else "a Linear"
        return Built(network, name, origin, f"{trained} and {head}")

    return System(
        quality_name(uses),
        "Quality" + "".join(f", no {name}" for name in lacking),
        build,
        threshold=QUALITY_THRESHOLD,
        rates_quality=True,
        mixup=mixup,
    )


def quality_name(uses: QualityParts) -> str:
    """`quality`, with `-no-NAME` for all that is left out."""
    lacking = [f"-no-{name}" for name, used in vars(uses).items() if not used]
    return "quality" + "".join(lacking)


def _registry(*systems: System) -> dict[str, System]:
    return {system.name: system for system in systems}


SYSTEMS = _registry(
    timm_system(
        "densenet",
        "DenseNet",
        "densenet121",
        adapters=False,
        stand_in=_small_densenet,
        crop=CNN_CROP,
        figures=paper.DENSENET,
    ),
    timm_system(
        "efficientnet",
        "EfficientNet",
        "efficientnet_b0",
        adapters=False,
        stand_in=_small_efficientnet,
        crop=CNN_CROP,
        figures=paper.EFFICIENTNET,
    ),
    timm_system(
        "vgg",
        "VGG",
        "vgg16",
        adapters=False,
        stand_in=_small_vgg,
        crop=CNN_CROP,
        figures=paper.VGG,
    ),
    timm_system(
        "swin",
        "Swin",
        "swin_large_patch4_window7_224.ms_in22k_ft_in1k",
        adapters=True,
        stand_in=_small_swin,
        figures=paper.SWIN,
    ),
    timm_system(
        "deit",
        "DeiT",
        "deit3_large_patch16_224.fb_in22k_ft_in1k",
        adapters=True,
        stand_in=_small_vit("deit3_small_patch16_224", "DeiT III"),
        figures=paper.DEIT,
    ),
    timm_system(
        "vit",
        "ViT 400M",
        "vit_large_patch14_clip_224.openai_ft_in12k_in1k",
        adapters=True,
        stand_in=_small_vit("vit_base_patch16_clip_224", "ViT"),
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
        _fetalclip_seg,
        paper.FETALCLIP_SEG,
        threshold=AREA_THRESHOLD,
    ),
    System("joint", "Joint (ours)", _joint, rates_quality=True),
    *(quality_system(QualityParts(*used)) for used in itertools.product((True, False), repeat=3)),
)
# The ablations run where their flags, or their names, ask for them.
DEFAULT_SYSTEMS = tuple(name for name in SYSTEMS if not name.startswith("quality-"))
