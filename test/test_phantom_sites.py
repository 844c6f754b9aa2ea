"""Sites: the same numbers give the same stack, each looks and labels in its own corner."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from acouslic.challenge import FRAME_SHAPE, FRAMES_PER_SWEEP, IMAGES, SIMULATED, Quality
from phantom.__main__ import main
from phantom.annotator import ANYWHERE, Habits, with_oversights
from phantom.appearance import REALISTIC
from phantom.chance import Range, Spread
from phantom.dataset import case_name
from phantom.look_alike import with_look_alike
from phantom.render import Renderer
from phantom.site import Site
from phantom.truth import Sight, Truth, truth

SEED = 52


@pytest.fixture(scope="module")
def cases() -> dict[Site, list[Truth]]:
    return {site: [truth(SEED, case, site) for case in range(6)] for site in Site}


@pytest.mark.parametrize("site", Site)
def test_a_site_looks_in_a_part_of_the_realistic_range(site: Site) -> None:
    table = site.table()
    assert list(table) == list(REALISTIC)
    for name, (low, high) in REALISTIC.items():
        assert low <= table[name].low <= table[name].high <= high, name
    assert sum(table[name] != whole for name, whole in REALISTIC.items()) >= 12


def test_sites_are_told_apart_by_their_brightness(cases: dict[Site, list[Truth]]) -> None:
    means = {}
    for site, known in cases.items():
        middles = [int(np.flatnonzero(case.tissue())[300]) for case in known[:3]]
        frames = [
            Renderer(case).frame(index) for case, index in zip(known[:3], middles, strict=True)
        ]
        means[site] = np.mean(frames)
    assert means[Site.A] > 1.2 * means[Site.B] > 1.2 * means[Site.C]


def test_the_same_numbers_give_the_same_stack() -> None:
    first, again = truth(SEED, 3, Site.C), truth(SEED, 3, Site.C)
    np.testing.assert_array_equal(first.quality(), again.quality())
    index = int(np.flatnonzero(first.tissue())[100])
    np.testing.assert_array_equal(Renderer(first).frame(index), Renderer(again).frame(index))
    assert case_name(SEED, 3, Site.C) == case_name(SEED, 3, Site.C)
    assert len({case_name(SEED, 3, site) for site in (None, *Site)}) == 4


def test_a_subject_is_the_same_at_all_sites(cases: dict[Site, list[Truth]]) -> None:
    for at_a, at_b, at_c in zip(*cases.values(), strict=True):
        assert at_a.scene.subject == at_b.scene.subject == at_c.scene.subject
        assert at_a.subject == at_c.subject


def test_look_alikes_lie_in_sweeps_without_annotation_where_no_abdomen_is(
    cases: dict[Site, list[Truth]],
) -> None:
    count = 0
    for case in (case for known in cases.values() for case in known):
        for sweep, label in zip(case.sweeps, case.labels, strict=True):
            if not sweep.scene.look_alike:
                continue
            count += 1
            body, hole = sweep.scene.look_alike
            sections = body.shape.sections(sweep.planes)
            middle = int(np.argmax(np.where(sections.cut, sections.level, -np.inf)))
            assert not label.quality.any() and label.sight[middle] == Sight.NONE
            assert np.linalg.norm(hole.shape.centre - body.shape.centre) < body.shape.semi.max()
    assert count > 3


def test_a_look_alike_changes_a_part_of_the_picture(cases: dict[Site, list[Truth]]) -> None:
    case = next(
        case
        for known in cases.values()
        for case in known
        if any(sweep.scene.look_alike for sweep in case.sweeps)
    )
    index, sweep = next((i, s) for i, s in enumerate(case.sweeps) if s.scene.look_alike)
    sections = sweep.scene.look_alike[0].shape.sections(sweep.planes)
    middle = int(np.argmax(np.where(sections.cut, sections.level, -np.inf)))
    without = replace(sweep, scene=replace(sweep.scene, look_alike=()))
    bare = replace(case, sweeps=(*case.sweeps[:index], without, *case.sweeps[index + 1 :]))
    frame = index * FRAMES_PER_SWEEP + middle
    changed = Renderer(case).frame(frame) != Renderer(bare).frame(frame)
    assert 0.03 < changed.mean() < 0.6


def test_without_room_there_is_no_look_alike(cases: dict[Site, list[Truth]]) -> None:
    sweep = cases[Site.A][0].sweeps[0]
    rng = np.random.default_rng(1)
    assert with_look_alike(rng, sweep, np.zeros(len(sweep), bool)) is sweep


def test_oversights_leave_the_best_sweep() -> None:
    none, sub, opt = (np.array([q] * 3, np.uint8) for q in Quality)
    merits = [np.array([0.1, 0.2, 0.3])] * 3
    habits = Habits(
        strictness=Spread(0, 0), optimal_off_factor=Range(1, 1), misses_sweep=1, undervalues_sweep=0
    )
    kept = with_oversights(np.random.default_rng(0), [sub, opt, none], merits, habits)
    assert [int(quality.max()) for quality in kept] == [0, 2, 0]
    usual = with_oversights(np.random.default_rng(0), [sub, opt, none], merits, ANYWHERE)
    assert [int(quality.max()) for quality in usual] == [1, 2, 0]


def test_undervalued_frames_stay_annotated() -> None:
    opt = np.array([0, 2, 2, 1], np.uint8)
    habits = Habits(
        strictness=Spread(0, 0), optimal_off_factor=Range(1, 1), misses_sweep=0, undervalues_sweep=1
    )
    (kept,) = with_oversights(np.random.default_rng(0), [opt], [np.zeros(4)], habits)
    assert kept.tolist() == [0, 1, 1, 1]


def test_a_set_of_a_site_says_so_and_takes_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "phantom.dataset.Renderer.frame", lambda *_: np.zeros(FRAME_SHAPE, np.uint8)
    )
    command = [str(tmp_path / "c"), "--cases", "1", "--seed", str(SEED)]
    assert main([*command, "--site", "C"]) == 0
    assert json.loads((tmp_path / "c" / SIMULATED).read_text()) == {
        "seed": SEED,
        "cases": [0, 1],
        "look": "realistic",
        "site": "C",
    }
    assert (tmp_path / "c" / IMAGES / f"{case_name(SEED, 0, Site.C)}.mha").is_file()
    capsys.readouterr()
    assert main([*command, "--site", "B"]) == 1
    assert "site B" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--site", "C", "--look", "plain"])
