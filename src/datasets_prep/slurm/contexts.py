"""Where in a script of bash a place is: among plain words, in a comment, in quotes, in a heredoc.

Enough of bash's lexical rules (its manual, "Quoting", "Comments", "Here Documents") to say for each
marked place of a template whether a quoted word may stand there. What it is in doubt about counts
as quoted, where no value may stand. Nothing here knows of templates or jobs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import Final

_HEREDOC: Final = re.compile(r"<<(-?)[ \t]*(?:'([^'\n]+)'|\"([^\"\n]+)\"|\\?([^\s;&|<>()'\"]+))")
_ARITHMETIC: Final = "))"  # expands what stands in it, quoted or not
_BREAKS: Final = frozenset(" \t\n;&|()")


class Context(Enum):
    """What surrounds a place."""

    PLAIN = "plain words"
    DIRECTIVE = "an #SBATCH line"
    COMMENT = "a comment"
    QUOTED = "quotes"
    HEREDOC = "a here-document"


class _Scan:
    """One pass over a script."""

    def __init__(self, text: str, mark: str) -> None:
        self._text = text
        self._mark = mark
        self._at = 0
        self._stack: list[str] = []  # what closes each open quote, substitution or parenthesis
        self._heredocs: list[tuple[bool, str]] = []

    def places(self) -> Iterator[Context]:
        """The context of each mark."""
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == self._mark:
                yield self._context()
                self._at += 1
            elif char == "\n" and self._heredocs and not self._quoted():
                yield from self._skip_heredocs()
            elif self._comments(char):
                yield from self._skip_comment()
            else:
                self._step(char)

    def _context(self) -> Context:
        # A word that begins with a quote means something else after a dollar.
        dollar = self._at > 0 and self._text[self._at - 1] == "$"
        return Context.QUOTED if dollar or self._quoted() else Context.PLAIN

    def _quoted(self) -> bool:
        return any(close != ")" for close in self._stack)

    def _top(self) -> str:
        return self._stack[-1] if self._stack else ""

    def _comments(self, char: str) -> bool:
        before = self._text[self._at - 1] if self._at else "\n"
        return char == "#" and self._top() in {"", ")"} and before in _BREAKS

    def _skip_comment(self) -> Iterator[Context]:
        end = self._text.find("\n", self._at)
        line = self._text[self._at : len(self._text) if end < 0 else end]
        starts = self._at == 0 or self._text[self._at - 1] == "\n"
        kind = Context.DIRECTIVE if starts and line.startswith("#SBATCH") else Context.COMMENT
        self._at += len(line)
        for _ in range(line.count(self._mark)):
            yield kind

    def _skip_heredocs(self) -> Iterator[Context]:
        self._at += 1
        for tabs, word in self._heredocs:
            while self._at < len(self._text):
                end = self._text.find("\n", self._at)
                line = self._text[self._at : len(self._text) if end < 0 else end]
                self._at += len(line) + 1
                if (line.lstrip("\t") if tabs else line) == word:
                    break
                for _ in range(line.count(self._mark)):
                    yield Context.HEREDOC
        self._at -= 1  # the last line's end may begin the next ones
        self._heredocs.clear()

    def _step(self, char: str) -> None:
        """Take one character, or two that belong together."""
        top = self._top()
        if top in {"'", "$'"}:
            if char == "\\" and top == "$'":
                self._at += 1
            elif char == "'":
                self._stack.pop()
        elif char == "\\":
            self._at += 1
        elif char == (top[-1:] or "\0"):
            self._stack.pop()
        else:
            self._open(char, top)
        self._at += 1

    def _open(self, char: str, top: str) -> None:
        two = self._text[self._at : self._at + 2]
        if self._text.startswith("$((", self._at):
            self._stack += [_ARITHMETIC, ")"]
            self._at += 2
        elif two in {"$(", "${"}:
            self._stack.append(")" if two == "$(" else "}")
            self._at += 1
        elif char in {'"', "`"}:
            self._stack.append(char)
        elif top != '"':
            self._open_plain(char, two)

    def _open_plain(self, char: str, two: str) -> None:
        if two == "$'":
            self._stack.append(two)
            self._at += 1
        elif char == "'":
            self._stack.append(char)
        elif two == "((":
            self._stack += [_ARITHMETIC, ")"]
            self._at += 1
        elif char == "(":
            self._stack.append(")")
        elif two == "<<":
            self._open_heredoc()

    def _open_heredoc(self) -> None:
        if self._text.startswith("<<<", self._at):
            self._at += 2
            return
        found = _HEREDOC.match(self._text, self._at)
        if found:
            self._heredocs.append((bool(found[1]), found[2] or found[3] or found[4]))
            self._at = found.end() - 1


def contexts(text: str, mark: str) -> list[Context]:
    """The context of each place of a script that is marked.

    Parameters
    ----------
    text : str
        A script of bash.
    mark : str
        One character that stands at each place and nowhere else.
    """
    return list(_Scan(text, mark).places())
