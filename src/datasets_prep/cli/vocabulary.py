"""The verb that keeps the vocabularies of tokenizers in the store: ``vocabulary``."""

from __future__ import annotations

import argparse

from datasets_prep import tokenizers
from datasets_prep.cli.edge import DONE
from datasets_prep.cli.verbs import Verbs
from datasets_prep.console import Console
from tieredstore import open_store


def add(verbs: Verbs) -> None:
    """Add it to the command."""
    one = verbs.add(
        _vocabulary,
        "vocabulary",
        "keep a tokenizer's vocabulary in the store",
        "Keep vocabularies of tiktoken's encodings in the store, for machines without internet.",
    )
    one.add_argument("names", metavar="NAME", nargs="+", help="an encoding, such as gpt2")
    one.add_argument("--config", metavar="FILE", help="a TOML file with the tiers")


def _vocabulary(args: argparse.Namespace) -> int:
    console = Console()
    store = open_store(args.config, reporter=console)
    for name in args.names:
        with tokenizers.keep(store, name) as got:
            console.line(f"✅ The vocabulary of {name} is in {got.path}")
    return DONE
