"""How a verb is added to the command."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from datasets_prep.options import Parser

Verb = Callable[[argparse.Namespace], int]


class Verbs:
    """The verbs of the command, or of one of its groups.

    Parameters
    ----------
    parsers : object
        What `argparse.ArgumentParser.add_subparsers` gave.
    """

    def __init__(self, parsers: Any) -> None:
        self._parsers = parsers

    def add(self, verb: Verb, name: str, line: str, text: str = "") -> Parser:
        """Add a verb, which gives the exit status; ``line`` is its help, ``text`` says more."""
        made = self._made(name, line, text)
        made.set_defaults(call=verb)
        return made

    def group(self, name: str, line: str, text: str = "") -> Verbs:
        """Add a group of verbs, such as ``chunks``."""
        made = self._made(name, line, text)
        return Verbs(made.add_subparsers(metavar="COMMAND", required=True, title="commands"))

    def _made(self, name: str, line: str, text: str) -> Parser:
        made: Parser = self._parsers.add_parser(
            name, help=line, description=text or None, allow_abbrev=False
        )
        return made
