"""Inputs from URLs and paths: checked, tried again, and clear about what is wrong."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from datasets_prep import SourceError, sources

DATA = b"To be, or not to be.\n" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


class Site:
    """A server on loopback that gives the answers it is told, one after the other."""

    def __init__(self) -> None:
        self.answers: list[int | str] = []
        self.asked = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked += 1
                answer = site.answers.pop(0) if site.answers else 200
                self.send_response(200 if isinstance(answer, str) else answer)
                self.send_header("Content-Length", str(len(DATA)))
                self.end_headers()
                if answer == "short":
                    self.wfile.write(DATA[:100])
                elif answer == 200:
                    self.wfile.write(DATA)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/input.txt"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(sources, "WAIT", 0.001)
    monkeypatch.setenv("NO_PROXY", "*")
    made = Site()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def test_a_url_is_fetched_once_and_checked(site: Site) -> None:
    source = sources.source_at(site.url, SHA256)
    assert source.digest() == SHA256
    assert site.asked == 0  # known beforehand
    assert source.read() == source.read() == DATA
    assert site.asked == 1


def test_another_content_than_the_known_one_is_refused(site: Site) -> None:
    with pytest.raises(SourceError, match=f"sha256 {SHA256}, expected {'0' * 64}"):
        sources.source_at(site.url, "0" * 64).read()


@pytest.mark.parametrize("passing", [500, 503, 429, "short"])
def test_what_may_pass_is_tried_again(site: Site, passing: int | str) -> None:
    site.answers = [passing, passing, 200]
    assert sources.source_at(site.url).read() == DATA
    assert site.asked == 3


@pytest.mark.parametrize("final", [403, 404, 410])
def test_what_will_not_pass_is_not(site: Site, final: int) -> None:
    site.answers = [final] * 5
    with pytest.raises(SourceError, match=f"the server answered {final}"):
        sources.source_at(site.url).read()
    assert site.asked == 1


def test_a_download_that_always_ends_early_is_one_clear_line(site: Site) -> None:
    site.answers = ["short"] * 10
    with pytest.raises(SourceError, match="IncompleteRead") as caught:
        sources.source_at(site.url).read()
    assert site.asked == sources.TRIES
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_one_clear_line(site: Site) -> None:
    site.server.server_close()
    with pytest.raises(SourceError, match=r"Connection refused.*--source PATH") as caught:
        sources.source_at(site.url).read()
    assert "\n" not in str(caught.value)


def test_one_that_is_too_large_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_INPUT", 100)
    with pytest.raises(SourceError, match="larger than 100 bytes"):
        sources.source_at(site.url).read()


def test_credentials_are_neither_shown_nor_kept(site: Site) -> None:
    url = site.url.replace("http://", "http://user:secret@") + "?token=hidden"
    source = sources.source_at(url)
    assert source.read() == DATA
    assert source.shown == site.url
    assert source.key != sources.source_at(site.url).key
    site.answers = [404]
    with pytest.raises(SourceError) as caught:
        sources.source_at(url).read()
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_path(tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_bytes(DATA)
    source = sources.source_at(str(tmp_path / "input.txt"))
    assert not source.is_url
    assert source.digest() == SHA256
    assert source.read() == DATA


def test_a_path_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.txt: No such file"):
        sources.source_at(str(tmp_path / "none.txt")).read()
    with pytest.raises(SourceError, match="Is a directory"):
        sources.source_at(str(tmp_path)).read()


def test_other_kinds_of_url_are_refused() -> None:
    with pytest.raises(SourceError, match="expected http://, https://"):
        sources.source_at("ftp://host/file")
