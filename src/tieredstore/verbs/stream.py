"""One file read from start to end, each block verified before it is handed on."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import BinaryIO, cast

from tieredstore.backend import FileSource
from tieredstore.errors import CorruptData, NoSuchFile, TieredStoreError, reason
from tieredstore.manifest.artifact import Head
from tieredstore.manifest.records import Block, FileRecord, block_digest
from tieredstore.moving.fetching import Copy, shown
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import PARTIAL, WHOLE, Located
from tieredstore.workers import patience, within


class VerifiedStream(io.RawIOBase):
    """Ordered bytes of one file from the first copy that gives them right."""

    def __init__(self, chain: Chain, copies: list[Copy], record: FileRecord) -> None:
        self._chain = chain
        self._copies = copies
        self._record = record
        self._blocks: Iterator[Block] = record.blocks()
        self._rest = memoryview(b"")
        self._sources: dict[str, FileSource] = {}

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: object) -> int:
        """Hand on verified bytes, at most to the end of the current block."""
        view = memoryview(cast(bytearray, buffer)).cast("B")
        if not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(self._fetch(block))
        size = min(len(view), len(self._rest))
        view[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        """Let go of the copies."""
        for source in self._sources.values():
            with suppress(OSError):
                source.close()
        super().close()

    def _fetch(self, block: Block) -> bytes:
        problems = []
        while self._copies:
            copy = self._copies[0]
            read = partial(self._read, copy, block)
            for _ in range(2):
                try:
                    seconds = patience(copy.deadline, block.length)
                    return within(seconds, read, f"tier {copy.tier!r}")
                except CorruptData as error:
                    problem = str(error)
                except (OSError, TieredStoreError) as error:
                    problem = reason(error)
                    break
            problems.append(problem)
            self._chain.reporter.skipped(copy.tier, problem)
            del self._copies[0]
        raise CorruptData(f"{self._record.path}: no copy is left ({'; '.join(problems)})")

    def _read(self, copy: Copy, block: Block) -> bytes:
        source = self._sources.get(copy.tier)
        if source is None:
            source = self._sources[copy.tier] = copy.source()
        data = bytearray(block.length)
        with source.open(self._record.path) as reader:
            got = reader.readinto(block.offset, memoryview(data))
        if got != block.length or block_digest(data) != block.digest:
            raise CorruptData(
                f"{shown(copy, source, self._record.path)}: byte {block.offset} on "
                "differs from the manifest"
            )
        return bytes(data)


def open_verified(chain: Chain, name: str, file: str) -> BinaryIO:
    """See `TieredStore.open_stream`."""
    located = chain.locate(name)
    usable = [w for w in located if w.state in {WHOLE, PARTIAL}]
    why: dict[str, str] = {}
    for where in usable:
        assert where.head is not None
        try:
            records = where.records()
        except (OSError, TieredStoreError) as error:
            why[where.tier.name] = reason(error)
            chain.reporter.skipped(where.tier.name, reason(error))
            continue
        record = records.files.get(file)
        if record is None:
            raise NoSuchFile(f"{name}: no file {file!r} in this generation")
        copies = [w.copy(records) for w in usable if _same(w, where.head) and _holds(w, file)]
        if not copies:
            why[where.tier.name] = f"only some files are there, not {file}"
            continue
        raw = VerifiedStream(chain, copies, record)
        return cast(BinaryIO, io.BufferedReader(raw, 1 << 20))
    raise chain.not_found(name, located, why)


def _holds(where: Located, file: str) -> bool:
    with suppress(OSError, TieredStoreError):
        return file in where.holding([file])
    return False


def _same(where: Located, head: Head) -> bool:
    return where.head is not None and where.head.generation == head.generation
