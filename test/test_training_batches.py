"""Which frames teach a mask."""

from pathlib import Path

import numpy as np
from unrendered import store_unrendered

from dataset.cache import CachedCase, read_facts
from training.batches import teaches_mask


def test_frames_beside_annotated_ones_teach_no_mask(tmp_path: Path) -> None:
    name = store_unrendered(tmp_path, 41, 0, 16)
    case = CachedCase(tmp_path / name, read_facts(tmp_path / name))
    annotated = np.flatnonzero(case.stack_quality() > 0)
    distance = np.abs(case.frame_index[:, None] - annotated).min(axis=1)
    own = np.isin(case.sweep, case.sweep[case.quality > 0])
    far = teaches_mask(case, "far")
    assert far[case.quality > 0].all() and far[~own].all()
    assert (far[own & (case.quality == 0)] == (distance >= 15)[own & (case.quality == 0)]).all()
    assert not far.all()
    assert (teaches_mask(case, "none") == (case.quality > 0)).all()
    assert teaches_mask(case, "all").all()
