"""The documentation topics that come with Python: a real text of about 0.7 MB, without internet.

Its bytes differ from one Python release to the next, and so does the recipe.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from datasets_prep.errors import SourceError
from datasets_prep.preparers import Choice, Preparer
from datasets_prep.sources import Source
from datasets_prep.tokens import decoded, write_text


class PydocTopics(Preparer):
    """Characters by default: no vocabulary is needed."""

    name = "pydoc_topics"
    title = "Python documentation topics"
    tokenizers = ("char", "byte", "gpt2")

    def source(self) -> Source:
        """See `Preparer.source`."""
        data = topics()
        return Source("pydoc_data.topics", lambda: data, hashlib.sha256(data).hexdigest())

    def prepare(self, data: bytes, folder: Path, choice: Choice) -> dict[str, Any]:
        """See `Preparer.prepare`."""
        return write_text(decoded(data), folder, choice.subset, choice.tokenizer)


def topics() -> bytes:
    """All topics in the order of their names.

    Raises
    ------
    SourceError
        Where Python was installed without them.
    """
    try:
        from pydoc_data.topics import topics as found
    except ImportError as error:
        raise SourceError(f"this Python has no documentation topics ({error})") from None
    return "\n\n".join(text for _, text in sorted(found.items())).encode()
