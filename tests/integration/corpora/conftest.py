"""Real text that every Debian machine has, as corpora; the command; nanoGPT's own recipe."""

import gzip
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[4] / "shared" / "data"
VOCABULARY = SHARED / "tiktoken-cache"
MEGABYTES = float(os.environ.get("DATASETS_PREP_CORPUS_MB", "3"))
FILES = ("train.bin", "val.bin", "meta.pkl")


def _sources() -> Iterator[str]:
    roots = [Path(sysconfig.get_paths()["stdlib"]), Path("/usr/share/doc"), Path("/usr/share")]
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.is_symlink() or not path.is_file() or path.stat().st_size > 2 << 20:
                continue
            data = path.read_bytes()
            try:
                text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
            except (OSError, EOFError, UnicodeDecodeError):
                continue
            if text.isprintable() or "\0" not in text:
                yield text


def real_texts(size: float) -> list[str]:
    """Documents of so many characters together, some with marks that look like special tokens."""
    found: list[str] = []
    left = int(size)
    for text in _sources():
        for begin in range(0, len(text), 7000):
            found.append(text[begin : begin + 7000][:left])
            left -= len(found[-1])
            if len(found) % 50 == 0:
                found[-1] += "<|endoftext|> é 漢字 \U0001f600"
            if left <= 0:
                return found
    return found


@pytest.fixture(scope="session")
def texts() -> list[str]:
    found = real_texts(MEGABYTES * 1e6)
    if sum(map(len, found)) < MEGABYTES * 1e6:
        pytest.skip(f"this machine has less than {MEGABYTES} MB of text")
    return found


@pytest.fixture(scope="session")
def vocabulary() -> Path:
    if not VOCABULARY.is_dir():
        pytest.skip(f"no {VOCABULARY}")
    return VOCABULARY


def write_jsonl(path: Path, texts: list[str], **more: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps({"text": text, **more}) + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path


def write_parquet(path: Path, texts: list[str], rows: int = 100) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": range(len(texts)), "text": pa.array(texts, pa.string())})
    pq.write_table(table, path, row_group_size=rows)
    return path


def write_files(folder: Path, texts: list[str], kind: str, count: int = 3) -> Path:
    """All documents in several files of a format."""
    write = {"parquet": write_parquet, "jsonl": write_jsonl, "jsonl.gz": write_jsonl}[kind]
    each = -(-len(texts) // count)
    for number in range(count):
        part = list(islice(texts, number * each, (number + 1) * each))
        write(folder / f"part-{number:05d}.{kind}", part)
    return folder


class Pod:
    """A machine on which a corpus is prepared by the command."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TIEREDSTORE_", "TIKTOK"))}
        self.env = {
            **kept,
            "TMPDIR": str(root),
            "HOME": str(root),
            "OMP_NUM_THREADS": "1",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def use_vocabulary(self, folder: Path) -> None:
        self.env["TIKTOKEN_CACHE_DIR"] = str(folder)

    def without(self, *modules: str) -> None:
        """As if these were not installed."""
        hidden = self.root / "hidden"
        hidden.mkdir(exist_ok=True)
        for module in modules:
            (hidden / f"{module}.py").write_text(f"raise ImportError('no {module} here')\n")
        self.env["PYTHONPATH"] = os.pathsep.join([str(hidden), self.env.get("PYTHONPATH", "")])

    def start(self, *words: object, **how: object) -> subprocess.Popen[str]:
        return self._start(["-m", "datasets_prep.cli", *map(str, words)], **how)

    def _start(self, words: list[str], **how: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=self.root,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **how,
        )

    def run(self, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self._ended(self.start(*words), code)

    def script(self, *words: object) -> subprocess.CompletedProcess[str]:
        return self._ended(self._start([*map(str, words)]), 0)

    def _ended(self, process: subprocess.Popen[str], code: int) -> subprocess.CompletedProcess[str]:
        out, err = process.communicate(timeout=110)
        assert process.returncode == code, f"{process.args}\n{out}\n{err}"
        assert "Traceback" not in err
        return subprocess.CompletedProcess(process.args, code, out, err)

    def prepare(
        self, name: str, source: object, *words: object, code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        where = ["--source", source, "--data-dir", self.data]
        return self.run("prepare", name, *where, *words, code=code)

    def files(self, name: str) -> dict[str, bytes]:
        return {file: (self.data / name / file).read_bytes() for file in FILES}


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)
