"""The long recipes: which commands they type, in which order, and what they do not do again."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
STACKS = Path("images", "stacked_fetal_ultrasound")
# Types nothing: notes each call, and makes the folder that is named behind --output, or last.
FAKE_PYTHON = """#!/usr/bin/env bash
all=$*
echo "$all" >> calls
case " $all " in
  *" --output "*) folder=${all##*--output } ;;
  *" phantom "*) folder=$3 ;;
  *) exit ;;
esac
mkdir -p "${folder%% *}"
"""
FAKE_SCRIPT = '#!/usr/bin/env bash\necho "$(basename "$0") $*" >> calls\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout of nothing but the recipes, in which no command does any work."""
    root = tmp_path / "project"
    shutil.copytree(RECIPES, root / "recipes")
    scripts = {
        ".venv/bin/python": FAKE_PYTHON,
        "venv.sh": FAKE_SCRIPT,
        "test.sh": FAKE_SCRIPT,
    }
    for name, text in scripts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
        (root / name).chmod(0o755)
    return root


def calls(project: Path, recipe: str, *arguments: str) -> list[str]:
    """The calls that a recipe makes, with its own name for the work folder."""
    (project / "calls").unlink(missing_ok=True)
    # Every recipe finds the project by its own place, wherever it is called from.
    subprocess.run([project / "recipes" / recipe, *arguments], cwd=project.parent, check=True)
    work = project.parent.resolve() / "work"
    return (project / "calls").read_text().replace(str(work), "WORK").splitlines()


def test_fetalclip_goes_from_download_to_test_and_repeats_what_resumes(project: Path) -> None:
    dataset, weights = project.parent / "data set", project.parent / "weights.pt"
    (dataset / STACKS).mkdir(parents=True)
    (dataset / STACKS / "a.mha").write_bytes(b"a stack")
    weights.touch()
    arguments = [str(dataset), str(weights), "work", "--precision", "fp16"]
    first = calls(project, "fetalclip.sh", *arguments)
    assert first[0] == "venv.sh requirements-dev.txt"
    commands = [call.split()[2] for call in first[1:-1]]
    assert commands == ["import-fetalclip", "prepare", "fit", "cross-validate", "pack"]
    assert first[3].endswith("--fold all --folds 5 --precision fp16")
    assert first[5].endswith("--output WORK/bundle --folds 0 1 2 3 4")
    assert first[-1] == "test.sh --model WORK/bundle"
    stack = project / "test/input/images/stacked-fetal-ultrasound/a.mha"
    assert stack.read_bytes() == b"a stack"
    again = calls(project, "fetalclip.sh", *arguments)
    assert [call.split()[2] for call in again[1:-1]] == ["prepare", "fit", "cross-validate"]


def test_fetalclip_leaves_a_phantom_in_the_tests_input_alone(project: Path) -> None:
    (project.parent / "data").mkdir()
    (project.parent / "weights.pt").touch()
    (project / "test" / "truth").mkdir(parents=True)
    made = calls(project, "fetalclip.sh", "data", "weights.pt", "work")
    assert not [call for call in made if call.startswith("test.sh")]
    assert not (project / "test" / "input").exists()


def test_demo_builds_scores_and_reports(project: Path) -> None:
    first = calls(project, "demo.sh", "work", "--members", "1")
    commands = [" ".join(call.split()[1:3]) for call in first[1:]]
    assert commands[0] == "training demo" and first[1].endswith("WORK/bundle --members 1")
    assert first[2].startswith("-m phantom WORK/.new.")
    assert commands[2:] == ["evaluation run", "evaluation score", "evaluation report"]
    assert not list((project.parent / "work").glob(".new*"))
    again = calls(project, "demo.sh", "work", "--members", "1")
    assert [call.split()[1] for call in again[1:]] == ["evaluation"] * 3


@pytest.mark.parametrize("recipe", ["fetalclip.sh", "demo.sh", "proofs.sh", "sites.sh"])
def test_help_is_told_and_a_wrong_use_is_refused(recipe: str) -> None:
    told = subprocess.run([RECIPES / recipe, "--help"], capture_output=True, text=True, check=True)
    assert told.stdout.startswith(f"usage: recipes/{recipe}")
    assert os.access(RECIPES / recipe, os.X_OK)
    refused = subprocess.run([RECIPES / recipe, "--wrok"], capture_output=True, text=True)
    assert refused.returncode == 2 and "usage:" in refused.stderr


def test_fetalclip_names_the_download_that_is_missing(tmp_path: Path) -> None:
    recipe = RECIPES / "fetalclip.sh"
    refused = subprocess.run([recipe, tmp_path / "no", "x"], capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith("fetalclip.sh: expected a data set; found no folder")
