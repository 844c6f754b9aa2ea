"""What users would install: the wheel, the pins, and the files that tell about the project."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import acouslic

ROOT = Path(__file__).resolve().parents[1]
METADATA = f"acouslic-{acouslic.__version__}.dist-info"
# What the base image brings, in a build of its own.
FROM_THE_BASE = r"(torch|torchvision|triton|nvidia-.*)$"
# What others depend on for commands or downloads of theirs.
UNUSED = r"(click|colorama|hf-xet|networkx|openvino-telemetry)$"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.iterdir()
    assert path.name == f"acouslic-{acouslic.__version__}-py3-none-any.whl"
    return zipfile.ZipFile(path)


@pytest.fixture
def metadata(wheel: zipfile.ZipFile) -> Message:
    return Parser().parsestr(wheel.read(f"{METADATA}/METADATA").decode())


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pins(file: str) -> dict[str, list[str]]:
    """Each pinned package with its exact requirement and its hashes, without markers."""
    packages: dict[str, list[str]] = {}
    for line in without_comments(read(file)):
        if "==" in line:
            name = re.split(r"==|\[", line)[0]
            packages[name] = []
        packages[name].append(line.partition(" ; ")[0])
    return packages


def without_comments(text: str) -> list[str]:
    return [line.rstrip(" \\") for line in text.splitlines() if "#" not in line]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_wheel_holds_what_ships_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "acouslic").rglob("*.py")}
    names = {name for name in wheel.namelist() if not name.startswith(f"{METADATA}/")}
    assert names == modules | {"acouslic/py.typed"}


def test_wheel_brings_the_command(wheel: zipfile.ZipFile) -> None:
    scripts = wheel.read(f"{METADATA}/entry_points.txt").decode()
    assert scripts.split("\n")[:2] == ["[console_scripts]", "acouslic = acouslic.__main__:main"]


def test_wheel_brings_both_licence_files(wheel: zipfile.ZipFile, metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    for name in ("LICENSE", "NOTICE"):
        assert wheel.read(f"{METADATA}/licenses/{name}").decode() == read(name)


def test_wheel_asks_only_for_what_ships(metadata: Message) -> None:
    requirements = [text for text in metadata.get_all("Requires-Dist", []) if "extra" not in text]
    names = {canonical(re.split(r"[<>=;]", text)[0].strip()) for text in requirements}
    assert {"torch", "open-clip-torch", "numpy"} <= names
    assert names <= set(pins("requirements.txt"))
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "invoke",
        "rooms",
        "cluster",
        "tensorboard",
        "dev",
    }


def test_pins_of_development_hold_those_of_what_ships() -> None:
    ships, everything = pins("requirements.txt"), pins("requirements-dev.txt")
    assert len(ships) > 50
    for name, (pin, *hashes) in ships.items():
        same, *same_hashes = everything[name]
        # With more extras, perhaps.
        assert Requirement(same).specifier == Requirement(pin).specifier
        assert same_hashes == hashes


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {canonical(re.split(r"[\[<>=]", text)[0]) for group in groups for text in group}
    assert names <= set(pins("requirements-dev.txt"))


def test_pins_name_the_extras_that_others_ask_for() -> None:
    """Older versions of pip take an extra's newest release else, which no hash allows."""
    packages = pins("requirements-dev.txt")
    asked = 0
    for name in packages:
        for text in distribution_requirements(name):
            wanted = Requirement(text)
            if wanted.extras and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
                asked += 1
                pinned = Requirement(packages[canonical(wanted.name)][0])
                assert wanted.extras <= pinned.extras, f"{name} asks for {text}"
    assert asked > 0


def distribution_requirements(name: str) -> list[str]:
    try:
        return importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:  # pinned for another system
        return []


def test_image_takes_the_pins_less_the_bases_own_and_what_nothing_imports() -> None:
    shipped, served, _ = re.findall(r"awk '([^']+)'", read("Dockerfile"))
    packages = pins("requirements.txt")
    wanted = [name for name in packages if not re.match(rf"{FROM_THE_BASE}|{UNUSED}", name)]
    assert len(packages) - len(wanted) >= 20
    taken = taken_by(shipped, "requirements.txt")
    assert taken == [line for name in wanted for line in packages[name]]
    packages = pins("requirements-invoke.txt")
    server = ("annotated-doc", "click", "fastapi", "opentelemetry-api", "starlette", "uvicorn")
    # With what the other image has, this is all that the two packages depend on.
    assert set(packages) == set(pins("requirements.txt")) | set(server)
    assert taken_by(served, "requirements-invoke.txt") == [
        line for name in server for line in packages[name]
    ]


def test_the_evaluators_image_takes_what_scoring_needs_and_nothing_else() -> None:
    *_, scoring = re.findall(r"awk '([^']+)'", read("Dockerfile"))
    packages = pins("requirements-dev.txt")
    needed: set[str] = set()
    waiting = [
        "grand-challenge-metrics",
        "isal",
        "joblib",
        "opencv-python-headless",
        "pydantic",
        "scikit-learn",
        "simpleitk",
        "tqdm",
    ]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            given = [text.partition(";") for text in importlib.metadata.requires(name) or ()]
            elsewhere = ("extra", "Windows", "python_version")
            waiting += [
                canonical(re.split(r"[\[<>=!~ ]", text)[0])
                for text, _, marker in given
                if not any(word in marker for word in elsewhere)
            ]
    taken = taken_by(scoring, "requirements-dev.txt")
    assert taken == [line for name in packages if name in needed for line in packages[name]]


def taken_by(program: str, file: str) -> list[str]:
    command = ["awk", program.replace("\\\n", ""), file]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [line.partition(" ; ")[0] for line in without_comments(done.stdout)]


def test_pinned_torch_is_that_of_the_base_image() -> None:
    (base,) = re.findall(r"^FROM pytorch/pytorch:([0-9.]+)-", read("Dockerfile"), re.MULTILINE)
    assert pins("requirements.txt")["torch"][0] == f"torch=={base}"


def test_version_is_told_alike() -> None:
    assert yaml.safe_load(read("CITATION.cff"))["version"] == acouslic.__version__
    newest = re.search(r"^## \[([0-9.]+)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == acouslic.__version__


def test_hooks_run_the_tools_of_the_environment() -> None:
    """No other versions than those of ./check.sh, and nothing is fetched."""
    repositories = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    for hook in repositories[0]["hooks"]:
        tool = hook["entry"].split()[0]
        assert tool.startswith(".venv/bin/")
        assert tool.removeprefix(".venv/bin/") in read("check.sh")


def test_workflow_runs_the_two_commands() -> None:
    steps = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["ci"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["./check.sh", "./test.sh"]
