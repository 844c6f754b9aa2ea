"""The command line of a room that does not ship: its options, its errors, its exit codes.

The options of a command are the fields of one dataclass; the docstring below a field is its help.
tyro makes the command line of them. It is needed by `run` alone: without it the dataclasses can
still be imported and used.
"""

import inspect
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from operator import or_
from types import FrameType
from typing import Annotated, Any, NoReturn

from acouslic.errors import AcouslicError

try:
    from tyro.conf import Positional as _Positional
    from tyro.conf import arg as _arg

    POSITIONAL: Any = _Positional
    """`field: Annotated[Path, POSITIONAL]` is given by its place, without a name."""
    INLINE: Any = _arg(name="")
    """`field: Annotated[Recipe, INLINE]` has its own fields as options, without a prefix."""
except ModuleNotFoundError:
    POSITIONAL = INLINE = None

Command = Callable[[Any], int | None]
ROOMS = ("acouslic", "dataset", "phantom", "training", "evaluation", "benchmark")
# The extra of pyproject.toml that brings a library, where it is not the rooms' own.
EXTRAS = {"tensorboard": "tensorboard"}
# What a shell reports of a process that SIGINT or SIGTERM ended: 128 and the signal's number.
INTERRUPTED, TERMINATED = 130, 143
# Whoever sends SIGTERM often sends SIGKILL some seconds later; 5 s are promised.
GRACE_S = 4.0


class Stopped(SystemExit):
    """SIGINT or SIGTERM has come; raised wherever the main thread is, so that all is closed."""


def run(
    commands: Command | Mapping[str, Command],
    *,
    prog: str,
    description: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """Parse a command line, run its command, and turn what goes wrong into one line.

    Args:
        commands: functions by the names of their commands, or the only command's function. Each
            takes one dataclass of options, a class of its own, and returns its exit code; None
            means 0. Its docstring is the command's help. It should import what it runs itself, so
            that help is quick.
        prog: how the program is called, such as "python -m training".
        description: what stands on top of the help.
        arguments: those of the process where there are none.

    Returns:
        The exit code: the command's own, 1 after an error that the user can fix, 130 after Ctrl-C.
        After SIGTERM the process ends here, with code 143.
    """
    try:
        options, command = _parse(commands, prog, description, arguments)
    except ModuleNotFoundError as error:
        return _fail(missing_library(error))
    code = call(command, options)
    if code == TERMINATED:
        # To take an interpreter down that has torch in it can take longer than there is time.
        sys.stdout.flush()
        os._exit(code)
    return code


def call(command: Command, options: Any) -> int:
    """Run a command with its options, and turn what goes wrong into one line; see `run`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        with _signals_raise():
            return command(options) or 0
    except AcouslicError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        return _fail(missing_library(error))
    except (KeyboardInterrupt, Stopped) as stop:
        code = TERMINATED if isinstance(stop, Stopped) and stop.code == TERMINATED else INTERRUPTED
        word = "terminated" if code == TERMINATED else "interrupted"
        notes = getattr(stop, "__notes__", ["what is finished is kept"])
        return _fail("; ".join([word, *notes]), code)


def missing_library(error: ModuleNotFoundError) -> str:
    """What to do where a library cannot be imported, in one line.

    Raises:
        ModuleNotFoundError: it is a module of ours, which is a bug.
    """
    library = (error.name or "").partition(".")[0]
    if not library or library in ROOMS:
        raise error
    extra = EXTRAS.get(library, "rooms")
    return (
        f"expected the library {library}; found none; run ./venv.sh requirements-dev.txt and "
        f"source .venv/bin/activate, or pip install -e '.[{extra}]'"
    )


def _parse(
    commands: Command | Mapping[str, Command],
    prog: str,
    description: str,
    arguments: Sequence[str] | None,
) -> tuple[Any, Command]:
    import tyro

    options_type: Any
    if isinstance(commands, Mapping):
        functions = {_options_type(command): command for command in commands.values()}
        options_type = reduce(
            or_,
            (
                Annotated[
                    _options_type(command),
                    tyro.conf.subcommand(name, description=inspect.getdoc(command)),
                ]
                for name, command in commands.items()
            ),
        )
    else:
        options_type = _options_type(commands)
        functions = {options_type: commands}
    options: Any = tyro.cli(
        options_type,
        prog=prog,
        description=description,
        args=arguments,
        # None is a default that nobody types; a flag that may be None keeps both its forms.
        config=(tyro.conf.PositionalMetavarFromFieldName, tyro.conf.DisallowNone),
    )
    return options, functions[type(options)]


def _options_type(command: Command) -> type:
    """The class of a command's only parameter."""
    (parameter,) = inspect.signature(command, eval_str=True).parameters.values()
    options_type: type = parameter.annotation
    return options_type


@contextmanager
def _signals_raise() -> Iterator[None]:
    """While the block runs, SIGINT and SIGTERM raise `Stopped`."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread may set what a signal does.
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, _raise_stopped)
        with _sigterm_ends_all():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_stopped(number: int, _frame: FrameType | None) -> NoReturn:
    raise Stopped(128 + number)


@contextmanager
def _sigterm_ends_all() -> Iterator[None]:
    """While the block runs, SIGTERM ends the process in GRACE_S, whatever the main thread does.

    Python calls a signal's handler only between two of its own instructions, and a step on a CPU
    may take a minute in one of them. A thread is told at once, by a byte in a pipe.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    left = threading.Event()
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reader, left), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        os.close(writer)
        watcher.join()
        os.close(reader)


def _watch(reader: int, left: threading.Event) -> None:
    while byte := os.read(reader, 1):
        if byte[0] == signal.SIGTERM and not left.wait(GRACE_S):
            os.write(2, b"error: terminated; what is finished is kept\n")
            os._exit(TERMINATED)


# A forked child has the pipe but not the thread: its own signals must not end its parent.
os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))


def _fail(line: str, code: int = 1) -> int:
    print(f"error: {line}", file=sys.stderr)
    return code
