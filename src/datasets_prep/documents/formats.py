"""Formats by the names of files, and which files of a source hold documents."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final, TypeVar

from datasets_prep.documents.pieces import Listed
from datasets_prep.errors import SourceError

PARQUET: Final = "parquet"
JSON: Final = "json"  # an array, or lines all the same: the first character tells
LINES, GZIP_LINES, ZSTD_LINES = "jsonl", "jsonl.gz", "jsonl.zst"
TEXT: Final = "text"  # a document each
SUFFIXES: Final = {
    ".parquet": PARQUET,
    ".jsonl": LINES,
    ".ndjson": LINES,
    ".jsonl.gz": GZIP_LINES,
    ".json.gz": GZIP_LINES,
    ".jsonl.zst": ZSTD_LINES,
    ".json.zst": ZSTD_LINES,
    ".jsonl.zstd": ZSTD_LINES,
    ".json": JSON,
    ".txt": TEXT,
}
# Beside documents in Parquet there are often descriptions in JSON, and beside those a README.txt.
_ORDER: Final = ((PARQUET,), (LINES, GZIP_LINES, ZSTD_LINES), (JSON,), (TEXT,))

File = TypeVar("File", bound=Listed)


def format_of(path: str) -> str:
    """The format that a file's name says; empty where it says none."""
    name = path.rpartition("/")[2].lower()
    for suffix, known in SUFFIXES.items():
        if name.endswith(suffix):
            return known
    return ""


def chosen(files: Sequence[File], patterns: Sequence[str] = (), shown: str = "") -> list[File]:
    """The files of a source that hold documents, in the order of their paths.

    Of several formats that which is listed first counts: Parquet, JSON lines, JSON, text.

    Parameters
    ----------
    files : sequence of SourceFile
        All there are.
    patterns : sequence of str
        Only paths that match one of these, such as ``train/*``; without any, all.
    shown : str
        How messages call the source.

    Raises
    ------
    SourceError
        When there are none.
    """
    asked = [f for f in files if not patterns or any(fnmatchcase(f.path, p) for p in patterns)]
    seen = [f for f in asked if not _hidden(f.path)]
    for formats in _ORDER:
        found = [f for f in seen if format_of(f.path) in formats]
        if found:
            return sorted(found, key=lambda file: file.path)
    wanted = f" that match {' or '.join(patterns)}" if patterns else ""
    there = ", ".join(f.path for f in files[:5]) or "none at all"
    raise SourceError(
        f"{shown}: no files{wanted} with documents; expected {', '.join(SUFFIXES)}; there are: "
        f"{there}"
    )


def _hidden(path: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.split("/"))
