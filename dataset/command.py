"""The command line of a room that does not ship: its options, its errors, its exit codes.

The options of a command are the fields of one dataclass; the docstring below a field is its help.
tyro makes the command line of them. It is needed by `run` alone: without it the dataclasses can
still be imported and used.
"""

import inspect
import logging
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


class Terminated(SystemExit):
    """SIGTERM has come; raised wherever the main thread is, so that everything is closed."""


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
        The exit code: the command's own, 1 after an error that the user can fix, 130 after Ctrl-C,
        143 after SIGTERM.
    """
    try:
        options, command = _parse(commands, prog, description, arguments)
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        with _sigterm_raises():
            return command(options) or 0
    except AcouslicError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if not library or library in ROOMS:
            raise
        return _fail(missing_library(library))
    except KeyboardInterrupt:
        return _fail("interrupted; what is finished is kept", INTERRUPTED)
    except Terminated:
        return _fail("terminated; what is finished is kept", TERMINATED)


def missing_library(library: str) -> str:
    """What to do where a library cannot be imported, in one line."""
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
        config=(tyro.conf.PositionalMetavarFromFieldName,),
    )
    return options, functions[type(options)]


def _options_type(command: Command) -> type:
    """The class of a command's only parameter."""
    (parameter,) = inspect.signature(command, eval_str=True).parameters.values()
    options_type: type = parameter.annotation
    return options_type


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread may set what a signal does.
        return
    before = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise_terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated(TERMINATED)


def _fail(line: str, code: int = 1) -> int:
    print(f"error: {line}", file=sys.stderr)
    return code
