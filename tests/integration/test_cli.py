"""The real command in processes of its own: exit status, lines, JSON, signals, full and closed."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

NOBODY = 65534
MIB = 1 << 20
COMMAND = [sys.executable, "-m", "tieredstore.cli"]
CONFIG = """
[[tier]]
name = "local"
backend = "local"
path = "data"

[[tier]]
name = "volume"
backend = "{backend}"
path = "{volume}"
durable = true
"""
SLOW = """
import time
from tieredstore.backends.local import LocalBackend
from tieredstore.backend import FileReader
class Reader(FileReader):
    def __init__(self, inner, path):
        self.inner, self.path = inner, path
    def readinto(self, offset, buffer):
        got = self.inner.readinto(offset, buffer)
        if got >= 1 << 20:
            with open("reads", "a") as log:
                log.write(f"{offset} {got}\\n")
            time.sleep(0.05)
        return got
    def close(self):
        self.inner.close()
class Source:
    def __init__(self, inner):
        self.inner = inner
    def open(self, file):
        return Reader(self.inner.open(file), file)
    def __getattr__(self, name):
        return getattr(self.inner, name)
class Slow(LocalBackend):
    def source(self, folder, head):
        return Source(super().source(folder, head))
"""


class Place:
    """A folder to work in, and the command run in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        keep = {"PATH", "HOME", "LANG", "PYTHONDONTWRITEBYTECODE"}
        self.env = {k: v for k, v in os.environ.items() if k in keep}
        self.env["PYTHONPATH"] = os.pathsep.join([str(root / "site"), *sys.path[1:]])
        self.configure("volume")

    def configure(self, volume: str, backend: str = "local") -> None:
        (self.root / "tieredstore.toml").write_text(CONFIG.format(volume=volume, backend=backend))

    def run(self, *args: str, **more) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *args],
            cwd=self.root,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            **more,
        )

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *args],
            cwd=self.root,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def done(self, *args: str) -> str:
        found = self.run(*args)
        assert (found.returncode, found.stderr) == (0, "")
        return found.stdout

    def json(self, *args: str):
        return json.loads(self.done(*args, "--json"))

    def one_line(self, *args: str, code: int = 1) -> str:
        """What the command says when it fails: nothing on stdout, one line on stderr."""
        found = self.run(*args)
        assert (found.returncode, found.stdout) == (code, ""), found.stderr
        assert found.stderr.startswith("tieredstore: error: ")
        assert found.stderr.count("\n") == 1
        assert found.stderr.endswith("\n")
        return found.stderr

    def as_nobody(self, *args: str) -> subprocess.CompletedProcess[str]:
        """The command as a user who owns nothing, who may not be able to read the interpreter."""
        program = (
            "import os, sys, filelock, gettext, json, locale, tomllib\n"
            "import tieredstore.putting, tieredstore.cli\n"
            "filelock.FileLock, tieredstore.registry.names()  # loaded while they can be read\n"
            f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
            "raise SystemExit(tieredstore.cli.run(sys.argv[1:]))\n"
        )
        return subprocess.run(
            [sys.executable, "-c", program, *args],
            cwd=self.root,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path)
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "a.txt").write_text("first\n")
    (tmp_path / "in" / "sub" / "b.txt").write_text("second\n")
    return made


@pytest.fixture
def stored(place):
    """``words`` in both tiers."""
    place.done("put", "words", "in")
    place.done("promote", "words")
    return place


@pytest.fixture
def mounted(tmp_path):
    """Small file systems of one's own."""
    made = []

    def mount(name: str, options: str) -> Path:
        where = tmp_path / name
        where.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)]
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("mounting a tmpfs needs root")
        if subprocess.run(command, check=False, capture_output=True).returncode != 0:
            pytest.skip("this machine does not let root mount a tmpfs")
        made.append(where)
        return where

    yield mount
    for where in made:
        subprocess.run(["umount", str(where)], check=True)


# -- each verb ----------------------------------------------------------------------------------


def test_a_life(place):
    root = place.root
    assert place.done("status") == f"no artifacts in local ({root}/data), volume ({root}/volume)\n"
    assert place.done("put", "words", "in") == f"words: 13 B put into {root}/data/words/words\n"
    assert (root / "in" / "a.txt").read_text() == "first\n"
    assert place.done("promote", "words") == "words: copied in volume, 13 B moved\n"
    assert place.done("promote", "words") == "words: present in volume, 0 B moved\n"
    assert place.done("verify", "words").splitlines() == [
        "words: local: ok, 13 B compared",
        "words: volume: ok, 13 B compared",
    ]
    assert place.done("evict", "words") == "words: evicted from local, 13 B freed\n"
    assert not (root / "data" / "words" / "words").exists()
    assert place.done("restore", "words") == (
        f"words: restored from volume to {root}/data/words/words\n"
    )
    assert (root / "data/words/words/sub/b.txt").read_text() == "second\n"
    assert place.done("restore", "words") == f"words: already in {root}/data/words/words\n"


def test_status_lines_are_columns_between_tabs(stored):
    lines = [line.split("\t") for line in stored.done("status").splitlines()]
    assert [line[:5] for line in lines] == [
        ["words", "local", "whole", "2", "13"],
        ["words", "volume", "whole", "2", "13"],
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", lines[0][5])
    assert lines[0][6:] == ["put 1", ""]
    assert stored.done("locate", "words") == stored.done("status")


def test_status_says_how_a_generation_differs(stored):
    (stored.root / "in" / "c.txt").write_text("third\n")
    stored.done("put", "words", "in")
    local, volume = (line.split("\t") for line in stored.done("status").splitlines())
    assert local[7] == ""
    assert volume[7].startswith("not as in local: ")
    assert re.search(r"content \w{12}, not \w{12}, files 2, not 3, 13 B, not 19 B$", volume[7])
    made = "import tieredstore\nwith tieredstore.open_store().create('words', recipe=dict("
    made += "preparer='p', version='2', subset=0.5)) as s: (s.path / 'x').write_text('x')"
    subprocess.run([sys.executable, "-c", made], cwd=stored.root, env=stored.env, check=True)
    volume = stored.done("status").splitlines()[1].split("\t")
    assert "preparer put, not p" in volume[7]
    assert "subset unset, not 0.5, version 1, not 2" in volume[7]
    assert "p 2 subset=0.5" in stored.done("status")


def test_every_verb_gives_one_json_document(place):
    assert place.json("put", "words", "in")["size"] == 13
    (outcome,) = place.json("promote", "words")["tiers"]
    assert (outcome["tier"], outcome["action"], outcome["size"]) == ("volume", "copied", 13)
    status = place.json("status")
    assert [t["name"] for t in status["tiers"]] == ["local", "volume"]
    assert [t["durable"] for t in status["tiers"]] == [False, True]
    (artifact,) = status["artifacts"]
    assert artifact["name"] == "words"
    assert [c["state"] for c in artifact["copies"]] == ["whole", "whole"]
    assert artifact["copies"][0]["recipe"]["preparer"] == "put"
    assert artifact["copies"][0]["generation"] == artifact["copies"][1]["generation"]
    assert place.json("locate", "words")["copies"] == artifact["copies"]
    copies = place.json("verify", "words")["artifacts"][0]["copies"]
    assert [(c["tier"], c["ok"], c["damaged"]) for c in copies] == [
        ("local", True, False),
        ("volume", True, False),
    ]
    assert place.json("evict", "words") == {
        "name": "words",
        "tier": "local",
        "freed": 13,
        "skipped": {},
    }
    restored = place.json("restore", "words")
    assert (restored["source"], restored["hit"]) == ("volume", False)
    assert Path(restored["path"], "a.txt").read_text() == "first\n"
    assert place.json("restore", "words")["hit"] is True


def test_json_of_a_failure(place):
    found = place.run("restore", "nothing", "--json")
    assert found.returncode == 1
    assert json.loads(found.stdout)["error"]["kind"] == "not-found"
    assert found.stderr.count("\n") == 1
    found = place.run("locate", "nothing", "--json")
    assert found.returncode == 1
    assert [c["state"] for c in json.loads(found.stdout)["copies"]] == ["absent", "absent"]


def test_restore_of_some_files(stored):
    stored.done("evict", "words")
    stored.done("restore", "words", "--files", "a.txt")
    folder = stored.root / "data" / "words" / "words"
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) == ["a.txt"]
    assert "no file 'nope'" in stored.one_line("restore", "words", "--files", "nope")


def test_other_content_put_is_another_recipe(stored):
    (stored.root / "in" / "c.txt").write_text("third\n")
    stored.done("put", "words", "in")
    assert "content" in stored.one_line("promote", "words")
    stored.done("promote", "words", "--force")
    stored.done("put", "words", "in")
    assert "copied" in stored.done("promote", "words")


def test_promote_does_not_replace_another_recipe_unless_forced(stored):
    made = "import tieredstore\nwith tieredstore.open_store().create('words', recipe=dict("
    made += "preparer='p')) as s: (s.path / 'x').write_text('x')"
    subprocess.run([sys.executable, "-c", made], cwd=stored.root, env=stored.env, check=True)
    assert "--force" in stored.one_line("promote", "words")
    assert stored.json("locate", "words")["copies"][1]["recipe"]["preparer"] == "put"
    stored.done("promote", "words", "--to", "volume", "--force")
    assert stored.json("locate", "words")["copies"][1]["recipe"]["preparer"] == "p"


def test_verify_finds_a_flipped_byte_and_restore_goes_on(stored):
    there = stored.root / "volume" / "words" / "a.txt"
    there.write_text("fIrst\n")
    found = stored.run("verify", "words")
    assert found.returncode == 1
    assert "words: local: ok" in found.stdout
    assert re.search(r"words: volume: damaged: .*a\.txt.*differ", found.stdout)
    warning, error = found.stderr.splitlines()
    assert warning.startswith("tieredstore: warning: tier 'volume' holds a damaged copy")
    assert error.startswith("tieredstore: error: words: damaged in volume")
    document = json.loads(stored.run("verify", "words", "--json").stdout)
    assert [c["damaged"] for c in document["artifacts"][0]["copies"]] == [False, True]


def test_verify_repairs_what_another_tier_has(stored):
    there = stored.root / "volume" / "words" / "a.txt"
    there.write_text("fIrst\n")
    found = stored.run("verify", "--repair")
    assert (found.returncode, found.stdout.splitlines()) == (
        0,
        [
            "words: local: ok, 13 B compared",
            "words: volume: repaired: 6 B taken from other tiers, 0 B kept",
        ],
    )
    assert there.read_text() == "first\n"
    there.write_text("fIrst\n")
    (stored.root / "data" / "words" / "words" / "a.txt").write_text("firsT\n")
    found = stored.run("verify", "words", "--repair", "--json")
    assert found.returncode == 1
    (artifact,) = json.loads(found.stdout)["artifacts"]
    assert [c["repair"]["action"] for c in artifact["copies"]] == ["failed", "failed"]
    assert "make the artifact again" in found.stderr
    only = stored.run("verify", "--tier", "volume")
    assert (only.returncode, only.stdout.count("\n")) == (1, 1)
    assert stored.run("verify", "--tier", "nowhere").returncode == 2


def test_verify_goes_on_without_a_tier_that_fails(stored):
    shutil.rmtree(stored.root / "volume")
    (stored.root / "volume").write_text("not a folder")
    found = stored.run("verify", "words")
    assert found.returncode == 0
    assert found.stdout.splitlines()[0] == "words: local: ok, 13 B compared"
    assert found.stdout.splitlines()[1].startswith("words: volume: not compared: ")
    assert found.stderr.startswith("tieredstore: warning: tier 'volume' skipped: ")
    assert found.stderr.count("\n") == 1


def test_verify_of_data_without_a_manifest_says_so(place):
    folder = place.root / "data" / "old" / "old"
    folder.mkdir(parents=True)
    (folder / "train.bin").write_bytes(b"1234")
    found = place.run("verify", "old")
    assert (found.returncode, found.stdout) == (1, "old: local: not compared: unmanaged\n")
    assert "nothing to compare with a manifest" in found.stderr
    assert place.run("restore", "old").returncode == 0
    assert place.done("verify", "old") == "old: local: ok, 4 B compared\n"


def test_evict_keeps_the_only_copy(place):
    place.done("put", "words", "in")
    assert "no verified copy elsewhere" in place.one_line("evict", "words")
    assert (place.root / "data/words/words/a.txt").read_text() == "first\n"


def test_promote_without_a_durable_tier(place):
    text = (place.root / "tieredstore.toml").read_text()
    (place.root / "tieredstore.toml").write_text(text.replace("durable = true", ""))
    place.done("put", "words", "in")
    assert "no durable tier" in place.one_line("promote", "words")


# -- put ----------------------------------------------------------------------------------------


def test_put_takes_several_paths_by_their_base_names(place):
    (place.root / "c.txt").write_text("third\n")
    os.chmod(place.root / "c.txt", 0o750)
    os.utime(place.root / "c.txt", (1e9, 1e9))
    place.done("put", "set/one", "in", "c.txt")
    folder = place.root / "data" / "set" / "one"
    assert (folder / "in" / "sub" / "b.txt").read_text() == "second\n"
    assert (folder / "c.txt").read_text() == "third\n"
    assert (folder / "c.txt").stat().st_mode & 0o777 == 0o750
    assert (folder / "c.txt").stat().st_mtime == 1e9
    place.done("put", "one", "c.txt")
    assert (place.root / "data" / "one" / "one" / "c.txt").read_text() == "third\n"


def test_put_refuses_before_it_touches_anything(place):
    root = place.root
    (root / "other").mkdir()
    (root / "other" / "a.txt").write_text("x")
    (root / "link").symlink_to("in")
    (root / "holds").mkdir()
    (root / "holds" / "l").symlink_to("/etc/passwd")
    (root / "pipes").mkdir()
    os.mkfifo(root / "pipes" / "p")
    (root / "empty" / "er").mkdir(parents=True)
    (root / "own").mkdir()
    (root / "own" / ".tieredstore.json").write_text("{}")
    clash = place.one_line("put", "x", "in/a.txt", "other/a.txt")
    assert "other/a.txt and in/a.txt: both would be 'a.txt'" in clash
    assert "link: a symbolic link to in" in place.one_line("put", "x", "link")
    assert "holds/l: a symbolic link to /etc/passwd" in place.one_line("put", "x", "holds")
    assert "pipes/p: neither a file nor a folder" in place.one_line("put", "x", "pipes")
    assert "empty: no file in there" in place.one_line("put", "x", "empty")
    assert "No such file or directory: gone; check the path" in place.one_line("put", "x", "gone")
    assert "store's own" in place.one_line("put", "x", "own", code=2)
    assert "artifact name '../x'" in place.one_line("put", "../x", "in", code=2)
    assert "artifact name '/x'" in place.one_line("put", "/x", "gone", code=2)
    assert not (root / "data").exists()
    place.done("put", "x", "in")
    assert "lies inside the artifact 'x'" in place.one_line("put", "x/y", "in")


# -- used wrongly -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["nope"],
        ["restore"],
        ["put", "x"],
        ["restore", "../x"],
        ["restore", "x", "--fil", "a"],
        ["promote", "words", "--to", "nowhere"],
        ["evict", "words", "--tier", "nowhere"],
        ["--config", "gone.toml", "status"],
        ["status", "--config", "gone.toml"],
    ],
)
def test_used_wrongly_is_status_2_and_one_line(stored, args):
    stored.one_line(*args, code=2)


def test_help_and_version(place):
    assert re.fullmatch(r"tieredstore \d+\.\d+\.\d+\n", place.done("--version"))
    text = place.done("--help")
    for verb in ("status", "locate", "put", "restore", "promote", "verify", "evict"):
        assert re.search(rf"^ +{verb} +\w", text, re.MULTILINE)
        assert "--json" in place.done(verb, "--help")
    assert "130 interrupted" in text


def test_the_installed_command(place):
    script = Path(sys.executable).with_name("tieredstore")
    if not script.exists():
        pytest.skip("the distribution is not installed in this environment")
    done = subprocess.run(
        [script, "restore", "x"], cwd=place.root, env=place.env, check=False, capture_output=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"tieredstore: error: x: no tier can serve it")


def test_an_unexpected_error_is_one_line_and_a_traceback_on_request(place):
    site = place.root / "site"
    site.mkdir()
    (site / "broken.py").write_text(
        "from tieredstore.backends.local import LocalBackend\n"
        "class Broken(LocalBackend):\n"
        "    def hold(self, folder):\n        raise KeyError('two\\nlines')\n"
    )
    _install(site, "broken = broken:Broken")
    text = (place.root / "tieredstore.toml").read_text()
    (place.root / "tieredstore.toml").write_text(
        text.replace('backend = "local"', 'backend = "broken"', 1)
    )
    line = place.one_line("restore", "x")
    assert "unexpected KeyError" in line
    assert "TIEREDSTORE_DEBUG=1" in line
    place.env["TIEREDSTORE_DEBUG"] = "1"
    assert "Traceback" in place.run("restore", "x").stderr


def _install(site: Path, point: str) -> None:
    info = site / "plug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[tieredstore.backends]\n{point}\n")


# -- places that fail ---------------------------------------------------------------------------


def test_a_tier_that_fails_is_a_warning_on_stderr_and_in_the_json(stored):
    volume = stored.root / "volume"
    shutil.rmtree(volume)
    volume.write_text("not a folder")
    found = stored.run("status", "--json")
    assert found.returncode == 0
    document = json.loads(found.stdout)
    assert list(document["skipped"]) == ["volume"]
    assert [c["state"] for c in document["artifacts"][0]["copies"]] == ["whole", "unreachable"]
    lines = found.stderr.splitlines()
    assert all(line.startswith("tieredstore: warning: tier 'volume' skipped: ") for line in lines)
    assert len(lines) == len(set(lines)) >= 1
    assert stored.done("restore", "words").startswith("words: already in ")


def test_a_full_disk_is_one_line_and_nothing_is_half_visible(stored, mounted):
    small = mounted("small", "size=1m")
    (stored.root / "big").mkdir()
    (stored.root / "big" / "f").write_bytes(os.urandom(4 * MIB))
    stored.configure(str(small))
    stored.done("put", "big", "big")
    line = stored.one_line("promote", "big")
    assert "no room in tier 'volume'" in line
    assert not list(small.rglob("f"))
    assert stored.json("locate", "big")["copies"][1]["state"] == "absent"
    stored.configure("volume")
    stored.done("promote", "big")
    text = (stored.root / "tieredstore.toml").read_text()
    (stored.root / "tieredstore.toml").write_text(text.replace('"data"', f'"{small}"'))
    for verb in (["restore", "big"], ["put", "other", "big"]):
        line = stored.one_line(*verb)
        assert "no room in tier 'local'" in line
        assert "free some space" in line
        found = stored.run("status", "--json")
        assert all(
            a["copies"][0]["state"] == "absent" for a in json.loads(found.stdout)["artifacts"]
        )
    shutil.rmtree(small / ".tieredstore")  # what the restore had fetched, kept to go on with
    stored.done("restore", "words")


def test_a_read_only_volume_serves_and_refuses(stored, mounted):
    volume = mounted("ro", "size=4m")
    stored.configure(str(volume))
    stored.done("promote", "words")
    stored.done("put", "more", "in")
    subprocess.run(["mount", "-o", "remount,ro", str(volume)], check=True)
    found = stored.run("promote", "more")
    assert found.returncode == 1
    assert "Read-only file system" in found.stderr.splitlines()[-1]
    assert all(line.startswith("tieredstore: ") for line in found.stderr.splitlines())
    shutil.rmtree(stored.root / "data")
    assert stored.done("restore", "words").startswith("words: restored from volume")


def test_a_read_only_first_tier_still_serves_hits(stored, mounted):
    first = mounted("first", "size=4m")
    text = (stored.root / "tieredstore.toml").read_text()
    (stored.root / "tieredstore.toml").write_text(text.replace('"data"', f'"{first}"'))
    stored.done("restore", "words")
    stored.done("put", "other", "in")
    stored.done("promote", "other")
    shutil.rmtree(first / "other")
    subprocess.run(["mount", "-o", "remount,ro", str(first)], check=True)
    assert stored.done("restore", "words").startswith("words: already in ")
    found = stored.run("restore", "other")
    assert found.returncode == 1
    assert "Read-only file system" in found.stderr
    assert "Traceback" not in found.stderr
    assert found.stderr.splitlines()[-1].startswith("tieredstore: error: ")
    assert "Read-only file system" in stored.run("put", "new", "in").stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="giving up rights needs root")
def test_permission_denied_is_one_line():
    root = Path(tempfile.mkdtemp(prefix="tieredstore-test-"))
    try:
        os.chmod(root, 0o755)
        place = Place(root)
        (root / "in").mkdir()
        (root / "in" / "a.txt").write_text("first\n")
        place.done("put", "words", "in")
        hit = place.as_nobody("restore", "words")
        assert (hit.returncode, hit.stderr) == (0, "")
        put = place.as_nobody("put", "other", "in")
        assert (put.returncode, put.stdout) == (1, "")
        assert put.stderr.count("\n") == 1
        assert "Permission denied: " in put.stderr
        assert "check who owns it" in put.stderr
        os.chmod(root / "in" / "a.txt", 0o600)
        for path in [root / "data", *(root / "data").rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
        put = place.as_nobody("put", "other", "in")
        assert "Permission denied: in/a.txt" in put.stderr
        assert put.stderr.count("\n") == 1
        os.chown(root / "data", 0, 0)
        os.chmod(root / "data", 0o700)
        denied = place.as_nobody("restore", "words")
        assert (denied.returncode, denied.stdout) == (1, "")
        assert "Permission denied" in denied.stderr
        assert "Traceback" not in denied.stderr
    finally:
        shutil.rmtree(root)


# -- interrupted --------------------------------------------------------------------------------


@pytest.fixture
def slow(place):
    """``big``, 48 MiB, in a volume that gives a MiB in 50 ms and notes what was read."""
    (place.root / "big").mkdir()
    (place.root / "big" / "f").write_bytes(os.urandom(48 * MIB))
    place.done("put", "big", "big")
    place.done("promote", "big")
    shutil.rmtree(place.root / "data")
    site = place.root / "site"
    site.mkdir()
    (site / "slow.py").write_text(SLOW)
    _install(site, "slow = slow:Slow")
    place.configure("volume", "slow")
    return place


def _reads(place: Place) -> int:
    log = place.root / "reads"
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_in_a_restore_ends_it_in_one_line_and_it_goes_on_later(slow, number, code, word):
    running = slow.start("restore", "big")
    until = time.monotonic() + 30
    while _reads(slow) < 16 and time.monotonic() < until:
        time.sleep(0.01)
    running.send_signal(number)
    out, err = running.communicate(timeout=10)
    assert (running.returncode, out) == (code, "")
    assert err == f"tieredstore: {word}; run the command again to go on\n"
    before = _reads(slow)
    assert 16 <= before < 48
    assert slow.json("locate", "big")["copies"][0]["state"] == "absent"
    assert slow.done("restore", "big").startswith("big: restored from volume")
    assert _reads(slow) - before <= 48 - before + 16  # what was under way is read again
    assert _reads(slow) < 48 + 16
    same = (slow.root / "data/big/big/f").read_bytes() == (slow.root / "big/f").read_bytes()
    assert same


@pytest.mark.parametrize("args", [["status"], ["status", "--json"], ["put", "--help"]])
def test_a_reader_that_has_gone_is_no_error(stored, args):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, *args],
        cwd=stored.root,
        env=stored.env,
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(("args", "code"), [(["nope"], 2), (["restore", "gone"], 1)])
def test_a_reader_of_the_errors_that_has_gone_changes_nothing(stored, args, code):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, *args],
        cwd=stored.root,
        env=stored.env,
        stdout=subprocess.DEVNULL,
        stderr=writing,
        check=False,
    )
    os.close(writing)
    assert done.returncode == code


@pytest.mark.parametrize("args", [["status", "--json"], ["status"], ["--help"]])
def test_output_that_cannot_be_written_is_one_line(stored, args):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, *args],
            cwd=stored.root,
            env=stored.env,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"tieredstore: error: No space left on device: standard output")
    assert done.stderr.count(b"\n") == 1


def test_closed_streams(stored):
    shell = f"{sys.executable} -m tieredstore.cli restore words >&- 2>&-"
    done = subprocess.run(["sh", "-c", shell], cwd=stored.root, env=stored.env, check=False)
    assert done.returncode == 0


# -- terminal -----------------------------------------------------------------------------------


def on_a_terminal(place: Place, *args: str) -> tuple[int, str]:
    """Run the command on a pseudo-terminal; its status and all that it wrote."""
    main, side = pty.openpty()
    env = {**place.env, "TERM": "xterm-256color", "COLUMNS": "160", "LINES": "40"}
    running = subprocess.Popen(
        [*COMMAND, *args], cwd=place.root, env=env, stdin=side, stdout=side, stderr=side
    )
    os.close(side)
    parts = []
    while True:
        ready, _, _ = select.select([main], [], [], 30)
        try:
            data = os.read(main, 65536) if ready else b""
        except OSError:  # the other side is closed
            break
        if not data:
            break
        parts.append(data)
    os.close(main)
    return running.wait(30), b"".join(parts).decode()


def test_a_table_on_a_terminal(stored):
    code, text = on_a_terminal(stored, "status")
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert code == 0
    assert "───" in plain
    header = re.search(r"Artifact +Tier +State +Files +Size +Age +Recipe", plain)
    assert header is not None
    assert re.search(r"words +volume +whole +2 +13 B +\d+ s +put 1", plain)


def test_a_bar_on_a_terminal_and_the_terminal_as_it_was(slow):
    code, text = on_a_terminal(slow, "restore", "big")
    assert code == 0
    assert "restore big" in text
    assert re.search(r"\d/50\.3 MB", text)
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") >= 1  # the cursor is shown again
    assert "big: restored from volume to " in text


def test_nothing_of_a_terminal_elsewhere(stored):
    found = stored.run("status")
    assert "\x1b" not in found.stdout
    program = "import sys\nfrom tieredstore.cli import run\nassert run(sys.argv[1:]) == 0\n"
    program += "heavy = {'rich', 'fsspec', 'filelock', 'importlib.metadata', 'hashlib'}\n"
    program += "print(sorted(heavy & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", program, "restore", "words"],
        cwd=stored.root,
        env=stored.env,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_what_a_tier_says_cannot_steer_a_terminal(place):
    made = "import tieredstore\nwith tieredstore.open_store().create('words', recipe=dict("
    made += "preparer='p\\x1b[2J\\n')) as s: (s.path / 'x').write_text('x')"
    subprocess.run([sys.executable, "-c", made], cwd=place.root, env=place.env, check=True)
    code, text = on_a_terminal(place, "status")
    assert code == 0
    assert "\x1b[2J" not in text
    assert "p\\x1b[2J\\n" in text
    assert len(place.done("status").splitlines()) == 2
