"""What the soak left, looked at by the checker of ``tests/crash``: no code of the store."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

CRASH = Path(__file__).parents[1] / "crash"
NODES = 4


def _load(name):
    spec = importlib.util.spec_from_file_location(f"crash_{name}", CRASH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


samples = _load("samples")
reading = _load("reading")
promises = _load("promises")
looking = _load("looking")


def _keys(moto):
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=moto.url,
        region_name="us-east-1",
        aws_access_key_id=moto.options["key"],
        aws_secret_access_key=moto.options["secret"],
    )
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="soak", Prefix="p/")
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    found = {
        key.removeprefix("p/"): client.get_object(Bucket="soak", Key=key)["Body"].read()
        for key in keys
    }
    client.close()
    return found


def look(root, moto, promised, *, small):
    """What is torn, damaged or missing in any tier; a line each."""
    places = {f"node{n}": looking.mounted(root / f"node{n}") for n in range(NODES)}
    places["vol"] = looking.mounted(root / "vol")
    if small:
        places["small"] = looking.mounted(root / "small")
    places["far"] = looking.Place(_keys(moto))
    names = sorted({line["name"] for line in promised} | _seen(places))
    samples.FOLDERS, samples.SINGLES = tuple(names), ()
    found, seen = [], {}
    for tier, place in places.items():
        for name in names:
            try:
                seen[tier, name] = looking.state(place, name)[0]
            except (AssertionError, KeyError, TypeError, ValueError) as error:
                found.append(f"{tier}: {name}: {error}")
    return found + _missing(promised, seen)


def _seen(places):
    ends = f"/{looking.OWN}.json"
    heads = {
        p.removesuffix(ends) for place in places.values() for p in place.files if p.endswith(ends)
    }
    return {name for name in heads if not name.startswith(looking.OWN)}


def _missing(promised, seen):
    """What one worker alone wrote: the last that arrived in S3 is there, or a later one."""
    found = []
    for name in sorted({line["name"] for line in promised}):
        arrived = [p["tag"] for p in promised if p["name"] == name and "far" in p["tiers"]]
        begun = {p["tag"] for p in promised if p["name"] == name}
        tag = seen.get(("far", name))
        if tag is None or not arrived:
            continue
        later = {t for t in begun if t >= max(arrived, key=_time)}
        if tag not in begun or _time(tag) < max(map(_time, arrived)):
            found.append(f"far: {name} is {tag}, promised was one of {sorted(later)}")
    return found


def _time(tag):
    return tag.rpartition(".")[2]
