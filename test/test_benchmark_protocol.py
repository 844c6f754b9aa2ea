"""The protocols: the published split and its counts, grouping by subject, frames in batches."""

from pathlib import Path

import numpy as np
import pytest
from benchmark_cache import BLACK_PER_SWEEP, FRAMES_PER_SWEEP, write_cache

from acouslic.errors import InputError
from benchmark.copies import vary
from benchmark.frames import Draw, SampleReader, draw_epoch, frame_table, soft_targets
from benchmark.options import PAPER, STRICT
from benchmark.protocol import counts, split, tables
from dataset.cache import Cache, CachedCase, CaseFacts

SEED = 9872398152123123767126
PUBLISHED = {
    "training": (210, 52_500, 375),
    "validation": (30, 8_540, 61),
    "test": (60, 16_380, 117),
}
# What NumPy's generator gives for 300 cases: were it to change, so would the published split.
FIRST_OF_300 = [15, 59, 46, 96, 212, 241, 86, 25]
BLACK_A_SWEEP = 30


def spread_sweeps(n_cases: int, total: int) -> list[int]:
    """A number of sweeps with an AC for each case, 1 to 4, that add up to `total`."""
    sweeps = [total // n_cases] * n_cases
    for k in range(total - sum(sweeps)):
        sweeps[k] += 1
    return sweeps


@pytest.fixture(scope="module")
def published_cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """300 cases as in the csv: the published parts have the published numbers of sweeps; each
    sweep's last 30 frames are black, and the first 10 of the 110 others are annotated.
    """
    root = tmp_path_factory.mktemp("published")
    order = np.random.default_rng(SEED).permutation(300)
    sweeps = np.zeros(300, int)
    first = 0
    for n_cases, _, total in PUBLISHED.values():
        sweeps[order[first : first + n_cases]] = spread_sweeps(n_cases, total)
        first += n_cases
    kept = np.flatnonzero(np.arange(840) % 140 < 140 - BLACK_A_SWEEP).astype(np.int32)
    cases = []
    for number, annotated in enumerate(sweeps):
        folder = root / f"uuid-{number}"
        folder.mkdir()
        quality = ((kept % 140 < 10) & (kept // 140 < annotated)).astype(np.uint8)
        np.save(folder / "frame_index.npy", kept)
        np.save(folder / "quality.npy", quality)
        ac_mm = tuple(200.0 if sweep < annotated else np.nan for sweep in range(6))
        facts = CaseFacts(
            folder.name, f"subject-{number % 281}", 840, (562, 744), (0.28, 0.28), ac_mm, 224, ""
        )
        cases.append(CachedCase(folder, facts))
    return Cache(root, 224, False, tuple(cases))


def test_the_papers_split_has_the_published_counts(published_cache: Cache) -> None:
    assert np.random.default_rng(SEED).permutation(300)[:8].tolist() == FIRST_OF_300
    cases = split(published_cache, PAPER)
    held = counts(cases, tables(cases, PAPER))
    for name, (n_cases, n_frames, n_sweeps) in PUBLISHED.items():
        assert (held[name]["cases"], held[name]["frames"]) == (n_cases, n_frames)
        assert held[name]["black_frames"] == BLACK_A_SWEEP * n_sweeps
        assert held[name]["positives"] == 10 * n_sweeps


def test_the_papers_split_follows_the_order_of_the_csv(published_cache: Cache) -> None:
    test = {case.facts.uuid for case in split(published_cache, PAPER).test.cases}
    order = np.random.default_rng(SEED).permutation(300)
    assert test == {f"uuid-{number}" for number in order[240:]}


def test_the_papers_split_shares_subjects_and_the_strict_one_does_not(
    published_cache: Cache,
) -> None:
    shared = [
        counts(cases := split(published_cache, protocol), tables(cases, protocol))["test"][
            "subjects_also_in_training"
        ]
        for protocol in (PAPER, STRICT)
    ]
    assert shared[0] > 0
    assert shared[1] == 0


def test_strict_counts_every_frame_of_every_sweep(published_cache: Cache) -> None:
    cases = split(published_cache, STRICT)
    held = counts(cases, tables(cases, STRICT))
    assert sum(part["cases"] for part in held.values()) == 300
    assert all(part["frames"] == 840 * part["cases"] for part in held.values())
    assert held["test"]["cases"] == pytest.approx(60, abs=6)


def test_too_few_cases_are_refused(tmp_path: Path) -> None:
    cache = write_cache(tmp_path, 2)
    for protocol in (PAPER, STRICT):
        with pytest.raises(InputError):
            split(cache, protocol)


def test_black_frames_are_counted_and_are_zeros(tmp_path: Path) -> None:
    cache = write_cache(tmp_path, 2)
    table = frame_table(cache, annotated_sweeps_only=True)
    assert len(table) == 3 * FRAMES_PER_SWEEP
    black = np.flatnonzero(table.row < 0)
    assert len(black) == 3 * BLACK_PER_SWEEP
    assert (table.number[black] % FRAMES_PER_SWEEP >= FRAMES_PER_SWEEP - BLACK_PER_SWEEP).all()
    samples = SampleReader(table).__getitems__([Draw(int(black[0]), 1), Draw(4, 0), Draw(4, 1)])
    assert not samples.frames[0].any()
    assert samples.masks[1].any()
    assert samples.quality.tolist() == [0, int(table.quality[4]), int(table.quality[4])]
    assert (samples.frames[1] != samples.frames[2]).any()


def test_a_copy_is_the_same_whenever_it_is_read(tmp_path: Path) -> None:
    table = frame_table(write_cache(tmp_path, 1), annotated_sweeps_only=True)
    first = SampleReader(table).__getitems__([Draw(0, 1), Draw(4, 2)])
    again = SampleReader(table).__getitems__([Draw(4, 2), Draw(4, 1)])
    assert (first.frames[1] == again.frames[0]).all()
    assert (first.masks[1] == again.masks[0]).all()
    assert (again.frames[0] != again.frames[1]).any()


def test_a_varied_mask_goes_where_its_frame_goes() -> None:
    frame = np.zeros((64, 64), np.uint8)
    frame[20:30, 34:44] = 200
    moved, mask = vary(frame, (frame > 0).astype(np.uint8) * 255, np.random.default_rng(3))
    inside = mask > 200
    assert inside.any()
    assert not inside[20:30, 34:44].all()
    assert moved[inside].mean() > moved[mask == 0].mean() + 50


def test_an_epoch_has_each_frame_once_for_every_copy() -> None:
    draws = draw_epoch(5, copies=3, limit=None, generator=np.random.default_rng(0))
    assert sorted(draws) == [Draw(row, variation) for row in range(5) for variation in range(3)]
    assert len(draw_epoch(5, copies=3, limit=4, generator=np.random.default_rng(0))) == 4


def test_targets_soften_inside_the_sweep_only() -> None:
    quality = np.zeros(60, np.uint8)
    quality[9] = 2
    quality[25] = 1
    assert soft_targets(quality, 0).tolist()[9] == 1
    soft = soft_targets(quality, 3.0)
    assert soft[8] == pytest.approx(np.exp(-1 / 3))
    assert soft[6] == pytest.approx(np.exp(-1))
    assert soft[10] == 0
    assert soft[24] == pytest.approx(0.6 * np.exp(-1 / 3))
    assert (soft[9], soft[25]) == (pytest.approx(1), pytest.approx(0.6))
