"""What the command shows of results: plain JSON values and short words. Nothing here prints."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from tieredstore import limits
from tieredstore.errors import PromoteFailed, TieredStoreError, reason
from tieredstore.litter import DAMAGED, UNKNOWN
from tieredstore.manifest.artifact import Recipe
from tieredstore.reporter import duration
from tieredstore.space.least_used import Used
from tieredstore.tiers.got import Got
from tieredstore.tiers.queued import Queued
from tieredstore.tiers.tier import Located, Tier
from tieredstore.tiers.verifying import Verified
from tieredstore.verbs.flushing import Flushed
from tieredstore.verbs.gc import TierLitter
from tieredstore.verbs.promoting import TierOutcome
from tieredstore.verbs.refreshing import RefreshedCopy

Row = dict[str, Any]

size = limits.size

_PROBLEMS: Final = 3  # of one copy that are shown in a line
_SPACE: Final = "free some space there and run the command again"
_RIGHTS: Final = "check who owns it and its mode, or run as a user who may"
_NEXT_BY_ERRNO: Final[Mapping[int, str]] = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EROFS: "make the place writable, or work with another first tier",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EIO: "check the disk or the mount (dmesg says more)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
_NEXT_BY_KIND: Final[Mapping[str, str]] = {
    "not-found": "tieredstore status shows what there is",
    "exists": "take another name",
    "changed": "run the command again",
    "conflict": "run the command again",
    "corrupt": "tieredstore verify shows which copies are whole",
    "manifest": "tieredstore verify shows which copies are whole",
    "tier": "check the tier, or leave it out of the configuration",
    "timeout": "check the tier, or leave it out of the configuration",
    "build": "put that right and run the command again",
    "promote": "put that right and promote again, or let it wait (tieredstore promote --queue); "
    "the first tier's copy is kept",
    "evict": "promote it, or verify the other copies, before it is evicted",
    "unsupported": "choose another tier",
}


def tier_row(tier: Tier) -> Row:
    """One tier of the chain."""
    return {
        "name": tier.name,
        "place": tier.backend.place,
        "durable": tier.durable,
        "read_only": tier.read_only,
        "populate": tier.populate,
        "max_size": tier.space.max_size,
        "min_free": tier.space.min_free,
    }


def space_line(tier: Tier, used: Used) -> str:
    """How full a tier with limits is, in words."""
    said = f"{size(used.size)} used"
    if tier.space.max_size is not None:
        said += f" of {size(tier.space.max_size)}"
    if used.free is not None:
        said += f", {size(used.free)} free on its file system"
    if tier.space.min_free is not None:
        said += f" ({size(tier.space.min_free)} have to stay free)"
    return f"{tier.name}: {said}"


def copy_rows(located: Iterable[Located]) -> list[Row]:
    """What each tier has of one artifact, beside the first copy that has a head."""
    found = list(located)
    heads = [where for where in found if where.head is not None]
    return [_copy_row(where, heads[0] if heads else None) for where in found]


def _copy_row(where: Located, reference: Located | None) -> Row:
    head = where.head
    place = where.tier.backend.place
    row: Row = {
        "tier": where.tier.name,
        "state": where.state,
        "place": f"{place}/{where.folder}" if where.present else place,
        "generation": None if head is None else head.generation,
        "files": len(where.files) or None if head is None else head.files,
        "size": None if head is None else head.size,
        "created": None if head is None else head.created,
        "recipe": None if where.recipe is None else where.recipe.to_json(),
        "recipe_short": recipe_short(where),
        "differs": "",
        "detail": where.detail,
        "expires": where.expires,
    }
    if reference is not None and head is not None:
        row["differs"] = differs(where, reference)
    return row


def purged(expires: float | None) -> str:
    """When the first file of a copy may be deleted by others, in words."""
    if expires is None:
        return ""
    left = expires - time.time()
    return f"purged in {duration(left)}" if left > 0 else "may be purged now"


def refreshed(copy: RefreshedCopy) -> str:
    """What became of one copy that was to be refreshed, in words."""
    where = f"{copy.name}: {copy.tier}"
    if copy.failed:
        return f"{where}: {copy.failed}"
    line = f"{where}: {copy.files} files, {purged(copy.expires)}"
    if not copy.stale:
        return line
    return f"{line}; {copy.stale} count as unused still: their owners have to refresh them"


def recipe_short(where: Located) -> str:
    """A recipe in a few words: ``shakespeare 1 subset=0.1 tokenizer=gpt2``."""
    if where.recipe is None:
        return "recipe unknown" if where.present else ""
    recipe = where.recipe
    options = [f"{key}={_word(value)}" for key, value in sorted(recipe.options.items())]
    return " ".join(part for part in (recipe.preparer, recipe.version, *options) if part) or "none"


def _word(value: object) -> str:
    return value if isinstance(value, str) else repr(value)


def differs(where: Located, reference: Located) -> str:
    """How a copy's generation differs from the reference's; empty for the same generation."""
    ours, theirs = where.head, reference.head
    assert ours is not None
    assert theirs is not None
    if ours.generation == theirs.generation:
        return ""
    age = theirs.created - ours.created
    said = [f"{duration(abs(age))} {'older' if age > 0 else 'newer'}" if age else "same age"]
    said.append(_recipes_differ(ours.recipe, theirs.recipe))
    if ours.files != theirs.files:
        said.append(f"files {ours.files}, not {theirs.files}")
    if ours.size != theirs.size:
        one, other = size(ours.size), size(theirs.size)
        close = one == other
        said.append(f"{ours.size} B, not {theirs.size} B" if close else f"{one}, not {other}")
    return f"not as in {reference.tier.name}: {', '.join(said)}"


def _recipes_differ(ours: Recipe | None, theirs: Recipe | None) -> str:
    if ours is None or theirs is None:
        return "recipe unknown"
    if ours.same_as(theirs):
        return "same recipe"
    one, other = _flat(ours), _flat(theirs)
    keys = sorted(k for k in one.keys() | other.keys() if one.get(k) != other.get(k))
    return ", ".join(f"{k} {one.get(k, 'unset')}, not {other.get(k, 'unset')}" for k in keys)


def _flat(recipe: Recipe) -> dict[str, str]:
    named = {"preparer": recipe.preparer, "version": recipe.version}
    options = {k: _word(v) for k, v in recipe.options.items()}
    return {**named, **options, **{k: str(v)[:12] for k, v in recipe.inputs.items()}}


def got_row(got: Got, first: str) -> Row:
    """What a restore gave."""
    return {
        "name": got.name,
        "path": str(got.path),
        "source": got.source,
        "hit": got.source == first,
        "generation": got.generation or None,
        "recipe": None if got.recipe is None else got.recipe.to_json(),
    }


def outcome_row(outcome: TierOutcome) -> Row:
    """What one tier did with a promote."""
    return {
        "tier": outcome.tier,
        "action": outcome.action,
        "size": outcome.size,
        "detail": outcome.detail,
    }


def queued_row(waiting: Queued) -> Row:
    """A promote that waits."""
    return {
        "name": waiting.name or None,
        "tier": waiting.tier,
        "generation": waiting.generation or None,
        "since": when(int(waiting.since)),
        "tries": waiting.tries,
        "reason": waiting.reason,
        "file": waiting.file,
    }


def waiting(waits: Sequence[Queued]) -> list[str]:
    """How many promotes wait, in words; nothing where none does."""
    if not waits:
        return []
    failed = sum(1 for each in waits if each.tries or not each.name)
    more = f", {failed} after they failed" if failed else ""
    promotes = "1 promote waits" if len(waits) == 1 else f"{len(waits)} promotes wait"
    return [f"{promotes}{more}; tieredstore flush does what waits"]


def flushed_row(flushed: Flushed) -> Row:
    """What became of a promote that waited."""
    return {
        "name": flushed.name or None,
        "tier": flushed.tier,
        "action": flushed.action,
        "size": flushed.size,
        "tries": flushed.tries,
        "detail": flushed.detail,
    }


def flushed(done: Flushed) -> str:
    """What became of a promote that waited, in words."""
    where = f"{done.name}: {done.action} in {done.tier}"
    if done.done:
        said = f"{where}, {size(done.size)} moved"
    elif done.failed:
        said = f"{done.name or 'queue'}: not promoted to {done.tier}" if done.tier else "queue"
        tries = f"; it goes on waiting after {_times(done.tries)}" if done.tries else ""
        return f"{said}: {done.detail}{tries}"
    else:
        busy = "another flush is at it" if done.action == "taken" else _times(done.tries)
        said = f"{done.name}: waits for {done.tier} ({busy})"
    return "; ".join(part for part in (said, done.detail) if part)


def _times(tries: int) -> str:
    return "1 try that failed" if tries == 1 else f"{tries} tries that failed"


def verified_row(verified: Verified) -> Row:
    """What one tier's copy is worth."""
    return {
        "tier": verified.tier,
        "ok": verified.ok,
        "damaged": verified.damaged,
        "generation": verified.generation or None,
        "size": verified.size,
        "problems": list(verified.problems),
        "bad": list(verified.bad),
        "repair": None if verified.repair is None else asdict(verified.repair),
    }


def worth(verified: Verified) -> str:
    """What one tier's copy is worth, in words."""
    repair, problems = verified.repair, _some(verified.problems)
    if repair is not None and verified.ok:
        return f"repaired: {size(repair.taken)} taken from other tiers, {size(repair.kept)} kept"
    if verified.ok:
        return f"ok, {size(verified.size)} compared"
    if repair is not None:
        return f"damaged, not repaired: {problems}"
    if verified.damaged:
        return f"damaged: {problems}"
    return f"not compared: {problems}"


def _some(problems: Sequence[str]) -> str:
    """The first few of them, on one line."""
    more = len(problems) - _PROBLEMS
    return "; ".join([*problems[:_PROBLEMS], *([f"and {more} more"] if more > 0 else [])])


def litter_row(tier: TierLitter) -> Row:
    """What is left over in one tier, and what became of it."""
    return {
        "tier": tier.tier,
        "litter": [
            {
                "what": left.what,
                "path": left.path,
                "size": left.size,
                "since": left.since,
                "dropped": left in tier.dropped,
            }
            for left in tier.litter
        ],
        "freed": tier.freed,
        "failed": tier.failed,
    }


def collected(found: Sequence[TierLitter], *, dry_run: bool) -> list[str]:
    """The closing line: how much was found or dropped, and where was looked."""
    looked = [tier for tier in found if tier.litter or not tier.failed]
    where = ", ".join(tier.tier for tier in looked)
    left = [one for tier in looked for one in tier.litter]
    if not looked:
        return []
    if not left:
        return [f"nothing left over in {where}"]
    kept = _kept(found)
    if dry_run:
        return [f"{len(left)} left over in {where}, {size(sum(one.size for one in left))}", *kept]
    dropped, freed = sum(len(t.dropped) for t in looked), size(sum(t.freed for t in looked))
    return [f"dropped {dropped} of {len(left)} in {where}, {freed} freed", *kept]


def _kept(found: Sequence[TierLitter]) -> list[str]:
    """What gc leaves where it is, and why."""
    left = [one.what for tier in found for one in tier.litter if one not in tier.dropped]
    damaged, unknown = left.count(DAMAGED), left.count(UNKNOWN)
    lines = [f"{damaged} damaged, kept until --damaged is given"] if damaged else []
    return [*lines, f"{unknown} unknown, left alone"] if unknown else lines


def error_row(error: BaseException) -> Row:
    """An error, for whoever reads JSON."""
    kind = "os" if isinstance(error, OSError) else "unexpected"
    if isinstance(error, TieredStoreError):
        kind = error.kind
    row: Row = {"kind": kind, "message": explained(error)}
    if isinstance(error, PromoteFailed):
        row["tiers"] = [outcome_row(o) for o in error.outcomes if isinstance(o, TierOutcome)]
    return row


def explained(error: BaseException) -> str:
    """One line: what failed, and what to do next."""
    if not isinstance(error, OSError | TieredStoreError):
        hint = "set TIEREDSTORE_DEBUG=1 for the traceback, and report it"
        return f"unexpected {reason(error)}; {hint}"
    step = "put that right and run the command again"
    if isinstance(error, TieredStoreError):
        step = _NEXT_BY_KIND.get(error.kind, "")
    code = getattr(error, "errno", None)
    step = _NEXT_BY_ERRNO.get(code, step) if isinstance(code, int) else step
    return "; ".join(part for part in (reason(error), step) if part)


def seconds(text: str) -> float:
    """A time such as ``90s``, ``30min``, ``24h`` or ``7d``; a bare number is seconds.

    Raises
    ------
    ValueError
        When it is none.
    """
    units = {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86400}
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h|d|)", text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no time, expected one such as 90s, 30min, 24h or 7d")
    return float(found[1]) * units[found[2]]


def age(created: int | None) -> str:
    """How long ago a generation was published."""
    return "" if created is None else duration(max(0.0, time.time() - created))


def when(created: int | None) -> str:
    """When a generation was published, UTC, ISO 8601."""
    return "" if created is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created))


def clean(text: str) -> str:
    """One printable line: what a tier's names or messages hold cannot steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
