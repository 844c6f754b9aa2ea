"""The shell scripts, run in a copy of the project with a paper Docker, Python and inference."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import acouslic
from acouslic.bundle import load_bundle

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = (
    "build.sh",
    "check.sh",
    "export.sh",
    "requirements.sh",
    "test.sh",
    "venv.sh",
    ".ci/run",
)
COPIED = (
    *SCRIPTS,
    "Dockerfile",
    "acouslic/__init__.py",
    "pyproject.toml",
    "requirements.txt",
    "requirements-invoke.txt",
    "requirements-dev.txt",
    "requirements-platform.txt",
    "test/tools/evaluation_input.py",
    "test/tools/measured.py",
    "test/tools/play.py",
    "test/tools/validate_output.py",
    "test/tools/volume.py",
)

# Writes down what it is asked, and answers as the environment says. `run` leaves out the isolation.
FAKE_DOCKER = """#!/usr/bin/env bash
echo "docker $*" >>"$LOG"
case "$1" in
  info) echo "${FAKE_RUNTIMES:-}"; exit "${FAKE_INFO:-0}" ;;
  version) [ "${FAKE_INFO:-0}" = 0 ] || exit 1; echo "${FAKE_ARCH:-amd64}" ;;
  build) exit "${FAKE_BUILD:-0}" ;;
  save) echo "the image" ;;
  load) echo "Loaded image: acouslic" ;;
  image)
    case "$*" in
      *.Size*) echo 1000 ;;
      *Entrypoint*) printf 'python\\ninference.py\\n\\n' ;;
      *api-method*) echo exec ;;
    esac ;;
  run)
    while [ "$1" != acouslic ]; do shift; done
    shift
    case "$1" in
      /measured.py)
        shift 3
        exec .venv/bin/python "$@" --input "$FAKE_PLACE/input" --output "$FAKE_PLACE/output" ;;
      # export.sh loads the bundle, test.sh releases the output
      -c) [[ "$2" != *load\\(* ]] || echo demo-1; exit "${FAKE_LOAD:-0}" ;;
      /tools/check_archive.py) printf '%s\\tuser\\t10001\\n' "${FAKE_CHECK:-pass}" ;;
      /tools/sbom.py) ;;
      *) exec .venv/bin/python "$@" ;;
    esac ;;
esac
"""

FAKE_PYTHON = """#!/usr/bin/env bash
case "$*" in
  "-m venv"*) echo "python $*" >>"$LOG"; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
  "-m pip"*) echo "python $*" >>"$LOG"; exit "${FAKE_PIP:-0}" ;;
esac
"""

FAKE_UV = """#!/usr/bin/env bash
echo "uv $*" >>"$LOG"
[ "${FAKE_UV:-0}" = 0 ] || exit 1
while [ "$1" != --output-file ]; do shift; done
echo "another==1.0" >"$2"
"""

# One case of 12 tiny frames; sweep 3 has the reference 215.0 mm, on frame 5.
FAKE_PHANTOM = """
import sys
from pathlib import Path
import numpy as np
import SimpleITK as sitk
print("phantom", *sys.argv[2:])
out = Path(sys.argv[1])
for folder in ("images/stacked_fetal_ultrasound", "masks/stacked_fetal_abdomen", "circumferences"):
    (out / folder).mkdir(parents=True)
volume = np.zeros((12, 8, 10), np.uint8)
volume[5, 2:6, 3:7] = 1
for folder in ("images/stacked_fetal_ultrasound", "masks/stacked_fetal_abdomen"):
    sitk.WriteImage(sitk.GetImageFromArray(volume), str(out / folder / "p.mha"))
(out / "circumferences/fetal_abdominal_circumferences_per_sweep.csv").write_text(
    "uuid,subject_id," + ",".join(f"sweep_{k}_ac_mm" for k in range(1, 7)) + "\\np,s,,,215.0,,,\\n")
"""

FAKE_INFERENCE = """
import argparse, json, math, os, shutil, sys
from pathlib import Path
parser = argparse.ArgumentParser()
for name in ("--input", "--output", "--model", "--preview"):
    parser.add_argument(name, type=Path)
parser.add_argument("--demo", action="store_true")
arguments = parser.parse_args()
if arguments.demo:
    print("asked with --demo")
if "FAKE_FAILURE" in os.environ:
    sys.exit("error: expected a stack")
out = arguments.output
(out / "images/fetal-abdomen-segmentation").mkdir(parents=True)
truth = next((out.parent / "truth/masks/stacked_fetal_abdomen").glob("*.mha"))
shutil.copy(truth, out / "images/fetal-abdomen-segmentation/output.mha")
ac_mm = float(os.environ.get("FAKE_AC", "215"))
radius = ac_mm / 2 / math.pi
ellipse = dict(centre_x_px=1, centre_y_px=1, angle_deg=0)
ellipse |= dict(semi_major_mm=radius, semi_minor_mm=radius)
measurement = dict(ac_mm=ac_mm, frame=5, sweep=3, ellipse=ellipse, confidence=1, bundle_id="b")
measurement |= dict(p_annotated=1, ac_interval_mm=[ac_mm, ac_mm])
(out / "fetal-abdominal-circumference.json").write_text(json.dumps(measurement))
(out / "fetal-abdomen-frame-number.json").write_text("5")
"""


# Answers as the interface wants it; the case is that of the paper inference.
FAKE_APP = """
import argparse, signal, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
options, others = parser.parse_known_args()
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        subprocess.run(["rm", "-rf", "test/output/images"])
        failed = subprocess.run([sys.executable, "inference.py", *others]).returncode
        self.send_response(500 if failed else 201)
        self.end_headers()
HTTPServer(("127.0.0.1", options.port), Handler).serve_forever()
"""


# Finds the answer by the list of jobs and its truth by the stack's name, and gives it full marks.
FAKE_EVALUATE = """
import json, os, sys
from pathlib import Path
options = dict(zip(sys.argv[1::2], map(Path, sys.argv[2::2])))
(job,) = json.loads((options["--input"] / "predictions.json").read_text())
places = [output["socket"]["relative_path"] for output in job["outputs"]]
assert all((options["--input"] / job["pk"] / "output" / place).exists() for place in places)
name = job["inputs"][0]["image"]["name"]
truth = options["--ground-truth"] / Path(name).stem
assert (truth / "fetal_abdomen_stacked_masks" / name).is_file()
references = json.loads((truth / "fetal_abdominal_circumference.json").read_text())
assert references["sweep_3_ac_mm"] == 215.0 and references["sweep_1_ac_mm"] is None
told = json.loads(os.environ["TOLD"])
total = {"mean": 1.0, "std": float(told.get("std", 0))}
metrics = {"score": total, "wfss": total, "nae_circumference": total, "cases": 1}
(options["--output"] / "metrics.json").write_text(json.dumps(metrics | {"case": told.get("case")}))
"""


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@dataclass
class Project:
    """A copy of the scripts, and what they are run with."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str, cwd: Path | None = None, **changes: str) -> "Result":
        done = subprocess.run(
            [str(self.root / command[0]), *command[1:]],
            cwd=cwd or self.root,
            env=self.environment | changes,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    @property
    def log(self) -> str:
        path = self.root / "log"
        return path.read_text() if path.exists() else ""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = tmp_path / "a project"  # with a space, as people have them
    for name in COPIED:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    write_program(root / "bin/docker", FAKE_DOCKER)
    (root / "phantom").mkdir()
    # A package, so that it goes before the checkout's own, which is on Python's path too.
    (root / "phantom/__init__.py").write_text("")
    (root / "phantom/__main__.py").write_text(FAKE_PHANTOM)
    (root / "inference.py").write_text(FAKE_INFERENCE)
    (root / "app.py").write_text(FAKE_APP)
    (root / "model").mkdir()
    (root / "model/README.md").write_text("nothing here")
    # A virtual environment that is up to date, as far as venv.sh can tell.
    write_program(root / ".venv/bin/python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    shutil.copy(root / "requirements.txt", root / ".venv/installed-requirements.txt")
    inherited = {key: os.environ[key] for key in ("HOME", "LANG", "TMPDIR") if key in os.environ}
    path = f"{root / 'bin'}:/usr/local/bin:/usr/bin:/bin"
    return Project(root, inherited | {"PATH": path, "LOG": str(root / "log"), "FAKE_PLACE": "test"})


def put_bundle(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text("{}")
    (folder / "trunk.safetensors").write_bytes(b"weights")


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_stops_at_the_first_error(script: str) -> None:
    path = ROOT / script
    assert "\nset -euo pipefail\n" in path.read_text()
    assert os.access(path, os.X_OK)


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script: str) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, ROOT / script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", [name for name in SCRIPTS[:-1] if name != "check.sh"])
def test_unknown_option_gives_the_usage_and_two(project: Project, script: str) -> None:
    result = project.run(script, "--nonsense")
    assert result.code == 2
    assert result.err.startswith(f"usage: ./{script}")
    assert project.log == ""


@pytest.mark.parametrize("script", SCRIPTS[:-1])
def test_help(project: Project, script: str) -> None:
    result = project.run(script, "--help")
    assert result.code == 0
    assert result.out.startswith(f"usage: ./{script}")
    assert project.log == ""


class TestVenv:
    @pytest.fixture
    def project(self, project: Project) -> Project:
        shutil.rmtree(project.root / ".venv")
        write_program(project.root / "bin/fake-python", FAKE_PYTHON)
        project.environment["PYTHON"] = str(project.root / "bin/fake-python")
        return project

    def test_installs_once(self, project: Project) -> None:
        assert project.run("venv.sh", "requirements.txt").code == 0
        log = project.log
        assert "-m venv --clear .venv" in log
        assert "--require-hashes --requirement requirements.txt" in log
        assert "--editable" not in log
        assert "pip check" in log
        assert project.run("venv.sh", "requirements.txt").code == 0
        assert project.log == log

    def test_development_pins_include_what_ships(self, project: Project) -> None:
        assert project.run("venv.sh", "requirements-dev.txt").code == 0
        log = project.log
        assert "--require-hashes --requirement requirements-dev.txt" in log
        assert "--no-deps --no-build-isolation --editable ." in log
        assert project.run("venv.sh", "requirements.txt").code == 0
        assert project.log == log

    @pytest.mark.parametrize("changed", ["requirements.txt", "requirements-dev.txt"])
    def test_changed_pins_are_installed(self, project: Project, changed: str) -> None:
        project.run("venv.sh", "requirements-dev.txt")
        log = project.log
        with (project.root / changed).open("a") as file:
            file.write("another==1.0\n")
        assert project.run("venv.sh", "requirements-dev.txt").code == 0
        again = project.log.removeprefix(log)
        assert "pip install" in again
        assert "-m venv" not in again

    def test_a_failed_installation_is_tried_again(self, project: Project) -> None:
        assert project.run("venv.sh", "requirements.txt", FAKE_PIP="1").code == 1
        log = project.log
        assert project.run("venv.sh", "requirements.txt").code == 0
        assert "pip install" in project.log.removeprefix(log)

    def test_after_a_failed_change_the_old_pins_are_not_taken_for_installed(
        self, project: Project
    ) -> None:
        project.run("venv.sh", "requirements.txt")
        pins = project.root / "requirements.txt"
        old = pins.read_text()
        pins.write_text(old + "another==1.0\n")
        assert project.run("venv.sh", "requirements.txt", FAKE_PIP="1").code == 1
        pins.write_text(old)
        log = project.log
        assert project.run("venv.sh", "requirements.txt").code == 0
        assert "pip install" in project.log.removeprefix(log)

    def test_no_python_that_is_new_enough(self, project: Project) -> None:
        result = project.run("venv.sh", "requirements.txt", PYTHON="no-such-python")
        assert result.code == 1
        assert "expected Python 3.11" in result.err


class TestRequirements:
    @pytest.fixture
    def project(self, project: Project) -> Project:
        names = ("requirements.txt", "requirements-invoke.txt", "requirements-dev.txt")
        files = [project.root / name for name in names]
        stamp = project.root / ".venv/installed-requirements-dev.txt"
        stamp.write_text("".join(file.read_text() for file in files))
        write_program(project.root / ".venv/bin/uv", FAKE_UV)
        return project

    def change_dependencies(self, project: Project) -> None:
        path = project.root / "pyproject.toml"
        text = path.read_text()
        assert '"torch>=' in text
        path.write_text(text.replace('"torch>=', '"another",\n    "torch>='))

    def test_check_needs_no_index_and_compiles_nothing(self, project: Project) -> None:
        assert project.run("requirements.sh", "--check").code == 0
        assert project.log == ""

    def test_check_names_pins_that_are_stale(self, project: Project) -> None:
        self.change_dependencies(project)
        result = project.run("requirements.sh", "--check")
        assert result.code == 1
        assert "expected requirements.txt to fit pyproject.toml" in result.err
        assert "run ./requirements.sh" in result.err

    def test_another_setting_of_the_project_leaves_pins_fresh(self, project: Project) -> None:
        with (project.root / "pyproject.toml").open("a") as file:
            file.write("\n[tool.another]\nkey = 1\n")
        assert project.run("requirements.sh", "--check").code == 0

    def test_renewed_pins_are_fresh(self, project: Project) -> None:
        self.change_dependencies(project)
        assert project.run("requirements.sh", "--upgrade").code == 0
        compilations = project.log.splitlines()
        for option in ("--universal", "--generate-hashes", "--no-emit-index-url", "--upgrade"):
            assert all(option in compilation for compilation in compilations)
        told = [line.partition("--output-file ")[2] for line in compilations]
        assert told == [
            "requirements.txt pyproject.toml --upgrade",
            "requirements-invoke.txt pyproject.toml --extra invoke --constraint requirements.txt"
            " --upgrade",
            "requirements-dev.txt pyproject.toml --all-extras --constraint requirements-invoke.txt"
            " --upgrade",
            "requirements-platform.txt --group platform --python-version 3.12 --upgrade",
        ]
        pins = (project.root / "requirements.txt").read_text().splitlines()
        assert pins[0].startswith("# Made by ./requirements.sh")
        assert pins[2:] == ["another==1.0"]
        stamp = project.root / ".venv/installed-requirements-dev.txt"
        names = ("requirements.txt", "requirements-invoke.txt", "requirements-dev.txt")
        files = [project.root / name for name in names]
        stamp.write_text("".join(file.read_text() for file in files))
        assert project.run("requirements.sh", "--check").code == 0

    def test_a_failed_compilation_leaves_the_pins(self, project: Project) -> None:
        before = (project.root / "requirements.txt").read_text()
        assert project.run("requirements.sh", FAKE_UV="1").code == 1
        assert (project.root / "requirements.txt").read_text() == before


class TestBuild:
    def test_builds_the_named_image(self, project: Project) -> None:
        assert project.run("build.sh").code == 0
        told = f"--build-arg VERSION={acouslic.__version__} --build-arg REVISION=unknown"
        told += " --build-arg BUNDLE_ID="
        assert f"docker build --target exec {told} --tag acouslic .\n" in project.log
        flags = {"IMAGE": "mine", "DOCKER_BUILD_FLAGS": "--network host"}
        assert project.run("build.sh", cwd=Path("/"), **flags).code == 0
        assert f"docker build --target exec --network host {told} --tag mine .\n" in project.log

    def test_builds_either_interface(self, project: Project) -> None:
        assert project.run("build.sh", "--api", "invoke").code == 0
        assert "docker build --target invoke --build-arg" in project.log
        assert "--tag acouslic-invoke .\n" in project.log
        assert project.run("build.sh", "--api", "web").code == 2

    def test_builds_what_organisers_score_with(self, project: Project) -> None:
        assert project.run("build.sh", "--evaluation").code == 0
        assert "docker build --target evaluation --build-arg" in project.log
        assert "--tag acouslic-evaluation .\n" in project.log

    def test_tells_the_image_which_revision_it_holds(self, project: Project) -> None:
        def git(*arguments: str) -> str:
            identity = ("-c", "user.name=n", "-c", "user.email=e")
            command = ["git", *identity, *arguments]
            done = subprocess.run(command, cwd=project.root, check=True, capture_output=True)
            return done.stdout.decode().strip()

        git("init", "--quiet")
        (project.root / ".git/info/exclude").write_text("/log\n")
        git("add", "--all")
        git("commit", "--quiet", "--message", "all")
        revision = git("rev-parse", "HEAD")
        assert project.run("build.sh").code == 0
        assert f"--build-arg REVISION={revision} --build-arg" in project.log
        (project.root / "acouslic/new.py").write_text("")
        assert project.run("build.sh").code == 0
        assert f"--build-arg REVISION={revision}+changes --build-arg" in project.log

    def test_binds_the_image_to_a_bundle(self, project: Project) -> None:
        assert project.run("build.sh", BUNDLE_ID="mine-0123456789ab").code == 0
        assert "--build-arg BUNDLE_ID=mine-0123456789ab --tag" in project.log

    def test_names_the_platform_on_another_one(self, project: Project) -> None:
        assert project.run("build.sh", FAKE_ARCH="arm64").code == 0
        assert "docker build --target exec --platform linux/amd64 --build-arg" in project.log

    def test_without_an_engine(self, project: Project) -> None:
        result = project.run("build.sh", FAKE_INFO="1")
        assert result.code == 1
        assert "expected a Docker engine" in result.err

    def test_a_failed_build_fails(self, project: Project) -> None:
        assert project.run("build.sh", FAKE_BUILD="3").code == 3


LOCAL = ("test.sh", "--local")


class TestTest:
    def test_local_run_passes_from_any_folder(self, project: Project) -> None:
        result = project.run(*LOCAL, cwd=Path("/"))
        assert result.code == 0, result.err
        assert project.log == ""  # no Docker
        for part in ("AC 215.0 mm", "frame 5 (sweep 3)", "reference AC: 215.0", "peak memory"):
            assert part in result.out
        assert result.out.endswith("passed (local)\n")

    def test_a_second_run_keeps_the_stack_and_empties_the_output(self, project: Project) -> None:
        project.run(*LOCAL)
        stack = project.root / "test/input/images/stacked-fetal-ultrasound/p.mha"
        before = stack.stat().st_mtime_ns
        result = project.run(*LOCAL)
        assert result.code == 0, result.err
        assert stack.stat().st_mtime_ns == before

    @pytest.mark.parametrize("where", [LOCAL, ("test.sh",)], ids=["local", "container"])
    def test_a_wrong_circumference_fails(self, project: Project, where: tuple[str, ...]) -> None:
        result = project.run(*where, FAKE_AC="240")
        assert result.code == 1
        assert "wrong: AC: expected 215.0 mm" in result.err
        assert "passed" not in result.out

    @pytest.mark.parametrize("where", [LOCAL, ("test.sh",)], ids=["local", "container"])
    def test_a_failed_inference_fails(self, project: Project, where: tuple[str, ...]) -> None:
        result = project.run(*where, FAKE_FAILURE="yes")
        assert result.code == 1
        assert result.err == "error: expected a stack\n"

    @pytest.mark.parametrize("fails", [False, True])
    def test_a_server_is_asked_twice_and_has_to_end(self, project: Project, fails: bool) -> None:
        shutil.copy(ROOT / "requirements-invoke.txt", project.root / "requirements-invoke.txt")
        pins = [project.root / name for name in ("requirements.txt", "requirements-invoke.txt")]
        stamp = project.root / ".venv/installed-requirements-invoke.txt"
        stamp.write_text("".join(pin.read_text() for pin in pins))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            free = listener.getsockname()[1]
        script = project.root / "test.sh"
        assert "port=4743" in script.read_text()
        script.write_text(script.read_text().replace("port=4743", f"port={free}"))
        if fails:
            project.environment["FAKE_FAILURE"] = "yes"
        result = project.run(*LOCAL, "--api", "invoke")
        if fails:
            assert result.code == 1
            assert "wrong: /invoke: expected 201, found 500" in result.err
        else:
            assert result.code == 0, result.err
            assert "/health: 200 after" in result.out
            assert "/invoke 2: 201 in" in result.out
            assert result.out.endswith("passed (local)\n")

    @pytest.mark.parametrize("told", [{}, {"std": "NaN"}, {"case": "p"}], ids=str)
    def test_the_answer_is_scored_as_organisers_do(
        self, project: Project, told: dict[str, str]
    ) -> None:
        files = [f"requirements{kind}.txt" for kind in ("", "-invoke", "-dev")]
        stamp = project.root / ".venv/installed-requirements-dev.txt"
        stamp.write_text("".join((project.root / file).read_text() for file in files))
        (project.root / "evaluate.py").write_text(FAKE_EVALUATE)
        result = project.run(*LOCAL, "--evaluation")
        assert result.code == 1
        assert "found none; run ./test.sh on a phantom first" in result.err
        project.run(*LOCAL)
        result = project.run(*LOCAL, "--evaluation", TOLD=json.dumps(told))
        if told:
            assert result.code == 1
            assert "expected finite totals of one case that is not named" in result.err
        else:
            assert result.code == 0, result.err
            assert "score 1.0000, wfss 1.0000" in result.out
            assert result.out.endswith("passed (local)\n")

    def test_a_try_out_pack_is_taken_where_it_is(self, project: Project) -> None:
        project.run(*LOCAL)
        inputs = project.root / "test/input"
        (inputs / "interf0").mkdir()
        (inputs / "images").rename(inputs / "interf0/images")
        result = project.run("test.sh")
        assert result.code == 0, result.err
        (run,) = [line for line in project.log.splitlines() if "/measured.py -- " in line]
        assert "/test/input/interf0:/input:ro" in run

    @pytest.mark.parametrize("has_gpu", [False, True])
    def test_a_gpu_is_used_where_the_engine_has_one(self, project: Project, has_gpu: bool) -> None:
        runtimes = '{"io.containerd.runc.v2":{},"nvidia":{}}' if has_gpu else '{"runc":{}}'
        result = project.run("test.sh", FAKE_RUNTIMES=runtimes)
        assert ("GPU: --gpus all" if has_gpu else "GPU: none, as the engine has no") in result.out
        (run,) = [line for line in project.log.splitlines() if "/measured.py -- " in line]
        assert ("--gpus all" in run) == has_gpu

    def test_what_was_exported_is_loaded_and_nothing_is_built(self, project: Project) -> None:
        result = project.run("test.sh", "--exported", "out")
        assert result.code == 1
        assert "expected acouslic.tar.gz in out" in result.err
        out = project.root / "out"
        out.mkdir()
        (out / "acouslic.tar.gz").write_text("the image")
        put_bundle(project.root / "weights")
        with tarfile.open(out / "model.tar.gz", "w:gz") as tar:
            tar.add(project.root / "weights", ".")
        result = project.run("test.sh", "--exported", "out")
        assert result.code == 0, result.err
        assert "docker load --input out/acouslic.tar.gz" in project.log
        assert "docker build" not in project.log

    def test_a_stack_of_the_users_own_has_no_truth(self, project: Project) -> None:
        project.run(*LOCAL)
        stacks = project.root / "test/input/images/stacked-fetal-ultrasound"
        (stacks / "p.mha").rename(stacks / "mine.mha")
        result = project.run(*LOCAL, FAKE_AC="240")
        assert result.code == 0, result.err
        assert "only the format is checked" in result.out

    @pytest.mark.parametrize("where", [LOCAL, ("test.sh",)], ids=["local", "container"])
    def test_a_sites_phantom_has_a_place_of_its_own_and_may_be_answered_wrongly(
        self, project: Project, where: tuple[str, ...]
    ) -> None:
        project.environment["FAKE_PLACE"] = "test/site-C"
        result = project.run(*where, "--site", "C", FAKE_AC="240")
        assert result.code == 0, result.err
        assert "phantom --cases 1 --seed 900002 --site C\n" in result.out
        assert "reference AC: 215.0 mm, error +11.6 %" in result.out
        assert "not counted: AC: expected 215.0 mm within 8%, found 240.0 mm" in result.out
        assert "a picture of the answer: test/site-C/preview/preview.png" in result.out
        assert (project.root / "test/site-C/output/fetal-abdomen-frame-number.json").is_file()
        assert not (project.root / "test/output").exists()
        spoilt = project.run(*where, "--site", "C", FAKE_AC="nan")
        assert spoilt.code == 1 and "expected strict JSON" in spoilt.err

    @pytest.mark.parametrize("arguments", [("--site", "D"), ("--site",)])
    def test_a_site_that_is_none_gives_the_usage_and_two(
        self, project: Project, arguments: tuple[str, ...]
    ) -> None:
        result = project.run("test.sh", *arguments)
        assert result.code == 2 and result.err.startswith("usage: ./test.sh")

    def test_two_stacks_are_one_too_many(self, project: Project) -> None:
        project.run(*LOCAL)
        stacks = project.root / "test/input/images/stacked-fetal-ultrasound"
        shutil.copy(stacks / "p.mha", stacks / "q.mha")
        result = project.run(*LOCAL)
        assert result.code == 1
        assert "expected one stack" in result.err

    @pytest.mark.parametrize("where", [LOCAL, ("test.sh",)], ids=["local", "container"])
    def test_only_without_a_bundle_the_demo_is_asked_for(
        self, project: Project, where: tuple[str, ...]
    ) -> None:
        result = project.run(*where)
        assert "no bundle in model/: passing --demo" in result.out
        assert result.out.count("asked with --demo") == 1
        put_bundle(project.root / "model")
        assert "--demo" not in project.run(*where).out

    def test_an_empty_folder_that_is_named_is_no_reason_for_the_demo(
        self, project: Project
    ) -> None:
        (project.root / "empty").mkdir()
        assert "--demo" not in project.run(*LOCAL, "--model", "empty").out

    def test_a_model_that_is_not_there(self, project: Project) -> None:
        result = project.run("test.sh", "--model", "nowhere")
        assert result.code == 1
        assert "expected a folder for --model" in result.err

    def test_without_an_engine_it_says_so_and_runs_locally(self, project: Project) -> None:
        result = project.run("test.sh", FAKE_INFO="1")
        assert result.code == 0, result.err
        assert "no Docker engine answers" in result.out
        assert result.out.endswith("passed (local)\n")

    def test_container_runs_under_the_platforms_conditions(self, project: Project) -> None:
        put_bundle(project.root / "weights")
        result = project.run("test.sh", "--model", "weights", DOCKER_RUN_FLAGS="--gpus all")
        assert result.code == 0, result.err
        assert result.out.endswith("passed (container)\n")
        (run,) = [line for line in project.log.splitlines() if "/measured.py -- " in line]
        for flag in (
            "--network none",
            "--read-only",
            "--cap-drop ALL",
            "--security-opt no-new-privileges",
            "--memory 16g",
            "--memory-swap 16g",
            f"--ulimit data={15 << 30}",
            "--shm-size 64m",
            "--tmpfs /tmp",
            "/test/input:/input:ro",
            "/test/output:/output ",
            "/test/preview:/preview ",
            f"{project.root}/weights:/opt/ml/model:ro",
            "--gpus all",
        ):
            assert flag in run
        assert "--user" not in run  # the image's own
        entry_point = "acouslic /measured.py -- python inference.py"
        assert run.endswith(f"{entry_point} --preview /preview/preview.png")
        assert "a picture of the answer: test/preview/preview.png" in result.out

    def test_a_failed_build_fails(self, project: Project) -> None:
        assert project.run("test.sh", FAKE_BUILD="3").code == 3


class TestExport:
    @pytest.fixture
    def project(self, project: Project) -> Project:
        """Where ./test.sh notes that the archive has to answer, and says what the test wants."""
        text = '#!/bin/sh\necho "test.sh $*" >>"$LOG"\nexit "${FAKE_ANSWER:-0}"\n'
        write_program(project.root / "test.sh", text)
        return project

    def test_writes_image_weights_hashes_checks_and_a_line_in_the_ledger(
        self, project: Project
    ) -> None:
        put_bundle(project.root / "model")
        for _ in range(2):
            result = project.run("export.sh", "out")
            assert result.code == 0, result.err
        out = project.root / "out"
        names = {"acouslic.tar.gz", "model.tar.gz"}
        beside = {"checks.tsv", "ledger.jsonl", *(f"{n}.sha256" for n in names)}
        assert {path.name for path in out.iterdir()} == names | beside
        digests = {n: hashlib.sha256((out / n).read_bytes()).hexdigest() for n in names}
        for name, digest in digests.items():
            assert (out / f"{name}.sha256").read_text() == f"{digest}  {name}\n"
        with tarfile.open(out / "model.tar.gz") as tar:
            assert {"./manifest.json", "./trunk.safetensors"} == set(tar.getnames()) - {"."}
        lines = (out / "ledger.jsonl").read_text().splitlines()
        assert len(lines) == 2
        entry = json.loads(lines[-1])
        assert (entry["sha256"], entry["bundle_id"], entry["api"]) == (digests, "demo-1", "exec")
        checks = [line.split("\t") for line in (out / "checks.tsv").read_text().splitlines()]
        assert len(checks) == entry["checks"] == 4
        assert all(word == "pass" and name and figure for word, name, figure in checks)
        assert "test.sh --exported out/partial." in project.log

    @pytest.mark.parametrize("change", ["FAKE_CHECK", "FAKE_ANSWER", "FAKE_LOAD"])
    def test_a_check_that_fails_leaves_nothing_to_upload(
        self, project: Project, change: str
    ) -> None:
        put_bundle(project.root / "model")
        project.environment[change] = "fail" if change == "FAKE_CHECK" else "1"
        result = project.run("export.sh")
        assert result.code == 1
        assert "expected every check to pass; found 1 that failed" in result.err
        (checks,) = (project.root / "export").iterdir()
        words = [line.split("\t")[0] for line in checks.read_text().splitlines()]
        assert words.count("fail") == 1
        assert ("docker save" in project.log) == (change != "FAKE_LOAD")

    def test_what_it_has_the_image_run_loads_a_bundle(self, tiny_bundle: Path) -> None:
        program = re.search(r"-c '(.* load;.*)'", (ROOT / "export.sh").read_text())
        assert program is not None
        told = subprocess.check_output([sys.executable, "-c", program[1], tiny_bundle], cwd=ROOT)
        assert told.decode().strip() == load_bundle(tiny_bundle).id

    def test_same_weights_give_the_same_bytes(self, project: Project) -> None:
        put_bundle(project.root / "model")
        assert project.run("export.sh", "one").code == 0
        os.utime(project.root / "model/manifest.json", (0, 0))
        (project.root / "model/manifest.json").chmod(0o600)
        assert project.run("export.sh", "two").code == 0
        one, two = (project.root / name / "model.tar.gz" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()

    def test_without_a_bundle_only_the_demo_is_packed(self, project: Project) -> None:
        put_bundle(project.root / "resources/demo")
        result = project.run("export.sh")
        assert result.code == 1
        assert "expected a bundle in model/" in result.err
        assert project.run("export.sh", "--demo").code == 0
        assert (project.root / "export/model.tar.gz").exists()


# What .ci/run does after the checks and beside the tour, without an engine of the machine's own.
MAIN_JOBS = ("test.sh ", "test.sh --api invoke", "test.sh --evaluation")


class TestCi:
    @pytest.fixture
    def project(self, project: Project) -> Project:
        for script in ("venv.sh", "check.sh", "test.sh", "recipes/tour.sh"):
            fake = {"venv.sh": "FAKE_VENV", "recipes/tour.sh": "FAKE_TOUR"}.get(
                script, "FAKE_CHECK"
            )
            text = f'#!/bin/sh\necho "{script} $*" >>"$LOG"\nexit "${{{fake}:-0}}"\n'
            write_program(project.root / script, text)
        return project

    def calls(self, project: Project, *, tours: int = 1) -> list[str]:
        """What was called, but for the tour, which runs beside all that comes after the checks."""
        environment, *lines = [
            line for line in project.log.splitlines() if not line.startswith("docker")
        ]
        assert environment == "venv.sh requirements-platform.txt"
        calls = [line for line in lines if not line.startswith("recipes/tour.sh /")]
        assert len(lines) == len(calls) + tours
        assert lines[:1] == calls[:1]
        return calls

    def test_checks_then_the_main_job_both_ways(self, project: Project) -> None:
        assert project.run(".ci/run").code == 0
        assert self.calls(project) == [
            "check.sh ",
            "test.sh ",
            "test.sh --api invoke",
            "test.sh --local",
            "test.sh --evaluation",
        ]

    def test_without_an_engine_once(self, project: Project) -> None:
        assert project.run(".ci/run", FAKE_INFO="1").code == 0
        assert self.calls(project) == ["check.sh ", *MAIN_JOBS]

    def test_a_tour_that_fails_fails_it_after_the_main_job(self, project: Project) -> None:
        assert project.run(".ci/run", FAKE_INFO="1", FAKE_TOUR="3").code == 3
        assert self.calls(project) == ["check.sh ", *MAIN_JOBS]

    def test_without_a_python_for_the_platforms_launcher_it_fails(self, project: Project) -> None:
        assert project.run(".ci/run", FAKE_VENV="1").code == 1
        assert self.calls(project, tours=0) == []

    def test_a_failed_check_ends_it(self, project: Project) -> None:
        assert project.run(".ci/run", FAKE_CHECK="1").code == 1
        assert self.calls(project, tours=0) == ["check.sh "]

    @pytest.mark.parametrize("rig_works", [True, False])
    def test_starts_the_engine_beside_the_checkout(self, project: Project, rig_works: bool) -> None:
        rig = project.root.parent / "shared/container-rig"
        write_program(
            rig / "up", f'#!/bin/sh\necho "up $*" >>"$LOG"\n{"true" if rig_works else "false"}\n'
        )
        write_program(rig / "down", '#!/bin/sh\necho "down" >>"$LOG"\n')
        write_program(project.root / "bin/id", "#!/bin/sh\necho 0\n")
        assert project.run(".ci/run", FAKE_INFO="1").code == 0
        check, up, *rest = self.calls(project)
        assert check == "check.sh "
        assert up.startswith("up pytorch/pytorch:2.9.1-cuda12.6-cudnn9-runtime torch==2.9.1 torchv")
        # One that works is stopped at the end, one that does not is out of the way before.
        assert rest == (
            ["up python:3.11-slim-bookworm", *MAIN_JOBS, "down"]
            if rig_works
            else ["down", *MAIN_JOBS]
        )
