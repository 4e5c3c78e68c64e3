"""Files that are being written: staged where nobody looks, and put into their artifact on close."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from tieredstore.errors import TierUnavailable, writing_to
from tieredstore.filesystem.compressed import Compressed
from tieredstore.filesystem.naming import Spot
from tieredstore.manifest.artifact import random_hex
from tieredstore.mounted import alive, beneath
from tieredstore.mounted.changes import PutIn
from tieredstore.mounted.journal import measured
from tieredstore.mounted.mount import Root
from tieredstore.tiers.chain import Chain


class Stages:
    """Names for staged files in the first tier, with a sign of life for as long as any is open.

    Parameters
    ----------
    chain : Chain
        The tiers; files are staged in the first.
    """

    def __init__(self, chain: Chain) -> None:
        self._first = chain.first
        self._sign: alive.Sign | None = None

    def create(self) -> tuple[int, str]:
        """A new file in the area ``stage``, open for reading and writing, and its name.

        Raises
        ------
        TierUnavailable
            When the first tier cannot be written.
        """
        tier, mount = self._first.tier, self._first.backend.mount
        if not tier.writable:
            raise TierUnavailable(f"tier {tier.name!r} is read-only: nothing can be written")
        with writing_to(tier.name), beneath.opened(mount.area("stage")) as stage:
            key = f"write-{random_hex(8)}"
            self._sign = self._sign or alive.Sign(mount.area(alive.AREA), key)
            name = f"{self._sign.key}-{random_hex(8)}"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
            return beneath.open_file(stage, name, flags), name

    @property
    def mount(self) -> Root:
        """The first tier's root."""
        return self._first.backend.mount

    def drop(self, name: str) -> None:
        """Delete a staged file that is not put in."""
        with suppress(OSError), beneath.opened(self.mount.area("stage")) as stage:
            os.unlink(name, dir_fd=stage)


Commit = Callable[[Spot, list[PutIn]], None]


class Writing(io.BufferedRandom):
    """A staged file: `close` puts it in its place, `discard` drops it.

    Closed while an exception that was raised since it was opened is being handled, or never
    closed at all, it is dropped; `commit` puts it in whatever has happened.

    Parameters
    ----------
    fs : object
        The filesystem.
    spot : Spot
        Where the file goes.
    stages : Stages
        Where it is staged.
    commit : callable
        Puts it in.
    exclusive : bool
        Nothing may lie there when it is put in.
    autocommit : bool
        `close` puts it in; else a transaction does.

    Attributes
    ----------
    fs, path
        As files of fsspec have them.
    spot, stages
        See above.
    """

    def __init__(
        self,
        fs: object,
        spot: Spot,
        stages: Stages,
        commit: Commit,
        *,
        exclusive: bool = False,
        autocommit: bool = True,
    ) -> None:
        self._done = True  # until there is something to drop
        fd, self._name = stages.create()
        super().__init__(io.FileIO(fd, "r+"))
        self.fs = fs
        self.path = spot.path
        self.spot = spot
        self.autocommit = autocommit
        self.stages = stages
        self._commit = commit
        self._exclusive = exclusive
        self._handled = id(sys.exception())
        self._done = False

    def close(self) -> None:
        """Put it in its place, or leave that to the transaction."""
        if self._done:
            super().close()
        elif id(sys.exception()) not in {id(None), self._handled}:
            self.discard()
        elif self.autocommit:
            self.commit()
        else:
            self.flush()

    @property
    def dropped(self) -> bool:
        """Whether there is nothing to put in any more."""
        return self._done

    def commit(self) -> None:
        """Put it in its place."""
        if not self._done:
            try:
                self._commit(self.spot, [self.finished()])
            finally:
                self.discard()

    def finished(self, *, durable: bool = True) -> PutIn:
        """What is to be put in: all written, and measured.

        Parameters
        ----------
        durable : bool
            Flush it to the disk; else somebody flushes all files of a set at once.
        """
        self.flush()
        fd = self.fileno()
        if durable:
            os.fsync(fd)
        record = measured(fd, self.spot.file)
        return PutIn(record, self._name, os.fstat(fd).st_ino, self._exclusive)

    def discard(self) -> None:
        """Drop it: nothing is left, and what was there before stays."""
        if not self._done:
            self._done = True
            self.stages.drop(self._name)
        with suppress(OSError, ValueError):
            super().close()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close it, or drop it when the block has raised."""
        if kind is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        """Drop it: who wrote it never said that it is whole."""
        if not self._done:
            text = f"{self.path}: was never closed, so it is dropped"
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)
        self.discard()


class TextWriting(io.TextIOWrapper):
    """Text on its way to a staged file; an exception drops that too."""

    def __init__(self, file: Writing | Compressed, **options: Any) -> None:
        super().__init__(cast(Writing, file), **options)
        self._file = file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close it, or drop the file when the block has raised."""
        if kind is not None:
            self._file.discard()
        with suppress(*((ValueError,) if kind is not None else ())):
            self.close()

    def __del__(self) -> None:
        """Drop the file, where nobody has closed it."""
        if not self.closed:
            self._file.discard()
            with suppress(ValueError):
                self.close()
