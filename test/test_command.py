"""The command line that the rooms share: options from dataclasses, errors as one line."""

import inspect
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, get_type_hints

import pytest
from docstring_parser import parse_from_object

from acouslic.errors import InputError
from acouslic.stopping import Stopped
from benchmark import command as benchmark
from dataset.command import INLINE, POSITIONAL, Command, call, run
from evaluation import __main__ as evaluation
from training import commands as training

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

    return call(fail, Rest())


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


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), ModuleNotFoundError(name="dataset.missing")]
)
def test_a_bug_of_ours_is_not_hidden(error: Exception) -> None:
    with pytest.raises(type(error)):
        failing(error)


def test_what_a_stopped_command_has_noted_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    stop = Stopped(143)
    stop.add_note("epoch 3 is kept")
    assert failing(stop) == 143
    assert capsys.readouterr().err == "error: terminated; epoch 3 is kept\n"


# ---- the rooms' own command lines


def leaves(options: type) -> Iterator[tuple[str, str]]:
    """Each option of a dataclass and its help, those of its inner dataclasses too."""
    texts = {entry.arg_name: entry.description for entry in parse_from_object(options).params}
    types = get_type_hints(options)
    for entry in fields(options):
        if is_dataclass(types[entry.name]):
            yield from leaves(types[entry.name])
        else:
            yield f"{options.__name__}.{entry.name}", texts.get(entry.name) or ""


@pytest.mark.parametrize(
    "command",
    [*training.COMMANDS.values(), *evaluation.COMMANDS.values(), *benchmark.COMMANDS.values()],
)
def test_every_option_has_a_sentence_of_help(command: Command) -> None:
    (parameter,) = inspect.signature(command, eval_str=True).parameters.values()
    options = dict(leaves(parameter.annotation))
    assert options
    assert not [name for name, text in options.items() if not text.strip().endswith(".")]


@pytest.mark.parametrize("room", ["training", "evaluation", "benchmark"])
def test_help_waits_for_no_torch(room: str) -> None:
    text = (
        f"import sys; from {room}.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", text], cwd=ROOT, check=True, capture_output=True)


ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'test'}"}


def test_without_tyro_one_line_says_what_to_install() -> None:
    text = (
        "import sys; sys.modules['tyro'] = sys.modules['tyro.conf'] = None\n"
        "import test_command; sys.exit(test_command.line('rest'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: expected the library tyro;")
    assert done.stderr.count("\n") == 1


@contextmanager
def running(body: str) -> Iterator[subprocess.Popen[str]]:
    """A process whose only command is the body, an indented block that prints "ready"."""
    text = (
        "import hashlib, os, signal, sys, time\n"
        "from test_command import Rest, run\n"
        "def command(options: Rest) -> None:\n"
        f"{body}\n"
        "sys.exit(run(command, prog='command', description='', arguments=[]))"
    )
    arguments = [sys.executable, "-c", text]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        arguments, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process
        process.kill()


WAITING = """
    try:
        print('ready', flush=True)
        time.sleep(60)
    finally:
        print('closed')
"""


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_signal_closes_what_is_open_and_says_so(number: int, code: int, word: str) -> None:
    with running(WAITING) as process:
        process.send_signal(number)
        assert process.wait(timeout=10) == code
        assert process.stdout is not None and process.stdout.read() == "closed\n"
        assert process.stderr is not None
        assert process.stderr.read() == f"error: {word}; what is finished is kept\n"


def test_sigterm_ends_a_process_that_is_deep_in_a_computation() -> None:
    """About a minute in one call that hands no control back to Python."""
    ready = "    print('ready', flush=True)\n"
    with running(f"{ready}    hashlib.pbkdf2_hmac('sha256', b'a', b'b', 100_000_000)") as process:
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143
        assert time.monotonic() - began < 5
        assert process.stderr is not None
        assert process.stderr.read() == "error: terminated; what is finished is kept\n"


FORKING = """
    print('ready', flush=True)
    if not (child := os.fork()):
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(5)
"""


def test_a_forked_childs_signals_are_its_own() -> None:
    with running(FORKING) as process:
        assert process.wait(timeout=20) == 0
