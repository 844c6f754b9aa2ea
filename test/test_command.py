"""The command line that the rooms share: options from dataclasses, errors as one line."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest

from acouslic.errors import InputError
from dataset.command import INLINE, POSITIONAL, Command, run

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Rate:
    """How fast."""

    rate_hz: float = 2.0
    """How often a second."""


@dataclass(frozen=True)
class Work:
    """Options of work."""

    folder: Annotated[Path, POSITIONAL]
    """Folder to work in."""
    count: int
    """Number of times."""
    rate: Annotated[Rate, INLINE] = field(default_factory=Rate)


@dataclass(frozen=True)
class Rest:
    """Options of rest."""

    how_long_s: float = 1.0
    """Seconds."""


DONE: list[object] = []


def work(options: Work) -> None:
    """Work a number of times."""
    DONE.append(options)


def rest(options: Rest) -> int:
    """Rest for some seconds."""
    return 7


def line(*arguments: str) -> int:
    commands: dict[str, Command] = {"work": work, "rest": rest}
    return run(commands, prog="python -m day", description="A day.", arguments=arguments)


def test_the_fields_are_the_options_and_the_commands_exit_code_is_the_programs() -> None:
    assert line("work", "here", "--count", "3", "--rate-hz", "0.5") == 0
    assert DONE.pop() == Work(Path("here"), 3, Rate(0.5))
    assert line("rest") == 7


def test_a_lone_command_has_no_name() -> None:
    assert run(work, prog="work", description="", arguments=["here", "--count", "1"]) == 0
    assert DONE.pop() == Work(Path("here"), 1)


def test_help_has_each_fields_docstring_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        line("work", "--help")
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for part in ("Work a number of times.", "FOLDER", "Folder to work in.", "Number of times."):
        assert part in text
    assert "How often a second. (default: 2.0)" in text


def test_a_wrong_option_is_refused_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        line("work", "here", "--cuont", "3")
    assert stopped.value.code == 2
    assert "--cuont" in capsys.readouterr().err


def failing(error: BaseException) -> int:
    def fail(options: Rest) -> None:
        raise error

    return run(fail, prog="fail", description="", arguments=[])


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (
            InputError(expected="a", found="b", advice="do c"),
            1,
            "error: expected a; found b; do c\n",
        ),
        (KeyboardInterrupt(), 130, "error: interrupted; what is finished is kept\n"),
        (ModuleNotFoundError(name="lightning.pytorch"), 1, "error: expected the library lightning"),
        (ModuleNotFoundError(name="tensorboard"), 1, "pip install -e '.[tensorboard]'\n"),
    ],
)
def test_an_error_that_the_user_can_fix_is_one_line(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(error) == code
    printed = capsys.readouterr().err
    assert text in printed and printed.count("\n") == 1


@pytest.mark.parametrize("error", [ValueError("a bug"), ModuleNotFoundError(name="dataset.chace")])
def test_a_bug_of_ours_is_not_hidden(error: Exception) -> None:
    with pytest.raises(type(error)):
        failing(error)


def script(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_without_tyro_one_line_says_what_to_install() -> None:
    text = (
        "import sys; sys.modules['tyro'] = sys.modules['tyro.conf'] = None\n"
        "import test_command; sys.exit(test_command.line('rest'))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'test'}"}
    done = subprocess.run(
        script(text), env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: expected the library tyro;")
    assert done.stderr.count("\n") == 1


def test_sigterm_closes_what_is_open_and_exits_with_143() -> None:
    text = (
        "import sys, time\n"
        "from test_command import Rest, run\n"
        "def wait(options: Rest) -> None:\n"
        "    try:\n"
        "        print('ready', flush=True); time.sleep(60)\n"
        "    finally:\n"
        "        print('closed')\n"
        "sys.exit(run(wait, prog='wait', description='', arguments=[]))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'test'}"}
    with subprocess.Popen(
        script(text), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 143
        assert process.stdout.read() == "closed\n"
        assert process.stderr.read() == "error: terminated; what is finished is kept\n"
