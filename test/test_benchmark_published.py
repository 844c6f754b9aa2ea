"""Protocol `paper` does what the paper's code does: sizes, images, loss, weights handed on."""

from dataclasses import asdict, fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from benchmark_cache import SIZE, write_cache
from PIL import Image
from safetensors.torch import load_file
from test_training_prepare import DataSet, labels
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.transforms_factory import create_transform

from acouslic.backbones import View
from acouslic.errors import InputError
from acouslic.heads import AREA_THRESHOLD, AreaHead
from acouslic.network import NetworkConfig, TrunkConfig
from acouslic.preprocess import to_grid
from acouslic.unetr import PublishedDecoder
from benchmark import plots, trial
from benchmark.copies import COPIES, vary
from benchmark.frames import Draw, SampleReader, frame_table, in_batches
from benchmark.images import (
    filled,
    make_images,
    prepare_images,
    read_image_options,
    reference_case,
)
from benchmark.marks import DIFFERS, NOT_PUBLISHED, STAND_IN, differences, marks
from benchmark.networks import dice_of_every_frame
from benchmark.options import PAPER, STRICT, Compute, ImageOptions, Schedule, WeightSource
from benchmark.protocol import split, tables
from benchmark.systems import SYSTEMS, Plan
from benchmark.trial import History, Setting, run_trial
from dataset.cache import Cache, open_cache
from dataset.prepare import prepare

VIT_L = TrunkConfig(224, 14, 1024, 24, 768)
SHAPE = (562, 744)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return write_cache(tmp_path_factory.mktemp("cache"), 10)


def test_the_published_decoder_has_its_size_taps_and_output() -> None:
    decoder = PublishedDecoder(224, 1024, 32).eval()
    assert sum(parameter.numel() for parameter in decoder.parameters()) == 1_591_941
    config = NetworkConfig(VIT_L, 32, decoder="published")
    assert [block + 1 for block in config.tap_blocks] == [6, 8, 12, 24]
    seen = []
    decoder.taps[3].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    with torch.no_grad():
        logits, _ = decoder(torch.zeros(1, 3, 224, 224), [torch.zeros(1, 1024, 16, 16)] * 4)
    assert logits.shape == (1, 1, 224, 224)
    assert seen == [(1, 1024, 14, 14)]
    with pytest.raises(ValueError, match="16"):
        PublishedDecoder(100, 64, 8)


@pytest.mark.parametrize(("pixels", "positive"), [(501, False), (502, True)])
def test_a_frame_is_positive_from_501_76_pixels_on(pixels: int, positive: bool) -> None:
    logits = torch.full((1, 1, 224, 224), -1.0)
    logits.view(-1)[:pixels] = 1
    assert (AreaHead.share(logits).item() >= AREA_THRESHOLD) is positive


def test_dice_alone_teaches_next_to_nothing_without_an_abdomen() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 1, 8, 8, requires_grad=True)
    target = torch.zeros(2, 1, 8, 8)
    empty = dice_of_every_frame(logits, target)
    empty.backward()  # type: ignore[no-untyped-call]
    assert empty.item() == pytest.approx(1, abs=1e-5)
    assert logits.grad is not None and logits.grad.abs().max() < 1e-6
    target[0, :, :4] = 1
    p, y = logits[0].sigmoid().flatten(), target[0].flatten()
    first = 1 - (2 * (p * y).sum() + 1e-5) / (p.sum() + y.sum() + 1e-5)
    assert dice_of_every_frame(logits, target).item() == pytest.approx((first.item() + 1) / 2)


@pytest.mark.parametrize(("crop", "larger"), [(0.875, 256), (0.9, 248)])
def test_a_crop_is_timms_own_transform(crop: float, larger: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (224, 224), dtype=np.uint8)
    frame = cv2.GaussianBlur(noise, (0, 0), 3)
    transform = create_transform((3, 224, 224), crop_pct=crop, interpolation="bicubic")
    assert transform.transforms[0].size == larger
    theirs = transform(Image.fromarray(frame).convert("RGB"))
    view = View(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, crop)
    ours = view.images(torch.from_numpy(frame)[None])[0]
    # PIL rounds to grey levels, of which one is 0.0175; their mean difference is a quarter of one.
    assert (ours - theirs).abs().max() < 0.02
    assert (ours - theirs).abs().mean() < 0.006


def test_masks_are_filled_inside_their_outer_contour() -> None:
    ring = np.zeros((60, 60), np.uint8)
    cv2.circle(ring, (30, 30), 20, 1, thickness=2)
    assert filled(ring)[30, 30] == 1
    assert filled(ring).sum() == pytest.approx(np.pi * 21**2, rel=0.05)
    assert filled(ring)[0, 0] == 0


def picture() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    frame = cv2.GaussianBlur(generator.integers(0, 255, SHAPE, dtype=np.uint8), (0, 0), 1)
    ring = np.zeros(SHAPE, np.uint8)
    cv2.circle(ring, (372, 281), 100, 1, thickness=8)
    return frame, ring > 0


def test_frames_shrink_by_opencvs_cubic_and_each_point_is_an_option() -> None:
    frame, ring = picture()
    papers = make_images(frame, ring, 224, ImageOptions(), [0])
    assert len(papers) == COPIES
    square = np.pad(frame, ((91, 91), (0, 0)))
    resized = cv2.resize(square, (224, 224), interpolation=cv2.INTER_CUBIC)
    assert np.array_equal(papers[0][0], resized)
    assert set(np.unique(papers[1][1])) == {0, 255}
    for field in fields(ImageOptions):
        changed = replace(ImageOptions(), **{field.name: not getattr(ImageOptions(), field.name)})
        others = make_images(frame, ring, 224, changed, [0])
        assert any(
            not np.array_equal(one, other)
            for pair, others_pair in zip(papers, others, strict=True)
            for one, other in zip(pair, others_pair, strict=True)
        ), field.name
    plain = make_images(frame, ring, 224, replace(ImageOptions(), opencv_resize=False), [0])
    assert np.array_equal(plain[0][0], to_grid(frame[None], 224)[0].numpy())


@pytest.mark.parametrize(("always", "low", "high"), [(False, 0.2, 0.42), (True, 0, 0.2)])
def test_jitter_and_clahe_are_each_for_half_of_the_copies(
    always: bool, low: float, high: float
) -> None:
    """A flat grey frame keeps its level where there is neither, and seldom by chance."""
    frame = np.full((64, 64), 100, np.uint8)
    centres = [
        vary(frame, frame, np.random.default_rng(seed), always=always)[0][32, 32]
        for seed in range(400)
    ]
    assert low <= np.mean(np.array(centres) == 100) <= high


def test_a_copy_whose_abdomen_left_the_image_is_not_annotated(cache: Cache) -> None:
    table = frame_table(cache, annotated_sweeps_only=True, reference_images=True)
    reader = SampleReader(table)
    annotated = np.flatnonzero(table.quality > 0)
    whole = reader.__getitems__([Draw(int(row), 0) for row in annotated])
    assert bool((whole.quality > 0).all()) and bool((whole.masks > 0).flatten(1).any(dim=1).all())
    copies = reader.__getitems__([Draw(int(row), k) for row in annotated for k in (1, 2)])
    has_mask = (copies.masks > 0).flatten(1).any(dim=1)
    assert torch.equal(copies.quality > 0, has_mask)
    assert bool((copies.target[~has_mask] == 0).all())
    assert not torch.equal(copies.frames[0], whole.frames[0])


def test_prepare_makes_the_images_of_sweeps_with_an_ac_and_says_what_is_wrong(
    tmp_path: Path,
) -> None:
    data, cache_folder = DataSet(tmp_path / "data"), tmp_path / "cache"
    frames = data.add("case-a", labels({2: 1, 8: 2}), {2: "250.0"})
    with pytest.raises(InputError, match="python -m benchmark prepare"):
        read_image_options(cache_folder)
    prepare([data.root], cache_folder, size=SIZE, workers=1)
    prepare_images(data.root, cache_folder, ImageOptions(), workers=1)
    assert read_image_options(cache_folder) == asdict(ImageOptions())
    case = reference_case(cache_folder, open_cache(cache_folder).cases[0])
    # Twelve frames are six sweeps of two: the second holds frames 2 and 3.
    row = case.row_of(2)
    square = np.pad(frames[2], ((91, 91), (0, 0)))
    assert np.array_equal(case.frame(row, 0), cv2.resize(square, (SIZE, SIZE), None, 0, 0, 2))
    mask = case.mask(row, 0)
    assert mask is not None and set(np.unique(mask)) == {0, 255}
    assert case.mask(case.row_of(3), 0) is None
    source = cache_folder / "reference" / "case-a" / "source.json"
    stamp = source.stat().st_mtime_ns
    prepare_images(data.root, cache_folder, ImageOptions(), workers=1)
    assert source.stat().st_mtime_ns == stamp
    prepare_images(data.root, cache_folder, ImageOptions(opencv_resize=False), workers=1)
    assert not np.array_equal(reference_case(cache_folder, open_cache(cache_folder).cases[0])
                              .frame(row, 0), case.frame(row, 0))  # fmt: skip
    data.rows[0]["subject_id"] = "another"
    data.write_table()
    with pytest.raises(InputError, match="case-a"):
        prepare_images(data.root, cache_folder, ImageOptions(), workers=1)


def test_what_fills_no_batch_is_left_out() -> None:
    draws = [Draw(k, 0) for k in range(10)]
    assert [len(batch) for batch in in_batches(draws, 4)] == [4, 4, 2]
    assert [len(batch) for batch in in_batches(draws, 4, whole_only=True)] == [4, 4]
    assert [len(batch) for batch in in_batches(draws[:3], 4, whole_only=True)] == [3]


def test_the_best_weights_are_handed_on(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pretend(network: torch.nn.Module, *_: object, **__: object) -> History:
        best = {name: torch.full_like(x, 0.5) for name, x in network.named_parameters()}
        return History([{"training_loss": 0, "validation_loss": 0, "seconds": 0}], best)

    monkeypatch.setattr(trial, "train", pretend)
    frames = tables(split(cache, PAPER), PAPER)
    plan = Plan(SIZE, PAPER, WeightSource(pretrained=False), stand_ins=True)
    system = SYSTEMS["efficientnet"]
    setting = Setting(system, plan, frames, Schedule(), Compute(precision="fp32"))
    run_trial(tmp_path / "trial-0", setting, 0)
    state = load_file(tmp_path / "carried-0.safetensors")
    assert "conv_stem.weight" in state and not any("classifier" in name for name in state)
    assert bool((state["conv_stem.weight"] == 0.5).all())


def test_rows_that_are_not_the_papers_are_marked() -> None:
    papers = differences(PAPER, Schedule(), {field.name: getattr(ImageOptions(), field.name)
                                             for field in fields(ImageOptions)})  # fmt: skip
    assert papers == []
    assert "dice alone False" in differences(STRICT, Schedule(), None)
    assert differences(PAPER, Schedule(epochs=1, seed=3), None) == ["epochs 1"]
    real, small = {"stand_in": False}, {"stand_in": True}
    assert marks(SYSTEMS["vgg"], real, []) == []
    assert marks(SYSTEMS["vgg"], small, ["epochs 1"]) == [STAND_IN, DIFFERS]
    for name in ("joint", "fetalclip_seg_ours", "quality"):
        assert marks(SYSTEMS[name], real, []) == [NOT_PUBLISHED]


def test_a_stand_in_is_not_drawn_beside_the_papers_figure() -> None:
    figures = {"trials": [{"f1": 0.2}], "mean": {"f1": 0.2}, "interval": {"f1": None}}
    real = figures | {"title": "VGG", "published": {"f1": 0.7}, "marks": [DIFFERS]}
    small = real | {"marks": [STAND_IN, DIFFERS]}
    for summaries, drawn in (({"real": real, "small": small}, [0.7]), ({"small": small}, [])):
        axes = plots._f1(summaries, dict.fromkeys(summaries, "VGG")).axes[0]
        papers = [line for line in axes.lines if line.get_label() == "paper, real data"]
        assert [x for line in papers for x in np.atleast_1d(line.get_xdata())] == drawn
