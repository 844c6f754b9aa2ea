"""What the pages say, without a browser: losses, agreement, subgroups, ranks, costs, sizes."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scored_run import CASES, N_FRAMES, REFERENCES_MM, ScoredRun, abdomen

from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE, SPACING_MM, Quality
from acouslic.errors import InputError
from benchmark.summary import _interval
from dataset.labels import Labels
from evaluation import leaderboard, pictures, plots, report, style
from evaluation.__main__ import main
from evaluation.agreement import agreement
from evaluation.costs import MEMORY_LIMIT_MIB, TIME_LIMIT_S, costs, provenance
from evaluation.intervals import FEW_SUBJECTS, few_subjects, subject_draws
from evaluation.metrics import case_metrics, score
from evaluation.oracles import STAGES, best_of_sweeps, losses, mean_losses, nothing_answered
from evaluation.score import SCORED_KEYS
from evaluation.subgroups import read_groups, subgroups

LENGTH = N_FRAMES // 6
FAN = CHALLENGE_FAN.mask()


# ---- losses


def truth_of(annotated: Mapping[int, int]) -> Labels:
    """Labels of 72 frames, by frame: 1 is optimal, 2 suboptimal."""
    frames = {k: (abdomen("case-a") * label).astype(np.uint8) for k, label in annotated.items()}
    return Labels(N_FRAMES, FRAME_SHAPE, frames)


def lost(
    truth: Labels, references_mm: Sequence[float | None], frame: int, mask: np.ndarray
) -> tuple[float, dict[str, float]]:
    """The score of an answer, and what it lost at each stage."""
    fan: dict[str, Any] = {"fan_mask": FAN, "spacing_mm": SPACING_MM}
    measured = case_metrics(truth, references_mm, mask, frame, **fan)
    values = measured.values
    got = score(values["nae_circumference"], values["wfss"], values["DiceCoefficientSoft"])
    return got, losses(truth, references_mm, frame, measured, **fan)


TRUTH = truth_of({4: 2, 5: 1, 6: 1, 16: 2, 17: 2, 40: 2})


@pytest.mark.parametrize("frame", [5, 4, 7, 16, 20, 30, 40, 41, 60, -1])
@pytest.mark.parametrize("case", CASES)
def test_score_and_losses_add_up_to_a_perfect_answer(frame: int, case: str) -> None:
    got, stages = lost(TRUTH, REFERENCES_MM, frame, abdomen(case))
    assert tuple(stages) == tuple(STAGES)
    assert got + sum(stages.values()) == pytest.approx(1)
    assert min(stages["reading"], stages["frame"], stages["sweep"], stages["answer"]) >= -1e-9


def test_each_loss_is_charged_to_its_stage() -> None:
    ac_mm = case_metrics(
        TRUTH, REFERENCES_MM, abdomen("case-a"), 5, fan_mask=FAN, spacing_mm=SPACING_MM
    ).ac_mm
    exact = (ac_mm, ac_mm, None, None, None, None)
    perfect, wrong = abdomen("case-a"), abdomen("case-c")
    _, none = lost(TRUTH, exact, 5, perfect)
    assert none == pytest.approx(dict.fromkeys(STAGES, 0.0), abs=1e-9)
    _, outline = lost(TRUTH, exact, 5, wrong)
    assert outline["outline"] == pytest.approx(sum(outline.values()))
    assert outline["outline"] > 0.03
    # The true outline is read as `ac_mm`, so another reference is the reading's loss.
    off = (1.25 * (ac_mm or 0), *exact[1:])
    _, reading = lost(TRUTH, off, 5, perfect)
    assert reading["reading"] == pytest.approx(0.5 * 0.2)
    assert reading["reading"] == pytest.approx(sum(reading.values()))
    # A suboptimal frame of the same sweep: 0.25 x (1 - 0.6).
    _, frame = lost(TRUTH, exact, 4, perfect)
    assert frame["frame"] == pytest.approx(0.1)
    # Sweep 4 has an annotated frame but no reference: its best is 0.4 of 1.
    _, sweep = lost(TRUTH, exact, 40, perfect)
    assert sweep["sweep"] == pytest.approx(1 - 0.25 * 0.6 - 0.25)
    # Sweep 6 has nothing, and its frames no outline that could be right.
    _, nowhere = lost(TRUTH, exact, 66, perfect)
    assert nowhere == pytest.approx(dict.fromkeys(STAGES, 0.0) | {"sweep": 1.0})


def test_a_case_without_an_answer_loses_all_that_could_be_had() -> None:
    assert nothing_answered(TRUTH, REFERENCES_MM)["answer"] == pytest.approx(1)
    without = (None,) * 6
    assert max(best_of_sweeps(TRUTH, without)) == pytest.approx(0.5)
    assert nothing_answered(TRUTH, without)["answer"] == pytest.approx(0.5)


def test_losses_of_a_scored_run_add_up_to_its_mean(scored_run: ScoredRun) -> None:
    result = json.loads((scored_run.scored / "metrics.json").read_text())
    stages = mean_losses(result["cases"])
    assert result["score"]["mean"] + sum(stage.mean for stage in stages) == pytest.approx(1)


# ---- agreement


def ac_cases(errors_mm: Sequence[float], subjects: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"ac_mm": 200 + error, "reference_mm": 200.0, "subject_id": subject}
        for error, subject in zip(errors_mm, subjects, strict=True)
    ]


def test_limits_of_agreement_have_intervals_over_subjects() -> None:
    errors = np.random.default_rng(0).normal(2, 5, 60)
    agreed = agreement(ac_cases(errors.tolist(), [str(k) for k in range(60)]), in_percent=False)
    assert agreed is not None
    spread = 1.96 * errors.std(ddof=1)
    assert (agreed.bias, agreed.low) == pytest.approx((errors.mean(), errors.mean() - spread))
    assert agreed.bias_ci95 is not None
    assert agreed.high_ci95 is not None
    # The standard errors of mean and limits: Bland & Altman, Lancet 1986: s / sqrt(n), and about
    # sqrt(3) times that. The bootstrap should come near.
    error = errors.std(ddof=1) / np.sqrt(60)
    assert np.ptp(agreed.bias_ci95) == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert np.ptp(agreed.high_ci95) == pytest.approx(2 * 1.96 * np.sqrt(3) * error, rel=0.3)
    # The same values four times over, of a quarter of the subjects: nothing more is known.
    again = agreement(
        ac_cases(np.tile(errors, 4).tolist(), [str(k % 60) for k in range(240)]), in_percent=False
    )
    assert again is not None
    assert again.bias_ci95 == pytest.approx(agreed.bias_ci95, abs=0.02)


def test_one_subject_gives_no_interval_of_agreement() -> None:
    agreed = agreement(ac_cases([1.0, 3.0], ["one", "one"]), in_percent=True)
    assert agreed is not None
    assert (agreed.bias_ci95, agreed.low_ci95, agreed.high_ci95) == (None, None, None)
    assert agreement(ac_cases([1.0], ["one"]), in_percent=True) is None


# ---- few subjects


def test_four_subjects_give_no_interval_in_the_benchmark_and_few_give_a_warning() -> None:
    values = np.full(50, 0.5)
    assert _interval(values, subject_draws(4, resamples=50)) is None
    assert _interval(values, subject_draws(5, resamples=50)) == (0.5, 0.5)
    assert few_subjects(FEW_SUBJECTS) is None
    assert "too narrow" in str(few_subjects(FEW_SUBJECTS - 1))
    assert "no interval" in str(few_subjects(1))


# ---- subgroups


def group_cases() -> list[dict[str, Any]]:
    return [
        {
            "case": f"c{k}",
            "subject_id": f"s{min(k, 7)}",
            "references_mm": [200.0 + 10 * k, None, None, None, None, None],
            "sweep": 1 if k < 6 else 5,
            "score": k / 10,
            "nae_circumference": 0.1,
            "wfss": 1.0,
            "DiceCoefficientSoft": 0.9,
        }
        for k in range(9)
    ]


def test_subgroups_divide_the_cases_and_one_subject_has_no_interval(tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    lines = ["uuid,subject_id,site", *(f"c{k},x,{'north' if k < 4 else 'south'}" for k in range(8))]
    table.write_text("\n".join(lines) + "\n")
    groups = subgroups(group_cases(), read_groups(table))
    by_kind: dict[str, list[Any]] = {}
    for group in groups:
        by_kind.setdefault(group.kind, []).append(group)
    assert [group.n_cases for group in by_kind["true AC"]] == [3, 3, 3]
    assert [g.name.partition(":")[0] for g in by_kind["true AC"]] == ["small", "middle", "large"]
    assert by_kind["true AC"][0].means["score"] == pytest.approx(0.1)
    assert [(g.name, g.n_cases) for g in by_kind["chosen sweep"]] == [
        ("transverse", 6),
        ("sagittal", 3),
    ]
    several = next(g for g in by_kind["subject's stacks"] if g.name == "several")
    assert (several.n_cases, several.n_subjects, several.ci95) == (2, 1, None)
    # c8 is not in the table: it belongs to no site.
    assert [(g.name, g.n_cases) for g in by_kind["site"]] == [("north", 4), ("south", 4)]


def test_what_does_not_divide_the_cases_makes_no_subgroup() -> None:
    cases = [{**case, "sweep": 1, "subject_id": case["case"]} for case in group_cases()]
    assert {group.kind for group in subgroups(cases, {})} == {"true AC"}


def test_a_table_of_groups_without_groups_is_refused(tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text("uuid,subject_id\nc1,s1\n")
    with pytest.raises(InputError, match="site"):
        read_groups(tmp_path / "groups.csv")


# ---- costs and provenance


def test_costs_are_summed_by_stage_and_held_against_the_limits() -> None:
    log = {
        "cases": {
            "a": {
                "status": "done",
                "seconds": {"read": 1.0, "network": 20.0},
                "peak_memory_mib": 900,
            },
            "b": {
                "status": "done",
                "seconds": {"read": 3.0, "network": 27.0},
                "peak_memory_mib": None,
            },
            "c": {"status": "failed", "seconds": {"read": 99.0}, "peak_memory_mib": 1.0},
        }
    }
    by_name = {cost.name: cost for cost in costs(log)}
    assert list(by_name) == ["read", "network", "whole case", "memory"]
    whole = by_name["whole case"]
    assert (whole.median, whole.most, whole.worst) == (25.5, 30.0, "b")
    assert whole.share == pytest.approx(30 / TIME_LIMIT_S)
    assert by_name["memory"].share == pytest.approx(900 / MEMORY_LIMIT_MIB)
    assert costs({"seconds": {"a": 1.0}}) == []


def test_provenance_is_flat_and_leaves_single_cases_out() -> None:
    notes = {"scored_run.json": {"cases": {"a": 1}, "codes": [{"commit": "abc"}], "shard": None}}
    lines = provenance({"bootstrap": {"seed": 1}, "keys": ["x", "y"]}, notes)
    assert lines == [
        ("scoring", "bootstrap.seed", "1"),
        ("scoring", "keys", "x, y"),
        ("scored_run.json", "codes[0].commit", "abc"),
    ]


def test_the_report_of_a_run_shows_its_costs_and_its_log(
    scored_run: ScoredRun, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    assert main(["report", str(scored_run.scored), "--output", str(path), "--workers", "1"]) == 0
    page = path.read_text()
    for name in ("read", "network", "<b>whole case</b>", "<b>memory</b>"):
        assert f"<tr><td>{name}</td>" in page
    log = json.loads((scored_run.answers / "run.json").read_text())
    assert f"<td>run.json</td><td>data_sha256</td><td>{log['data_sha256']}</td>" in page


# ---- sizes


def test_300_cases_of_the_worst_pictures_make_a_page_below_12_mb(scored_run: ScoredRun) -> None:
    generator = np.random.default_rng(0)
    # Speckle, as in no compressible image: a few pixels wide, of all grey levels.
    noise = generator.rayleigh(60, (FRAME_SHAPE[0] // 2, FRAME_SHAPE[1] // 2)).clip(0, 255)
    frame = cv2.resize(noise.astype(np.uint8), FRAME_SHAPE[::-1], interpolation=cv2.INTER_CUBIC)
    frame = frame * FAN
    result = json.loads((scored_run.scored / "metrics.json").read_text())
    job = report._jobs(result, None)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "_read_frame", lambda *_: frame)
        picture = report._picture(job, 0, abdomen("case-a"), abdomen("case-b"), "chosen")
    scores = generator.random(840)
    case = result["cases"][0] | {"n_frames": 840, "frame": 100}
    curves = plots.sweep_curves(case, scores.tolist())
    view = report.CaseView(case, (picture, picture), curves, 1.0)
    cases = [case | {"case": f"case-{k:03d}"} for k in range(300)]
    views = [replace(view, case=case) for case in cases]
    html = report.render(result | {"cases": cases}, views, told={}, links={}, downloads={})
    assert len(html.encode()) < 12e6


def test_a_stack_that_hardly_compresses_still_makes_a_small_page() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, *FRAME_SHAPE), dtype=np.uint8)
    best = pictures.make_strips(noise, most_bytes=10**9)
    smaller = pictures.make_strips(noise, most_bytes=sum(map(len, best.data)) // 2)
    assert sum(map(len, smaller.data)) <= sum(map(len, best.data)) // 2
    assert len(best.data) == 2


# ---- leaderboard


def scored_folder(folder: Path, scores: Mapping[str, float], *, simulated: bool = False) -> Path:
    """A score of cases of two subjects each, as far as a leaderboard reads it."""
    cases = [
        {"case": name, "subject_id": f"s{k // 2}", "score": value, "frame": k}
        for k, (name, value) in enumerate(scores.items())
    ]
    mean = {"mean": float(np.mean(list(scores.values()))), "std": 0.0, "ci95": None}
    settings = {"bundle_id": "tiny", "simulated": simulated}
    folder.mkdir()
    result = dict.fromkeys(SCORED_KEYS, mean)
    (folder / "metrics.json").write_text(
        json.dumps({**result, "cases": cases, "settings": settings})
    )
    return folder


def test_runs_are_ranked_with_paired_differences(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    base = {f"case-{k:02d}": float(v) for k, v in enumerate(generator.uniform(0.3, 0.8, 40))}
    worse = {name: value - 0.1 for name, value in base.items()}
    noisy = {name: value + float(generator.normal(0, 0.1)) for name, value in base.items()}
    folders = [
        scored_folder(tmp_path / "worse", worse),
        scored_folder(tmp_path / "base", base, simulated=True),
        scored_folder(tmp_path / "noisy", noisy),
    ]
    board = leaderboard.leaderboard(folders)
    assert board.simulated
    assert board.standings[-1].name == "worse"
    by_name = {standing.name: standing for standing in board.standings}
    # Cases differ by more than the runs do: paired, the difference is certain all the same.
    below = board.pairs[board.standings.index(by_name["worse"])][
        board.standings.index(by_name["base"])
    ]
    assert below[0] == pytest.approx(-0.1)
    assert below[1] == pytest.approx((-0.1, -0.1))
    for standing in board.standings:
        assert standing.ranks is not None
        assert sum(standing.ranks) == pytest.approx(1)
    ranks = np.array([standing.ranks for standing in board.standings])
    assert ranks.sum(axis=0) == pytest.approx(np.ones(3))
    assert by_name["worse"].ranks == pytest.approx([0, 0, 1], abs=1e-3)
    assert [case["spread"] for case in board.cases] == sorted(
        (case["spread"] for case in board.cases), reverse=True
    )


def test_equal_runs_share_the_first_place(tmp_path: Path) -> None:
    scores = {f"case-{k}": k / 10 for k in range(6)}
    folders = [scored_folder(tmp_path / name, scores) for name in ("a", "b")]
    board = leaderboard.leaderboard(folders)
    assert [standing.ranks for standing in board.standings] == [[0.5, 0.5], [0.5, 0.5]]


def test_runs_of_one_subject_have_no_interval_and_no_ranks(tmp_path: Path) -> None:
    folders = [scored_folder(tmp_path / name, {"x": 0.5, "y": 0.7}) for name in ("a", "b")]
    board = leaderboard.leaderboard(folders)
    assert board.standings[0].ci95 is None
    assert board.standings[0].ranks is None
    assert "no interval" in leaderboard.html(board)
    assert " -- " in leaderboard.latex(board)


def test_latex_is_escaped_and_has_a_row_a_run(tmp_path: Path) -> None:
    scores = {f"case-{k}": k / 10 for k in range(6)}
    folders = [scored_folder(tmp_path / name, scores) for name in ("a", "b")]
    text = leaderboard.latex(leaderboard.leaderboard(folders, ["50 %_x & y", "\\b~^{}"]))
    assert r"50 \%\_x \& y & 0.250" in text
    assert r"\textbackslash{}b\textasciitilde{}\textasciicircum{}\{\} & " in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 3
    assert all(len(re.findall(r"(?<!\\)&", row)) == 6 for row in rows)


@pytest.mark.parametrize(
    ("names", "told"), [(None, "two scored runs"), (["a"], "different"), (["a", "a"], "different")]
)
def test_runs_that_cannot_be_told_apart_are_refused(
    names: list[str] | None, told: str, tmp_path: Path
) -> None:
    folders = [scored_folder(tmp_path / name, {"x": 0.5, "y": 0.7}) for name in ("a", "b")]
    with pytest.raises(InputError, match=told):
        leaderboard.leaderboard(folders[:1] if names is None else folders, names)


def test_compare_writes_a_leaderboard_of_three(scored_run: ScoredRun, tmp_path: Path) -> None:
    runs = [str(scored_run.scored), str(scored_run.other), str(scored_run.scored)]
    assert main(["compare", *runs, "--names", "x", "y", "z", "--output", str(tmp_path)]) == 0
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["leaderboard.html", "leaderboard.json", "leaderboard.tex"]
    assert "SIMULATED" in (tmp_path / "leaderboard.html").read_text()


# ---- views


def test_a_view_needs_the_bundle_that_answered(
    scored_run: ScoredRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--model", str(scored_run.bundle), "--output", str(tmp_path)]
    assert main(["view", "case-x", "--scored", str(scored_run.scored), *place]) == 1
    assert "case-x" in capsys.readouterr().err
    assert main(["view", "case-a", "--scored", str(scored_run.other), *place]) == 1
    assert "largest-area" in capsys.readouterr().err
    result = json.loads((scored_run.scored / "metrics.json").read_text())
    result["settings"]["bundle_id"] = "another"
    (tmp_path / "scored").mkdir()
    (tmp_path / "scored" / "metrics.json").write_text(json.dumps(result))
    assert main(["view", "case-a", "--scored", str(tmp_path / "scored"), *place]) == 1
    assert "another" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.html"))


def test_a_view_of_a_stack_alone_has_no_truth(scored_run: ScoredRun, tmp_path: Path) -> None:
    (stack,) = scored_run.dataset.rglob("stacked_fetal_ultrasound/case-a.mha")
    assert (
        main(["view", str(stack), "--model", str(scored_run.bundle), "--output", str(tmp_path)])
        == 0
    )
    page = (tmp_path / "case-a.html").read_text()
    data = json.loads(re.findall(r'id="data">(.*?)</script>', page)[0])
    assert data["truth"] is None
    assert len(data["scores"]) == N_FRAMES
    assert page.count('class="strip"') == -(-N_FRAMES // pictures.FRAMES_A_STRIP)
    assert 'id="true"' not in page
    assert "by the truth</th>" not in page


def test_a_view_says_what_frames_would_have_scored(scored_run: ScoredRun, tmp_path: Path) -> None:
    place = [
        "--scored",
        str(scored_run.scored),
        "--model",
        str(scored_run.bundle),
        "--output",
        str(tmp_path),
    ]
    assert main(["view", "case-b", *place]) == 0
    page = (tmp_path / "case-b.html").read_text()
    data = json.loads(re.findall(r'id="data">(.*?)</script>', page)[0])
    case = json.loads((scored_run.scored / "metrics.json").read_text())["cases"][1]
    assert data["chosen"] == case["frame"]
    assert data["truth"]["scores"][case["frame"]] == pytest.approx(case["score"], abs=1e-4)
    assert data["outlines"][str(case["frame"])]["ac"] == pytest.approx(case["ac_mm"], abs=0.01)
    terms = np.sum(list(data["terms"].values()), axis=0)
    assert terms == pytest.approx(np.array(data["scores"]), abs=2e-4)
    stored = json.loads((scored_run.answers / "case-b" / "frame_scores.json").read_text())
    assert np.array(stored["frame_scores"]) == pytest.approx(np.array(data["scores"]), abs=1e-4)
    # The runner-up's difference is told part by part, and the parts add up to it.
    (said,) = re.findall(r"<li>The runner-up, .*? score ([0-9.]+) less: (.*?)\.</li>", page)
    parts = [float(part.rsplit(" ", 1)[1]) for part in said[1].split(", ")]
    assert sum(parts) == pytest.approx(-float(said[0]), abs=2e-3)
    assert f"By the truth it scores {case['score']:.3f}." in page


# ---- colours

# Linear RGB as seen without red or green receptors: Machado et al., IEEE TVCG 2009, severity 1.
VISION = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
# A difference of 2.3 in CIELAB is just noticed; this one is seen at a glance.
CLEAR_DIFFERENCE = 20


def lab(colour: str, vision: str) -> np.ndarray:
    """A colour "#rrggbb" in CIELAB, as somebody sees it."""
    channels = np.array(style.rgb(colour)) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    seen = np.clip(VISION[vision] @ linear, 0, 1).astype(np.float32)
    encoded = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    pixel = encoded.astype(np.float32).reshape(1, 1, 3)
    return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_RGB2Lab)).reshape(3)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(
    "colours",
    [
        tuple(style.TERM_COLOURS.values()),
        (style.PREDICTED_ON_BLACK, style.TRUE_ON_BLACK, "#ffffff"),
        tuple(style.QUALITY_COLOURS[quality] for quality in Quality if quality),
    ],
    ids=["terms", "outlines", "qualities"],
)
def test_colours_of_one_plot_are_told_apart(colours: tuple[str, ...], vision: str) -> None:
    for k, one in enumerate(colours):
        for other in colours[k + 1 :]:
            assert np.linalg.norm(lab(one, vision) - lab(other, vision)) > CLEAR_DIFFERENCE
