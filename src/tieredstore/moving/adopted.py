"""A file without a manifest while it is moved: measured, gone on with, and followed.

Its blocks are noted as they arrive, so that a later attempt knows which to compare and keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final

from tieredstore.backend import FileReader, Staging
from tieredstore.manifest.records import BLOCK, Block, FileRecord, pack_block
from tieredstore.moving.fetching import Copies
from tieredstore.moving.following import Arrival, Follower, Following
from tieredstore.moving.runs import RUN, OpenFile
from tieredstore.pinned import BlockLog, Remembering

_AT_ONCE: Final = RUN  # bytes up to which a file is followed only when all of it has arrived


class Adopted(OpenFile):
    """A file of which size and version are known, and no blocks.

    Parameters
    ----------
    record : FileRecord
        Without blocks.
    number : int
        Which of its generation's files it is, in the order of their paths.
    log : BlockLog
        Where blocks that have arrived are noted.
    follow : sequence of Follower
        Each is given the file as a stream, while it arrives; what one raises is raised by the
        transfer, before the file counts as whole.
    """

    def __init__(
        self, record: FileRecord, number: int, log: BlockLog, follow: Sequence[Follower] = ()
    ) -> None:
        super().__init__(record)
        self._number = number
        self._log = log
        self._known = dict(log.known(number))
        self._found: dict[int, bytes] = {}
        self._follow = follow
        self._following: list[Following] = []
        self._arrival = Arrival(record.size)
        self._staging: Remembering | None = None

    def begin(self, staging: Staging) -> None:
        """See `OpenFile.begin`."""
        assert isinstance(staging, Remembering)
        self._staging = staging
        whole = self._as_noted()
        if whole is not None and staging.holds(whole):
            self.held = True
            self._found.update(self._known)
            self._arrival.add(0, self.record.size)
        else:
            if self._known:
                self.begun = staging.staged(self.record)
            self.write_to(staging)
        if self.record.size > _AT_ONCE:
            self._following = [Following(self._reader(), self._arrival, f) for f in self._follow]

    def _as_noted(self) -> FileRecord | None:
        """The record by what an earlier attempt has noted; ``None`` where blocks are missing."""
        blocks = list(_cut(self.record.size))
        if not blocks or any(b.offset not in self._known for b in blocks):
            return None
        return replace(self.record, table=_table(blocks, self._known))

    def _reader(self) -> FileReader:
        assert self._staging is not None
        return self._staging.reading(self.record)

    def pieces(self, run: list[Block]) -> Iterator[list[Block]]:
        """See `OpenFile.pieces`."""
        if self.begun is None:
            yield run
            return
        for _, piece in groupby(run, lambda block: block.offset in self._known):
            yield list(piece)

    def expected(self, blocks: list[Block]) -> list[Block] | None:
        """See `OpenFile.expected`."""
        if self.begun is None or any(b.offset not in self._known for b in blocks):
            return None
        return [replace(b, digest=self._known[b.offset]) for b in blocks]

    def fill(self, copies: Copies, blocks: list[Block], buffer: memoryview) -> bool:
        """See `OpenFile.fill`."""
        # What was noted need not be right: it says only what may be kept.
        unknown = [replace(b, digest=b"") for b in blocks]
        digests = copies.fetch(self.record, unknown, buffer)
        for block, digest in zip(blocks, digests, strict=True):
            self._found[block.offset] = digest
        return True

    def keep(self, blocks: list[Block]) -> None:
        """See `OpenFile.keep`."""
        self._found.update({b.offset: b.digest for b in blocks})
        self.here(blocks)

    def note(self, blocks: list[Block]) -> None:
        """See `OpenFile.note`."""
        self._log.add(self._number, [(b.offset, self._found[b.offset]) for b in blocks])

    def here(self, blocks: list[Block]) -> None:
        """See `OpenFile.here`."""
        self._arrival.add(blocks[0].offset, blocks[-1].offset + blocks[-1].length)
        for following in self._following:
            following.check()

    def whole(self) -> None:
        """See `OpenFile.whole`."""
        if not self._following:
            self._following = [Following(self._reader(), self._arrival, f) for f in self._follow]
        for following in self._following:
            following.finish()

    def end(self, error: BaseException | None) -> None:
        """See `OpenFile.end`."""
        if error is not None:
            self._arrival.fail(error)
            for following in self._following:
                following.let_go()

    def finished(self) -> FileRecord:
        """See `OpenFile.finished`."""
        return replace(self.record, table=_table(_cut(self.record.size), self._found))


def _cut(size: int) -> Iterator[Block]:
    for offset in range(0, size, BLOCK):
        yield Block(offset, min(BLOCK, size - offset), b"")


def _table(blocks: Iterable[Block], digests: Mapping[int, bytes]) -> bytes:
    return b"".join(pack_block(b.length, digests[b.offset]) for b in blocks)
