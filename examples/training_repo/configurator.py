"""Settings from a config file and ``--key=value`` arguments, each checked against its default.

A config file is Python of your own (``name = value`` lines) and is run as such; what comes from
the command line is only parsed, never run.
"""

import dataclasses
import runpy
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")

WORDS = {"true": True, "false": False}


class Misused(Exception):
    """A setting that does not exist, or a value that does not fit."""


def configure(defaults: T, argv: Sequence[str]) -> T:
    """Overlay ``defaults``, a dataclass, with config files and arguments, in their order."""
    settings = defaults
    for argument in argv:
        if argument.startswith("--"):
            key, equals, text = argument[2:].partition("=")
            if not equals:
                raise Misused(f"{argument}: expected --key=value")
            found: dict[str, Any] = {key: parse(key, text, _default(settings, key, argument))}
        else:
            found = read(settings, argument)
        try:
            settings = dataclasses.replace(settings, **found)  # type: ignore[type-var]
        except ValueError as error:
            raise Misused(f"{argument}: {error}") from None
    return settings


def configure_or_exit(defaults: T, argv: Sequence[str]) -> T:
    """`configure` for a script: a mistake ends it with one line and exit code 2."""
    try:
        return configure(defaults, argv)
    except Misused as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def read(settings: object, path: str) -> dict[str, Any]:
    """The settings that a config file assigns."""
    try:
        names = runpy.run_path(path)
    except (OSError, SyntaxError) as error:
        raise Misused(f"{path}: {error}") from None
    found = {key: value for key, value in names.items() if not key.startswith("_")}
    for key, value in found.items():
        default = _default(settings, key, path)
        found[key] = float(value) if type(value) is int and type(default) is float else value
        if type(found[key]) is not type(default):
            raise Misused(f"{path}: {key} is {value!r}, expected {type(default).__name__}")
    return found


def parse(key: str, text: str, default: object) -> object:
    """One value of the type that the default has."""
    try:
        if isinstance(default, bool):
            return WORDS[text.lower()]
        return type(default)(text)  # type: ignore[call-arg]
    except (KeyError, ValueError):
        kind = "true or false" if isinstance(default, bool) else type(default).__name__
        raise Misused(f"--{key}={text}: expected {kind}") from None


def _default(settings: object, key: str, where: str) -> object:
    known = {field.name for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
    if key not in known:
        raise Misused(f"{where}: no setting {key!r}; there are {', '.join(sorted(known))}")
    return getattr(settings, key)
