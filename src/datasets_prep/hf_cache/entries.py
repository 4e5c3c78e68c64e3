"""Entries of a cache as ``datasets`` lays them out, and the notes that lie in those made here.

``<root>/<builder>/<configuration>/<version>/<module>/`` with ``dataset_info.json`` and Arrow files.
Nothing here loads ``datasets``, writes to an entry or knows how one is built.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from datasets_prep.hf_cache.source import Source

INFO: Final = "dataset_info.json"
NOTE: Final = ".datasets_prep.json"
_LEVELS: Final = "*/*/*/*"


@dataclass(frozen=True, slots=True)
class Note:
    """What is written beside an entry's files when it is seeded.

    Attributes
    ----------
    path : str
        The data file that it stands for.
    size, mtime_ns, ctime_ns : int
        That file, as it was.
    digest : str
        Of its bytes.
    options : mapping
        What the builder was given.
    files : mapping of str to int
        The entry's files, and the bytes of each.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    digest: str
    options: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)

    @property
    def source(self) -> Source:
        """The data file, as it was."""
        return Source(self.path, self.size, self.mtime_ns, self.ctime_ns)

    def text(self) -> str:
        """The note as it is written down."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a cache.

    Attributes
    ----------
    root : Path
        The cache: what ``HF_DATASETS_CACHE`` names.
    name : str
        The entry's folder below it.
    """

    root: Path
    name: str

    @property
    def path(self) -> Path:
        """The entry's folder."""
        return self.root / self.name

    def files(self) -> dict[str, int]:
        """Its files, and the bytes of each; what lies in folders below is not the entry's."""
        found = {}
        with suppress(OSError), os.scandir(self.path) as listed:
            for each in listed:
                with suppress(OSError):
                    if each.is_file() and each.name != NOTE:
                        found[each.name] = each.stat().st_size
        return found

    def arrow(self) -> dict[str, int]:
        """Those of its files that make the dataset: without what ``map`` has left beside them."""
        files = self.files().items()
        return {n: size for n, size in files if not n.startswith(("cache-", ".", "tmp"))}

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(self.files().values())

    def note(self) -> Note | None:
        """What was written down about it, where it was made here."""
        with suppress(OSError, ValueError, TypeError):
            return Note(**json.loads((self.path / NOTE).read_text(encoding="utf-8")))
        return None

    def lacks(self) -> str:
        """Why it is not whole, as far as names and sizes tell, or an empty text."""
        try:
            info = json.loads((self.path / INFO).read_text(encoding="utf-8"))
            expected = list(_arrow_files(info))
        except OSError:
            return "it is not there" if not self.path.is_dir() else f"{INFO} is missing"
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{INFO} is damaged"
        files, note = self.files(), self.note()
        for name in expected:
            if name not in files:
                return f"{name} is missing"
        for name, size in ({} if note is None else note.files).items():
            if files.get(name) != size:
                return f"{name} has {files.get(name, 0)} bytes, expected {size}"
        return ""


def entries(root: Path) -> list[Entry]:
    """The entries of a cache, whole or not."""
    found = (os.path.dirname(path) for path in root.glob(f"{_LEVELS}/{INFO}"))
    return [Entry(root, os.path.relpath(path, root)) for path in sorted(found)]


def _arrow_files(info: Mapping[str, Any]) -> Iterator[str]:
    """The files that the splits of an entry need, by the names that ``datasets`` gives them."""
    for name, split in info["splits"].items():
        stem = f"{info['dataset_name']}-{name}"
        shards = split.get("shard_lengths") or [0]
        if len(shards) == 1:
            yield f"{stem}.arrow"
        else:
            yield from (f"{stem}-{n:05d}-of-{len(shards):05d}.arrow" for n in range(len(shards)))
