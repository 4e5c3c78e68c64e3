"""The command datasets-prep as people run it: real processes, folders, servers and kills."""

import hashlib
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tieredstore import ArtifactNotFound, open_store

FILES = ("train.bin", "val.bin", "meta.pkl")
TEXT = "".join(f"{n}: Now is the winter of our discontent {n % 13}.\n" for n in range(4000))
SHARED = Path(__file__).parents[3] / "shared" / "data"
KILLS = int(os.environ.get("DATASETS_PREP_KILLS", "6"))

Done = subprocess.CompletedProcess[str]


class Machine:
    """A pod: a working directory that dies with it, and a volume that does not."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.repo = root / "repo"
        self.folder = self.repo / "data" / "shakespeare" / "shakespeare"
        self.volume = root / "volume" / "data" / "shakespeare"
        self.input = root / "input.txt"
        self.input.write_text(TEXT)
        self.repo.mkdir()
        (root / "volume").mkdir()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TIEREDSTORE_", "TIKTOK"))}
        self.env = {
            **kept,
            "TIEREDSTORE_RUNPOD_VOLUME": str(root / "volume"),
            "TMPDIR": str(root),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            # Whatever the machine can reach: nothing here goes to the internet.
            "HTTP_PROXY": "http://127.0.0.1:9",
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "127.0.0.1",
        }

    def start(self, *arguments: object, **further: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "datasets_prep.cli", *map(str, arguments)],
            cwd=self.repo,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **further,
        )

    def run(self, *arguments: object, code: int = 0, **further: object) -> Done:
        process = self.start(*arguments, **further)
        out, err = process.communicate(timeout=100)
        assert process.returncode == code, f"{arguments}\n{out}\n{err}"
        assert "Traceback" not in err
        return subprocess.CompletedProcess(process.args, code, out, err)

    def prepare(self, *further: object, **how: object) -> Done:
        arguments = ["--source", self.input, "--tokenizer", "char", *further]
        return self.run("prepare", "shakespeare", *arguments, **how)

    def files(self, folder: Path | None = None) -> dict[str, bytes]:
        return {f: ((folder or self.folder) / f).read_bytes() for f in FILES}

    def error(self, done: Done) -> str:
        lines = [line for line in done.stderr.splitlines() if "error: " in line]
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("datasets-prep: error: ")
        return lines[0]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.chdir(made.repo)
    monkeypatch.setenv("TIEREDSTORE_RUNPOD_VOLUME", str(tmp_path / "volume"))
    monkeypatch.delenv("TIEREDSTORE_CONFIG", raising=False)
    return made


@pytest.fixture
def url(machine: Machine) -> Iterator[str]:
    """The input on a server."""
    handler = partial(Quiet, directory=str(machine.root))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/input.txt"
    server.shutdown()
    server.server_close()
    thread.join()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


# -- the ways of a dataset ----------------------------------------------------------------------


def test_fresh_then_a_hit_then_restored(machine: Machine) -> None:
    fresh = machine.prepare()
    lines = fresh.stdout.splitlines()
    train, val = int(len(TEXT) * 0.9), len(TEXT) - int(len(TEXT) * 0.9)
    assert lines[0] == "🔄 Starting Shakespeare dataset preparation (subset: 1.0)"
    assert lines[-4:] == [
        "✅ Preparation complete for shakespeare",
        f"train has {train:,} tokens",
        f"val has {val:,} tokens",
        f"📁 Files also saved to RunPod storage: {machine.volume}",
    ]
    assert fresh.stderr == ""
    kept = machine.files()
    assert machine.files(machine.volume) == kept

    using = f"📁 Using existing files - Train: {train:,} tokens, Val: {val:,} tokens"
    hit = machine.prepare()
    assert hit.stdout.splitlines()[1:] == ["✅ All required files found locally", using]

    shutil.rmtree(machine.repo / "data")
    restored = machine.prepare()
    assert restored.stdout.splitlines()[1:] == [
        f"📁 Found all files in RunPod storage: {machine.volume}",
        *(f"📥 Copied {file} from RunPod storage to local" for file in sorted(FILES)),
        f"✅ All required files restored from RunPod storage to {machine.folder}",
        using,
    ]
    assert machine.files() == kept


def test_a_hit_loads_no_numpy_no_tiktoken_and_takes_no_write(machine: Machine) -> None:
    machine.prepare()
    before = {p: p.stat().st_mtime_ns for p in machine.root.rglob("*") if p.is_file()}
    code = (
        "import sys; from datasets_prep.cli import run; code = run(sys.argv[1:]); "
        "print([m for m in ('numpy', 'tiktoken', 'requests', 'fsspec', 'filelock') "
        "if m in sys.modules], code)"
    )
    arguments = ["prepare", "shakespeare", "--source", machine.input, "--tokenizer", "char"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=machine.repo,
        env=machine.env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[] 0"
    assert {p: p.stat().st_mtime_ns for p in machine.root.rglob("*") if p.is_file()} == before


def test_another_subset_says_why_and_leaves_the_volume_alone(machine: Machine) -> None:
    machine.prepare()
    full = machine.files(machine.volume)
    small = machine.prepare("--subset", "0.1")
    assert "(subset: 0.1)" in small.stdout
    assert "subset: 1.0 there, 0.1 asked for" in small.stdout
    assert "RunPod storage keeps what it has" in small.stderr
    assert len(machine.files()["train.bin"]) == 2 * int(int(len(TEXT) * 0.9) * 0.1)
    assert machine.files(machine.volume) == full
    machine.prepare("--subset", "0.1", "--force")
    assert machine.files(machine.volume) == machine.files() != full


def test_another_source_prepares_again(machine: Machine) -> None:
    machine.prepare()
    machine.input.write_text(TEXT.upper())
    again = machine.prepare()
    assert "🔁 Preparing again" in again.stdout
    assert pickle.loads(machine.files()["meta.pkl"])["vocab_size"] == len(set(TEXT.upper()))


def test_from_a_url_and_then_without_the_server(machine: Machine, url: str) -> None:
    ask = ["prepare", "shakespeare", "--tokenizer", "byte", "--source", url]
    fresh = machine.run(*ask)
    assert fresh.stdout.splitlines()[1] == "📥 Downloading Shakespeare dataset..."
    cut = int(len(TEXT) * 0.9)
    assert machine.files()["train.bin"] == TEXT[:cut].encode()
    machine.input.unlink()
    assert "✅ All required files found locally" in machine.run(*ask).stdout
    shutil.rmtree(machine.repo / "data")
    assert "restored from RunPod storage" in machine.run(*ask).stdout
    failed = machine.run(*ask, "--force", code=1)
    assert "the server answered 404" in machine.error(failed)
    assert machine.files()["train.bin"] == TEXT[:cut].encode()


def test_a_url_that_changed_is_read_again_when_something_is_built(
    machine: Machine, url: str
) -> None:
    ask = ["prepare", "shakespeare", "--tokenizer", "byte", "--source", url]
    machine.run(*ask)
    machine.input.write_text("other text, " * 100)
    machine.run(*ask, "--subset", "0.5")
    assert machine.files()["train.bin"].startswith(b"other text")
    recipe = open_store().locate("shakespeare")[0].recipe
    assert recipe.inputs["input"] == hashlib.sha256(machine.input.read_bytes()).hexdigest()


def test_data_dir_config_and_list(machine: Machine) -> None:
    config = machine.root / "tiers.toml"
    config.write_text(
        '[[tier]]\nname = "fast"\nbackend = "local"\npath = "fast"\n\n'
        '[[tier]]\nname = "kept"\nbackend = "local"\npath = "kept"\ndurable = true\n'
    )
    machine.prepare("--config", config)
    assert machine.files(machine.root / "kept/shakespeare") == machine.files(
        machine.root / "fast/shakespeare/shakespeare"
    )
    assert not machine.volume.exists()
    out = machine.root / "out"
    restored = machine.prepare("--config", config, "--data-dir", out)
    assert "restored from kept storage" in restored.stdout
    assert machine.files(out / "shakespeare") == machine.files(machine.root / "kept/shakespeare")
    listed = machine.run("list").stdout.splitlines()
    names = {"openwebtext", "proofpile", "pydoc_topics", "shakespeare"}
    assert names <= {line.split("\t")[0] for line in listed}


def test_two_at_once_prepare_once(machine: Machine) -> None:
    ask = ["prepare", "pydoc_topics"]
    processes = [machine.start(*ask) for _ in range(3)]
    said = [p.communicate(timeout=100) for p in processes]
    assert [p.returncode for p in processes] == [0, 0, 0], said
    assert sum("✅ Preparation complete" in out for out, _ in said) == 1


# -- what goes wrong ----------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
@pytest.mark.parametrize("file", ["train.bin", "meta.pkl"])
def test_damage_on_the_volume_is_found_and_prepared_again(
    machine: Machine, damage: Callable[[Path], None], file: str
) -> None:
    machine.prepare()
    kept = machine.files()
    shutil.rmtree(machine.repo / "data")
    damage(machine.volume / file)
    again = machine.prepare()
    assert "RunPod storage holds a damaged copy, not used" in again.stderr
    assert "✅ Preparation complete for shakespeare" in again.stdout
    assert machine.files() == machine.files(machine.volume) == kept


def test_damage_on_one_tier_is_served_by_the_next(machine: Machine) -> None:
    config = machine.root / "tiers.toml"
    config.write_text(
        "".join(
            f'[[tier]]\nname = "{n}"\nbackend = "local"\npath = "{n}"\ndurable = {d}\n\n'
            for n, d in (("fast", "false"), ("near", "true"), ("far", "true"))
        )
    )
    machine.prepare("--config", config)
    kept = machine.files(machine.root / "far/shakespeare")
    shutil.rmtree(machine.root / "fast")
    flip(machine.root / "near/shakespeare/val.bin")
    again = machine.prepare("--config", config)
    assert "✅ All required files restored" in again.stdout
    assert "near storage holds a damaged copy" in again.stderr
    assert machine.files(machine.root / "fast/shakespeare/shakespeare") == kept


def test_a_read_only_first_tier_serves_hits(machine: Machine) -> None:
    machine.prepare()
    config = machine.root / "tiers.toml"
    config.write_text(
        f'[[tier]]\nname = "local"\nbackend = "local"\npath = "{machine.repo}/data"\n'
        "read_only = true\n"
    )
    hit = machine.prepare("--config", config)
    assert "✅ All required files found locally" in hit.stdout
    failed = machine.prepare("--config", config, "--force", code=1)
    assert "read-only" in machine.error(failed)


def test_a_truncated_local_file_is_restored(machine: Machine) -> None:
    machine.prepare()
    kept = machine.files()
    truncate(machine.folder / "val.bin")
    assert "✅ All required files restored" in machine.prepare().stdout
    assert machine.files() == kept


def test_legacy_data_on_the_volume_is_restored_and_adopted(machine: Machine) -> None:
    machine.volume.mkdir(parents=True)
    (machine.volume / "train.bin").write_bytes(bytes(180))
    (machine.volume / "val.bin").write_bytes(bytes(20))
    meta = {"vocab_size": 50257, "tokenizer": "gpt2"}
    (machine.volume / "meta.pkl").write_bytes(pickle.dumps(meta))
    restored = machine.run("prepare", "shakespeare")
    assert "its recipe is unknown" in restored.stdout
    assert "📁 Using existing files - Train: 90 tokens, Val: 10 tokens" in restored.stdout
    assert [w.state for w in open_store().locate("shakespeare")] == ["whole", "whole"]
    other = machine.prepare("--subset", "0.5")
    assert "recipe unknown, and other than the usual options are asked for" in other.stdout
    assert "RunPod storage keeps what it has" in other.stderr
    assert (machine.volume / "train.bin").read_bytes() == bytes(180)


def test_a_volume_that_cannot_be_written_is_one_line_and_the_data_is_here(
    machine: Machine,
) -> None:
    (machine.root / "volume" / "data").write_text("a file where a folder should be")
    failed = machine.prepare(code=1)
    line = machine.error(failed)
    assert "runpod" in line
    assert f"it is whole in {machine.folder}" in line
    assert "tieredstore promote shakespeare" in line
    assert failed.stderr.count("\n") == 1
    assert "✅ All required files found locally" in machine.prepare().stdout


def test_a_read_only_volume_serves_and_is_not_written(machine: Machine) -> None:
    machine.prepare()
    config = machine.root / "tiers.toml"
    config.write_text(
        '[[tier]]\nname = "fast"\nbackend = "local"\npath = "fast"\n\n'
        '[[tier]]\nname = "runpod"\nbackend = "runpod"\nread_only = true\n'
    )
    before = {p: p.stat().st_mtime_ns for p in (machine.root / "volume").rglob("*")}
    assert "✅ All required files restored" in machine.prepare("--config", config).stdout
    flip(machine.volume / "val.bin")
    before[machine.volume / "val.bin"] = (machine.volume / "val.bin").stat().st_mtime_ns
    shutil.rmtree(machine.root / "fast")
    assert "✅ Preparation complete" in machine.prepare("--config", config).stdout
    assert {p: p.stat().st_mtime_ns for p in (machine.root / "volume").rglob("*")} == before


def test_a_disk_that_takes_no_more_is_one_line_and_nothing_is_lost(machine: Machine) -> None:
    machine.prepare()
    kept = machine.files()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    failed = machine.prepare("--force", "--subset", "0.9", code=1, preexec_fn=limit)
    assert "File too large" in machine.error(failed)
    assert machine.files() == machine.files(machine.volume) == kept
    assert list((machine.repo / "data/.tieredstore/stage").iterdir()) == []
    assert "✅ All required files found locally" in machine.prepare().stdout


def test_no_internet_is_one_line(machine: Machine) -> None:
    failed = machine.run("prepare", "shakespeare", "--tokenizer", "char", code=1)
    line = machine.error(failed)
    assert "cannot be downloaded" in line
    assert "--source PATH" in line


def test_no_vocabulary_is_one_line(machine: Machine) -> None:
    failed = machine.run("prepare", "shakespeare", "--source", machine.input, code=1)
    line = machine.error(failed)
    assert "TIKTOKEN_CACHE_DIR" in line
    assert "--tokenizer char" in line
    assert not machine.folder.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prepare", "shakespeare", "--subset", "0"], "subset 0.0: expected more than 0"),
        (["prepare", "shakespeare", "--subset", "1.5"], "at most 1"),
        (["prepare", "shakespeare", "--subset", "nan"], "at most 1"),
        (["prepare", "shakespeare", "--subset", "half"], "invalid float value"),
        (["prepare", "shakespeare", "--tokenizer", "words"], "expected one of gpt2, char, byte"),
        (["prepare", "shakespeare", "--num-proc", "0"], "expected at least 1"),
        (["prepare", "nothing"], "no dataset 'nothing'"),
        (["prepare", "../x"], "no dataset '../x'"),
        (["prepare"], "required: NAME"),
        (["prepare", "shakespeare", "--config", "none.toml"], "none.toml"),
        ([], "required: COMMAND"),
        (["frobnicate"], "invalid choice"),
    ],
)
def test_wrong_use_is_one_line_and_2(machine: Machine, arguments: list[str], said: str) -> None:
    done = machine.run(*arguments, code=2)
    assert said in machine.error(done)
    assert not (machine.repo / "data").exists()


def test_a_wrong_source_is_one_line(machine: Machine) -> None:
    machine.input.write_bytes(b"\xff\xfe\x00")
    assert "no UTF-8 text" in machine.error(machine.prepare(code=1))
    machine.input.unlink()
    assert "No such file" in machine.error(machine.prepare(code=1))


def test_the_help_of_force(machine: Machine) -> None:
    text = " ".join(machine.run("prepare", "--help").stdout.split())
    assert "--force Force re-preparation even if files already exist" in text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_is_one_line_and_nothing_is_left(
    machine: Machine, number: int, code: int
) -> None:
    machine.input.unlink()
    os.mkfifo(machine.input)  # the preparation waits for its input
    ask = ["prepare", "shakespeare", "--tokenizer", "char", "--source", machine.input]
    process = machine.start(*ask)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("🔄")
    time.sleep(0.3)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, (out, err)
    assert err.count("\n") == 1
    assert "run the command again" in err
    assert not machine.folder.exists()


def test_a_reader_of_the_output_that_goes_away_does_not_stop_the_work(machine: Machine) -> None:
    process = machine.start("prepare", "pydoc_topics")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(100) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert (machine.root / "volume/data/pydoc_topics/train.bin").is_file()


# -- kill -9 ------------------------------------------------------------------------------------


def served(machine: Machine) -> str | None:
    """The tokenizer of what a reader finds, every byte of it of one generation."""
    try:
        got = open_store().restore("shakespeare", FILES)
    except ArtifactNotFound:
        return None
    with got:
        found = {}
        for file in FILES:
            with got.open(file) as opened:
                found[file] = opened.read()
    meta = pickle.loads(found["meta.pkl"])
    width = 1 if meta.get("byte_level") else 2
    cut = int(len(TEXT) * 0.9)
    assert len(found["train.bin"]) == width * cut
    assert len(found["val.bin"]) == width * (len(TEXT) - cut)
    if width == 1:
        assert found["train.bin"] + found["val.bin"] == TEXT.encode()
    else:
        first = [meta["itos"][n] for n in found["train.bin"][:200:2]]
        assert "".join(first) == TEXT[:100]
    return str(meta["tokenizer"])


@pytest.mark.timeout(max(120, KILLS * 8))
def test_killed_at_random_moments(machine: Machine) -> None:
    lease = machine.root / "volume/.tieredstore/lease"
    lease.mkdir(parents=True)
    (lease / "length.json").write_text('{"seconds": 1}')  # a dead holder is waited for
    random.seed(20)
    begin = time.monotonic()
    machine.prepare()
    whole = time.monotonic() - begin
    shown = "char"
    for n in range(KILLS):
        if n % 3 == 2:
            shutil.rmtree(machine.folder)  # what is killed is a restore
            further = ["--tokenizer", shown]
        else:
            further = ["--tokenizer", "byte" if shown == "char" else "char", "--force"]
        ask = ["prepare", "shakespeare", "--source", machine.input, *further]
        process = machine.start(*ask)
        time.sleep(random.uniform(0.3 * whole, 1.05 * whole))
        process.kill()
        process.communicate()
        found = served(machine)
        assert found in {shown, further[1]}, "the old one is whole until the new one is"
        machine.run(*ask)
        shown = further[1]
        assert served(machine) == shown
        assert all(v.ok for v in open_store().verify("shakespeare"))


SCRIPT = """
import sys
import numpy as np
from datasets_prep import DataPrep
mark = int(sys.argv[1])
prep = DataPrep("data/mine", "mine")
for split, size in (("train", 9000), ("val", 1000)):
    prep.write_binary_file(np.full(size, mark, dtype=np.uint16), split)
prep.save_meta(vocab_size=mark)
"""


def mark_of(machine: Machine) -> int | None:
    """What the files that a reader finds have in common; ``None`` where there is nothing whole."""
    try:
        got = open_store().restore("mine", FILES)
    except ArtifactNotFound:
        return None
    with got, got.open("train.bin") as train, got.open("val.bin") as val, got.open("meta.pkl") as m:
        mark = int(pickle.load(m)["vocab_size"])
        assert train.read() == mark.to_bytes(2, "little") * 9000
        assert val.read() == mark.to_bytes(2, "little") * 1000
    return mark


@pytest.mark.timeout(max(120, KILLS * 8))
def test_a_script_that_writes_file_by_file_killed_at_random_moments(machine: Machine) -> None:
    def start(mark: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", SCRIPT, str(mark)]
        nothing = subprocess.DEVNULL
        return subprocess.Popen(command, cwd=machine.repo, env=machine.env, stdout=nothing)

    random.seed(21)
    begin = time.monotonic()
    assert start(1000).wait(100) == 0
    whole = time.monotonic() - begin
    before = 1000
    for n in range(KILLS):
        mark = 1001 + n
        process = start(mark)
        time.sleep(random.uniform(0.4 * whole, 1.05 * whole))
        process.kill()
        process.wait()
        assert mark_of(machine) in {None, before, mark}
        assert start(mark).wait(100) == 0
        assert mark_of(machine) == mark
        assert machine.files(machine.repo / "data/mine/mine") == machine.files(
            machine.root / "volume/data/mine"
        )
        assert all(v.ok for v in open_store().verify("mine"))
        before = mark


# -- the real thing -----------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("tokenizer", "counts", "train", "val"),
    [
        (
            "gpt2",
            (301_966, 36_059),
            "502a2bdc8210d1ac5d5674867cb74467dd31db575d25cf6dbb08c8bdbea8680f",
            "68a53422394c26a655ebe641f5c6f49888e8f4e45fe5d6f02abda63ba3ebd65b",
        ),
        (
            "char",
            (1_003_854, 111_540),
            "6ec305602a99ac2802745a134e1f5e33e2231b4855525b00b9aebb730ac2626f",
            "d37d30cc0c8327c270d493299c3dca54135f6d5f1c9ef60cda78076e311204b1",
        ),
    ],
)
def test_tiny_shakespeare_byte_for_byte(
    machine: Machine, tokenizer: str, counts: tuple[int, int], train: str, val: str
) -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}")
    machine.env["TIKTOKEN_CACHE_DIR"] = str(SHARED / "tiktoken-cache")
    source = SHARED / "tinyshakespeare" / "input.txt"
    ask = ["prepare", "shakespeare", "--source", source, "--tokenizer", tokenizer]
    done = machine.run(*ask)
    assert f"train has {counts[0]:,} tokens\nval has {counts[1]:,} tokens" in done.stdout
    for file, digest in (("train.bin", train), ("val.bin", val)):
        assert hashlib.sha256((machine.folder / file).read_bytes()).hexdigest() == digest
    # The same bytes as the public input: its digest is the recipe's, so this is a hit.
    hit = machine.run("prepare", "shakespeare", "--tokenizer", tokenizer)
    assert "✅ All required files found locally" in hit.stdout
