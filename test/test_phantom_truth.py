"""The truth of phantom cases: geometry against measured ellipses, labels, sweeps, statistics."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from acouslic.challenge import (
    AC_COLUMNS,
    AC_TABLE,
    CHALLENGE_FAN,
    FRAMES_PER_SWEEP,
    SPACING_MM,
    SWEEPS,
    Quality,
    labels_of_quality,
)
from acouslic.ellipse import ramanujan
from dataset.sequences import RUNS_FILE
from phantom.__main__ import main
from phantom.render import mask_frame
from phantom.scene import BLOCK, sample_subject, subject_of
from phantom.shapes import Planes, ellipsoid, turn
from phantom.statistics import (
    Labels,
    phantom_labels,
    reference_labels,
    summary,
)
from phantom.truth import Sight, Truth, truth


@pytest.fixture(scope="module")
def cases() -> list[Truth]:
    return [truth(11, case) for case in range(12)]


def test_abdomens_are_well_in_view_on_annotated_frames_and_on_others(cases: list[Truth]) -> None:
    quality = np.concatenate([case.quality() for case in cases])
    sight = np.concatenate([case.sight() for case in cases])
    tissue = np.concatenate([case.tissue() for case in cases])
    assert (sight[quality > 0] == Sight.WELL).all()
    others = sight[(quality == 0) & tissue]
    assert (others == Sight.WELL).any() and (others == Sight.PARTLY).any()
    assert (others == Sight.NONE).mean() > 0.3
    assert (sight[~tissue] == Sight.NONE).all()


def test_a_section_that_is_not_cut_is_not_in_sight(cases: list[Truth]) -> None:
    for label in cases[0].labels:
        assert (label.sight[~label.sections.cut] == Sight.NONE).all()


def test_section_of_an_ellipsoid_is_the_one_of_its_equation() -> None:
    shape = ellipsoid([3, -4, 5], [20, 30, 60], turn(0, 0.4) @ turn(2, 0.3))
    lateral = turn(1, 0.2)[:, 0]
    depth = turn(1, 0.2)[:, 1]
    planes = Planes(np.array([[1.0, 2, 8]]), lateral[None], depth[None])
    section = shape.sections(planes)
    major, minor = section.semi_axes()
    angles = np.linspace(0, 2 * np.pi, 9)[:-1]
    for angle in angles:
        du, dv = np.cos(angle), np.sin(angle)
        quu, quv, qvv = section.quu[0], section.quv[0], section.qvv[0]
        reach = 1 / np.sqrt(quu * du**2 + 2 * quv * du * dv + qvv * dv**2)
        u, v = section.centre_u[0] + reach * du, section.centre_v[0] + reach * dv
        local = (planes.origin[0] + u * lateral + v * depth - shape.centre) @ shape.rotation
        assert ((local / shape.semi) ** 2).sum() == pytest.approx(1)
        assert minor[0] <= reach * (1 + 1e-9) and reach <= major[0] * (1 + 1e-9)


def test_plane_beside_an_ellipsoid_does_not_cut_it() -> None:
    planes = Planes(np.array([[0.0, 0, 9.9], [0, 0, 10.1]]), np.eye(3)[[0, 0]], np.eye(3)[[1, 1]])
    assert ellipsoid([0, 0, 0], [5, 5, 10]).sections(planes).cut.tolist() == [True, False]


def test_ramanujan_knows_the_circle_and_a_flat_ellipse() -> None:
    assert ramanujan(np.array(7.0), np.array(7.0)) == pytest.approx(2 * np.pi * 7)
    # A flat ellipse's perimeter is 4a; the formula's known error there is 0.4 %.
    assert ramanujan(np.array(1.0), np.array(0.0)) == pytest.approx(4, rel=5e-3)


def test_fetus_has_the_circumference_it_is_asked_for() -> None:
    subject = sample_subject(3, 0)
    for size in (0.9, 1.0, 1.1):
        semi = subject.fetus(size).abdomen.semi
        assert ramanujan(semi[0], semi[1]) == pytest.approx(subject.ac_mm * size)


def test_ac_agrees_with_the_ellipse_fitted_to_the_unclipped_mask(cases: list[Truth]) -> None:
    for known in cases:
        for sweep, label in enumerate(known.labels):
            if label.ac_mm is None:
                continue
            nearest = np.where(label.quality > 0, label.sections.circumference_mm(), np.inf)
            frame = int(np.argmin(np.abs(nearest - label.ac_mm)))
            mask = known.outline(sweep * FRAMES_PER_SWEEP + frame).astype(np.uint8)
            if mask[[0, -1]].any() or mask[:, [0, -1]].any():
                continue
            contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            _, diameters, _ = cv2.fitEllipse(max(contours, key=len))
            a, b = (np.array(d / 2) for d in diameters)
            # A contour runs through the outermost pixels' centres: half a pixel inside.
            assert ramanujan(a, b) * SPACING_MM == pytest.approx(label.ac_mm, rel=0.01)


def test_ac_is_the_sections_perimeter_where_the_evaluator_misreads_a_cut_outline() -> None:
    # The fan cuts this frame's outline in two; an ellipse fitted to one arc has 0.2 mm.
    label = truth(2, 102).labels[4]
    assert label.ac_mm is not None
    perimeters = label.sections.circumference_mm()[label.quality > 0]
    assert np.abs(perimeters - label.ac_mm).min() < 0.01


def test_ac_stands_exactly_where_frames_are_annotated(cases: list[Truth]) -> None:
    for known in cases:
        annotated = known.quality().reshape(SWEEPS, -1).any(axis=1)
        assert annotated.any()
        assert annotated.tolist() == [label.ac_mm is not None for label in known.labels]


def test_annotated_frames_are_tissue_and_their_masks_clipped_and_never_mixed(
    cases: list[Truth],
) -> None:
    fan = CHALLENGE_FAN.mask()
    for known in cases:
        quality, tissue = known.quality(), known.tissue()
        assert not quality[~tissue].any()
        for frame in np.flatnonzero(quality)[::7]:
            mask = mask_frame(known, int(frame))
            assert not mask[~fan].any()
            assert set(np.unique(mask)) == {0, int(labels_of_quality(quality[frame]))}
            assert (mask > 0).sum() <= known.outline(int(frame)).sum()
    assert not mask_frame(known, int(np.flatnonzero(quality == 0)[0])).any()


def test_optimal_frames_lie_closer_to_the_standard_plane(cases: list[Truth]) -> None:
    labels = [label for known in cases for label in known.labels]
    merit = {
        value: np.concatenate([label.merit[label.quality == value] for label in labels])
        for value in Quality
    }
    none, suboptimal, optimal = (np.median(merit[value]) for value in Quality)
    assert optimal > suboptimal > none


def test_sweeps_end_in_black_and_go_where_they_should(cases: list[Truth]) -> None:
    for known in cases:
        tissue = known.tissue().reshape(SWEEPS, -1)
        lengths = tissue.sum(axis=1)
        assert (lengths >= 80).all() and (lengths < FRAMES_PER_SWEEP).all()
        for row, length in zip(tissue, lengths, strict=True):
            assert row[:length].all()
        for index, sweep in enumerate(known.sweeps):
            start, end = sweep.planes.origin[[0, -1]]
            # Transverse sweeps go cranial (+z), sagittal ones from left (+x) to right.
            assert end[2] > start[2] if index < 3 else end[0] < start[0]
            frame = np.stack([sweep.planes.lateral[5], sweep.planes.depth[5]])
            np.testing.assert_allclose(frame @ frame.T, np.eye(2), atol=1e-9)


def test_one_subject_in_sixteen_cases_comes_twice_with_the_same_fetus_in_another_scan() -> None:
    for seed in range(3):
        subjects = [subject_of(seed, case) for case in range(2 * BLOCK)]
        assert len(set(subjects)) == 2 * (BLOCK - 1)
        second = next(case for case in range(BLOCK) if subject_of(seed, case) != case)
        first = subject_of(seed, second)
        one, other = truth(seed, first), truth(seed, second)
        assert one.subject == other.subject == first < second
        assert one.scene.subject == other.scene.subject
        assert not np.allclose(one.scene.position, other.scene.position)


def test_truth_is_the_same_each_time_and_differs_between_cases_and_seeds() -> None:
    acs = [
        [label.ac_mm for label in truth(*key).labels] for key in ((4, 7), (4, 7), (4, 8), (5, 7))
    ]
    assert acs[0] == acs[1]
    assert acs[0] != acs[2] and acs[0] != acs[3]


# Suboptimal and optimal frames of the first forty cases of seed 1.
GOLDEN_COUNTS = [
    (20, 7), (0, 11), (12, 2), (2, 14), (27, 9), (27, 0), (2, 6), (8, 4), (3, 8), (6, 6),
    (11, 0), (35, 8), (11, 0), (21, 10), (18, 10), (29, 0), (37, 0), (26, 0), (3, 5), (20, 11),
    (16, 20), (9, 28), (22, 8), (18, 5), (10, 0), (9, 0), (31, 0), (28, 18), (15, 12), (23, 13),
    (13, 0), (6, 0), (9, 0), (2, 12), (4, 3), (29, 0), (7, 18), (20, 9), (3, 5), (18, 5),
]  # fmt: skip


def test_qualities_are_what_they_always_were() -> None:
    counts = []
    for case in range(len(GOLDEN_COUNTS)):
        quality = truth(1, case).quality()
        counts.append(tuple((quality == value).sum() for value in list(Quality)[1:]))
    assert counts == GOLDEN_COUNTS


def test_statistics_are_near_the_published_ones() -> None:
    labels = phantom_labels(1, range(50))
    annotated = (labels.quality > 0).sum((1, 2))
    # The real set: 232 +- 45 mm, 22 frames a case, 38 % of cases without an optimal frame.
    assert np.nanmean(labels.ac_mm) == pytest.approx(232, abs=20)
    assert np.nanstd(labels.ac_mm) == pytest.approx(45, abs=12)
    assert annotated.mean() == pytest.approx(22, abs=6)
    assert 0.2 < (~(labels.quality == Quality.OPTIMAL).any((1, 2))).mean() < 0.6
    by_sweep = (~np.isnan(labels.ac_mm)).mean(0)
    assert by_sweep[0] > by_sweep[1:3].mean() > by_sweep[3:].mean() > 0


def test_summary_counts_runs_frames_and_sweeps() -> None:
    quality = np.zeros((2, SWEEPS, FRAMES_PER_SWEEP), np.uint8)
    quality[0, 0, 10:14] = [
        Quality.SUBOPTIMAL,
        Quality.OPTIMAL,
        Quality.OPTIMAL,
        Quality.SUBOPTIMAL,
    ]
    quality[0, 3, 138:] = Quality.SUBOPTIMAL
    quality[1, 1, 0] = Quality.SUBOPTIMAL
    ac = np.full((2, SWEEPS), np.nan)
    ac[0, 0], ac[0, 3], ac[1, 1] = 200, 220, 240
    figures = summary(Labels(quality=quality, ac_mm=ac, subjects=2))
    assert figures["runs a case"] == "1.50"
    assert figures["annotated frames a case: range"] == "1 to 6"
    assert figures["cases without an optimal frame"] == "1 (50%)"
    assert figures["cases with 1/2/3/4+ such sweeps"] == "50% / 50% / 0% / 0%"
    assert figures["sweeps with an AC, by sweep 1..6"] == "50% / 50% / 0% / 50% / 0% / 0%"
    assert figures["AC mean ± SD, mm"] == "220.0 ± 20.0"


def test_statistics_command_prints_both_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / AC_TABLE.name).open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uuid", "subject_id", *(f"sweep_{i}_ac_mm" for i in range(1, 7))])
        rows.writerow(["a", "000", "250.0", "", "", "", "", ""])
        rows.writerow(["b", "000", "240.0", "230.0", "", "", "", ""])
    with (tmp_path / RUNS_FILE).open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filestem", "opt_seq", "subopt_seq"])
        rows.writerow(["a", "[(10, 12)]", "[(13, 13)]"])
        rows.writerow(["b", "[]", "[(150, 151), (20, 20)]"])
    labels = reference_labels(tmp_path)
    optimal, suboptimal = Quality.OPTIMAL, Quality.SUBOPTIMAL
    assert labels.quality[0, 0, 10:14].tolist() == [optimal, optimal, optimal, suboptimal]
    assert labels.quality[1, 1, 10:12].tolist() == [suboptimal, suboptimal]
    assert np.count_nonzero(labels.quality[1]) == 3
    arguments = ["--statistics", "--cases", "2", "--seed", "1", "--reference", str(tmp_path)]
    assert main(arguments) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "| | phantom, seed 1 | real training set |"
    assert "| cases (subjects) | 2 (2) | 2 (1) |" in table
    assert main([*arguments[:-1], str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (AC_TABLE.name, "uuid,subject_id\na,000\n"),
        (AC_TABLE.name, ",".join(("uuid", "subject_id", *AC_COLUMNS)) + "\na,000,x,,,,,\n"),
        (RUNS_FILE, "filestem,opt_seq,subopt_seq\n"),
        (RUNS_FILE, "filestem,opt_seq,subopt_seq\na,[(1,[]\n"),
    ],
)
def test_wrong_reference_table_is_told_in_one_line(
    name: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = ",".join(("uuid", "subject_id", *AC_COLUMNS))
    (tmp_path / AC_TABLE.name).write_text(f"{header}\na,000,250.0,,,,,\n")
    (tmp_path / RUNS_FILE).write_text("filestem,opt_seq,subopt_seq\na,[],[]\n")
    (tmp_path / name).write_text(text)
    arguments = ["--statistics", "--cases", "1", "--seed", "1", "--reference", str(tmp_path)]
    assert main(arguments) == 1
    message = capsys.readouterr().err.strip()
    assert message.startswith("error: expected") and name in message and "\n" not in message
