"""What templates are given: a job as plain data, in which no text can be read, only put out.

Each text is a `Value`. A template can look whether there is one, compare it and put it out. It
never has the text itself, so whatever it does with what it has - join, format, macros - nothing of
a value comes into a script but by its mark.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from datasets_prep.errors import InvalidJob
from datasets_prep.slurm import directives
from datasets_prep.slurm.job import Job
from datasets_prep.slurm.quoting import Fillable

_KEY: Final = re.compile(r"[A-Za-z0-9_.-]+")  # a template may put it out as it is


class Value:
    """A text that can be put out, and looked at no further."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return self._text == (other._text if isinstance(other, Value) else other)

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> NoReturn:
        raise TypeError("a value is changed or joined, expected it to be put out as it is")

    def __repr__(self) -> str:
        return "<a value>"


class Directive:
    """An option of sbatch: what follows ``#SBATCH`` in its line."""

    __slots__ = ("_name", "_value")

    def __init__(self, name: str, value: str | None) -> None:
        self._name = name
        self._value = value

    def __str__(self) -> NoReturn:
        raise TypeError("a directive is changed or joined, expected it to be put out as it is")

    def __repr__(self) -> str:
        return "<a directive>"


def text_of(value: Value) -> str:
    """The text, for who writes it down."""
    return value._text  # noqa: SLF001 - hidden from templates, not from here


def option_of(directive: Directive) -> tuple[str, str | None]:
    """Name and value, likewise."""
    return directive._name, directive._value  # noqa: SLF001


def given(job: Job) -> dict[str, Any]:
    """What templates see: ``job``, ``directives`` and ``values``.

    Raises
    ------
    InvalidJob
        For keys in ``values`` that are no plain words.
    """
    plain = {name: getattr(job, name) for name in job.__slots__}
    lines = job.command if isinstance(job.command, str) else ""
    plain |= {
        "folder": directives.folder(job),
        "environment": {name: Fillable(text) for name, text in job.environment.items()},
        "command": [] if lines else [Fillable(part) for part in job.command],
        "lines": lines,
        "staging": _staging(job),
    }
    values = _hidden(plain.pop("values"), f"job {job.name!r}: values")
    options = [Directive(*option) for option in directives.of(job)]
    return {"job": _hidden(plain, "job"), "directives": options, "values": values}


def _staging(job: Job) -> dict[str, Any]:
    return {
        "config": job.staging.config,
        "restore": [
            {"name": Fillable(row.name), "files": Fillable(",".join(row.files))}
            for row in job.staging.restore
        ],
        "promote": [
            {
                "name": Fillable(row.name),
                "path": Fillable(row.path),
                "when": row.when,
                "replace": row.replace,
            }
            for row in job.staging.promote
        ],
    }


def _hidden(value: Any, where: str) -> Any:
    """The same with each text as a `Value`."""
    if isinstance(value, Mapping):
        for key in value:
            if not _KEY.fullmatch(str(key)):
                raise InvalidJob(f"{where}: key {key!r}, expected letters, digits and ._-")
        return {str(key): _hidden(each, f"{where}.{key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(each, where) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return Value(value if isinstance(value, str) else str(value))
