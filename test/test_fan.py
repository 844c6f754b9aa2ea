import numpy as np

from acouslic.fan import CHALLENGE_FAN, FRAME_SHAPE


def test_fan_lies_between_its_radii_and_is_symmetric():
    mask = CHALLENGE_FAN.mask()
    assert mask.shape == FRAME_SHAPE
    assert 0.63 < mask.mean() < 0.65
    rows, columns = np.nonzero(mask)
    radius = np.hypot(columns - CHALLENGE_FAN.apex_x_px, rows - CHALLENGE_FAN.apex_y_px)
    assert radius.min() >= CHALLENGE_FAN.near_px
    assert radius.max() <= CHALLENGE_FAN.far_px
    # The apex is 0.49 px right of the frame's middle, so mirroring about column 372 keeps it.
    assert (mask[:, 1:] == mask[:, :0:-1]).mean() > 0.999


def test_fan_is_shared_and_cannot_be_changed():
    assert CHALLENGE_FAN.mask() is CHALLENGE_FAN.mask()
    assert not CHALLENGE_FAN.mask().flags.writeable
