# /// script
# requires-python = ">=3.11"
# dependencies = ["tieredstore"]
# ///
"""One's own command line over the library: keep a folder under a name, and get it back anywhere.

    python cli_wrapper.py keep runs/42 ./out --option model=small
    python cli_wrapper.py get runs/42

Copy this file and change it. Where things are kept is what `tieredstore.open_store` finds: a
tieredstore.toml, or ./data and the RunPod volume.
"""

import argparse
import shutil
import sys
from pathlib import Path

import tieredstore


class Lines(tieredstore.Reporter):
    """Says on the error stream what somebody may want to know; all else stays silent."""

    def skipped(self, tier: str, why: str) -> None:
        print(f"{tier}: skipped, {why}", file=sys.stderr)

    def corrupt(self, tier: str, what: str) -> None:
        print(f"{tier}: not used, {what}", file=sys.stderr)


def keep(store: tieredstore.TieredStore, name: str, folder: Path, options: dict[str, str]) -> None:
    recipe = {"preparer": "cli_wrapper", "options": options}
    with store.create(name, recipe=recipe) as stage:
        shutil.copytree(folder, stage.path, dirs_exist_ok=True)
    for outcome in store.promote(name):
        print(f"{name}: {outcome.action} in {outcome.tier}")
    print(f"{name}: kept")


def get(store: tieredstore.TieredStore, name: str) -> None:
    with store.restore(name) as got:
        print(f"{got.path} (from {got.source})")


def option(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: expected KEY=VALUE")
    return key, value


def main() -> int:
    parser = argparse.ArgumentParser(description="Keep folders under names, and get them back.")
    commands = parser.add_subparsers(dest="command", required=True)
    keeping = commands.add_parser("keep", help="keep a folder under a name")
    keeping.add_argument("name")
    keeping.add_argument("folder", type=Path)
    keeping.add_argument("--option", type=option, action="append", default=[], metavar="KEY=VALUE")
    getting = commands.add_parser("get", help="bring it back to this machine")
    getting.add_argument("name")
    args = parser.parse_args()
    try:
        store = tieredstore.open_store(reporter=Lines())
        if args.command == "keep":
            keep(store, args.name, args.folder, dict(args.option))
        else:
            get(store, args.name)
    except (tieredstore.TieredStoreError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
