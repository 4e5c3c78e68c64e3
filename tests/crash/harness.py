"""Runs one scenario of the crash sweep: prepare, die at a point, look, look as a reader, run again.

`World` is the folder (and S3 prefix) that a scenario lives in; `Child` talks to ``child.py``;
`sweep` kills at every point in turn and checks after each.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
NAME, SINGLE = "runs/set", "one.bin"
WHOLE_FILES = 1 << 30  # blocks: a source that is asked for whole files at once


@dataclass(frozen=True)
class Scenario:
    """What is done, and what may be seen of it.

    ``local`` and ``below`` name what each tier may show after a kill, the last being how it must
    end; ``hides`` allows a pending mark that a reader of the store lifts by itself, ``fills`` one
    that only the next run lifts. ``to`` is the tier that bytes move to, ``unit`` how many blocks
    are asked for at once; ``inner`` is where the tiers' roots lie below their folders.
    """

    name: str
    before: str
    operation: str
    local: tuple[str, ...]
    below: tuple[str, ...]
    hides: bool = False
    fills: bool = False
    no_exchange: bool = False
    s3: bool = False
    single: bool = False
    partial: bool = False
    to: str = ""
    unit: int = 1
    stride: int = 1
    inner: str = ""

    def __str__(self):
        return self.name


class Child:
    """The process that forks and dies, see ``child.py``."""

    def __init__(self, s3=False, operations="operations.py"):
        arguments = [sys.executable, str(HERE / "child.py"), operations, *(["--s3"] if s3 else [])]
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def order(self, **order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def stop(self):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


class Bucket:
    """The keys of one prefix, read and copied without the store."""

    def __init__(self, client, bucket, prefix, options):
        self.client, self.bucket, self.prefix, self.options = client, bucket, prefix, options

    @property
    def url(self):
        return f"s3://{self.bucket}/{self.prefix}"

    def keys(self):
        found = {}
        listed = self.client.list_objects_v2(Bucket=self.bucket, Prefix=f"{self.prefix}/")
        for item in listed.get("Contents", ()):
            body = self.client.get_object(Bucket=self.bucket, Key=item["Key"])["Body"]
            found[item["Key"].removeprefix(f"{self.prefix}/")] = body.read()
        return found

    def copy_to(self, prefix):
        other = Bucket(self.client, self.bucket, prefix, self.options)
        for key, data in self.keys().items():
            self.client.put_object(Bucket=self.bucket, Key=f"{prefix}/{key}", Body=data)
        return other


@dataclass
class Sweep:
    """One scenario, killed at one point after the other."""

    scenario: Scenario
    child: Child
    reading: object
    folder: Path
    bucket: Bucket | None = None
    worlds: int = 0
    names: list = field(default_factory=list)

    def order(self, root, bucket, operation, fault="none", at=0, **more):
        s3 = None if bucket is None else {"url": bucket.url, "options": bucket.options}
        return self.child.order(
            root=str(root),
            s3=s3,
            operation=operation,
            fault=fault,
            at=at,
            no_exchange=self.scenario.no_exchange,
            inner=self.scenario.inner,
            **more,
        )

    def prepare(self):
        template = self.folder / "template"
        template.mkdir()
        answer = self.order(template, self.bucket, self.scenario.before)
        assert "error" not in answer, answer
        return template

    def fresh(self):
        self.worlds += 1
        root = self.folder / f"world{self.worlds}"
        shutil.copytree(self.folder / "template", root, symlinks=True)
        return root, self.bucket and self.bucket.copy_to(f"{self.bucket.prefix}-{self.worlds}")

    def run(self):
        """Kill at every point in turn; the number of kills."""
        self.prepare()
        root, bucket = self.fresh()
        answer = self.order(root, bucket, self.scenario.operation)
        assert "error" not in answer, answer
        self.check_end(root, bucket, "without a kill")
        shutil.rmtree(root)
        points = answer["points"]
        kills = 0
        for at in range(1, len(points) + 1, self.scenario.stride):
            faults = ["before"]
            if points[at - 1] in {"pwrite", "write"}:
                faults.append("within")
            if points[at - 1] in {"put", "close", "delete"}:
                faults.append("after")
            for fault in faults:
                kills += self.kill(at, fault)
        return kills

    def kill(self, at, fault):
        root, bucket = self.fresh()
        where = f"{self.scenario}: killed {fault} point {at}"
        answer = self.order(root, bucket, self.scenario.operation, fault, at)
        if not answer["killed"]:
            shutil.rmtree(root)
            assert "error" not in answer, f"{where}: {answer}"
            return 0  # threads met fewer points this time
        self.check_seen(root, bucket, where)
        self.check_reader(root, bucket, where)
        limit = self.still_missing(root, bucket)
        again = self.order(root, bucket, self.scenario.operation)
        assert "error" not in again, f"{where}: {again}"
        if limit is not None:
            assert again["moved"] <= limit, f"{where}: {again['moved']} bytes moved, not {limit}"
        self.check_end(root, bucket, where)
        shutil.rmtree(root)
        return 1

    # -- looking --------------------------------------------------------------------------------

    def seen(self, root, bucket):
        name, inner = SINGLE if self.scenario.single else NAME, self.scenario.inner
        local = self.reading.mounted(root / "local" / inner, name, self.scenario.single)
        if bucket is None:
            below = self.reading.mounted(root / "vol" / inner, name, self.scenario.single)
        else:
            below = self.reading.keyed(bucket.keys(), name)
        return local, below

    def check_seen(self, root, bucket, where):
        """What lies there is whole, old or new, for one who knows nothing but the format."""
        allowed = {"hidden"} if self.scenario.hides or self.scenario.fills else set()
        for saw, may in zip(self.seen(root, bucket), self.allowed(), strict=True):
            assert saw in {*may, *allowed}, f"{where}: saw {saw}, expected one of {may}"

    def allowed(self):
        return self.scenario.local, self.scenario.below

    def check_reader(self, root, bucket, where):
        """What a reader of the store says of each tier: the same, and nothing is missing."""
        answer = self.order(root, bucket, "read")
        assert "error" not in answer, f"{where}: {answer}"
        name = SINGLE if self.scenario.single else NAME
        tiers = ("local", "vol" if bucket is None else "s3")
        for tier, may in zip(tiers, self.allowed(), strict=True):
            state, tag = answer["result"].get(f"{tier}:{name}", ["absent", "absent"])
            if state == "pending":
                assert self.scenario.fills, f"{where}: {tier} is pending for a reader"
                continue
            wanted = {"whole", "absent"} | ({"partial"} if self.scenario.partial else set())
            assert state in wanted, f"{where}: {tier} is {state} for a reader"
            assert tag in may, f"{where}: a reader of {tier} saw {tag}, expected one of {may}"

    def check_end(self, root, bucket, where):
        ends = tuple(may[-1] for may in self.allowed())
        assert self.seen(root, bucket) == ends, f"{where}: {self.seen(root, bucket)} at the end"
        if self.scenario.before.endswith("foreign"):
            mine = root / "local" / NAME / "prepare.py"
            assert mine.read_text() == "print('mine')\n", f"{where}: prepare.py is not as it was"
            left = {p.name for p in mine.parent.iterdir() if p.is_file()}
            assert "only-old.bin" not in left, f"{where}: a file of the old generation is left"

    def still_missing(self, root, bucket):
        """Bytes that the next run may move at most, from what lies there now."""
        scenario = self.scenario
        if not scenario.to:
            return None
        local, below = self.seen(root, bucket)
        if scenario.to == "local":
            records = self.source_records(root, bucket)
            if local == "new" and not scenario.partial:
                return 0
            wanted = {"a.bin", "sub/c.bin"} if scenario.partial else set(records)
            records = {p: r for p, r in records.items() if p in wanted}
            there = self.already_there(root / "local" / NAME, records)
            left = {p: r for p, r in records.items() if p not in there}
            kept = self.reading.staged_bytes(root / "local", left, scenario.unit)
            return sum(r[0] for r in left.values()) - kept
        if below == "new":
            return 0
        records = self.reading.records_at(root / "local", NAME)
        total = sum(r[0] for r in records.values())
        if bucket is None:
            return total - self.reading.staged_bytes(root / "vol", records, scenario.unit)
        return total - self.reading.keyed_bytes(bucket.keys(), NAME, records)

    def source_records(self, root, bucket):
        if bucket is None:
            return self.reading.records_at(root / "vol", NAME)
        keys = bucket.keys()
        body = self.reading.parse_head(keys[f"{NAME}/.tieredstore.json"])
        return self.reading.parse_records(body, keys[f"{NAME}/{body['data']}/.tieredstore.records"])

    def already_there(self, folder, records):
        if not (folder / ".tieredstore.json").exists():
            return set()
        return {p for p in records if (folder / p).is_file()}
