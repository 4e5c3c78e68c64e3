"""One node of many, in a process of its own; the answer is one line of JSON."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from tieredstore.backends.http import HttpBackend
from tieredstore.backends.local import LocalBackend
from tieredstore.backends.runpod import RunPodBackend
from tieredstore.manifest.artifact import Recipe
from tieredstore.store import TieredStore
from tieredstore.testing import faults
from tieredstore.tiers.tier import Tier

RECIPE = Recipe.of({"v": 1})


def store_of(order):
    root = Path(order["root"])
    kind = {"local": LocalBackend, "runpod": RunPodBackend}[order.get("kind", "local")]
    tiers = [Tier("local", LocalBackend(str(root / order["node"])))]
    fills = order.get("fills", ["scratch"])
    tiers += [Tier(name, kind(str(root / name)), populate=True) for name in fills]
    if "url" in order:
        tiers.append(Tier("web", HttpBackend(order["url"])))
    else:
        tiers.append(Tier("far", LocalBackend(str(root / "far")), durable=True))
    return TieredStore(tiers)


def build(stage):
    (stage.path / "a").write_bytes(b"a" * 100_000)


def main():
    order = json.loads(sys.argv[1])
    store = store_of(order)
    while not (Path(order["root"]) / "go").exists():
        time.sleep(0.002)
    with ExitStack() as stack:
        if order.get("no_flock"):
            stack.enter_context(faults.no_flock())
        if order["verb"] == "ensure":
            got = store.ensure("set", build, RECIPE)
        else:
            got = store.restore("set", order.get("files"))
        seen = {"source": got.source, "skipped": dict(got.skipped)}
        seen["size"] = sum(len(got.open(f).read()) for f in order.get("files") or ("a",))
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main()
