"""What S3 answers in XML, parsed: pages of a bucket's listing above all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from tieredstore.backend import FileStat

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a listing; ``token`` asks for the next page, ``None``: this is the last.

    The paths of what was found are whole keys.
    """

    found: list[FileStat]
    token: str | None


def parsed(text: bytes) -> Page:
    """The page that the XML shows.

    Raises
    ------
    ValueError
        When it is not such a page, or not a whole one.
    """
    root = xml(text, "ListBucketResult")
    found = []
    for entry in root.findall("{*}Contents"):
        said = {child.tag.rpartition("}")[2]: child.text or "" for child in entry}
        if not {"Key", "Size", "LastModified"} <= said.keys():
            raise ValueError("an entry without key, size or time")
        mtime_ns = int(datetime.fromisoformat(said["LastModified"]).timestamp() * 1e9)
        size = int(said["Size"])
        found.append(FileStat(said["Key"], size, mtime_ns, 0o644, said.get("ETag", "")))
    if root.findtext("{*}IsTruncated", "") != "true":
        return Page(found, None)
    token = root.findtext("{*}NextContinuationToken", "")
    if not token:
        raise ValueError("a page that has a next one, and does not say which")
    return Page(found, token)


def xml(text: bytes, tag: str) -> Element:
    """The root of an answer's XML, whose name has to be ``tag``.

    Raises
    ------
    ValueError
        When it is another one, or no XML.
    """
    from xml.etree.ElementTree import ParseError, fromstring

    if b"<!" in text:  # a document type, which might define entities without end
        raise ValueError(f"no {tag}: it declares more than S3 does")
    try:
        root = fromstring(text)  # noqa: S314 - nothing is declared in it
    except ParseError as error:
        raise ValueError(f"no {tag}: {error}") from None
    if root.tag.rpartition("}")[2] != tag:
        raise ValueError(f"no {tag}: {root.tag}")
    return root
