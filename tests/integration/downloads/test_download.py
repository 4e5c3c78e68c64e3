"""`datasets_prep.download`: archives and files, and what is there already."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from tieredstore_tests_giving import FILES, TAR, found, left, options, refused, tar, zipped

import datasets_prep
from datasets_prep.download import DownloadOptions, download
from datasets_prep.download.options import plain_url
from datasets_prep.errors import ArchiveError, DownloadError, OptionError, VerificationFailed
from tieredstore import TieredStoreError

SPEC = Path(datasets_prep.__file__).parent / "download/specs/websight.toml"

# -- archives -----------------------------------------------------------------------------------


def test_an_archive_is_fetched_and_extracted(tmp_path, archived, capsys):
    done = download(options(archived, tmp_path))
    assert found(done.path) == FILES
    assert (done.files, done.hit) == (len(FILES), False)
    assert not (tmp_path / "out.archive").exists()
    assert not left(tmp_path)
    said = capsys.readouterr().out
    assert f"Extracted: {len(FILES)}/{len(FILES)} files" in said
    assert "for the archive" in said
    archived.asked.clear()
    assert download(options(archived, tmp_path)).hit
    assert not archived.asked


def test_the_archive_may_stay(tmp_path, archived):
    download(options(archived, tmp_path, keep_archive=True, temp_dir=tmp_path / "temp"))
    assert (tmp_path / "temp/out.archive/data.tar.gz").read_bytes() == TAR


@pytest.mark.parametrize("ranges", [True, False])
def test_a_zip_archive_is_read_by_its_list(tmp_path, archived, ranges):
    (archived.root / "data.zip").write_bytes(zipped())
    if not ranges:
        archived.fault = lambda asked: asked.whole() if asked.data is not None else None
    done = download(options(archived, tmp_path, url=f"{archived.url}/data.zip"))
    assert found(done.path) == FILES


def test_a_server_without_ranges_keeps_no_archive(tmp_path, archived, capsys):
    archived.fault = lambda asked: asked.whole()
    done = download(options(archived, tmp_path, sha256=hashlib.sha256(TAR).hexdigest()))
    assert found(done.path) == FILES
    assert "begins anew" in capsys.readouterr().out
    assert not left(tmp_path)
    with pytest.raises(DownloadError, match=f"expected {'0' * 64}"):
        download(options(archived, tmp_path, dest=tmp_path / "other", sha256="0" * 64))
    assert not (tmp_path / "other").exists()


def test_from_a_folder_and_from_a_file(tmp_path, archived):
    (tmp_path / "from/images").mkdir(parents=True)
    for path, data in FILES.items():
        (tmp_path / "from" / path).write_bytes(data)
    os.chmod(tmp_path / "from/large.bin", 0o600)
    os.utime(tmp_path / "from/large.bin", (10**9, 10**9))
    done = download(DownloadOptions(local_path=str(tmp_path / "from"), dest=tmp_path / "copy"))
    assert found(done.path) == FILES
    stat = (done.path / "large.bin").stat()
    assert (stat.st_mode & 0o777, stat.st_mtime) == (0o600, 10**9)
    archive = str(archived.root / "data.tar.gz")
    right = hashlib.sha256(TAR).hexdigest()
    done = download(DownloadOptions(local_path=archive, dest=tmp_path / "file", sha256=right))
    assert found(done.path) == FILES


def test_a_repository_of_the_hub(tmp_path, load_server, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra 'hf'")
    hub = load_server("hub").Hub()
    hub.start()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    try:
        for path in ("prompts.jsonl", "large.bin"):
            hub.put("me/it", path, FILES[path])
        hub.put("me/it", "data.tar.gz", TAR)
        whole = download(DownloadOptions(hf_repo="me/it", dest=tmp_path / "whole"))
        assert found(whole.path).keys() == {"prompts.jsonl", "large.bin", "data.tar.gz"}
        one = DownloadOptions(hf_repo="me/it", hf_file="data.tar.gz", dest=tmp_path / "one")
        assert found(download(one).path) == FILES
    finally:
        hub.stop()


def test_into_the_tiers_of_a_store(tmp_path, archived):
    config = tmp_path / "store.toml"
    config.write_text(
        '[[tier]]\nname = "near"\nbackend = "local"\npath = "near"\n'
        '[[tier]]\nname = "far"\nbackend = "local"\npath = "far"\ndurable = true\n'
    )
    done = download(options(archived, tmp_path, dest=None, name="websight", config=config))
    assert found(done.path) == FILES
    assert found(tmp_path / "far/websight") == FILES


# -- what is there already ----------------------------------------------------------------------


def test_another_dataset_is_replaced_only_when_told_to(tmp_path, archived):
    download(options(archived, tmp_path))
    other = {"other": b"x"}
    (archived.root / "other.tar").write_bytes(tar("w", other))
    url = f"{archived.url}/other.tar"
    with pytest.raises(DownloadError, match=r"holds a dataset from .*data.tar.gz; use --force"):
        download(options(archived, tmp_path, url=url))
    (archived.root / "broken.tar.gz").write_bytes(TAR[: len(TAR) // 2])
    with pytest.raises(ArchiveError):
        download(options(archived, tmp_path, url=f"{archived.url}/broken.tar.gz", force=True))
    assert found(tmp_path / "out") == FILES
    assert found(download(options(archived, tmp_path, url=url, force=True)).path) == other


def test_files_of_others_are_left_alone(tmp_path, archived):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    with pytest.raises(DownloadError, match="no download has put there"):
        download(options(archived, tmp_path))
    assert not archived.asked


def test_a_place_that_cannot_be_written_is_said_before_anything_moves(tmp_path, archived):
    (tmp_path / "file").write_text("")
    with pytest.raises((DownloadError, TieredStoreError, OSError)):
        download(options(archived, tmp_path, dest=tmp_path / "file/out"))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"url": "http://h/x", "local_path": "x"},
        {"url": "nothing"},
        {"local_path": "x", "hf_file": "f"},
        {"hf_repo": "nobody"},
        {"url": "http://h/x", "sha256": "abc"},
        {"url": "http://h/x", "connections": 0},
    ],
)
def test_options_that_cannot_be_used(given, tmp_path):
    with pytest.raises(OptionError):
        DownloadOptions(dest=tmp_path, **given)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (
            "https://me:word@h/f?X-Amz-Signature=1&X-Amz-Date=2",
            "https://h/f?X-Amz-Signature=3",
            True,
        ),
        ("https://h/f?id=1&token=abc", "https://h/f?id=1&token=def", True),
        ("https://h/f?id=1", "https://h/f?id=2", False),
        ("https://h/f", "https://h/g", False),
    ],
)
def test_what_tells_one_url_from_another_is_no_secret(one, other, same):
    assert (plain_url(one) == plain_url(other)) is same
    assert not any(secret in plain_url(one) for secret in ("word", "abc", "id=1"))


# -- specifications -----------------------------------------------------------------------------


def dataset(tmp_path, count, images):
    """A small dataset like WebSight, and its specification."""
    records = [{"id": n, "image": f"{n}.png", "prompt": "p"} for n in range(count)]
    files = {"prompts.jsonl": "".join(json.dumps(r) + "\n" for r in records).encode()}
    files |= {f"images/{n}.png": b"\x89PNG\r\n\x1a\n" + bytes(100) for n in range(images)}
    spec = tmp_path / "spec.toml"
    spec.write_text(
        SPEC.read_text().replace("79413", str(count)).replace("= true", "= false"),
    )
    return {f"websight-v2/{path}": data for path, data in files.items()}, str(spec)


def test_what_fails_a_specification_is_not_published_and_not_fetched_again(
    tmp_path, archived, capsys
):
    files, spec = dataset(tmp_path, 20, 19)
    (archived.root / "data.tar.gz").write_bytes(tar(files=files))
    refused(archived, tmp_path, "not what the specification says", spec=spec)
    assert "19" in capsys.readouterr().out
    archived.asked.clear()
    done = download(options(archived, tmp_path))  # without a specification it is taken as it is
    assert len(found(done.path)) == 20
    assert not [a for a in archived.asked if a.span and a.span[0] > 0]


def test_what_is_there_is_compared_with_the_specification(tmp_path, archived):
    files, spec = dataset(tmp_path, 20, 20)
    (archived.root / "data.tar.gz").write_bytes(tar(files=files))
    done = download(options(archived, tmp_path, spec=spec))
    assert (done.path / "prompts.jsonl").is_file()  # the folder around it is left away
    assert download(options(archived, tmp_path, spec=spec)).hit
    (done.path / "images/3.png").unlink()
    with pytest.raises(VerificationFailed, match=r"is there already.*use --force"):
        download(options(archived, tmp_path, spec=spec))
    again = download(options(archived, tmp_path, spec=spec, force=True))
    assert len(found(again.path)) == 21
    assert not again.hit


def test_a_dataset_that_somebody_has_put_there_is_a_hit_when_it_is_right(tmp_path, archived):
    files, spec = dataset(tmp_path, 20, 20)
    for path, data in files.items():
        target = tmp_path / "out" / path.removeprefix("websight-v2/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    assert download(options(archived, tmp_path, spec=spec)).hit
    assert not archived.asked
