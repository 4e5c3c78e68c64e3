"""How artifacts on a mounted file system are published, replaced, completed and taken away.

Nothing here depends on a lock: an interrupted publication is completed by whoever comes next.
What a root is, and how it is read, is in mount.py; publication file by file in inplace.py;
manifests for files that lie in their place already in filled.py.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import replace
from typing import Final

from tieredstore.errors import HeadConflict, ManifestError, TieredStoreError
from tieredstore.manifest.artifact import HEAD, MAX_HEAD, RECORDS, Head, digest128, random_hex
from tieredstore.manifest.names import RESERVED, parents
from tieredstore.manifest.records import Records
from tieredstore.mounted import beneath
from tieredstore.mounted.alive import clock, temporary
from tieredstore.mounted.inplace import (
    finish_filling,
    lay_mark,
    remove_forward,
    roll_forward,
)
from tieredstore.mounted.journal import sum_up
from tieredstore.mounted.marks import (
    SUMMING,
    WRITING,
    Held,
    Marks,
    Pending,
    pending_entries,
    read_mark,
)
from tieredstore.mounted.mount import ATTEMPTS, Root
from tieredstore.mounted.staged import AREA, Staged, has, move_in

GRACE: Final = 3600.0  # seconds that an old generation stays for those who still read it


class Mount(Root):
    """A root that artifacts are published to."""

    def publish(self, staged: Staged, folder: str, head: Head, records: Records) -> None:
        """Make what is staged the artifact at ``folder``: whole, or not at all.

        The staged files have been verified. Head and records are written beside them, the file
        system is flushed once, and the folder takes its place in one step; a folder that holds
        anything its manifest does not name gets its files one by one under a pending mark.

        Raises
        ------
        HeadConflict
            When others kept replacing the artifact at the same time.
        """
        if staged.write_manifest(replace(head, data=""), records):
            for _ in range(ATTEMPTS):
                self.complete(folder)
                if not staged.exists():
                    break
                if self._place(staged, folder, head, records):
                    self._sync_folder(folder)
                    staged.tidy()
                    return
        held = self.hold(folder)
        if held is None or held.head.generation != head.generation:
            raise HeadConflict(
                f"{self.path}/{folder}: others kept replacing it, or what was staged was collected "
                f"while this process stood still; run it again"
            )
        held.close()

    def mend(self, staged: Staged, folder: str, head: Head, records: Records) -> None:
        """Put what is staged in the stead of damaged files of the same generation.

        Each file takes its place at once; where head or records are damaged, all of it under the
        pending mark. Nothing of another generation is replaced.

        Raises
        ------
        HeadConflict
            When another generation is there, or somebody else has put the same files in.
        """
        self.complete(folder)
        placed = False
        if staged.write_manifest(replace(head, data=""), records):
            with suppress(FileNotFoundError), beneath.opened(self.root()) as root:
                marks = Marks.of(folder, head.kind)
                with beneath.opened(beneath.open_folder(root, marks.folder)) as fd:
                    placed = self._mend(staged, fd, marks, head, records)
        if not placed:
            raise HeadConflict(f"{self.path}/{folder}: was changed while it was being mended")
        staged.tidy()

    def _mend(self, staged: Staged, fd: int, marks: Marks, head: Head, records: Records) -> bool:
        if not beneath.exists(fd, marks.head):
            return False
        held = self.believable(fd, marks)
        if held is None:  # a head that cannot be read, or a publication that is under way
            return self._place_one_by_one(staged, fd, marks)
        if held.head.generation != head.generation:
            return False
        try:
            self.records_of(held)
        except (FileNotFoundError, TieredStoreError):
            return self._place_one_by_one(staged, fd, marks)
        finally:
            held.close()
        return self._add_files(staged, fd, marks, records)

    def _place(self, staged: Staged, folder: str, head: Head, records: Records) -> bool:
        marks = Marks.of(folder, head.kind)
        with beneath.opened(self.root()) as root:
            os.close(self.make_below(root, beneath.split(folder)[0]))
            try:
                fd = beneath.open_folder(root, marks.folder)
            except FileNotFoundError:
                return self.place_new(root, staged, folder)
            with beneath.opened(fd):
                held = self.believable(fd, marks)
                same = held is not None and held.head.generation == head.generation
                if head.kind == "folder" and not same and self._holds_nothing_else(fd, held):
                    return self._replace(root, staged, folder, held)
                if same:
                    return self._add_files(staged, fd, marks, records)
                return self._place_one_by_one(staged, fd, marks)

    def _holds_nothing_else(self, fd: int, held: Held | None) -> bool:
        """Whether a folder holds only what the manifest names, so that it may go as a whole."""
        named: frozenset[str] = frozenset()
        own = Marks("").own()
        if held is not None:
            with suppress(TieredStoreError, FileNotFoundError):
                named = frozenset(self.records_of(held).files)
        for path, entry in beneath.walk(fd):
            if path not in named and path not in own:
                return False
            if not entry.is_file(follow_symlinks=False):
                return False
        return not pending_entries(fd, Marks(""))

    def _replace(self, root: int, staged: Staged, folder: str, held: Held | None) -> bool:
        old = f"{AREA}/old/{held.head.generation if held else 'empty'}-{random_hex(4)}"
        os.close(self.area("old"))
        # Under a name of its own meanwhile: what an exchange brings out must never be taken for
        # files of the generation that is staged.
        going = staged.going()
        try:
            beneath.rename(root, staged.path, root, going)
            exchanged = beneath.exchange(root, going, folder)
        except FileNotFoundError:
            staged.recover(self.area("old"))
            return False  # somebody else was here; look again
        if not exchanged:
            staged.recover(self.area("old"))
            return self._move_aside(root, staged, folder, old)
        with suppress(FileNotFoundError):
            beneath.rename(root, going, root, old)
        return True

    def _move_aside(self, root: int, staged: Staged, folder: str, old: str) -> bool:
        """Replace in two steps, with a note that lets a reader do the second one."""
        note = f"{digest128(folder.encode())}-{random_hex(4)}"
        with beneath.opened(self.area("swap")) as swap:
            with suppress(FileNotFoundError), beneath.opened(staged.open("")) as home:
                os.fsync(home)  # the note names what lies in it
            body = json.dumps({"folder": folder, "staged": staged.path}).encode()
            written = temporary(f".{note}.")
            beneath.write_small(swap, written, body)
            with beneath.opened(beneath.open_file(swap, written)) as file:
                os.fsync(file)  # or power may be lost with the old folder aside and no note
            os.rename(written, note, src_dir_fd=swap, dst_dir_fd=swap)
            os.fsync(swap)
            with suppress(FileNotFoundError):
                beneath.rename(root, folder, root, old)
            placed = self.place_new(root, staged, folder) or not staged.exists()
            with suppress(FileNotFoundError):
                os.unlink(note, dir_fd=swap)
        return placed

    def _place_one_by_one(self, staged: Staged, fd: int, marks: Marks) -> bool:
        """Put the staged files in beside what lies there already, under a pending mark."""
        mark = Pending("publishing", staged.generation, staged.area)
        with beneath.opened(self.area("stage")) as area:
            if not lay_mark(area, fd, marks, mark):
                return False  # another publication is under way: complete it first
        return roll_forward(staged, fd, marks, self.retire_file)

    def retire_file(self, fd: int, path: str) -> None:
        """Take a file below ``fd`` out of sight; it is kept for the grace period."""
        name = f"{random_hex(8)}-{beneath.split(path)[1].lstrip('.')[:200]}"
        with beneath.opened(self.area("old")) as old, suppress(FileNotFoundError):
            beneath.rename(fd, path, old, name)

    def _add_files(self, staged: Staged, fd: int, marks: Marks, records: Records) -> bool:
        """More files of the generation that is there already; each appears whole."""
        with suppress(FileNotFoundError), beneath.opened(staged.open()) as source:
            for path in [p for p, _ in beneath.walk(source, RESERVED) if p in records.files]:
                move_in(source, path, fd, path)
            if not beneath.exists(fd, marks.records):  # purged
                move_in(source, RECORDS, fd, marks.records)
            beneath.syncfs(fd)
            if all(has(fd, f) for f in records.files.values()):
                with suppress(FileNotFoundError):
                    os.unlink(marks.partial, dir_fd=fd)
        return True

    def drop(self, staged: Staged, folder: str) -> None:
        """Delete what was staged for ``folder``.

        A publication that was stopped half-way is brought to its end before: what it replaces may
        be gone already. Where that cannot be done now, the stage stays for whoever comes by.
        """
        with suppress(OSError, TieredStoreError):
            self.complete(folder)
        if not (staged.exists() and self._awaited(staged, folder)):
            staged.delete()

    def _awaited(self, staged: Staged, folder: str) -> bool:
        """Whether a publication of what is staged has begun: a mark or a note says so."""
        mark = self.pending(folder)
        if mark is not None and mark.generation == staged.generation:
            return True
        own = self._notes_of(staged, folder)
        held = self.hold(folder) if own else None
        if held is None:
            return bool(own)
        held.close()  # the old one is in its place yet: nothing has begun, and nothing will
        for note in own:
            with suppress(FileNotFoundError):
                os.unlink(self.area_path("swap", note))
        return False

    def _notes_of(self, staged: Staged, folder: str) -> list[str]:
        named = json.dumps(staged.path).encode()
        with beneath.opened(self.root()) as root:
            notes = {n: f"{AREA}/swap/{n}" for n in self.swap_notes(folder)}
            return [n for n, path in notes.items() if named in _read(root, path)]

    def complete(self, folder: str) -> None:
        """Bring an interrupted publication of ``folder`` to its end, if there is one."""
        with suppress(FileNotFoundError), beneath.opened(self.root()) as root:
            for kind in ("folder", "file"):
                marks = Marks.of(folder, kind)
                with suppress(FileNotFoundError):
                    with beneath.opened(beneath.open_folder(root, marks.folder)) as fd:
                        mark = read_mark(fd, marks)
                        if mark is not None:
                            self._complete_mark(fd, marks, mark)
        if self.swap_notes(folder):
            with suppress(ManifestError):
                held = self.hold(folder)  # helps
                if held is not None:
                    held.close()

    def _complete_mark(self, fd: int, marks: Marks, mark: Pending) -> None:
        if mark.kind == "publishing":
            staged = Staged(self.path, mark.area, mark.generation)
            roll_forward(staged, fd, marks, self.retire_file)
        elif mark.kind == "removing":
            self._remove_forward(fd, marks, mark)
        elif mark.kind in {WRITING, SUMMING}:
            sum_up(self, fd, marks, mark, self.retire_file)
        else:
            finish_filling(fd, marks, mark)

    def _sync_folder(self, folder: str) -> None:
        """Flush the names on the way to ``folder``: each of them may have been made just now."""
        with suppress(FileNotFoundError), beneath.opened(self.root()) as root:
            for above in ("", *parents(folder)):
                with beneath.opened(beneath.open_folder(root, above)) as fd:
                    os.fsync(fd)

    # -- taking away ----------------------------------------------------------------------------

    def retire(self, folder: str, generation: str, area: str = "old") -> str | None:
        """Take a generation out of sight.

        Parameters
        ----------
        folder, generation : str
            What to take away; another generation is left alone.
        area : str
            ``old``, or ``damaged`` to keep it until somebody removes it.

        Returns
        -------
        str or None
            Where it is kept, relative to the root; ``None`` when it was not there any more.
        """
        self.complete(folder)
        for note in self.swap_notes(folder):  # or a reader would bring it back
            with suppress(FileNotFoundError):
                os.unlink(self.area_path("swap", note))
        held = self.hold(folder)
        if held is None or held.head.generation != generation:
            return None
        place = f"{AREA}/{area}/{generation}-{random_hex(4)}"
        os.close(self.area(area))
        with beneath.opened(self.root()) as root:
            if held.head.kind == "folder" and self._holds_nothing_else(held.fd, held):
                beneath.rename(root, folder, root, place)
                if not self._took(root, place, generation):
                    with suppress(OSError):  # published just then: put it back
                        beneath.rename(root, place, root, folder)
                    return None
                self._sync_folder(folder)
                return place
        mark = Pending("removing", generation, area)
        with beneath.opened(self.area("stage")) as own:
            if not lay_mark(own, held.fd, held.marks, mark):
                return None  # being replaced
        return self._remove_forward(held.fd, held.marks, mark)

    def _took(self, root: int, place: str, generation: str) -> bool:
        with suppress(FileNotFoundError, TieredStoreError):
            data = beneath.read_small(root, f"{place}/{HEAD}", MAX_HEAD)
            return Head.parse(data, place).generation == generation
        return False

    def _remove_forward(self, fd: int, marks: Marks, mark: Pending) -> str:
        place = f"{AREA}/{mark.area}/{mark.generation}-{random_hex(4)}"
        os.close(self.area(mark.area))
        with beneath.opened(self.root()) as root:
            with beneath.opened(self.make_below(root, place)) as target:
                remove_forward(fd, marks, mark, target)
        return place

    def delete(self, place: str) -> None:
        """Delete something that `retire` put away."""
        with beneath.opened(self.root()) as root:
            beneath.delete_tree(root, place)

    def sweep_old(self, grace: float = GRACE) -> None:
        """Delete what was put away longer ago than ``grace`` seconds, by the place's clock."""
        with suppress(OSError):
            names = os.listdir(self.area_path("old"))
            now = self._clock() if names else 0.0
            for name in names:
                path = self.area_path("old", name)
                with suppress(OSError):
                    if now - os.lstat(path).st_ctime <= grace:
                        continue
                    if os.path.isdir(path) and not os.path.islink(path):
                        import shutil

                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        os.unlink(path)

    def _clock(self) -> float:
        with beneath.opened(self.root()) as root:
            with beneath.opened(beneath.open_folder(root, AREA)) as area:
                return clock(area)


def _read(root: int, path: str) -> bytes:
    with suppress(FileNotFoundError):
        return beneath.read_small(root, path, MAX_HEAD)
    return b""
