"""Runs one scenario of the crash sweep on a traced file system, and loses power at every step.

`Outage` is a `Sweep` (see ``harness.py``) whose kills are losses of power, worked out afterwards
from one trace by ``powerloss.py``: everything in it that differs is what may be left, and that
what an operation promised by returning has to be.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass, replace

import crash_harness as harness  # loaded under this name by conftest.py

HOW = ("strict", "names", "torn")
# Of so many states one is also read, and gone on with, by the store itself.
FORKED = int(os.environ.get("TIEREDSTORE_TEST_POWER", "20"))


@dataclass
class Outage(harness.Sweep):
    """One scenario; power is lost after each step of its trace, in each way."""

    powerloss: object = None
    lossyfs: object = None
    traced: str = "yes"
    states: int = 0

    def trace(self):
        """Do it once, traced; what lay there before, and the trace."""
        template = self.prepare()
        for tier in ("local", "vol"):
            (template / tier).mkdir(exist_ok=True)
        back = self.folder / "back"
        shutil.copytree(template, back)
        mounted = self.lossyfs.Mounted(back, self.folder / "traced")
        try:
            answer = self.order(mounted.at, None, self.scenario.operation, traced=self.traced)
        finally:
            trace = mounted.stop()
        assert "error" not in answer, answer
        assert trace[-1] == ("mark", "done"), trace[-1]
        return template, trace

    def run(self):
        """Lose power after every step; how many states were looked at."""
        template, trace = self.trace()
        disk = self.powerloss.Disk(template)
        root = self.folder / "left"
        for at, entry in enumerate(trace):
            disk.follow(*entry)
            if entry[0] == "mark":
                self.promised()
            if entry[0] == "write" and trace[at + 1][0] == "write":
                continue  # a run of writes is torn as a whole
            for how in HOW:
                chance = random.Random(f"{self.scenario}/{at}/{how}")
                self.powerloss.lose(disk, how, chance, root)
                self.check(root, f"{self.scenario}: power lost ({how}) after step {at}, {entry[0]}")
        return self.states

    def promised(self):
        """The operation has returned: what it promised is the only thing that may be seen."""
        local, below = self.allowed()
        self.scenario = replace(self.scenario, local=local[-1:], below=below[-1:], fills=False)

    def check(self, root, where):
        self.states += 1
        self.check_seen(root, None, where)
        if self.states % FORKED == 0 or len(self.scenario.local + self.scenario.below) == 2:
            self.check_reader(root, None, where)
            again = self.order(root, None, self.scenario.operation)
            assert "error" not in again, f"{where}: {again}"
            self.check_end(root, None, where)
