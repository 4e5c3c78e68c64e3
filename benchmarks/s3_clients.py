"""The peers that are Python libraries, each as a child process that does one thing.

    python benchmarks/s3_clients.py PEER restore|promote JSON

The JSON holds ``endpoint``, ``bucket``, ``set`` and what the two need: ``source``/``prefix`` and
``folder``. The last line printed is the seconds of the operation itself, imports not counted.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Operation = Callable[[], object]


def store(job: dict[str, str], verb: str, low: dict[str, Any]) -> Operation:
    """The store: a local tier over one more."""
    import tieredstore

    first = {"name": "local", "backend": "local", "path": job["folder"], "layout": "{name}"}
    low |= {"name": "s3", "durable": True, "deadline": 300}
    chain = tieredstore.open_store({"tier": [first, low]})
    if verb == "restore":
        return lambda: chain.restore(job["set"])
    return lambda: chain.promote(job["set"])


def tiered(job: dict[str, str], verb: str) -> Operation:
    url = f"s3://{job['bucket']}/{job['root']}"
    return store(job, verb, {"backend": "s3", "url": url, "endpoint_url": job["endpoint"]})


def tiered_fsspec(job: dict[str, str], verb: str) -> Operation:
    url = f"s3://{job['bucket']}/{job['root']}"
    options = {"endpoint_url": job["endpoint"]}
    return store(job, verb, {"backend": "fsspec", "url": url, "options": options})


def s3fs(job: dict[str, str], verb: str) -> Operation:
    import s3fs as client

    fs = client.S3FileSystem(endpoint_url=job["endpoint"])
    there = f"{job['bucket']}/{job['prefix']}"
    if verb == "restore":
        return lambda: fs.get(f"{there}/", job["folder"], recursive=True)
    return lambda: fs.put(f"{job['folder']}/", f"{there}/", recursive=True)


def msc(job: dict[str, str], verb: str) -> Operation:
    """multi-storage-client, through its compiled client."""
    options: dict[str, object] = {"base_path": job["bucket"], "endpoint_url": job["endpoint"]}
    options |= {"region_name": os.environ["AWS_REGION"], "rust_client": {"allow_http": True}}
    keys = {
        "access_key": os.environ["AWS_ACCESS_KEY_ID"],
        "secret_key": os.environ["AWS_SECRET_ACCESS_KEY"],
    }
    provider = {"type": "s3", "options": options}
    credentials = {"type": "S3Credentials", "options": keys}
    profiles = {"there": {"storage_provider": provider, "credentials_provider": credentials}}
    config = Path("msc.json").absolute()  # in the working folder, which the benchmark removes
    config.write_text(json.dumps({"profiles": profiles}))
    os.environ["MSC_CONFIG"] = str(config)
    import multistorageclient as client

    ends = [f"msc://there/{job['prefix']}/", f"{job['folder']}/"]
    source, target = ends if verb == "restore" else reversed(ends)
    return lambda: client.sync(source_url=source, target_url=target)


PEERS: dict[str, Callable[[dict[str, str], str], Operation]] = {
    "tieredstore": tiered,
    "tieredstore-fsspec": tiered_fsspec,
    "s3fs": s3fs,
    "msc": msc,
}


def create(job: dict[str, str]) -> None:
    """Publish a folder's files as an artifact, and lay it out as object stores have it.

    The files are links to one another: every copy is the same pages of memory.
    """
    import dataclasses

    import tieredstore
    from tieredstore.manifest.artifact import HEAD, RECORDS, Head

    plain, served = Path(job["plain"]), Path(job["served"])
    chain = tieredstore.TieredStore([tieredstore.local_tier(job["folder"])])
    with chain.create(job["set"]) as stage:
        for file in sorted(plain.iterdir()):
            os.rename(file, stage.path / file.name)
    made = Path(job["folder"]) / job["set"]
    head = Head.parse((made / HEAD).read_bytes(), job["set"])
    keys = served / head.generation
    keys.mkdir(parents=True)
    for file in sorted(made.iterdir()):
        if file.name != HEAD:
            os.link(file, keys / file.name)
        if file.name not in {HEAD, RECORDS}:
            os.link(file, plain / file.name)
    (served / HEAD).write_bytes(dataclasses.replace(head, data=head.generation).emit())
    print(head.generation)


def main() -> None:
    peer, verb, job = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    if verb == "create":
        create(job)
        return
    operation = PEERS[peer](job, verb)
    begin = time.perf_counter()
    operation()
    print(f"\n{time.perf_counter() - begin:.4f}")


if __name__ == "__main__":
    main()
