"""The golden run: the demo bundle answers on three phantoms as it did, and a change is noticed."""

from dataclasses import replace
from pathlib import Path

import golden
import numpy as np
import pytest

from acouslic.bundle import load_bundle, with_engine
from acouslic.command import DEMO_BUNDLE
from acouslic.engine_names import EngineName

RENEW = "if that is meant, run `python test/tools/golden.py`, and say in docs/log.md why"


@pytest.fixture(scope="module")
def kept() -> golden.Golden:
    return golden.read()


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_the_demo_bundle_answers_as_before(kept: golden.Golden, engine: EngineName) -> None:
    bundle = with_engine(load_bundle(DEMO_BUNDLE), engine)
    changed = golden.differences(kept, golden.answers(bundle))
    assert not changed, f"{'; '.join(changed)}; {RENEW}"


def with_answer(run: golden.Golden, answer: golden.Answer) -> golden.Golden:
    return replace(run, answers={**run.answers, 1: answer})


def test_a_changed_answer_is_noticed(kept: golden.Golden) -> None:
    answer = kept.answers[1]
    moved = np.roll(answer.mask, 2, axis=1)
    changes = {
        "frame": replace(answer, frame=answer.frame + 1),
        "AC": replace(answer, ac_mm=answer.ac_mm * 1.0021),
        "IoU": replace(answer, mask=moved),
    }
    for word, other in changes.items():
        (line,) = golden.differences(kept, with_answer(kept, other))
        assert line.startswith("phantom 1: ") and word in line
    assert golden.differences(kept, replace(kept, bundle_id="another-1"))


def test_another_processors_last_digits_are_none(kept: golden.Golden) -> None:
    answer = kept.answers[1]
    mask = answer.mask.copy()
    mask[tuple(np.argwhere(mask)[0])] = 0
    other = replace(answer, ac_mm=answer.ac_mm * 1.0019, mask=mask)
    assert golden.differences(kept, with_answer(kept, other)) == []


def test_what_is_written_is_read_back(kept: golden.Golden, tmp_path: Path) -> None:
    golden.write(kept, tmp_path)
    assert golden.differences(kept, golden.read(tmp_path)) == []
    assert golden.read(tmp_path).answers[0].frame == kept.answers[0].frame
