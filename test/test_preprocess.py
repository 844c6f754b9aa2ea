from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE
from acouslic.preprocess import (
    CLIP_MEAN,
    CLIP_STD,
    USUAL_MEAN,
    USUAL_STD,
    Intensity,
    from_grid,
    masks_to_grid,
    normalise,
    padding,
    resized,
    to_grid,
)

INTENSITIES: tuple[Intensity, ...] = ("as-is", "fan")


def disc(shape: tuple[int, int], row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.asarray(np.hypot(rows - row, columns - column) <= radius)


def centre(mask: np.ndarray) -> np.ndarray:
    return np.asarray(np.array(np.nonzero(mask)).mean(axis=1))


@pytest.mark.parametrize("shape", [FRAME_SHAPE, (744, 562), (100, 100)])
@pytest.mark.parametrize("size", [128, 224])
def test_to_the_grid_and_back_keeps_a_shape_in_its_place(shape: tuple[int, int], size: int) -> None:
    mask = disc(shape, 0.4 * shape[0], 0.6 * shape[1], 0.2 * min(shape))
    grid = to_grid(mask[None].astype(np.uint8) * 200, size)
    back = from_grid(grid.float(), shape)[0].numpy() > 100
    assert back.shape == shape
    overlap = 2 * (mask & back).sum() / (mask.sum() + back.sum())
    assert overlap > 0.97
    assert np.abs(centre(mask) - centre(back)).max() < 0.5


def test_grid_is_what_padding_and_pillow_give() -> None:
    frame = np.random.default_rng(0).integers(0, 256, FRAME_SHAPE, dtype=np.uint8)
    square = np.pad(frame, ((91, 91), (0, 0)))
    expected = np.asarray(Image.fromarray(square).resize((224, 224), Image.Resampling.BICUBIC))
    found = to_grid(frame[None], 224)[0].numpy()
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_many_frames_are_resized_as_each_alone() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (40, *FRAME_SHAPE), dtype=np.uint8)
    assert torch.equal(to_grid(frames, 64)[35], to_grid(frames[35:36], 64)[0])
    chosen = np.arange(1, 40)
    assert torch.equal(to_grid(frames, 64, chosen), to_grid(frames, 64)[1:])


@pytest.mark.parametrize(("levels", "most"), [(range(256), 1), ((0, 255), 3)])
def test_a_gpu_resizes_as_a_cpu_does_but_for_a_grey_level(levels: Sequence[int], most: int) -> None:
    """By its kernel for float32, which a CPU has too; between black and white it overshoots."""
    frames = np.random.default_rng(0).choice(np.array(levels, np.uint8), (2, *FRAME_SHAPE))
    square = torch.nn.functional.pad(torch.from_numpy(frames), padding(FRAME_SHAPE))[:, None]
    by_float = resized(square, 128, by_integers=False)
    assert by_float.dtype == torch.uint8
    difference = by_float[:, 0].int() - to_grid(frames, 128).int()
    assert 0 < difference.abs().max() <= most


def test_a_gpu_that_does_not_resize_leaves_it_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_frames: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to pin")

    monkeypatch.setattr(torch.Tensor, "pin_memory", refuse)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, dtype, device: empty(*size, dtype=dtype))
    frames = np.random.default_rng(0).integers(0, 256, (2, *FRAME_SHAPE), dtype=np.uint8)
    found = to_grid(frames, 64, device=torch.device("cuda"))
    assert torch.equal(found, to_grid(frames, 64))
    (record,) = caplog.records
    assert record.message == "cuda does not resize frames (CUDA out of memory.); the CPU does"


def test_normalise_gives_three_channels_around_zero() -> None:
    images = normalise(torch.tensor([0, 255], dtype=torch.uint8)[:, None, None], "as-is")
    assert images.shape == (2, 3, 1, 1)
    low = [-mean / std for mean, std in zip(CLIP_MEAN, CLIP_STD, strict=True)]
    high = [(1 - mean) / std for mean, std in zip(CLIP_MEAN, CLIP_STD, strict=True)]
    assert torch.allclose(images[:, :, 0, 0], torch.tensor([low, high]))


def test_scaled_inside_the_fan_gain_and_offset_no_longer_count() -> None:
    fan = torch.from_numpy(masks_to_grid(CHALLENGE_FAN.mask()[None], 64)[0])
    frames = 40 * torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(0)) * fan
    louder = (3 * frames + 20) * fan
    differences = {
        intensity: (normalise(frames, intensity) - normalise(louder, intensity)).abs().max()
        for intensity in INTENSITIES
    }
    # What is left comes from the floor below the spread, 2 of some 12 grey levels.
    assert differences["fan"] < 0.15 < 0.3 < differences["as-is"]


def test_scaled_inside_the_fan_a_frame_is_as_bright_as_a_usual_one_and_black_outside() -> None:
    fan = torch.from_numpy(masks_to_grid(CHALLENGE_FAN.mask()[None], 128)[0])
    frame = (200 * torch.rand(1, 128, 128, generator=torch.Generator().manual_seed(0))) * fan
    grey = 255 * (normalise(frame, "fan")[0, 0] * CLIP_STD[0] + CLIP_MEAN[0])
    assert float(grey[fan].mean()) == pytest.approx(USUAL_MEAN, abs=0.1)
    assert float(grey[fan].std()) == pytest.approx(USUAL_STD, rel=0.05)
    assert grey[~fan].abs().max() < 1e-3


def test_an_all_but_empty_frame_does_not_become_one_of_noise() -> None:
    frame = torch.zeros(1, 64, 64)
    frame[0, 32, 32] = 1
    grey = normalise(frame, "fan") - normalise(torch.zeros(1, 64, 64), "fan")
    assert float(grey.abs().max()) < 15 / 255 / min(CLIP_STD)


def test_masks_lie_where_the_images_lie() -> None:
    fan = CHALLENGE_FAN.mask()
    image = to_grid(fan[None].astype(np.uint8) * 255, 128)[0].numpy() > 127
    mask = masks_to_grid(fan[None], 128)[0]
    assert mask.dtype == bool
    assert (image == mask).mean() > 0.995
    assert not mask[:15].any()  # the padding above
