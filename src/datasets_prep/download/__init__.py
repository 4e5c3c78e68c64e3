"""Datasets fetched whole, from any source: resumed, extracted, verified, published at once.

Light to import: what does the work is loaded by the first download.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasets_prep.download.options import Downloaded, DownloadOptions

if TYPE_CHECKING:
    from datasets_prep.download.telling import Telling

__all__ = ["DownloadOptions", "Downloaded", "download"]


def download(options: DownloadOptions, telling: Telling | None = None) -> Downloaded:
    """Download a dataset, extract and verify it, and publish it as one artifact.

    What has arrived of an archive or a file stays when it is interrupted: the same call goes on
    with it, today or next week.

    Parameters
    ----------
    options : DownloadOptions
        What, from where, to where.
    telling : Telling, optional
        Tells people; by default lines on stdout.

    Raises
    ------
    OptionError
        For options that cannot be used.
    DownloadError
        When the source cannot be had, is not what was asked for, or another dataset is there.
    ArchiveError
        When the archive is damaged, or holds what is refused.
    VerificationFailed
        When the dataset is not what the specification says; nothing is published.
    TieredStoreError
        When a place fails, has no room, or a file changed while it was read.
    """
    from datasets_prep.download.running import run
    from datasets_prep.download.telling import Telling

    return run(options, telling or Telling())
