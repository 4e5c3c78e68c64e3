"""What people see of a preparation: the console lines, printed as the store reports.

Results go to stdout, warnings to stderr. Nothing else in this package prints, but ``cli.py``.
"""

from __future__ import annotations

import sys
import time
from typing import Final, TextIO

from tieredstore import PromoteFailed, Reporter, TierOutcome, Wait

PROGRAM: Final = "datasets-prep"
_LINE: Final = 10.0  # seconds from one line of progress to the next
_FRAME: Final = 0.2  # on a terminal


def label(tier: str) -> str:
    """How people call a tier: ``RunPod storage``."""
    return "RunPod storage" if tier == "runpod" else f"{tier} storage"


class Console(Reporter):
    """Prints the lines.

    Attributes
    ----------
    saved : dict
        Durable tiers that hold the artifact now, with the place.
    """

    def __init__(self) -> None:
        self.saved: dict[str, str] = {}
        self._copied: list[tuple[str, str, str]] = []
        self._source = ""
        self._said: set[str] = set()
        self._progressed = time.monotonic()
        self._changing = False

    def line(self, text: str) -> None:
        """Print a line."""
        self._clear()
        _write(sys.stdout, text)

    def warn(self, text: str) -> None:
        """Print a warning, unless the same one was printed before."""
        if text not in self._said:
            self._said.add(text)
            self._clear()
            _write(sys.stderr, f"⚠️  {text}")

    # -- a preparation --------------------------------------------------------------------------

    def starting(self, title: str, subset: float) -> None:
        """A preparation begins."""
        self.line(f"🔄 Starting {title} dataset preparation (subset: {subset})")

    def downloading(self, title: str) -> None:
        """The input is being fetched."""
        self.line(f"📥 Downloading {title} dataset...")

    def again(self, why: str) -> None:
        """What is there is not what was asked for."""
        self.line(f"🔁 Preparing again: {why}")

    def found_locally(self) -> None:
        """The first tier has all that is required."""
        self.line("✅ All required files found locally")

    def recipe_unknown(self, name: str, tier: str) -> None:
        """A copy without a manifest, or adopted from one, is used."""
        text = f"📁 Using {name} as found in {label(tier)}: its recipe is unknown"
        if text not in self._said:
            self._said.add(text)
            self.line(text)

    def using_existing(self, train: int, val: int) -> None:
        """What is there is used."""
        self.line(f"📁 Using existing files - Train: {train:,} tokens, Val: {val:,} tokens")

    def progressed(self, progress: object) -> None:
        """A long step is further: one line that changes on a terminal, else one now and then."""
        terminal = sys.stderr is not None and sys.stderr.isatty()
        now = time.monotonic()
        if now - self._progressed < (_FRAME if terminal else _LINE):
            return
        self._progressed = now
        if terminal:
            self._changing = True
            _write(sys.stderr, str(progress), begin="\r\033[K", end="")
        else:
            _write(sys.stderr, str(progress))

    def _clear(self) -> None:
        """Take away the line that changes."""
        if self._changing:
            self._changing = False
            _write(sys.stderr, "", begin="\r\033[K", end="")

    def file_saved(self, file: str, tier: str, path: str) -> None:
        """One file is visible in a durable tier."""
        self.line(f"📁 Copied {file} to {label(tier)}: {path}")

    def completion(self, name: str, train: int, val: int) -> None:
        """A preparation is done."""
        self.line(f"✅ Preparation complete for {name}")
        self.line(f"train has {train:,} tokens")
        self.line(f"val has {val:,} tokens")
        for tier, place in self.saved.items():
            self.line(f"📁 Files also saved to {label(tier)}: {place}")

    # -- the store ------------------------------------------------------------------------------

    def located(self, name: str, tier: str, path: str) -> None:
        """See `Reporter.located`."""
        del name
        self._source = tier
        self.line(f"📁 Found all files in {label(tier)}: {path}")

    def started(self, verb: str, name: str, size: int) -> None:
        """See `Reporter.started`."""
        del verb, name, size
        self._copied.clear()

    def copied(self, file: str, source: str, target: str) -> None:
        """See `Reporter.copied`; told when the set is whole, or one that fails would be told."""
        self._copied.append((file, source, target))

    def finished(self, verb: str, name: str, path: str) -> None:
        """See `Reporter.finished`."""
        del name
        copied, self._copied = sorted(self._copied), []
        if verb == "restore":
            for file, source, _ in copied:
                self.line(f"📥 Copied {file} from {label(source)} to local")
            self.line(f"✅ All required files restored from {label(self._source)} to {path}")
        elif verb == "promote":
            for file, _, target in copied:
                self.file_saved(file, target, f"{path}/{file}")
                self.saved[target] = path

    def skipped(self, tier: str, why: str) -> None:
        """See `Reporter.skipped`."""
        self.warn(f"{label(tier)} skipped: {why}")

    def corrupt(self, tier: str, what: str) -> None:
        """See `Reporter.corrupt`."""
        self.warn(f"{label(tier)} holds a damaged copy, not used: {what}")

    def adopted(self, name: str, tier: str) -> None:
        """See `Reporter.adopted`."""
        self.recipe_unknown(name, tier)

    def waits(self, wait: Wait) -> None:
        """See `Reporter.waits`."""
        self.line(f"⏳ Waiting for {wait}")

    def promoted(self, name: str, tier: str, action: str, detail: str) -> None:
        """See `Reporter.promoted`; one that failed is raised, and told by whoever goes on."""
        if action == "refused":
            self.warn(f"{label(tier)} keeps what it has: {detail or name}")

    def not_saved(self, error: PromoteFailed) -> None:
        """Durable tiers did not take the artifact, and the work goes on."""
        for outcome in error.outcomes:
            if isinstance(outcome, TierOutcome) and outcome.action == "failed":
                self.warn(f"Not saved to {label(outcome.tier)}: {outcome.detail}")


def complain(text: str) -> None:
    """Say on stderr what went wrong, in one line."""
    _write(sys.stderr, f"{PROGRAM}: error: {text}")


def remark(text: str) -> None:
    """Say on stderr what is worth knowing, in one line."""
    _write(sys.stderr, f"{PROGRAM}: {text}")


def _write(stream: TextIO | None, text: str, begin: str = "", end: str = "\n") -> None:
    """Print one line that can neither steer a terminal nor end the work when nobody reads it."""
    if stream is None:
        return
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    shown = shown.encode(encoding, "replace").decode(encoding)
    try:
        stream.write(f"{begin}{shown}{end}")  # at once: several threads may write
        stream.flush()
    except (OSError, ValueError):
        return  # nobody reads it any more; the work goes on
