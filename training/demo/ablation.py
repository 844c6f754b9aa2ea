"""`ablation`: what each part of the demo's recipe is worth on frames that are not simulated.

Small foundations are trained from nothing, the recipe whole and with a part left out, on each look
of the phantoms. Then adapters and heads, on the challenge's labels alone, in the ways to treat
frames without a label. Or sixteen foundations, each with half of the variations of the frames. All
are judged on labelled frames, of patients perhaps, and beside them on phantoms that are rendered
otherwise than plain ones. A few frames tell whether a part helps at all.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from acouslic import files
from acouslic.challenge import Quality
from acouslic.engine import TorchEngine
from acouslic.network import AbdomenNet, NetworkConfig
from dataset.cache import Cache
from evaluation import style
from evaluation.frames import describe, figures, outline, read_frames, sheet
from phantom.look import Look
from phantom.truth import Sight
from training.augment import NONE, NUMBERS, sampling_grid
from training.batches import Draw
from training.demo import variations
from training.demo.anatomy import case_numbers, draw_abdomen
from training.demo.build import (
    DemoOptions,
    Phantoms,
    demo_options,
    network_to_adapt,
    stage_cache,
)
from training.demo.foundation import (
    AnatomyBatch,
    AnatomyFrames,
    AnatomyNet,
    FoundationTraining,
    mask_dice,
)
from training.module import AbdomenTraining, FrameTraining
from training.options import (
    AblationSize,
    Augmentation,
    DemoSize,
    EmptyMasks,
    Intensity,
    Machine,
    Study,
)
from training.runs import run

# Beside those of the demo: phantoms that judge.
JUDGED_PHANTOMS_SEED = 1004
log = logging.getLogger(__name__)
OPTIONS, SHEET = "ablation-options.json", "frames.png"


@dataclass(frozen=True)
class FoundationArm:
    """A way to train the foundation."""

    name: str
    """Its folders' name."""
    title: str
    """What it is, for people; one that begins with a dash differs from the last one without."""
    look: Look
    """Of the phantoms that it learns from."""
    intensity: Intensity = "fan"
    """What becomes of the frames' brightness."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How its frames are varied."""
    background: bool = False
    """Whether an abdomen that is not annotated is taught as background."""


@dataclass(frozen=True)
class AdaptationArm:
    """A way to adapt the whole recipe's foundation."""

    name: str
    """Its folders' name."""
    title: str
    """What it is, for people; one that begins with a dash differs from the last one without."""
    empty_masks: EmptyMasks = "none"
    """Frames without annotation that teach an empty mask."""
    taught: bool = True
    """Whether all others teach the mask that the foundation gives them."""
    keeps_decoder: bool = True
    """Whether the decoder goes on from the foundation's."""


Arm = FoundationArm | AdaptationArm
_PLAIN = Look.PLAIN
FOUNDATIONS = (
    FoundationArm("plain", "plain phantoms, whole recipe", _PLAIN),
    FoundationArm("plain-as-is", "- brightness as it is", _PLAIN, "as-is"),
    FoundationArm("plain-unvaried", "- frames not varied", _PLAIN, augmentation=NONE),
    FoundationArm(
        "plain-background", "- abdomens nobody annotated are background", _PLAIN, background=True
    ),
    FoundationArm("plain-bare", "- all three", _PLAIN, "as-is", NONE, background=True),
    FoundationArm("realistic", "realistic phantoms, whole recipe", Look.REALISTIC),
    FoundationArm("random", "random phantoms, whole recipe", Look.RANDOM),
    FoundationArm("mixed", "half realistic, half random, whole recipe", Look.MIXED),
)
ADAPTATIONS = (
    AdaptationArm("taught", "the last, adapted: it teaches the masks of frames without a label"),
    AdaptationArm("fresh-decoder", "- with a fresh decoder", keeps_decoder=False),
    AdaptationArm("no-masks", "- frames without a label teach no mask", taught=False),
    AdaptationArm("far", "- those 15 frames from any label teach an empty mask", "far", False),
    AdaptationArm("empty", "- all of them teach an empty mask", "all", False),
)


class OnlyAnnotated(AnatomyFrames):
    """Frames whose abdomen counts only where an annotator chose it."""

    def __getitems__(self, draws: list[Draw]) -> AnatomyBatch:
        """A batch; the abdomen of all other frames is background."""
        batch: AnatomyBatch = super().__getitems__(draws)
        known = batch.quality != Quality.NONE
        abdomen = batch.anatomy.abdomen * known[:, None, None]
        sight = torch.where(known, Sight.WELL, Sight.NONE).to(batch.anatomy.sight)
        return batch._replace(anatomy=batch.anatomy._replace(abdomen=abdomen, sight=sight))


class Ablation:
    """Trains every arm from every seed, and judges it."""

    def __init__(self, output: Path, frames: Path, size: AblationSize, machine: Machine) -> None:
        """Begin in a folder, or go on there.

        Args:
            output: where caches, runs, pictures and the table go.
            frames: a folder as `evaluation.frames` reads it.
            size: how much is trained on, and how long.
            machine: what computes.

        Raises:
            InputError: the folder's ablation has another size, or the frames cannot be read.
            OutputError: the folder holds something else.
        """
        self._output, self._size, self._machine = output, size, machine
        self._frames = read_frames(frames)
        files.refuse_foreign_folder(output, OPTIONS, "an ablation")
        files.begin_or_resume(output / OPTIONS, asdict(size), f"the ablation in {output}")
        self._options = _options(size)
        # Found once for each set of phantoms, which several arms and seeds learn from.
        self._anatomy = cache(self._find_anatomy)
        judged = Phantoms(JUDGED_PHANTOMS_SEED, 0, size.judged, Look.MIXED.value, size.frames)
        self._judged = self._anatomy(judged, AnatomyFrames)

    def parts(self) -> Iterator[dict[str, Any]]:
        """Give what each arm is worth, seed by seed, as soon as it is known."""
        for seed in range(self._size.seeds):
            for arm in FOUNDATIONS:
                foundation = self._foundation(arm, seed)
                yield self._judge(arm, seed, foundation, is_rating=False)
            # The last one has the whole recipe, as the demo has.
            for adaptation in ADAPTATIONS:
                network = self._adapted(adaptation, seed, foundation)
                yield self._judge(adaptation, seed, network)

    def variations(self) -> Iterator[dict[str, Any]]:
        """Give what each network of `variations.design` is worth, as soon as it is known.

        Both halves of the design have their own seed; more seeds repeat it.
        """
        for first in range(0, self._size.seeds, 2):
            for number, (names, augmentation, half) in enumerate(variations.design()):
                title = f"varied: {'; '.join(names) or 'nothing'}"
                arm = FoundationArm(f"varied-{number}", title, _PLAIN, augmentation=augmentation)
                seed = first + half
                foundation = self._foundation(arm, seed)
                result = self._judge(arm, seed, foundation, is_rating=False)
                yield {**result, "varied": names}

    def _foundation(self, arm: FoundationArm, seed: int) -> AbdomenNet:
        """A trained trunk and decoder; the quality head is fresh."""
        config = replace(self._options.network, intensity=arm.intensity)
        recipe = replace(self._options.foundation, seed=seed, augmentation=arm.augmentation)
        data = replace(self._options.foundation_data, look=arm.look.value)
        training = self._anatomy(data, OnlyAnnotated if arm.background else AnatomyFrames)
        torch.manual_seed(seed)
        network = AnatomyNet(config)
        module = FoundationTraining(network, recipe, training, self._judged)
        self._train(arm, seed, module, config)
        result = AbdomenNet(config)
        result.trunk.load_state_dict(network.trunk.state_dict())
        result.decoder.load_state_dict(network.decoder.state_dict())
        return result

    def _adapted(self, arm: AdaptationArm, seed: int, foundation: AbdomenNet) -> AbdomenNet:
        recipe = self._options.adaptation
        loss = replace(recipe.loss, empty_masks=arm.empty_masks)
        torch.manual_seed(seed)
        network = network_to_adapt(
            foundation.config,
            foundation.trunk.state_dict(),
            foundation.decoder.state_dict() if arm.keeps_decoder else None,
            self._options.lora,
        )
        data = self._cache(self._options.adaptation_data)
        module = AbdomenTraining(
            network,
            replace(recipe, seed=seed, loss=loss),
            data,
            data,
            teacher=foundation if arm.taught else None,
        )
        self._train(arm, seed, module, network.config)
        return network

    def _train(self, arm: Arm, seed: int, module: FrameTraining, config: NetworkConfig) -> None:
        """Train, but choose and judge nothing on the way."""
        run(
            self._folder(arm, seed),
            module,
            self._machine,
            identity={"network": config.to_dict()},
            validate_every=module.recipe.epochs + 1,
        )

    def _judge(
        self, arm: Arm, seed: int, network: AbdomenNet, *, is_rating: bool = True
    ) -> dict[str, Any]:
        engine = TorchEngine([network.eval()])
        size = network.config.trunk.image_size
        pixels = np.stack([frame.pixels for frame in self._frames])
        masks, rated = outline(engine, size, pixels)
        p_annotated = rated if is_rating else None
        style.write_png(sheet(self._frames, masks, p_annotated), self._folder(arm, seed) / SHEET)
        found = figures(self._frames, masks, p_annotated)
        return {"arm": arm.title, "seed": seed, "phantom_dice": self._phantom_dice(engine), **found}

    @torch.inference_mode()
    def _phantom_dice(self, engine: TorchEngine) -> float:
        """Mean over the frames of phantoms on which the abdomen is well in view."""
        dice, unvaried = [], np.ones(NUMBERS, np.float32)
        for index, case in enumerate(self._judged.cache.cases):
            draws = [Draw(index, row, unvaried) for row in range(len(case.frame_index))]
            batch: AnatomyBatch = self._judged.__getitems__(draws)
            where = sampling_grid(batch.uniform, engine.mask_size, NONE)
            masks = draw_abdomen(batch.anatomy, where)[:, None]
            logits = engine.compute(batch.frames).mask_logits[:, None].cpu()
            dice.append(mask_dice(logits, masks)[batch.anatomy.sight == Sight.WELL])
        return float(torch.cat(dice).mean())

    def _find_anatomy(self, data: Phantoms, kind: type[AnatomyFrames]) -> AnatomyFrames:
        numbers = case_numbers(data.seed, data.training + data.validation)
        return kind(self._cache(data), data.seed, numbers)

    def _cache(self, data: Phantoms) -> Cache:
        folder = self._output / f"phantoms-{data.seed}-{data.look}"
        return stage_cache(folder, data, self._options)

    def _folder(self, arm: Arm, seed: int) -> Path:
        return self._output / f"{arm.name}-seed-{seed}"


def ablation(
    output: Path, frames: Path, size: AblationSize, machine: Machine, study: Study = "parts"
) -> str:
    """Train and judge all networks of a study, see `Ablation`.

    Returns:
        The table in Markdown; it stays in the folder too, and its figures beside it.
    """
    trial = Ablation(output, frames, size, machine)
    studies = {"parts": (trial.parts, table), "variations": (trial.variations, variations.table)}
    judge, table_of = studies[study]
    results = []
    for result in judge():
        results.append(result)
        files.write_json(output / f"{study}.json", results)
        log.info("%s, seed %d: %s", result["arm"], result["seed"], describe(result))
    text = table_of(results)
    files.write_text(output / f"{study}.md", text)
    return text


def table(results: Sequence[dict[str, Any]]) -> str:
    """One row an arm; where there are several seeds, their figures stand side by side."""
    first = results[0]
    cases = list(first["dice"])
    head = [
        "",
        "phantoms: Dice",
        *(f"Dice of {case}" for case in cases),
        f"empty of {first['annotated']} annotated",
        f"masks on {first['others']} others",
    ]
    lines = [head, ["---"] * len(head)]
    for arm in dict.fromkeys(result["arm"] for result in results):
        of_arm = [result for result in results if result["arm"] == arm]
        figures_of = [
            [f"{result['phantom_dice']:.3f}" for result in of_arm],
            *([f"{result['dice'][case]:.2f}" for result in of_arm] for case in cases),
            [str(result["empty_on_annotated"]) for result in of_arm],
            [str(result["masks_on_others"]) for result in of_arm],
        ]
        lines.append([arm, *(", ".join(values) for values in figures_of)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _options(size: AblationSize) -> DemoOptions:
    return demo_options(
        DemoSize(
            cases=(size.cases, size.cases),
            frames=size.frames,
            epochs=(size.epochs, size.epochs),
            held_out=(0, 0),
            steps_per_epoch=size.steps_per_epoch,
            batch_size=size.batch_size,
        )
    )
