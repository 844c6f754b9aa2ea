"""The command line of a room that does not ship: its options, its errors, its exit codes.

The options of a command are the fields of one dataclass; the docstring below a field is its help.
tyro makes the command line of them. It is needed by `run` alone: without it the dataclasses can
still be imported and used.
"""

import inspect
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any

from acouslic.errors import AcouslicError
from acouslic.stopping import INTERRUPTED, TERMINATED, Stopped, leave, signals_raise

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
EXTRAS = {"ray": "cluster", "submitit": "cluster", "tensorboard": "tensorboard"}
# Whoever sends SIGTERM often sends SIGKILL some seconds later; 5 s are promised.
GRACE_S = 4.0
KEPT = "what is finished is kept"


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
        leave(code)
    return code


def call(command: Command, options: Any) -> int:
    """Run a command with its options, and turn what goes wrong into one line; see `run`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        with signals_raise(GRACE_S, f"terminated; {KEPT}"):
            return command(options) or 0
    except AcouslicError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        return _fail(missing_library(error))
    except (KeyboardInterrupt, Stopped) as stop:
        code = TERMINATED if isinstance(stop, Stopped) and stop.code == TERMINATED else INTERRUPTED
        word = "terminated" if code == TERMINATED else "interrupted"
        notes = getattr(stop, "__notes__", [KEPT])
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


def _fail(line: str, code: int = 1) -> int:
    print(f"error: {line}", file=sys.stderr)
    return code
