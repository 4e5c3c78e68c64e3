r"""Text as words of bash and as values of ``#SBATCH`` lines: exact, or refused.

sbatch reads its lines by rules of its own (``get_argument`` in SLURM's ``src/sbatch/opt.c``):
quotes group, a backslash takes the next character as it is, also between single quotes, and a
``#`` outside quotes ends the line. So values stand between double quotes with ``\`` and ``"``
escaped, and only what ends a line cannot be said at all.
"""

from __future__ import annotations

import re
import shlex
from typing import Final

_VARIABLES: Final = {
    "job": '"${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}"',
    "task": '"$SLURM_ARRAY_TASK_ID"',
    "scratch": '"$JOB_SCRATCH"',
}
_PLACE: Final = re.compile(r"(?<!\{)\{(job|task|scratch)\}(?!\})|\{\{(job|task|scratch)\}\}")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_HIDDEN: Final = re.compile(r"[\x01-\x08\x0b-\x1f\x7f]")  # not tabs and line ends


class Fillable(str):
    """A text in which ``{job}``, ``{task}`` and ``{scratch}`` stand for what the running job has.

    Twice the braces stand for single ones.
    """

    __slots__ = ()


def word(text: str) -> str:
    """One word of bash that stands for this text, and for nothing else.

    Raises
    ------
    ValueError
        For a NUL, which no argument can hold, and for halves of characters.
    """
    if "\0" in text:
        raise ValueError("holds a NUL character, which no argument can")
    try:
        text.encode("utf-8", "surrogateescape")  # names of files may be any bytes
    except UnicodeEncodeError:
        raise ValueError("holds half a character, which no file can") from None
    if isinstance(text, Fillable):
        return _filled(text)
    return _ansi(text) if _HIDDEN.search(text) else shlex.quote(text)


def directive(text: str) -> str:
    """The same for a value in an ``#SBATCH`` line.

    Raises
    ------
    ValueError
        For line ends and other control characters, which such a line cannot hold.
    """
    found = _CONTROLS.search(text)
    if found:
        raise ValueError(f"holds {found[0]!r}, which no #SBATCH line can")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def pattern(path: str) -> str:
    """A path to SLURM's file name pattern that stands for it.

    Raises
    ------
    ValueError
        For a backslash, which SLURM drops from patterns.
    """
    if "\\" in path:
        raise ValueError("holds a backslash, which SLURM drops from names of log files")
    return path.replace("%", "%%")


def places(text: str) -> set[str]:
    """The placeholders in a text: ``job``, ``task``, ``scratch``."""
    return {match[1] for match in _PLACE.finditer(text) if match[1]}


def file_name(name: str) -> str:
    """A job's name as part of a file's: letters, digits and ``._-``; different ones stay so."""
    import hashlib

    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:80].lstrip(".-") or "job"
    if plain == name:
        return plain
    return f"{plain}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _filled(text: Fillable) -> str:
    parts = []
    end = 0
    literal = ""
    for match in _PLACE.finditer(text):
        literal += text[end : match.start()]
        end = match.end()
        if match[2]:
            literal += f"{{{match[2]}}}"
            continue
        parts += [*([word(literal)] if literal else []), _VARIABLES[match[1]]]
        literal = ""
    literal += text[end:]
    if literal or not parts:
        parts.append(word(literal))
    return "".join(parts)


def _ansi(text: str) -> str:
    """Between ``$'`` and ``'``, so that what would not be seen is."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return "$'" + _HIDDEN.sub(lambda found: f"\\x{ord(found[0]):02x}", escaped) + "'"
