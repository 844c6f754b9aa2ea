import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from acouslic.challenge import CHALLENGE_FAN, Quality
from acouslic.preprocess import masks_to_grid
from training.augment import NAMES, NONE, NUMBERS, augment, grid_fan, quality_in_view
from training.options import Augmentation

SIZE = 96


def blob(angle_deg: float, depth: float) -> torch.Tensor:
    """A disc at an angle from the vertical, `depth` of the way from near to far."""
    fan = grid_fan(SIZE)
    radius = fan.near_px + depth * (fan.far_px - fan.near_px)
    angle = math.radians(angle_deg)
    x, y = fan.apex_x_px + radius * math.sin(angle), fan.apex_y_px + radius * math.cos(angle)
    rows, columns = np.indices((SIZE, SIZE))
    disc = np.hypot(columns - x, rows - y) < 6
    return torch.from_numpy(disc.astype(np.uint8) * 255)[None]


def centre(image: torch.Tensor) -> tuple[float, float]:
    """The centre of mass about the apex: angle from the vertical in degrees, radius in px."""
    fan = grid_fan(SIZE)
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    x = float((image * columns).sum() / image.sum()) - fan.apex_x_px
    y = float((image * rows).sum() / image.sum()) - fan.apex_y_px
    return math.degrees(math.atan2(x, y)), math.hypot(x, y)


def numbers(**values: float) -> torch.Tensor:
    assert values.keys() <= set(NAMES)
    return torch.tensor([[values.get(name, 0.5) for name in NAMES]])


def test_without_variation_only_the_fan_cuts() -> None:
    frames = torch.full((1, SIZE, SIZE), 100, dtype=torch.uint8)
    moved, masks = augment(frames, frames, torch.rand(1, NUMBERS), NONE)
    inside = grid_fan(SIZE).mask
    torch.testing.assert_close(moved[0], 100 * inside, atol=1e-3, rtol=0)
    torch.testing.assert_close(masks[0], inside * 100 / 255, atol=1e-5, rtol=0)


def test_the_grids_fan_is_the_frames_fan() -> None:
    expected = masks_to_grid(CHALLENGE_FAN.mask()[None], SIZE)[0]
    found = grid_fan(SIZE).mask.numpy() > 0.5
    assert np.count_nonzero(expected != found) < 0.01 * expected.sum()


@pytest.mark.parametrize(("uniform", "turn"), [(1.0, 12.0), (0.0, -12.0), (0.75, 6.0)])
def test_rotation_is_about_the_apex(uniform: float, turn: float) -> None:
    image = blob(4.0, 0.5)
    moved, _ = augment(image, image, numbers(angle=uniform, flip=1.0), Augmentation())
    before, after = centre(image[0].float()), centre(moved[0])
    assert abs(after[0] - before[0]) == pytest.approx(abs(turn), abs=0.3)
    assert after[1] == pytest.approx(before[1], abs=0.3)


def test_opposite_rotations_turn_opposite_ways() -> None:
    image = blob(0.0, 0.5)
    angles = [
        centre(augment(image, image, numbers(angle=uniform, flip=1.0), Augmentation())[0][0])[0]
        for uniform in (0.0, 1.0)
    ]
    assert angles[0] == pytest.approx(-angles[1], abs=0.3)


def test_scale_is_along_the_rays_and_flip_mirrors_them() -> None:
    image = blob(10.0, 0.4)
    config = Augmentation(scale_ratio=1.2)
    scaled, _ = augment(image, image, numbers(scale=1.0, flip=1.0), config)
    flipped, _ = augment(image, image, numbers(flip=0.0), config)
    angle, radius = centre(image[0].float())
    assert centre(scaled[0]) == pytest.approx((angle, 1.2 * radius), abs=0.4)
    assert centre(flipped[0]) == pytest.approx((-angle, radius), abs=0.3)


def test_a_mask_goes_where_its_frame_goes() -> None:
    image = blob(5.0, 0.5).repeat(16, 1, 1)
    config = replace(NONE, angle_deg=12.0, scale_ratio=1.15, flip=True)
    uniform = torch.rand(16, NUMBERS, generator=torch.Generator().manual_seed(0))
    moved, masks = augment(image, image, uniform, config)
    torch.testing.assert_close(moved / 255, masks, atol=1e-4, rtol=0)
    assert len({round(float(mask.sum()), 2) for mask in masks}) > 8


def test_depth_changes_the_far_end_against_the_near_one() -> None:
    flat = torch.full((1, SIZE, SIZE), 60, dtype=torch.uint8)
    deeper, _ = augment(flat, flat, numbers(depth=1.0), Augmentation())
    fan = grid_fan(SIZE)
    column = round(fan.apex_x_px)
    near = round(fan.apex_y_px + fan.near_px) + 3
    far = round(fan.apex_y_px + fan.far_px) - 3
    assert float(deeper[0, far, column]) > 1.5 * float(deeper[0, near, column])


def test_nothing_is_ever_outside_the_fan_or_the_grey_levels() -> None:
    frames = torch.randint(0, 256, (8, SIZE, SIZE), dtype=torch.uint8)
    moved, masks = augment(frames, frames, torch.rand(8, NUMBERS), Augmentation())
    outside = grid_fan(SIZE).mask == 0
    assert outside.any()
    assert not moved[:, outside].any() and not masks[:, outside].any()
    assert float(moved.min()) >= 0 and float(moved.max()) <= 255


EFFECTS = ("blur", "grain", "bands", "shadow", "contact", "rings", "floor", "curve")


def textured() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(20, 120, (1, SIZE, SIZE), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("effect", EFFECTS)
def test_each_change_is_an_option_of_its_own(effect: str) -> None:
    config = replace(NONE, **{effect: getattr(Augmentation(), effect)})
    frame, whole = textured(), numbers(**{effect: 1.0})
    plain, _ = augment(frame, frame, whole, NONE)
    changed, masks = augment(frame, frame, whole, config)
    assert float((changed - plain).abs().max()) > 3
    same, _ = augment(frame, frame, numbers(**{effect: 0.5}), config)
    torch.testing.assert_close(same, plain, atol=1e-3, rtol=0)
    torch.testing.assert_close(masks, augment(frame, frame, whole, NONE)[1])


def test_every_field_is_switched_off_by_none() -> None:
    frame = textured().repeat(8, 1, 1)
    uniform = torch.rand(8, NUMBERS, generator=torch.Generator().manual_seed(2))
    moved, _ = augment(frame, frame, uniform, NONE)
    torch.testing.assert_close(moved, frame * grid_fan(SIZE).mask, atol=1e-2, rtol=0)
    assert {field.name for field in fields(Augmentation)} >= set(EFFECTS)


def test_grain_has_the_spread_that_it_is_told_and_differs_by_place() -> None:
    flat = torch.full((1, SIZE, SIZE), 100, dtype=torch.uint8)
    config = replace(NONE, grain=0.15)
    inside = grid_fan(SIZE).mask == 1
    first, second = (
        augment(flat, flat, numbers(grain=1.0, grain_place=place), config)[0][0][inside].log()
        for place in (0.1, 0.73)
    )
    assert float(first.std()) == pytest.approx(0.15, rel=0.15)
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.1


def test_what_goes_out_of_view_is_less_good() -> None:
    image = blob(0.0, 0.5)
    optimal = torch.tensor([int(Quality.OPTIMAL)])

    def left(config: Augmentation, **values: float) -> int:
        uniform = numbers(flip=1.0, **values)
        _, moved = augment(image, image, uniform, config)
        return int(quality_in_view(optimal, image, moved, uniform, config))

    assert left(NONE) == Quality.OPTIMAL
    assert left(replace(NONE, scale_ratio=1.2), scale=1.0) == Quality.OPTIMAL
    assert left(replace(NONE, contact=0.6), contact=1.0, contact_side=0.0) == Quality.NONE
    dark = replace(NONE, shadow=1.0)
    shade = {"shadow": 1.0, "shadow_angle": 0.5, "shadow_depth": 0.0, "shadow_width": 1.0}
    assert left(dark, **shade) < Quality.OPTIMAL
    assert left(dark, **{**shade, "shadow_angle": 1.0}) == Quality.OPTIMAL
    half_out = replace(NONE, angle_deg=CHALLENGE_FAN.half_angle_deg)
    assert left(half_out, angle=1.0) == Quality.NONE


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_frames_keep_their_grey_levels_where_networks_run_in_half_precision(
    half: torch.dtype,
) -> None:
    frames = torch.randint(0, 255, (4, 128, 128), dtype=torch.uint8)
    uniform = torch.rand(4, NUMBERS)
    expected, _ = augment(frames, frames, uniform, Augmentation())
    with torch.autocast("cpu", half):
        varied, _ = augment(frames, frames, uniform, Augmentation())
    assert varied.dtype == torch.float32
    assert torch.equal(varied, expected)


def test_nothing_gains_quality_by_augmentation() -> None:
    frames = textured().repeat(32, 1, 1)
    quality = torch.arange(32) % 3
    uniform = torch.rand(32, NUMBERS, generator=torch.Generator().manual_seed(4))
    _, moved = augment(frames, frames, uniform, Augmentation())
    after = quality_in_view(quality, frames, moved, uniform, Augmentation())
    assert (after <= quality).all() and (after < quality).any()
