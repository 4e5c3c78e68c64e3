"""What a history has promised: which copies each tier must have, or may have, after its log.

`Promises` reads the log that ``wild.py`` writes. What a finished call promised is the only thing
that may be seen; of one that was killed, what was there before or what it would have left. Nothing
here looks at a tier (``looking.py`` does) and nothing knows how the store works.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import crash_samples as samples

ABSENT, HIDDEN = "absent", "hidden"  # beside tags: no copy, or one under a pending mark
BELOW = ("vol", "far")
TIERS = ("local", *BELOW)


class Broken(AssertionError):
    """A promise that was not kept."""


@dataclass
class Promises:
    """What each tier may show of each artifact.

    Attributes
    ----------
    may : dict
        By tier and name: the tags of which one is there as a whole, or `ABSENT`, or `HIDDEN`.
    files : dict
        By tier and name, where a copy may be partial: files that it has to have.
    begun : set
        Fillings that did not come to their end, as name and tag: each file that they put in is
        seen under its path at once, and stays there as if somebody had put it in.
    """

    may: dict = field(default_factory=dict)
    files: dict = field(default_factory=dict)
    begun: set = field(default_factory=set)

    def of(self, tier, name):
        return self.may.setdefault((tier, name), {ABSENT})

    def read(self, lines):
        """Follow the log of one process: each call that ended, and the one that was killed."""
        begun = None
        for line in lines:
            entry = json.loads(line)
            if "verb" in entry:
                begun = entry
                continue
            if "error" in entry:
                self._failed(begun, entry)
                self._may_have(begun)
            else:
                getattr(self, f"_{begun['verb']}")(begun, entry["gave"])
            begun = None
        if begun is not None:
            self._may_have(begun)

    def saw(self, tier, name, state):
        """What a look has found: it has to be one that may be, and is the only one from now on."""
        may = self.of(tier, name)
        if state not in may:
            raise Broken(f"{tier} has {state!r} of {name}, promised was one of {sorted(may)}")
        if state != HIDDEN:  # who comes by next may bring what is hidden to either end
            self.may[tier, name] = {state}

    # -- calls that ended -------------------------------------------------------------------------

    def _set(self, tier, name, *tags):
        self.may[tier, name] = set(tags)

    def _create(self, call, _):
        self._set("local", call["name"], call["tag"])
        self.files.pop(("local", call["name"]), None)

    _put = _compose = _create

    def _fill(self, call, refused):
        self._create(call, None)
        for tier in BELOW:
            if tier in refused:
                continue
            self._set(tier, call["name"], call["tag"])

    def _promote(self, call, gave):
        name = call["name"]
        for tier, action in gave.items():
            if action not in {"copied", "present"}:
                raise Broken(f"promote of {name} returned, and {tier} is {action}")
            both = self.of("local", name)
            self.may[tier, name] = {t for t in both if t not in {ABSENT, HIDDEN}}
            self.files.pop((tier, name), None)

    def _restore(self, call, tag):
        name = call["name"]
        self._check_restored(name, tag)
        if "files" not in call:
            self.files.pop(("local", name), None)
        elif self.of("local", name) != {tag}:
            self.files["local", name] = call["files"]
        self._may_be_partial("vol", call)
        self._set("local", name, tag)
        self._may(("vol",), name, tag)

    def _check_restored(self, name, tag):
        """It has to be what the nearest tier has that has any."""
        for tier in TIERS:
            may = self.of(tier, name)
            if tag in may:
                return
            if not may & {ABSENT, HIDDEN}:
                raise Broken(f"restore of {name} gave {tag!r}, and {tier} had {sorted(may)}")
        raise Broken(f"restore of {name} gave {tag!r}, which no tier has had")

    def _evict(self, call, _):
        gone = self.of(call["tier"], call["name"])
        left = set().union(*(self.of(t, call["name"]) for t in BELOW if t != call["tier"]))
        if not (gone - {ABSENT, HIDDEN}) & left:
            raise Broken(f"evict dropped {call['name']} from {call['tier']}: no other had it")
        self._set(call["tier"], call["name"], ABSENT)
        self.files.pop((call["tier"], call["name"]), None)

    def _verify(self, call, gave):
        for tier, (ok, state, *problems) in gave.items():
            if not ok and state != "pending":
                raise Broken(f"verify says of {call['name']} in {tier}: {state}, {problems}")

    def _names(self, _, gave):
        for (tier, name), may in self.may.items():
            if name not in gave and not may & {ABSENT, HIDDEN}:
                raise Broken(f"names leaves out {name}, which {tier} has")

    def _gc(self, _call, _gave):
        pass

    # -- calls that failed, or were killed --------------------------------------------------------

    def _failed(self, call, entry):
        """An error is a promise too: that there was a reason."""
        name, kind = call["name"], entry["error"]
        everywhere = [self.of(tier, name) for tier in TIERS]
        gone = all(may & {ABSENT, HIDDEN} for may in everywhere)
        fine = {
            "not-found": gone or (call["verb"] in {"promote", "evict"}),
            "evict": call["verb"] == "evict",
            "recipe": call["verb"] == "promote" and not call["replace"],
        }.get(kind, False)
        if not fine:
            raise Broken(f"{call} failed, and has no reason to: {entry}")
        at = "local" if call["verb"] == "promote" else call.get("tier")
        if kind == "not-found" and at and not self.of(at, name) & {ABSENT, HIDDEN}:
            raise Broken(f"{call} says that {at} has none: {entry['why']}")

    def _may(self, tiers, name, *states):
        for tier in tiers:
            self.of(tier, name).update(states)

    def _may_be_partial(self, tier, call):
        """A restore of some files may leave a copy of just these, where there was none."""
        if "files" in call and ABSENT in self.of(tier, call["name"]):
            self.files.setdefault((tier, call["name"]), call["files"])

    def _may_have(self, call):
        """What may be there after a call that did not come to its end."""
        name, verb = call["name"], call["verb"]
        if verb in {"create", "put", "compose", "fill"}:
            self._may(("local",), name, call["tag"], HIDDEN)
            self.files.pop(("local", name), None)
        if verb == "fill":
            self.begun.add((name, call["tag"]))
            self._may(("local", *BELOW), name, call["tag"], HIDDEN, ABSENT)
        if verb == "promote":
            tags = self.of("local", name) - {ABSENT, HIDDEN}
            self._may([call["to"]] if call["to"] else BELOW, name, *tags, HIDDEN)
        if verb == "restore":
            tags = set().union(*(self.of(tier, name) for tier in BELOW)) - {ABSENT, HIDDEN}
            self._may(("local", "vol"), name, *tags, HIDDEN)
            self._may_be_partial("local", call)
            self._may_be_partial("vol", call)
        if verb == "evict":
            self._may((call["tier"],), name, ABSENT, HIDDEN)


def put_in_by_a_filling(promises, path, data):
    """Whether a file is one that a filling which did not end has put in."""
    named = ((name, tag) for name, tag in promises.begun if path.startswith(f"{name}/"))
    return any(samples.files(n, t).get(path.removeprefix(f"{n}/")) == data for n, t in named)


def promised_files(promises, tier, name, tag):
    """Files of a copy that have to be there: all, or those of a restore of some."""
    some = promises.files.get((tier, name))
    return set(samples.files(name, tag)) if some is None else set(some)
