"""Names of artifacts and files, and where a tier keeps what by which name. No input or output.

What comes from outside is checked here first: nothing that escapes, nests or clashes goes further.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tieredstore.errors import InvalidName

MAX_NAME: Final = (
    512  # bytes; an S3 key may have 1024, of which a generation and a file take the rest
)
MAX_FILE: Final = 768  # bytes of one file's path inside an artifact
MAX_PART: Final = 255  # bytes of one path part: the limit of every common file system
RESERVED: Final = ".tieredstore"
_REFUSED: Final = re.compile(r"[\x00-\x1f\x7f\\]")
# Most names are of this form; it allows nothing that the longer way would refuse.
_ORDINARY: Final = re.compile(
    r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}(?:/[A-Za-z0-9_-][A-Za-z0-9._-]{0,254})*"
)
_NESTED: Final = "{name}/{name}"


def check_path(path: str, *, what: str, limit: int) -> str:
    """Return ``path`` if it is a plain relative POSIX path, else raise.

    Parameters
    ----------
    path : str
        The name to check.
    what : str
        How the error calls it, such as ``"artifact name"``.
    limit : int
        Longest allowed length in UTF-8 bytes.

    Raises
    ------
    InvalidName
        For an empty, absolute, overlong or escaping path, backslashes, control characters, text
        that is not valid Unicode, and the store's own names.
    """
    if not isinstance(path, str) or not path:
        raise InvalidName(f"{what} {path!r}: expected a relative path such as 'shakespeare'")
    if len(path) <= limit and _ORDINARY.fullmatch(path):
        return path
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise InvalidName(f"{what} {path!r}: not valid Unicode") from None
    if size > limit:
        raise InvalidName(f"{what} {path[:60]!r}…: {size} bytes, at most {limit} are allowed")
    if _REFUSED.search(path):
        raise InvalidName(f"{what} {path!r}: backslashes and control characters are not allowed")
    for part in path.split("/"):
        _check_part(part, path, what)
    return path


def _check_part(part: str, path: str, what: str) -> None:
    if part in {"", ".", ".."}:
        raise InvalidName(f"{what} {path!r}: absolute paths, '.', '..' and empty parts are refused")
    if len(part.encode()) > MAX_PART:
        raise InvalidName(f"{what} {path!r}: a part is longer than {MAX_PART} bytes")
    if part.casefold().startswith(RESERVED):
        raise InvalidName(
            f"{what} {path!r}: names that begin with {RESERVED!r} are the store's own"
        )


def check_name(name: str) -> str:
    """Return an artifact's name if it is valid, else raise `InvalidName`."""
    return check_path(name, what="artifact name", limit=MAX_NAME)


def check_file(path: str) -> str:
    """Return a file's path inside an artifact if it is valid, else raise `InvalidName`."""
    return check_path(path, what="file name", limit=MAX_FILE)


def check_files(paths: Iterable[str]) -> None:
    """Refuse a set of files in which one is listed twice or is also the folder of another."""
    check_distinct([check_file(path) for path in paths])


def check_distinct(paths: Sequence[str]) -> None:
    """Like `check_files`, for names that are known to be valid each by itself."""
    seen: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        if path in seen:
            raise InvalidName(f"file name {path!r}: listed twice")
        seen.add(path)
        if path.rpartition("/")[0] not in folders:
            folders.update(parents(path))
    for path in sorted(seen & folders):
        raise InvalidName(f"file name {path!r}: named both as a file and as a folder")


def check_case_clashes(paths: Iterable[str], place: str) -> None:
    """Refuse files whose names differ only in case, for a place that cannot tell them apart."""
    seen: dict[str, str] = {}
    for path in paths:
        for each in (*parents(path), path):
            other = seen.setdefault(each.casefold(), each)
            if other != each:
                raise InvalidName(
                    f"file names {other!r} and {each!r} differ only in case, "
                    f"which {place} does not keep apart"
                )


def parents(path: str) -> list[str]:
    """The folders above a relative path, outermost first: ``a/b/c`` gives ``a`` and ``a/b``."""
    return [path[:i] for i, c in enumerate(path) if c == "/"]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where an artifact lies below a tier's root.

    Attributes
    ----------
    write : str
        Template of the folder that is read first and written, such as ``{name}`` or
        ``data/{name}``. ``{name}/{name}`` holds for names of one part; names of several parts lie
        at ``{name}`` there, as training repos keep them.
    also_read : tuple of str
        Templates of older places: read when the first has nothing, never written.
    """

    write: str = "{name}"
    also_read: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for template in (self.write, *self.also_read):
            if "{name}" not in template:
                raise InvalidName(f"layout {template!r}: expected '{{name}}' in it")
            check_path(
                template.replace("{name}", "x"), what=f"layout {template!r} gives", limit=MAX_NAME
            )

    def folder(self, name: str) -> str:
        """The folder of ``name`` relative to the root."""
        if not self._nested or "/" not in name:
            return self.write.replace("{name}", name)
        first, second = name.split("/")[:2]
        if first == second:
            raise InvalidName(f"artifact name {name!r}: this tier keeps {first!r} in that folder")
        return self._flat.replace("{name}", name)

    def inner(self, name: str) -> str:
        """The folder below which artifacts named ``name/…`` would lie."""
        return self._flat.replace("{name}", name)

    @property
    def _nested(self) -> bool:
        return self.write.endswith(_NESTED)

    @property
    def _flat(self) -> str:
        return self.write.removesuffix(_NESTED) + "{name}" if self._nested else self.write

    def old_folders(self, name: str) -> list[str]:
        """Folders of older layouts that may hold ``name``."""
        return [template.replace("{name}", name) for template in self.also_read]

    def name_of(self, folder: str) -> str | None:
        """The artifact whose folder this is, or ``None`` when the layout writes none there."""
        prefix, _, rest = self.write.partition("{name}")
        if not folder.startswith(prefix):
            return None
        name = folder.removeprefix(prefix)
        if rest == "/{name}":
            half, _, other = name.partition("/")
            return half if half == other else name
        return name.removesuffix(rest) if name.endswith(rest) else None
