"""The verb ``download``: options to one download, here or as a job of a cluster."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from datasets_prep import slurm
from datasets_prep.cli.edge import DONE, guarded
from datasets_prep.cli.verbs import Verbs
from datasets_prep.console import remark
from datasets_prep.download import DownloadOptions, download
from datasets_prep.download.archives.rules import COPY, REFUSE, Limits
from datasets_prep.download.telling import Telling
from datasets_prep.errors import OptionError
from datasets_prep.options import Parser

TIME: Final = "4:00:00"  # the limit of a job
WARNING: Final = 120  # seconds before it in which what has arrived is kept
SCRIPTS: Final = "slurm"  # the folder of scripts
_HERE: Final = ("slurm", "submit", "slurm_key", "call")


def add(verbs: Verbs) -> None:
    """Add it to the command."""
    one = verbs.add(
        _download,
        "download",
        "download, extract and verify a dataset",
        "Fetch a dataset from a URL, the Hugging Face Hub or a folder, extract and verify it, and "
        "publish it whole. What was interrupted is gone on with by the same command.",
    )
    one.add_argument("name", metavar="NAME", nargs="?", default="", help="the artifact")
    add_options(one)
    group = one.add_argument_group("on a SLURM cluster")
    group.add_argument("--slurm", action="store_true", help=f"write a job script to {SCRIPTS}/")
    group.add_argument("--submit", action="store_true", help="and submit it")
    group.add_argument(
        "--slurm-key",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help=f"a key of the job, such as partition=cpu or time={TIME}; may be given several times",
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of one download, but where it goes by name."""
    source = parser.add_argument_group("where from (exactly one)")
    source.add_argument("--url", default="", metavar="URL", help="http, https, s3, …")
    source.add_argument("--hf-repo", default="", metavar="OWNER/NAME", help="a dataset repository")
    source.add_argument("--local-path", default="", metavar="PATH", help="a file or folder")
    source.add_argument("--hf-file", default="", metavar="FILE", help="only this file of it")
    source.add_argument("--revision", default="", metavar="R", help="a branch, tag or commit")
    parser.add_argument(
        "--dest", type=Path, metavar="D", help="the folder that becomes the dataset"
    )
    parser.add_argument(
        "--temp-dir", type=Path, metavar="D", help="where an archive lies meanwhile"
    )
    parser.add_argument("--keep-archive", action="store_true", help="let it stay there")
    parser.add_argument("--no-extract", dest="extract", action="store_false", help="as it is")
    parser.add_argument(
        "--links",
        choices=(REFUSE, COPY),
        default=REFUSE,
        help=f"what becomes of links inside an archive (default: {REFUSE})",
    )
    parser.add_argument("--sha256", default="", metavar="X", help="of the file that is fetched")
    parser.add_argument("--connections", type=int, metavar="N", help="requests at once")
    parser.add_argument("--force", action="store_true", help="replace what is there, in the end")
    parser.add_argument("--spec", metavar="S", help="what it has to be: websight, or a TOML file")
    parser.add_argument("--skip-verify", action="store_true", help="do not compare it with that")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file with the tiers")


def download_script(dest: Path, spec: str, argv: Sequence[str] | None = None) -> None:
    """All that a training repo's own ``download_dataset.py`` has to do.

    Parameters
    ----------
    dest : Path
        Where the dataset goes unless ``--dest`` says otherwise.
    spec : str
        What it has to be, unless ``--spec`` says otherwise.
    argv : sequence of str, optional
        Arguments; the process's own by default.

    Raises
    ------
    SystemExit
        With the exit status, when it is not 0.
    """

    def script() -> int:
        parser = Parser(description="Download the dataset of this project.", allow_abbrev=False)
        add_options(parser)
        parser.set_defaults(name="", dest=dest, spec=spec)
        return _run(options_of(parser.parse_args(argv)))

    code = guarded(script)
    if code != DONE:
        raise SystemExit(code)


def options_of(args: argparse.Namespace) -> DownloadOptions:
    """The download that parsed arguments describe."""
    given = {k: v for k, v in vars(args).items() if k not in _HERE}
    verify, limits = not given.pop("skip_verify"), Limits(links=given.pop("links"))
    return DownloadOptions(**given, verify=verify, limits=limits)


def _download(args: argparse.Namespace) -> int:
    options = options_of(args)
    return _job(args, options) if args.slurm or args.submit else _run(options)


def _run(options: DownloadOptions) -> int:
    telling = Telling()
    try:
        download(options, telling)
    except (KeyboardInterrupt, SystemExit):
        kept = "What has arrived is kept: run the same command to go on"
        telling.line(f"⏸️  {kept if telling.kept else 'Interrupted: it begins anew'}")
        raise
    return DONE


# -- on a cluster -------------------------------------------------------------------------------


def _job(args: argparse.Namespace, options: DownloadOptions) -> int:
    """Write the script of a job that runs this very command, and submit it."""
    if "@" in options.url.partition("://")[2].partition("/")[0]:
        raise OptionError("--url holds a password, which a job script would show to others")
    keys: dict[str, Any] = {"time": TIME, "warning": WARNING, "logs": "logs"}
    for text in args.slurm_key:
        key, equals, value = text.partition("=")
        if not equals:
            raise OptionError(f"--slurm-key {text!r}: expected KEY=VALUE, such as partition=cpu")
        keys[key] = int(value) if value.isdecimal() and key in {"cpus", "warning"} else value
    name = options.name or (options.dest.name if options.dest is not None else "dataset")
    keys["name"] = f"download-{name.replace('/', '-')}"
    keys["command"] = [_plain(word) for word in _words(args)]
    keys["folder"] = os.getcwd()
    script = slurm.render(slurm.reading.job(keys, "--slurm-key"))
    why = slurm.check(script)
    if why:
        remark(f"not checked by SLURM: {why}")
    for path in slurm.overwrite([script], Path(SCRIPTS)):
        print(path)  # noqa: T201
    if args.submit:
        for job, number in slurm.submit([script]).items():
            print(f"{number}\t{job}")  # noqa: T201
    return DONE


def _words(args: argparse.Namespace) -> list[str]:
    """The same command, without what makes a job of it."""
    words = [sys.executable, "-m", "datasets_prep.cli", "download"]
    words += [args.name] if args.name else []
    for key, value in vars(args).items():
        option = f"--{key.replace('_', '-')}"
        if key in _HERE or key == "name" or value in {None, "", False}:
            words += ["--no-extract"] if key == "extract" and value is False else []
        elif key != "extract":
            words += [option] if value is True else [f"{option}={_whole(key, value)}"]
    return words


def _whole(key: str, value: object) -> object:
    """Paths as they are seen from here."""
    local = key in {"dest", "temp_dir", "config", "local_path"}
    return os.path.abspath(str(value)) if local else value


def _plain(word: str) -> str:
    """A word in which braces stand for themselves."""
    for place in ("job", "task", "scratch"):
        word = word.replace(f"{{{place}}}", f"{{{{{place}}}}}")
    return word
