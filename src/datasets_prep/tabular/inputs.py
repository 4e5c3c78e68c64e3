"""Which files of a source are converted, what they are, and their bytes without compression."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

from datasets_prep.errors import OptionError, PrepError, SourceError, reason
from tieredstore import SourceFiles, TieredStoreError

JSON, LINES, CSV, ARROW = "JSON", "JSON lines", "CSV", "Arrow"
_ENDINGS: Final = {".jsonl": LINES, ".ndjson": LINES, ".json": JSON, ".csv": CSV, ".tsv": CSV}
_PACKED: Final = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_BUFFER: Final = 1 << 20
_MAX_STATE: Final = 1 << 20  # bytes of a description
STATE, SPLITS = "state.json", "dataset_dict.json"  # as `datasets` writes them


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files of one kind.

    Attributes
    ----------
    source : SourceFiles
        Where they lie.
    kind : str
        What they are.
    paths : tuple of str
        In their order.
    """

    source: SourceFiles
    kind: str
    paths: tuple[str, ...]

    def tags(self) -> dict[str, str]:
        """What tells their content from another: sha256 where it is known, else the tag."""
        found = {path: self.source.stat(path) for path in self.paths}
        return {path: each.sha256 or f"{each.size}:{each.tag}" for path, each in found.items()}

    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.source.stat(path).size for path in self.paths)


def inputs(source: SourceFiles, split: str = "") -> Inputs:
    """The files of a source that are converted.

    Parameters
    ----------
    source : SourceFiles
        A file, a folder of files of one kind, or a folder that ``save_to_disk`` of Hugging Face's
        `datasets` wrote.
    split : str
        Which split of such a folder.

    Raises
    ------
    SourceError
        When there are none, or of several kinds.
    OptionError
        For a split that is missing, or none.
    """
    names = [file.path for file in source.files()]
    if STATE in names or SPLITS in names:
        return Inputs(source, ARROW, tuple(_saved(source, names, split)))
    if split:
        raise OptionError(f"split {split!r}: {source.shown} is no saved dataset")
    kinds = {path: kind for path in names if (kind := _kind(path)) and not _hidden(path)}
    if not kinds:
        raise SourceError(
            f"{source.shown}: nothing to convert; expected {', '.join(_ENDINGS)}, each also with "
            f".gz or .zst, or a folder with {STATE}"
        )
    if len(set(kinds.values())) > 1:
        raise SourceError(
            f"{source.shown}: has {' and '.join(sorted(set(kinds.values())))}; name one of them"
        )
    kind = next(iter(kinds.values()))
    return Inputs(source, JSON if kind == LINES else kind, tuple(sorted(kinds)))


def _kind(path: str) -> str:
    name = path.lower()
    for packed in _PACKED:
        name = name.removesuffix(packed)
    return next((kind for ending, kind in _ENDINGS.items() if name.endswith(ending)), "")


def is_lines(path: str) -> bool:
    """Whether a file's name says that it has a record in each line."""
    return _kind(path) == LINES


def delimiter(path: str) -> str:
    """What stands between the values of a CSV file."""
    return "\t" if ".tsv" in path.lower() else ","


def _hidden(path: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.split("/"))


@contextmanager
def opened(source: SourceFiles, path: str) -> Iterator[io.BufferedReader]:
    """A file's bytes, without compression.

    Raises
    ------
    SourceError
        When it cannot be read.
    """
    import pyarrow as pa

    packed = next((how for ending, how in _PACKED.items() if path.lower().endswith(ending)), "")
    try:
        with source.open(path) as file:
            if not packed:
                yield cast(io.BufferedReader, file)
                return
            stream: Any = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), packed)
            with io.BufferedReader(stream, _BUFFER) as plain:
                yield plain
    except (PrepError, TieredStoreError):
        raise
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {reason(error)}") from error


# -- what save_to_disk wrote -----------------------------------------------------------------------


def _saved(source: SourceFiles, names: list[str], split: str) -> list[str]:
    folder = ""
    if SPLITS in names:
        splits = [str(each) for each in _described(source, SPLITS).get("splits") or []]
        if split not in splits and (split or len(splits) != 1):
            asked = f"split {split!r}: none" if split else "several splits"
            raise OptionError(f"{source.shown}: {asked}; expected one of {', '.join(splits)}")
        folder = f"{split or splits[0]}/"
    elif split:
        raise OptionError(f"split {split!r}: {source.shown} has no splits")
    state = _described(source, f"{folder}{STATE}")
    if state.get("_indices_data_files"):
        raise SourceError(f"{source.shown}: has an order of its own; save it anew")
    try:
        paths = [f"{folder}{each['filename']}" for each in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise SourceError(f"{folder}{STATE}: names no files ({error!r})") from None
    missing = [path for path in paths if path not in names]
    if missing or not paths:
        raise SourceError(f"{folder}{STATE}: {', '.join(missing) or 'no file'} is missing")
    return paths


def _described(source: SourceFiles, path: str) -> dict[str, Any]:
    try:
        with source.open(path) as file:
            found = json.loads(file.read(_MAX_STATE))
    except (ValueError, FileNotFoundError) as error:
        raise SourceError(f"{path}: {reason(error)}") from None
    if not isinstance(found, dict):
        raise SourceError(f"{path}: expected an object")
    return found
