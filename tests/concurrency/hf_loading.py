"""Many processes that load one data file at once, forked from one that has loaded ``datasets``.

Reads an order as one line of JSON; each process leaves one file of JSON in ``answers``: the rows
that it saw, whether it built anything, or what it raised.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import datasets

from datasets_prep import hf_cache
from tieredstore.testing import faults


def watched(order, number):
    """Leave a file for each build that this process begins."""
    real = datasets.builder.DatasetBuilder._download_and_prepare

    def build(self, *args, **options):
        Path(order["builds"], f"{number}-{time.monotonic_ns()}").touch()
        time.sleep(order["takes"])
        return real(self, *args, **options)

    datasets.builder.DatasetBuilder._download_and_prepare = build


def load(order):
    if order["how"] == "hf_cache":
        return hf_cache.load(order["data"], field="test")
    return datasets.load_dataset("json", data_files=order["data"], field="test", split="train")


def answer(order, number):
    if "user" in order:
        os.setgroups([])
        os.setgid(order["group"])
        os.setuid(order["user"] + number % 2)
        os.umask(0o002)
    watched(order, number)
    with ExitStack() as stack:
        if not order["flock"]:
            stack.enter_context(faults.no_flock())
        try:
            (Path(order["ready"]) / str(number)).touch()
            while len(os.listdir(order["ready"])) < order["count"]:
                time.sleep(0.005)
            dataset = load(order)
            mapped = dataset.map(lambda row: {"twice": 2 * row["n"]}) if order["maps"] else dataset
            return {"rows": mapped.num_rows, "sum": sum(mapped["n"])}
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            return {"raised": f"{type(error).__name__}: {error}"}


def fork(order, number):
    child = os.fork()
    if not child:
        try:
            found = json.dumps(answer(order, number))
            (Path(order["answers"]) / f"{number}.json").write_text(found)
        finally:
            os._exit(0)
    return child


def main():
    order = json.loads(sys.argv[1])
    datasets.disable_progress_bars()
    for child in [fork(order, number) for number in range(order["count"])]:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
