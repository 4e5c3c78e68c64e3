"""One bar for all that moves at once, whole lines from several threads."""

from __future__ import annotations

import re
import threading

import pytest

from tieredstore import console
from tieredstore.console import ConsoleReporter, PlainReporter, TerminalReporter

BIG = 4 << 20


@pytest.fixture
def terminal():
    reporter = TerminalReporter("program")
    yield reporter
    reporter.close()


def bar(reporter):
    """Description, bytes done and total of the bar that is shown, or none."""
    if reporter._progress is None:
        return None
    (task,) = reporter._progress.tasks
    return task.description, task.completed, task.total


def test_tiers_that_are_promoted_to_at_once_share_a_bar(terminal):
    terminal.started("promote", "name", BIG)
    terminal.started("promote", "name", BIG)
    terminal.advanced(1000)
    assert bar(terminal) == ("promote name", 1000, 2 * BIG)
    terminal.finished("promote", "name", "one")
    assert bar(terminal) == ("promote name", 1000, 2 * BIG)
    terminal.finished("promote", "name", "two")
    assert bar(terminal) is None


def test_the_next_verb_has_a_bar_of_its_own(terminal):
    terminal.started("restore", "name", BIG)  # failed: nobody says that it has finished
    terminal.started("populate", "name", BIG)
    assert bar(terminal) == ("populate name", 0, BIG)
    terminal.finished("populate", "name", "x")
    assert bar(terminal) is None
    terminal.started("restore", "name", 10)
    assert bar(terminal) is None


def test_lines_of_several_threads_are_whole_and_said_once(capfd):
    reporter = ConsoleReporter("program")
    ready = threading.Barrier(8)

    def tell(n):
        ready.wait(10)
        for k in range(50):
            reporter.skipped(f"tier{n}", f"{'x' * 200}{k}")
            reporter.skipped("shared", f"why {k}")

    threads = [threading.Thread(target=tell, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 8 * 50 + 50
    assert all(line.startswith("program: warning: tier ") for line in lines)


def test_where_nobody_watches_a_line_says_how_far_it_is_now_and_then(capsys, monkeypatch):
    reporter = PlainReporter("program")
    reporter.started("verify", "3 artifacts", 4000)
    reporter.advanced(1000)
    assert capsys.readouterr().err == ""  # not so soon
    monkeypatch.setattr(console, "EVERY", 0.0)
    reporter.advanced(1000)
    assert re.fullmatch(
        r"program: verify 3 artifacts: 2\.0 kB of 4\.0 kB, .*/s\n", capsys.readouterr().err
    )
    reporter.finished("verify", "3 artifacts", "")
    reporter.advanced(1000)
    assert capsys.readouterr().err == ""
