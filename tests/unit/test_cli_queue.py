"""The command on promotes that wait: ``promote --queue``, ``flush``, and what ``status`` says."""

from __future__ import annotations

import json
import time

import pytest

from tieredstore import cli
from tieredstore.console import ConsoleReporter
from tieredstore.reporter import Wait

CONFIG = """
[[tier]]
name = "local"
backend = "local"
path = "local"
[[tier]]
name = "far"
backend = "local"
path = "far"
durable = true
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command where ``words`` is in the first tier; what it wrote, and its status."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tieredstore.toml").write_text(CONFIG)
    (tmp_path / "words").write_text("some words")

    def run(*args):
        code = cli.run(args)
        out, err = capsys.readouterr()
        return code, out, err

    assert run("put", "words", "words")[0] == 0
    return run


def test_a_promote_waits_is_counted_and_flushed(run, tmp_path):
    said = "words: waits to be promoted to far; tieredstore flush does it\n"
    assert run("promote", "words", "--queue") == (0, said, "")
    assert not (tmp_path / "far/words").exists()
    status = run("status")[1].splitlines()
    assert status[-1] == "1 promote waits; tieredstore flush does what waits"
    assert run("flush", "--dry-run")[1].startswith("words\tfar\t")
    code, out, err = run("flush")
    assert (code, err) == (0, "")
    assert out == "words: copied in far, 10 B moved\n"
    assert run("flush") == (0, "nothing waits\n", "")
    assert run("flush", "--dry-run") == (0, "nothing waits\n", "")
    assert "wait" not in run("status")[1]


def test_what_fails_is_an_error_and_is_counted(run, tmp_path):
    run("promote", "words", "--queue")
    (tmp_path / "far").write_text("no folder")
    code, out, err = run("flush")
    assert (code, out) == (1, "")
    last = err.splitlines()[-1]
    assert last.startswith("tieredstore: error: words: not promoted to far: ")
    assert last.endswith("; it goes on waiting after 1 try that failed")
    assert "1 promote waits, 1 after they failed" in run("status")[1]
    code, out, _ = run("flush")
    assert code == 0
    assert out.startswith("words: waits for far (1 try that failed); ")
    (tmp_path / "far").unlink()
    assert run("flush", "words")[:2] == (0, "words: copied in far, 10 B moved\n")


def test_as_json(run):
    document = json.loads(run("promote", "words", "--queue", "--json")[1])
    (waiting,) = document["queued"]
    assert (waiting["name"], waiting["tier"], waiting["tries"]) == ("words", "far", 0)
    assert json.loads(run("status", "--json")[1])["queued"] == [waiting]
    assert json.loads(run("flush", "--dry-run", "--json")[1])["queued"] == [waiting]
    (flushed,) = json.loads(run("flush", "--json")[1])["flushed"]
    assert (flushed["name"], flushed["action"], flushed["size"]) == ("words", "copied", 10)


def test_taken_out_by_name(run):
    run("promote", "words", "--queue")
    assert run("flush", "--drop")[0] == 1
    assert run("flush", "words", "--drop")[1] == "words: 1 taken out of the queue\n"
    assert run("flush", "words")[1] == "nothing of words waits\n"


def test_what_waits_is_not_evicted(run):
    run("promote", "words")
    run("promote", "words", "--queue", "--to", "far")
    code, _, err = run("evict", "words")
    assert code == 1
    assert "it waits to be promoted to far; tieredstore flush does it" in err


def test_a_wait_is_one_line(capsys):
    ConsoleReporter("tieredstore").waits(
        Wait("shakespeare", "build", "process 4711 on node3", 7.0, 125.0, 43, 100)
    )
    clock = time.strftime("%H:%M", time.localtime(time.time() - 125))
    err = capsys.readouterr().err
    begin = f"tieredstore: waiting for shakespeare: built by process 4711 on node3 since {clock}:"
    assert err.startswith(begin)
    assert err.endswith(" (2 min), 43 %\n")
