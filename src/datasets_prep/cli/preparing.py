"""The verbs that prepare datasets: ``prepare`` and ``list``; and what a ``prepare.py`` calls."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from datasets_prep import preparers
from datasets_prep.cli import preparing_jobs
from datasets_prep.cli.edge import DONE, FAILED, guarded
from datasets_prep.cli.verbs import Verbs
from datasets_prep.console import complain
from datasets_prep.errors import OptionError
from datasets_prep.options import add_common_args, add_num_proc_arg, get_common_parser
from datasets_prep.preparers import Preparer
from datasets_prep.preparers.corpus import Corpus
from datasets_prep.preparing import PrepareOptions, prepare
from tieredstore import TieredStore, open_store


def add(verbs: Verbs) -> None:
    """Add them to the command."""
    one = verbs.add(
        _prepare,
        "prepare",
        "find, restore or prepare a dataset",
        "Find a dataset, restore it from another tier, or else prepare and keep it.",
    )
    add_common_args(one)
    one.add_argument(
        "name", metavar="NAME", help="the dataset (see the command list), or FILE.py:CLASS"
    )
    one.add_argument(
        "--data-dir",
        type=Path,
        metavar="D",
        help="files go to D/NAME (default: the first tier, data/NAME/NAME unless configured)",
    )
    _add_options(one)
    preparing_jobs.add(one)
    every = verbs.add(_list, "list", "list the datasets that can be prepared, and where each is")
    every.add_argument("--config", metavar="FILE", help="a TOML file with the tiers")


def prepare_script(name: str, file: str, argv: Sequence[str] | None = None) -> None:
    """All that a dataset's own ``prepare.py`` has to do; files go beside the script.

    Parameters
    ----------
    name : str
        The dataset.
    file : str
        The script: ``__file__``.
    argv : sequence of str, optional
        Arguments; the process's own by default.

    Raises
    ------
    SystemExit
        With the exit status, when it is not 0.
    """

    def script() -> int:
        parser = get_common_parser(f"Prepare the dataset {name}.")
        _add_options(parser)
        args = parser.parse_args(argv)
        prepare(name, _options(args, Path(file).resolve().parent))
        return DONE

    code = guarded(script)
    if code != DONE:
        raise SystemExit(code)


def _prepare(args: argparse.Namespace) -> int:
    options = _options(args, args.data_dir)
    if args.share is not None:
        return preparing_jobs.make(args, options)
    if args.engine == "slurm":
        return preparing_jobs.submit(args)
    prepare(args.name, options)
    return DONE


def _list(args: argparse.Namespace) -> int:
    store = open_store(args.config)
    code = DONE
    for name in preparers.names():
        try:
            found = preparers.load(name)
        except OptionError as error:
            complain(str(error))
            code = FAILED
            continue
        columns = [
            name,
            found.title,
            ", ".join(found.tokenizers),
            _size(found),
            _places(store, name),
        ]
        print("\t".join(columns))  # noqa: T201
    return code


def _size(found: Preparer | Corpus) -> str:
    return found.about if isinstance(found, Corpus) else "small"


def _places(store: TieredStore, name: str) -> str:
    """Where a dataset is already, and how large it is there."""
    there = [
        f"{where.tier.name} ({where.head.size / 1e6:,.1f} MB)" if where.head else where.tier.name
        for where in store.locate(name)
        if where.present
    ]
    return ", ".join(there) or "not prepared"


def _options(args: argparse.Namespace, data_dir: Path | None) -> PrepareOptions:
    return PrepareOptions(
        data_dir=data_dir,
        subset=args.subset,
        force=args.force,
        tokenizer=args.tokenizer,
        source=args.source,
        num_proc=args.num_proc,
        config=args.config,
        shuffle=args.shuffle,
        skip_bad=args.skip_bad_documents,
        keep_shards=args.keep_shards,
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_num_proc_arg(parser)
    parser.add_argument(
        "--tokenizer",
        metavar="T",
        help="gpt2, char or byte; of a corpus another encoding of tiktoken's, or a tokenizer.json "
        "(default: the dataset's usual one)",
    )
    parser.add_argument(
        "--source", metavar="S", help="path or URL of the input (default: its public URL)"
    )
    parser.add_argument("--config", metavar="FILE", help="a TOML file with the tiers")
    corpora = parser.add_argument_group("of corpora")
    corpora.add_argument(
        "--shuffle",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="put documents into their random order (default), or leave them as they come",
    )
    corpora.add_argument(
        "--skip-bad-documents",
        type=int,
        default=0,
        metavar="N",
        help="pass over up to N documents that cannot be used (default: 0)",
    )
    corpora.add_argument(
        "--keep-shards",
        action="store_true",
        help="promote shards as they are made, and keep them",
    )
