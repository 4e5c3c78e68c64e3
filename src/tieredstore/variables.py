"""Environment variables in the paths and layouts of a configuration, put in and checked.

What the environment holds comes in as a mapping: nothing here reads it, or touches a disk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from tieredstore.errors import ConfigError

JOB: Final = "SLURM_JOB_ID"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Refusal(Protocol):
    """Why a value cannot be put in, as what follows "is"; empty where it can."""

    def __call__(self, value: str, *, first: bool) -> str: ...


@dataclass(frozen=True, slots=True)
class Variables:
    """What ``$NAME``, ``${NAME}`` and ``${NAME:-default}`` stand for; ``$$`` is a dollar.

    Attributes
    ----------
    environment : mapping
        Values by name. One that is empty counts as not set.
    where : str
        File, table and key, for messages.
    """

    environment: Mapping[str, str]
    where: str

    def path(self, text: str) -> str:
        """The path of a folder with its variables put in.

        Raises
        ------
        ConfigError
            For a variable that is not set and has no default, for one whose value would lead
            elsewhere than the text says, and for a ``$`` that begins no variable.
        """
        return self._expanded(text, _refused_in_path, first=True)

    def layout(self, text: str) -> str:
        """Likewise, for a template that lies below a tier's root."""
        return self._expanded(text, _refused_in_layout, first=True)

    def _expanded(self, text: str, refused: Refusal, *, first: bool) -> str:
        done, rest = "", text
        while rest:
            before, dollar, rest = rest.partition("$")
            done += before
            if not dollar:
                break
            if rest.startswith("$"):
                done, rest = f"{done}$", rest[1:]
                continue
            name, default, rest = self._variable(text, rest)
            begins = first and not done
            value = self.environment.get(name, "")
            if value:
                self._check(text, name, refused(value, first=begins))
            elif default is not None:
                value = self._expanded(default, refused, first=begins)
            else:
                self._check(text, name, f"not set; set it, or give a default: ${{{name}:-…}}")
            done += value
        return done

    def _check(self, text: str, name: str, why: str) -> None:
        if why:
            raise self._wrong(text, f"${name} is {why}")

    def _variable(self, text: str, rest: str) -> tuple[str, str | None, str]:
        """Name, default and what follows, of a variable after its ``$``."""
        braced = rest.startswith("{")
        found = _NAME.match(rest, 1 if braced else 0)
        if found is None:
            raise self._wrong(text, "a $ begins the name of a variable; write $$ for a dollar")
        if not braced:
            return found[0], None, rest[found.end() :]
        end = _closing(rest)
        inner = rest[found.end() : end]
        if end < 0 or not (inner == "" or inner.startswith(":-")):
            raise self._wrong(text, f"expected ${{{found[0]}}} or ${{{found[0]}:-default}}")
        return found[0], inner[2:] if inner else None, rest[end + 1 :]

    def _wrong(self, text: str, why: str) -> ConfigError:
        return ConfigError(f"{self.where} is {text!r}: {why}")


def uses(text: str, name: str) -> bool:
    """Whether a text has this variable, in a default too."""
    plain = text.replace("$$", "")
    return re.search(rf"\$(?:{name}(?![A-Za-z0-9_])|\{{{name}(?:\}}|:-))", plain) is not None


def _closing(text: str) -> int:
    """Where the brace that opens ``text`` is closed; -1 where it is not."""
    depth = 0
    for at, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return at
    return -1


def _refused_in_path(value: str, *, first: bool) -> str:
    if first and not value.startswith("/"):
        return f"{value!r}, expected an absolute path; write ./ before it for one beside the file"
    if not first and value.startswith("/"):
        return f"{value!r}, an absolute path, where part of one is expected"
    return _refused_anywhere(value)


def _refused_in_layout(value: str, *, first: bool) -> str:
    del first
    if value.startswith("/") or "{" in value or "}" in value:
        return f"{value!r}, expected a relative path without braces"
    return _refused_anywhere(value)


def _refused_anywhere(value: str) -> str:
    if not value.isprintable():
        return f"{value!r}: control characters are not allowed"
    if {".", ".."} & set(value.split("/")):
        return f"{value!r}: '.' and '..' are not allowed"
    return ""
