"""The command ``datasets-prep``, and what a ``prepare.py`` calls: parse, call, print."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from datasets_prep import preparers
from datasets_prep.console import PROGRAM, complain
from datasets_prep.errors import OptionError, PrepError, reason
from datasets_prep.options import (
    MISUSED,
    Parser,
    add_common_args,
    add_num_proc_arg,
    get_common_parser,
)
from datasets_prep.preparing import PrepareOptions, prepare
from tieredstore import ConfigError, InvalidName, TieredStoreError, __version__

DONE, FAILED = 0, 1


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; the process's own by default.

    Returns
    -------
    int
        0 done, 1 failed, 2 used wrongly, 130 interrupted, 143 terminated.
    """
    return _guarded(lambda: _command(argv))


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

    code = _guarded(script)
    if code != DONE:
        raise SystemExit(code)


def _command(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    call: Callable[[argparse.Namespace], int] = args.call
    return call(args)


def _prepare(args: argparse.Namespace) -> int:
    prepare(args.name, _options(args, args.data_dir))
    return DONE


def _list(args: argparse.Namespace) -> int:
    del args
    code = DONE
    for name in preparers.names():
        try:
            found = preparers.load(name)
        except OptionError as error:
            complain(str(error))
            code = FAILED
            continue
        print(f"{name}\t{found.title}\t{', '.join(found.tokenizers)}")  # noqa: T201
    return code


def _options(args: argparse.Namespace, data_dir: Path | None) -> PrepareOptions:
    return PrepareOptions(
        data_dir=data_dir,
        subset=args.subset,
        force=args.force,
        tokenizer=args.tokenizer,
        source=args.source,
        num_proc=args.num_proc,
        config=args.config,
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_num_proc_arg(parser)
    parser.add_argument(
        "--tokenizer", metavar="T", help="gpt2, char or byte (default: the dataset's usual one)"
    )
    parser.add_argument(
        "--source", metavar="S", help="path or URL of the input (default: its public URL)"
    )
    parser.add_argument("--config", metavar="FILE", help="a TOML file with the tiers")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Prepare training data, kept and restored by tieredstore.",
        epilog="exit status: 0 done, 1 failed, 2 used wrongly, 130 interrupted, 143 terminated",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    one = commands.add_parser(
        "prepare",
        help="find, restore or prepare a dataset",
        description="Find a dataset, restore it from another tier, or else prepare and keep it.",
        allow_abbrev=False,
    )
    add_common_args(one)
    one.add_argument("name", metavar="NAME", help="the dataset; see the command list")
    one.add_argument(
        "--data-dir",
        type=Path,
        metavar="D",
        help="files go to D/NAME (default: the first tier, data/NAME/NAME unless configured)",
    )
    _add_options(one)
    one.set_defaults(call=_prepare)
    every = commands.add_parser("list", help="list the datasets that can be prepared")
    every.set_defaults(call=_list)
    return parser


# -- the edge -----------------------------------------------------------------------------------


def _guarded(call: Callable[[], int]) -> int:
    """Call something; errors become one line and an exit status."""
    try:
        with _terminated_in_order():
            return call()
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else int(signal.SIGINT)
        how = "interrupted" if number == signal.SIGINT else "terminated"
        complain(f"{how}; run the command again to go on")
        return 128 + int(number)
    except (OptionError, ConfigError, InvalidName) as error:
        complain(reason(error))
        return MISUSED
    except (PrepError, TieredStoreError, OSError) as error:
        complain(reason(error))
        return FAILED
    except ImportError as error:
        complain(f"{error}; pip install 'tieredstore[prep]'")
        return FAILED
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user
        complain(f"unexpected {type(error).__name__}: {reason(error)}; please report it")
        return FAILED
    finally:
        _flush()


@contextmanager
def _terminated_in_order() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does, once; a second one ends the process at once."""
    before = None
    with suppress(ValueError):  # not in the main thread
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt(number)


def _flush() -> None:
    """What nobody reads any more goes nowhere, or it would fail again when the process exits."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


if __name__ == "__main__":
    raise SystemExit(run())
