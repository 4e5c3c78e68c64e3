"""`TieredFileSystem`: what fsspec asks of a filesystem, over a `TieredStore`.

Here is only what fsspec calls, and how it is told apart; the work is in the modules beside it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from fsspec import AbstractFileSystem
from fsspec.compression import compr
from fsspec.core import get_compression
from fsspec.utils import stringify_path

from tieredstore.config import open_store
from tieredstore.errors import ArtifactNotFound, TieredStoreError
from tieredstore.filesystem.asking import Asking
from tieredstore.filesystem.changing import Changing, check_promote
from tieredstore.filesystem.compressed import Compressed
from tieredstore.filesystem.listing import Info, Listing
from tieredstore.filesystem.naming import Names, Spot
from tieredstore.filesystem.ranges import read_ranges
from tieredstore.filesystem.reading import NEVER, Reader, Reading, check_restore
from tieredstore.filesystem.transaction import TieredTransaction
from tieredstore.filesystem.writing import Stages, TextWriting, Writing
from tieredstore.store import TieredStore

_TEXT: Final = ("encoding", "errors", "newline")


class _Open:
    """A store that is open in this process, and what looks into it."""

    def __init__(self, store: TieredStore, options: Mapping[str, str]) -> None:
        self.store = store
        self.asking = Asking(store.chain)
        self.names = Names(self.asking, options["artifact"])
        self.listing = Listing(self.asking, self.names)
        self.reader = Reader(store, self.asking, options["restore"])
        self.changing = Changing(store, self.asking, self.names, options["promote"])
        self.stages = Stages(store.chain)


class TieredFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """``tiered://artifact/file``: files of a store, read and written through its tiers.

    Instances may be pickled and used after a fork: each process opens the store itself.

    Parameters
    ----------
    config : path or mapping, optional
        What `open_store` takes; by default what it finds.
    restore : str
        What is brought up when a file is read that the first tier lacks: the ``artifact``, the
        ``file``, or only the ``blocks`` that are read, which are verified and kept. With
        ``never`` blocks are read and verified, and nothing is kept.
    promote : str
        What becomes of changes in durable tiers: ``never`` anything, ``on-close`` they are
        promoted, ``queued`` a promote is queued, and done by `flush`.
    artifact : str
        The artifact that new files below it belong to. By default that is the first part of
        their path.
    **options
        As every filesystem of fsspec takes them.

    Raises
    ------
    ConfigError
        For another word, and what `open_store` refuses.
    """

    protocol: ClassVar[str] = "tiered"
    transaction_type = TieredTransaction

    def __init__(
        self,
        config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        restore: str = "file",
        promote: str = "never",
        artifact: str = "",
        **options: Any,
    ) -> None:
        super().__init__(**{**options, "use_listings_cache": False})
        self._config = config
        self._options = {
            "restore": check_restore(restore),
            "promote": check_promote(promote),
            "artifact": artifact,
        }
        self._here: tuple[object, _Open] | None = None

    # -- the store ------------------------------------------------------------------------------

    @property
    def _open_store(self) -> _Open:
        """The store, opened by this process, for where it works."""
        fixed = isinstance(self._config, Mapping)
        key = (os.getpid(), None if fixed else os.getcwd())
        if self._here is None or self._here[0] != key:
            self._here = key, _Open(open_store(self._config), self._options)
        return self._here[1]

    @property
    def store(self) -> TieredStore:
        """The store that is read and written."""
        return self._open_store.store

    @property
    def changing(self) -> Changing:
        """What puts files in, for transactions."""
        return self._open_store.changing

    @property
    def fsid(self) -> str:
        """The same for instances that show the same files."""
        return f"tiered-{self._fs_token}"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        text: str = stringify_path(path)
        for start in ("tiered://", "tiered::"):
            text = text.removeprefix(start)
        return text.strip("/")

    def _spot(self, path: str) -> Spot:
        return self._open_store.names.of(self._strip_protocol(path))

    # -- looking --------------------------------------------------------------------------------

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """What lies directly below a path, in any tier; one that hangs is left out."""
        found = self._open_store.listing.ls(self._strip_protocol(path))
        found.sort(key=lambda each: str(each["name"]))
        return found if detail else [each["name"] for each in found]

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **_: Any,
    ) -> Any:
        """All files below a path, and with ``withdirs`` folders and the path itself."""
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        found = self._open_store.listing.find(self._strip_protocol(path), maxdepth)
        chosen = {p: i for p, i in found.items() if withdirs or i["type"] == "file"}
        return chosen if detail else list(chosen)

    def info(self, path: str, **_: Any) -> Info:
        """What is known of a path: ``name``, ``size``, ``type``, and ``tiers`` that have it.

        Of files with a manifest also ``generation``, ``digest`` (of the block table), ``mtime``
        (seconds since 1970), ``mode``, and ``sha256`` where one is known.
        """
        return self._open_store.listing.info(self._strip_protocol(path))

    def _quick(self, path: str) -> Info:
        """Like `info`; where the first tier has it, no other tier is asked."""
        return self._open_store.listing.quick(self._strip_protocol(path))

    def exists(self, path: str, **_: Any) -> bool:
        """Whether there is a file or folder of that name."""
        try:
            self._quick(path)
        except (OSError, TieredStoreError):
            return False
        return True

    def isfile(self, path: str) -> bool:
        """Whether there is a file of that name."""
        return self._type(path) == "file"

    def isdir(self, path: str) -> bool:
        """Whether there is a folder of that name."""
        return self._type(path) == "directory"

    def _type(self, path: str) -> str:
        try:
            return str(self._quick(path)["type"])
        except (OSError, TieredStoreError):
            return ""

    def modified(self, path: str) -> Any:
        """When a file was last modified, with its time zone."""
        from datetime import UTC, datetime

        return datetime.fromtimestamp(self._quick(path)["mtime"], UTC)

    def ukey(self, path: str) -> str:
        """A text that changes whenever a file does."""
        info = self._quick(path)
        return str(info.get("digest") or f"{info['size']}-{info.get('mtime')}")

    def checksum(self, path: str) -> int:
        """A number that changes whenever a file does."""
        import hashlib

        return int(hashlib.sha256(self.ukey(path).encode()).hexdigest(), 16)

    # -- reading and writing --------------------------------------------------------------------

    def open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        cache_options: Mapping[str, Any] | None = None,
        compression: str | None = None,
        **options: Any,
    ) -> Any:
        """Open a file, see `AbstractFileSystem.open`; nothing of it is cached in memory.

        An exception, and `discard`, drop what was written; so does a file that is never closed.
        """
        if "b" not in mode:
            text = {key: options.pop(key) for key in _TEXT if key in options}
            binary = self.open(
                path, f"{mode.replace('t', '')}b", block_size, cache_options, compression, **options
            )
            return (io.TextIOWrapper if "r" in mode else TextWriting)(binary, **text)
        kind = get_compression(path, compression) if compression else None
        found = super().open(path, mode, **options)
        if kind is None:
            return found
        return Compressed(compr[kind](found, mode=mode[0]), found)

    def _open(
        self, path: str, mode: str = "rb", *, autocommit: bool = True, **_: Any
    ) -> Reading | Writing:
        spot = self._spot(path)
        if not spot.path:
            raise IsADirectoryError(path)
        if mode == "rb":
            raw = self._open_store.reader.open(spot)
            size = raw.seek(0, io.SEEK_END)
            raw.seek(0)
            return Reading(self, spot.path, raw, size)
        if mode not in {"wb", "xb", "ab", "r+b", "w+b", "x+b", "a+b"}:
            raise ValueError(f"{path}: mode {mode!r} is none that files here are opened with")
        self._check_writable(spot, exclusive="x" in mode)
        opened = self._open_store
        file = Writing(
            self,
            spot,
            opened.stages,
            opened.changing.put,
            exclusive="x" in mode,
            autocommit=autocommit,
        )
        if mode[0] in "ar":
            self._begin_with(file, spot, append=mode[0] == "a")
        return file

    def _begin_with(self, file: Writing, spot: Spot, *, append: bool) -> None:
        """Begin with what lies there; to append, it need not be there."""
        import shutil

        try:
            with self._open(spot.path, "rb") as before:
                shutil.copyfileobj(before, file, 1 << 20)
        except FileNotFoundError:
            if not append:
                file.discard()
                raise
        except BaseException:
            file.discard()
            raise
        if not append:
            file.seek(0)

    def _check_writable(self, spot: Spot, *, exclusive: bool) -> None:
        from tieredstore.manifest.names import check_file, check_name

        check_name(spot.name)
        if spot.known and not spot.single and not spot.file:
            raise IsADirectoryError(spot.path)
        check_file(spot.file)
        if exclusive and self.exists(spot.path):
            raise FileExistsError(spot.path)
        if not exclusive and spot.known and self.isdir(spot.path):
            raise IsADirectoryError(spot.path)

    def cat_ranges(
        self,
        paths: Sequence[str],
        starts: int | Iterable[int | None],
        ends: int | Iterable[int | None],
        max_gap: int | None = None,
        on_error: str = "return",
        **_: Any,
    ) -> list[Any]:
        """Bytes of ranges of files; each file is opened once, several are read at a time."""
        del max_gap
        found = read_ranges(self.open, paths, starts, ends)
        failed = [each for each in found if isinstance(each, Exception)]
        if failed and on_error == "raise":
            raise failed[0]
        return found

    # -- changing -------------------------------------------------------------------------------

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Nothing: folders are there as long as there are files in them."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Nothing, see `mkdir`."""

    def rmdir(self, path: str) -> None:
        """Nothing, see `mkdir`."""

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copy one file; of a folder there is nothing to copy."""
        import shutil

        if self.isdir(path1):
            return
        with self.open(path1, "rb") as source, self.open(path2, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)

    def rm_file(self, path: str) -> None:
        """Remove one file from every tier: its artifact is a new generation without it."""
        self.rm(path)

    def _rm(self, path: str) -> None:
        self.rm(path)

    def rm(
        self,
        path: str | Sequence[str],
        recursive: bool = False,
        maxdepth: int | None = None,
    ) -> None:
        """Remove files, and with ``recursive`` folders and whole artifacts, from every tier.

        Raises
        ------
        FileNotFoundError
            When there is nothing of that name.
        IsADirectoryError
            When it is a folder, and ``recursive`` was not said.
        """
        files: dict[str, list[str]] = {}
        for each in self.expand_path(path):
            found = {each: self._quick(each)}
            if found[each]["type"] == "directory":
                if not recursive:
                    raise IsADirectoryError(each)
                found = self.find(each, maxdepth=maxdepth, detail=True)
            for file in found:
                spot = self._spot(file)
                files.setdefault(spot.name, []).append(spot.file)
        for name, gone in files.items():
            self._take_out(name, gone)

    def _take_out(self, name: str, gone: list[str]) -> None:
        changing, listing = self._open_store.changing, self._open_store.listing
        contents = listing.contents(name)
        if contents is None or contents.tree.files.keys() <= set(gone):
            changing.remove(name)
        else:
            changing.take_out(name, gone)

    def flush(self) -> None:
        """Write the records of what was changed anew, and promote what waits.

        Raises
        ------
        TierUnavailable
            When something goes on waiting.
        """
        self._open_store.changing.flush()

    # -- the first tier -------------------------------------------------------------------------

    def local_path(self, path: str) -> Path:
        """The path of a file or folder in the first tier, restored where it is missing there.

        Raises
        ------
        ArtifactNotFound
            When no tier can serve it, or ``restore`` is ``never`` and the first tier lacks it.
        """
        spot = self._spot(path)
        opened = self._open_store
        files = None if spot.single or not spot.file else [spot.file]
        if files and self.isdir(path):
            files = [self._spot(each).file for each in self.find(path)]
        if self._options["restore"] == NEVER and opened.reader.lacks(spot.name, files):
            raise ArtifactNotFound(f"{path}: is not in the first tier, and restore is 'never'")
        with opened.store.restore(spot.name, files) as got:
            return got.path if spot.single or not spot.file else got.path / spot.file
