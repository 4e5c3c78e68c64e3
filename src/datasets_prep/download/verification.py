"""Whether a folder is what a specification says: files, records, and the images that they name."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from datasets_prep.download.opening import open_images
from datasets_prep.download.specification import Images, Lines, Spec, names_of, read_spec
from datasets_prep.errors import reason

__all__ = ["Report", "Spec", "read_spec", "verify"]

Progress = Callable[[int, int], None]

_STORE: Final = ".tieredstore"  # begins the names of what the store keeps beside the files
_LONGEST: Final = 64 << 20  # bytes of one record
_SHOWN: Final = 20  # problems of one kind
_OFTEN: Final = 0.1  # seconds between two words on how far it is
_LOOK: Final = 256  # records between two looks at the clock


@dataclass(slots=True)
class Report:
    """What was found.

    Attributes
    ----------
    lines : list of str
        A line for each finding, good or bad, and one for the whole at the end.
    problems : int
        How many of them are bad; of one kind only some have a line.
    """

    lines: list[str] = field(default_factory=list)
    problems: int = 0

    @property
    def ok(self) -> bool:
        """Whether all is as it should be."""
        return not self.problems


class _Findings:
    """Problems of one kind, of which some are shown."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.count = 0

    def add(self, text: str) -> None:
        self.count += 1
        if self.count <= _SHOWN:
            self._report.lines.append(f"✗ {_one_line(text)}")

    def end(self, good: str) -> None:
        """Sum up: the line that is shown where there was no problem."""
        if self.count > _SHOWN:
            self._report.lines.append(f"✗ … and {self.count - _SHOWN} more of these")
        if not self.count and good:
            self._report.lines.append(f"✓ {good}")
        self._report.problems += self.count


def verify(
    folder: str | os.PathLike[str],
    spec: Spec,
    progress: Progress | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Report:
    """Compare a folder with a specification.

    Parameters
    ----------
    folder : path
        A dataset: the stage of one that is being made, or one that is there.
    spec : Spec
        What it has to be.
    progress : callable, optional
        Told now and then how many records have been read, of how many; 0 where nobody knows.
    sizes : mapping, optional
        All its files and their bytes, where they are known; by default they are looked at.

    Returns
    -------
    Report
        Problems do not end the comparison: all of them are found at once.
    """
    return _Verification(Path(folder), spec, progress or _silent, sizes).run()


def _silent(done: int, total: int) -> None:
    del done, total


class _Verification:
    """One comparison."""

    def __init__(
        self, folder: Path, spec: Spec, progress: Progress, sizes: Mapping[str, int] | None
    ) -> None:
        self._folder = folder
        self._spec = spec
        self._progress = progress
        self._report = Report()
        self._sizes = dict(_files(folder)) if sizes is None else sizes
        self._told = 0.0

    def run(self) -> Report:
        report = self._report
        self._required()
        for lines in self._spec.jsonl:
            if lines.file in self._sizes:
                self._records(lines)
            elif lines.file not in self._spec.files:
                self._finding(f"{lines.file}: is missing")
        if self._spec.images is not None:
            self._images(self._spec.images)
        for check in self._spec.checks:
            found = _Findings(report)
            for problem in check(self._folder):
                found.add(problem)
            found.end("")
        if report.ok:
            report.lines.append("✓ Dataset verification passed!")
        else:
            many = "1 problem" if report.problems == 1 else f"{report.problems} problems"
            report.lines.append(f"✗ Dataset verification failed: {many}")
        return report

    def _finding(self, text: str) -> None:
        found = _Findings(self._report)
        found.add(text)
        found.end("")

    def _required(self) -> None:
        found = _Findings(self._report)
        for file in self._spec.files:
            if file not in self._sizes:
                found.add(f"{file}: is missing")
            elif not self._sizes[file]:
                found.add(f"{file}: is empty")
        for folder in self._spec.folders:
            if not os.path.isdir(self._folder / folder):
                found.add(f"{folder}/: is missing")
        found.end("")

    # -- records --------------------------------------------------------------------------------

    def _records(self, lines: Lines) -> None:
        found, count = _Findings(self._report), 0
        fields = [names_of(each) for each in lines.fields]
        image = names_of(lines.image) if lines.image else ()
        for number, line in _lines(self._folder / lines.file):
            count = number
            problem = self._problem(line, fields, image)
            if problem:
                found.add(f"{lines.file}:{number}: {problem}")
            if number % _LOOK == 0:
                self._tell(number, lines.records or 0)
        self._progress(count, lines.records or count)
        if lines.records is not None and count != lines.records:
            found.add(f"{lines.file}: {count} records, expected {lines.records}")
        elif not count:
            found.add(f"{lines.file}: no records, expected at least one")
        found.end(f"Found {count} records in {lines.file}")

    def _problem(self, line: bytes, fields: list[tuple[str, ...]], image: tuple[str, ...]) -> str:
        """What is wrong with one record."""
        if len(line) > _LONGEST:
            return f"longer than {_LONGEST} bytes"
        try:
            record: Any = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            return f"no valid JSON: {reason(error)}" if line.strip() else "an empty line"
        if not isinstance(record, dict):
            return f"{type(record).__name__}, expected a JSON object"
        for names in fields:
            if _first(record, names) in _EMPTY:
                return f"has no {' or '.join(repr(name) for name in names)}"
        return self._image_problem(record, image) if image else ""

    def _image_problem(self, record: dict[str, Any], names: tuple[str, ...]) -> str:
        named = _first(record, names)
        if named in _EMPTY:
            return f"has no {' or '.join(repr(name) for name in names)}"
        if not isinstance(named, str):
            return f"its image is {type(named).__name__}, expected a path"
        if named in self._sizes:
            return ""
        below = "" if self._spec.images is None else f"{self._spec.images.folder}/"
        if f"{below}{named}" in self._sizes:
            return ""
        plain = os.path.normpath(named)
        if plain in self._sizes or f"{below}{plain}" in self._sizes:
            return ""
        return f"its image {named!r} is not there"

    # -- images ---------------------------------------------------------------------------------

    def _images(self, images: Images) -> None:
        below = f"{images.folder}/"
        paths = [
            path
            for path in self._sizes
            if path.startswith(below) and path.lower().endswith(images.suffixes)
        ]
        found = _Findings(self._report)
        if images.count is not None and len(paths) != images.count:
            found.add(f"{below}: {len(paths)} images, expected {images.count}")
        elif not paths:
            found.add(f"{below}: no images, expected at least one")
        for path in paths:
            if not self._sizes[path]:
                found.add(f"{path}: is empty")
        found.end(f"Found {len(paths)} images")
        if images.open and paths:
            self._open(paths)

    def _open(self, paths: list[str]) -> None:
        found = _Findings(self._report)
        try:
            for done, problem in enumerate(open_images(self._folder, paths), 1):
                if problem:
                    found.add(problem)
                self._tell(done, len(paths))
        except ImportError:
            self._report.lines.append("! Images were not opened: Pillow is not installed")
            return
        found.end(f"Opened {len(paths)} images")

    def _tell(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told >= _OFTEN:
            self._told = now
            self._progress(done, total)


_EMPTY: Final = (None, "")


def _first(record: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The value of the first of some fields that is not empty."""
    for name in names:
        value = record.get(name)
        if value not in _EMPTY:
            return value
    return None


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    """Every file below a folder with its size; links are none."""
    queue = [""]
    while queue:
        below = queue.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                if entry.name.startswith(_STORE):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    queue.append(f"{below}{entry.name}/")
                elif entry.is_file(follow_symlinks=False):
                    found = entry.stat(follow_symlinks=False)
                    yield below + entry.name, found.st_size


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1; of one that is too long only the beginning."""
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(_LONGEST + 1):
            number += 1
            yield number, line
            while len(line) > _LONGEST and not line.endswith(b"\n"):
                line = file.readline(_LONGEST + 1)


def _one_line(text: str) -> str:
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return plain if len(plain) <= 300 else f"{plain[:300]}…"  # noqa: PLR2004 - a line is one line
