"""How a verb is added to the command: its name, its help, the options that each has."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final, NoReturn

from tieredstore import console
from tieredstore.cli.shown import MISUSED, Shown
from tieredstore.store import TieredStore

PROGRAM: Final = "tieredstore"

Verb = Callable[[TieredStore, argparse.Namespace], Shown]


class Parser(argparse.ArgumentParser):
    """Says what was used wrongly in one line."""

    def error(self, message: str) -> NoReturn:
        """See `argparse.ArgumentParser.error`."""
        console.console_reporter(PROGRAM).error(f"{message}; see {self.prog} --help")
        raise SystemExit(MISUSED)


class Verbs:
    """The verbs of the command.

    Parameters
    ----------
    parsers : object
        What `argparse.ArgumentParser.add_subparsers` gave.
    common : Parser
        Options that each verb has.
    """

    def __init__(self, parsers: Any, common: Parser) -> None:
        self._parsers = parsers
        self._common = common

    def add(self, verb: Verb, name: str, line: str, more: str = "") -> argparse.ArgumentParser:
        """Add a verb; ``line`` is its help, ``more`` is further said by its own help text."""
        made: argparse.ArgumentParser = self._parsers.add_parser(
            name,
            help=line,
            description=f"{line[0].upper()}{line[1:]}. {more}".strip(),
            parents=[self._common],
            allow_abbrev=False,
        )
        made.set_defaults(verb=verb, patient=False)  # patient: it waits for no tier by itself
        made.add_argument("--json", action="store_true", help="one JSON document on stdout")
        return made

    def add_named(
        self, verb: Verb, name: str, line: str, more: str = ""
    ) -> argparse.ArgumentParser:
        """Add a verb whose first argument is an artifact's name."""
        made = self.add(verb, name, line, more)
        made.add_argument("name", metavar="NAME", help="the artifact, such as shakespeare")
        return made
