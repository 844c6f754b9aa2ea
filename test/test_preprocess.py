import numpy as np
import pytest
import torch
from PIL import Image

from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE
from acouslic.preprocess import CLIP_MEAN, CLIP_STD, from_grid, masks_to_grid, normalise, to_grid


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


def test_normalise_gives_three_channels_around_zero() -> None:
    images = normalise(torch.tensor([0, 255], dtype=torch.uint8)[:, None, None])
    assert images.shape == (2, 3, 1, 1)
    low = [-mean / std for mean, std in zip(CLIP_MEAN, CLIP_STD, strict=True)]
    high = [(1 - mean) / std for mean, std in zip(CLIP_MEAN, CLIP_STD, strict=True)]
    assert torch.allclose(images[:, :, 0, 0], torch.tensor([low, high]))


def test_masks_lie_where_the_images_lie() -> None:
    fan = CHALLENGE_FAN.mask()
    image = to_grid(fan[None].astype(np.uint8) * 255, 128)[0].numpy() > 127
    mask = masks_to_grid(fan[None], 128)[0]
    assert mask.dtype == bool
    assert (image == mask).mean() > 0.995
    assert not mask[:15].any()  # the padding above
