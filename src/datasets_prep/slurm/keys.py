"""The keys of a job: what kind of value each takes, what it says. For files and options alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import time
from typing import Any, Final

TEXT, COUNT, FLAG, TEXTS, TABLE = "text", "count", "flag", "texts", "table"
COMMAND, STAGING, ANY = "command", "staging", "any"


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes
    ----------
    name : str
        The field of `Job`.
    kind : str
        What it takes.
    help : str
        What the command's help says of it.
    metavar : str
        How the command's help calls its value.
    """

    name: str
    kind: str
    help: str
    metavar: str = ""


KEYS: Final = (
    Key("name", TEXT, "what the queue shows (default: the configuration file's name)", "NAME"),
    Key("command", COMMAND, "a list of arguments, or lines of bash"),
    Key("account", TEXT, "the account that pays", "A"),
    Key("partition", TEXT, "partitions, separated by commas", "P"),
    Key("qos", TEXT, "the quality of service", "Q"),
    Key("time", TEXT, "time limit: minutes, H:MM:SS or D-HH:MM", "T"),
    Key("memory", TEXT, "of each node: megabytes, or such as 32G", "M"),
    Key("cpus", COUNT, "processors of each task", "N"),
    Key("tasks", COUNT, "tasks", "N"),
    Key("gpus", TEXT, "of each node: 2 or a100:2", "G"),
    Key("nodes", TEXT, "2 or 2-4", "N"),
    Key("array", TEXT, "numbers of an array's tasks: 0-9, 1,3,5-7%%2", "LIST"),
    Key("after", TEXTS, "a job that ends well first, by name or id; or afterany:JOB, …", "JOB"),
    Key("requeue", FLAG, "SLURM may start it again after a failure of a node or a preemption"),
    Key("warning", COUNT, "seconds before the time limit at which it is told to end", "S"),
    Key("on_warning", TEXT, "what follows then: end or requeue", "WHAT"),
    Key("modules", TEXTS, "a module to load", "NAME"),
    Key("conda", TEXT, "an environment of conda", "ENV"),
    Key("venv", TEXT, "the folder of a virtual environment", "D"),
    Key("environment", TABLE, "a variable to export", "NAME=VALUE"),
    Key("folder", TEXT, "where it runs (default: the configuration's folder)", "D"),
    Key("logs", TEXT, "folder of its log (default: logs)", "D"),
    Key("scratch", TEXT, "a folder in which it gets one of its own, removed at its end", "D"),
    Key("cache", TEXT, "of Hugging Face datasets: per-job (default), shared or none", "WHICH"),
    Key("cache_from", TEXT, "the pre-built or shared cache that it is seeded from", "D"),
    Key("staging", STAGING, "artifacts restored before and promoted after"),
    Key("sbatch", TABLE, "another long option of sbatch", "OPTION=VALUE"),
    Key("values", ANY, "for templates of your own"),
)


def converted(key: Key, value: Any) -> Any:
    """A value of a file or an option as the field of `Job` holds it.

    Raises
    ------
    ValueError
        For a value of another kind, with what was expected.
    """
    return _CONVERSIONS[key.kind](value)


def text(value: Any) -> str:
    """A text; a number or a time of day counts as it is written."""
    if isinstance(value, str):
        return value
    if isinstance(value, time):  # what TOML takes 02:30:00 for
        return value.isoformat()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise _wrong(value, "a text")


def texts(value: Any) -> tuple[str, ...]:
    """Texts; one stands for a list of one."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(text(each) for each in value)
    return (text(value),)


def count(value: Any) -> int:
    """A whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise _wrong(value, "a whole number")


def flag(value: Any) -> bool:
    """True or false."""
    if isinstance(value, bool):
        return value
    raise _wrong(value, "true or false")


def table(value: Any) -> dict[str, str]:
    """A table of texts."""
    return {name: text(each) for name, each in mapping(value).items()}


def mapping(value: Any) -> dict[str, Any]:
    """A table of anything."""
    if isinstance(value, Mapping):
        return {text(name): each for name, each in value.items()}
    raise _wrong(value, "a table")


def command(value: Any) -> tuple[str, ...] | str:
    """Arguments, or lines of bash."""
    return value if isinstance(value, str) else texts(value)


def _wrong(value: Any, expected: str) -> ValueError:
    return ValueError(f"is {value!r}, expected {expected}")


_CONVERSIONS: Final = {
    TEXT: text,
    COUNT: count,
    FLAG: flag,
    TEXTS: texts,
    TABLE: table,
    COMMAND: command,
    STAGING: mapping,
    ANY: mapping,
}
