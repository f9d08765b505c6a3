"""A command line from a frozen dataclass: one flag per field, its help and default beside it.

`setting` declares a field. A field whose default is a tuple takes one or several values. `--help`
shows the choices of a flag that has some. An unknown flag is an error that shows the near miss;
every error is one line and exit code 2.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from minibn.errors import DataError, did_you_mean

LARGEST = 2**63 - 1  # of counts and seeds: the largest index of an array
WIDEST = 40  # characters of choices that stand beside their flag in --help


class UsageError(Exception):
    """Bad input from the command line: one line that names the remedy. Ends with exit code 2."""


def setting(
    default: Any,
    help: str,
    *,
    kind: type | None = None,
    flag: bool = True,
    choices: Iterable[str] = (),
    metavar: str = "",
    path: bool = False,
    also: str = "",
    convert: Callable[[Any], Any] | None = None,
) -> Any:
    """A field of a settings dataclass.

    kind: a value's type, where the default doesn't show it. choices: names that --help shows; the
    experiment checks them (`one_of`). metavar: what stands for the value in --help. path: whether
    it names a file or folder, in which "~" stands for the home folder. also: another name of the
    flag. convert: turns each value given into the one that is stored.
    """
    many = isinstance(default, tuple)
    kind = kind or type(default[0] if many else default)
    choices = tuple(choices)
    if choices and len(shown := "{" + ",".join(choices) + "}") <= WIDEST:
        metavar = shown
    elif choices:
        metavar, help = metavar or "NAME", f"{help}: {', '.join(choices)}"
    metadata = {"help": help, "kind": kind, "many": many, "flag": flag, "also": also}
    metadata |= {"metavar": metavar or ("FOLDER" if path else kind.__name__.upper())}
    metadata |= {"convert": expand if path else convert}
    return dataclasses.field(default=default, metadata=metadata)


def with_defaults(settings: type, **defaults: Any) -> Any:
    """The dataclass of settings with other defaults of some fields."""
    known = {field.name: field for field in dataclasses.fields(settings)}
    fields: list[Any] = [
        (name, known[name].type, dataclasses.field(default=value, metadata=known[name].metadata))
        for name, value in defaults.items()
    ]
    return dataclasses.make_dataclass("Settings", fields, bases=(settings,), frozen=True)


def flag_name(field: str) -> str:
    return "--" + field.replace("_", "-")


def flag_value(value: Any) -> str:
    """A setting as it stands on a command line."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


class _OneName(argparse.Action):
    """Store the value of a flag that has two names. Giving it by both is an error."""

    given = ""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        if self.given not in ("", option_string):
            parser.error(f"{self.given} and {option_string} are the same. Give one of them.")
        self.given = option_string
        setattr(namespace, self.dest, values)


class _Help(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=100)

    def _split_lines(self, text: str, width: int) -> list[str]:
        """Names are not broken at their hyphens, so that they can be copied."""
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def parse(
    settings: type, arguments: Sequence[str] | None, *, program: str, description: str | None
) -> dict[str, Any]:
    """The flags that were given, as {field: value}. `--help` prints the first paragraph of the
    description and every flag, and exits with 0. arguments: those of the process if None.

    Raises UsageError for an unknown flag (with the near miss) or a value of the wrong type.
    """
    parser = _Parser(
        prog=program,
        description=first_paragraph(description),
        formatter_class=_Help,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    flags = ["--help"]
    for field in dataclasses.fields(settings):
        meta: Any = field.metadata
        if not meta.get("flag"):
            continue
        flags.append(flag_name(field.name))
        default: Any = field.default
        nothing = default is None or default is False or default == ()
        text = meta["help"] + ("" if nothing else f" (default: {flag_value(default)})")
        text = text.replace("%", "%%")  # argparse formats it
        if meta["kind"] is bool:
            parser.add_argument(flags[-1], action="store_true", help=text)
        else:
            names = [flags[-1], *([meta["also"]] if meta["also"] else [])]
            flags += names[1:]
            parser.add_argument(
                *names,
                action=_OneName if len(names) > 1 else "store",
                dest=field.name,
                type=_value(meta["kind"], meta["convert"]),
                metavar=meta["metavar"],
                help=text,
                nargs="+" if meta["many"] else None,
            )
    given, unknown = parser.parse_known_args(command_words(arguments))
    if unknown:
        name = unknown[0].partition("=")[0]
        raise UsageError(f"unknown argument {unknown[0]!r}. {did_you_mean(name, flags)}")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in vars(given).items()}


def parse_folders(
    settings: type,
    arguments: Sequence[str] | None,
    *,
    program: str,
    description: str | None,
    folders: str = "STUDY [STUDY ...]",
) -> tuple[list[Path], Any]:
    """(folders, settings) of a command line that begins with the folders of studies or runs.

    Raises UsageError as `parse` does.
    """
    words = command_words(arguments)
    paths = [
        Path(expand(word)) for word in itertools.takewhile(lambda w: not w.startswith("-"), words)
    ]
    given = parse(
        settings, words[len(paths) :], program=f"{program} {folders}", description=description
    )
    return paths, settings(**given)


def parse_studies(
    settings: type, arguments: Sequence[str] | None, *, program: str, description: str | None
) -> tuple[list[Path], Any]:
    """`parse_folders` that must name a study. Raises UsageError if it names none."""
    folders, s = parse_folders(settings, arguments, program=program, description=description)
    if not folders:
        raise UsageError(f"which study? Folders come first: {program} runs/vgg_cifar/TIME")
    return folders, s


def command_words(arguments: Sequence[str] | None) -> list[str]:
    """The arguments, or those that the process was started with."""
    return list(sys.argv[1:] if arguments is None else arguments)


def first_paragraph(text: str | None) -> str:
    return str(text).partition("\n\n")[0]


def expand(path: str) -> str:
    """A path with the home folder in the place of "~", which a shell leaves in `--out=~/x`. Raises
    UsageError for "~somebody" whom this machine does not know."""
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        home = path.partition("/")[0]
        raise UsageError(
            f"{path}: there is no home folder {home}. For that name: ./{path}"
        ) from None


def _value(kind: type, finish: Callable[[Any], Any] | None) -> Any:
    noun = {int: "a whole number", float: "a number"}.get(kind, "text")

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {noun}.") from None
        if kind is int and abs(value) > LARGEST:
            raise argparse.ArgumentTypeError(f"{value} is too large: at most {LARGEST}.")
        return value if finish is None else finish(value)

    return convert


def settings_from_json(settings: type, content: Any) -> dict[str, Any]:
    """{field: value} of settings that were stored as JSON, with lists as tuples again.

    Raises DataError for a field that `settings` doesn't have, or a value of the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(settings)}
    if not isinstance(content, dict):
        raise DataError("the settings are not an object.")
    values_of: dict[str, Any] = {}
    for name, value in content.items():
        if name not in fields:
            raise DataError(f"the setting {name!r} is unknown. Was it stored by another version?")
        field, meta = fields[name], fields[name].metadata
        kinds = (int, float) if meta["kind"] is float else (meta["kind"],)
        values = value if meta["many"] else [value]
        fits = isinstance(values, list) and values and all(type(v) in kinds for v in values)
        if not fits and not (value is None and field.default is None):
            raise DataError(f"the setting {name!r} can't be {json.dumps(value)[:60]}.")
        values_of[name] = tuple(value) if meta["many"] else value
    return values_of


def one_of(flag: str, name: str, known: Sequence[str]) -> None:
    """Raise UsageError unless `name` is known; with the near miss."""
    if name not in known:
        raise UsageError(f"{flag} {name!r} is unknown. {did_you_mean(name, known)}")


def at_least(flag: str, value: float, least: float, *, above: bool = False) -> None:
    """Raise UsageError unless `value` is finite and >= least (> least with `above`)."""
    number = "" if -math.inf < value < math.inf else "a finite number, "
    if number or not (value > least if above else value >= least):
        rule = "above" if above else "at least"
        raise UsageError(f"{flag} {value} must be {number}{rule} {least:g}.")


def report(program: str, error: BaseException) -> int:
    """Print an error as one line, and return exit code 2."""
    line = " ".join(str(error).split())
    print(f"{program}: {line}", file=sys.stderr)
    return 2
