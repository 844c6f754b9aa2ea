import numpy as np

from acouslic.challenge import (
    CHALLENGE_FAN,
    FRAME_SHAPE,
    Quality,
    labels_of_quality,
    quality_of_labels,
)


def test_fan_lies_between_its_radii_and_is_symmetric() -> None:
    mask = CHALLENGE_FAN.mask()
    assert mask.shape == FRAME_SHAPE
    assert 0.63 < mask.mean() < 0.65
    rows, columns = np.nonzero(mask)
    radius = np.hypot(columns - CHALLENGE_FAN.apex_x_px, rows - CHALLENGE_FAN.apex_y_px)
    assert radius.min() >= CHALLENGE_FAN.near_px
    assert radius.max() <= CHALLENGE_FAN.far_px
    # The apex is 0.49 px right of the frame's middle, so mirroring about column 372 keeps it.
    assert (mask[:, 1:] == mask[:, :0:-1]).mean() > 0.999


def test_fan_is_shared_and_cannot_be_changed() -> None:
    assert CHALLENGE_FAN.mask() is CHALLENGE_FAN.mask()
    assert not CHALLENGE_FAN.mask().flags.writeable


def test_labels_and_qualities_are_the_challenges() -> None:
    assert labels_of_quality(np.array(Quality)).tolist() == [0, 2, 1]
    assert [quality.value_in_score for quality in Quality] == [0.0, 0.6, 1.0]
    assert [quality.word for quality in Quality] == ["none", "suboptimal", "optimal"]
    assert Quality.NONE < Quality.SUBOPTIMAL < Quality.OPTIMAL
    labels = np.array([[0, 1], [2, 1]], np.uint8)
    expected = [[Quality.NONE, Quality.OPTIMAL], [Quality.SUBOPTIMAL, Quality.OPTIMAL]]
    assert quality_of_labels(labels).tolist() == expected
    assert labels_of_quality(quality_of_labels(labels)).tolist() == labels.tolist()
