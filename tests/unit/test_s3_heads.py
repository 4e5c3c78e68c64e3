"""What is found out about a server's conditions, on servers that keep, ignore or fail them."""

from __future__ import annotations

import hashlib
import json

import pytest

from tieredstore.backend import FileStat
from tieredstore.backends.s3.access import Access, preset_of
from tieredstore.backends.s3.heads import NEVER, PLAIN, QUOTED, Conditions, Heads
from tieredstore.backends.s3.objects import Lost, Objects, missing
from tieredstore.errors import TierUnavailable

REMEMBERED = ".tieredstore/conditional.json"


class Server(Objects):
    """Objects in memory, with a server's own ideas of conditions."""

    def __init__(self, *, create=True, replace=(QUOTED,), fails=0):
        super().__init__(Access("bucket", None, None, None, preset_of(None, None)), "")
        self.objects, self.creates, self.replaces, self.fails = {}, create, replace, fails

    def _tag(self, data):
        return f'"{hashlib.md5(data).hexdigest()}"'

    def stat(self, path):
        return FileStat(path, len(self.get(path, 1 << 20)[0]))

    def get(self, path, limit):
        if path not in self.objects:
            raise missing(path)
        return self.objects[path], self._tag(self.objects[path])

    def range(self, path, offset, buffer, tag):
        raise NotImplementedError

    def list(self, folder):
        raise NotImplementedError

    def put(self, path, data):
        self.objects[path] = bytes(data)
        return self._tag(bytes(data))

    def _fail(self):
        if self.fails:
            self.fails -= 1
            raise TierUnavailable("503 SlowDown")

    def create(self, path, data):
        self._fail()
        if self.creates and path in self.objects:
            raise Lost(path)
        return self.put(path, data)

    def replace(self, path, data, tag):
        self._fail()
        if self.replaces:
            now = self._tag(self.objects[path])
            known = {QUOTED: now, PLAIN: now.strip('"')}
            if tag not in {known[way] for way in self.replaces}:
                raise Lost(path)
        return self.put(path, data)

    def delete(self, paths, tag=""):
        for path in paths:
            self.objects.pop(path, None)


@pytest.mark.parametrize(
    ("server", "create", "replace"),
    [
        (Server(), True, QUOTED),
        (Server(replace=(PLAIN,)), True, PLAIN),
        (Server(replace=(QUOTED, PLAIN)), True, QUOTED),
        (Server(create=False, replace=()), False, NEVER),
        (Server(replace=()), True, NEVER),
    ],
)
def test_what_a_server_does_is_found_out_and_remembered(server, create, replace):
    found = Heads(server).conditions()
    assert (found.create, found.replace) == (create, replace)
    assert list(server.objects) == [REMEMBERED]
    server.fails = 100  # nothing is tried any more
    assert Heads(server).conditions() == found


def test_a_server_that_failed_meanwhile_is_asked_again():
    server = Server(fails=1)
    assert not Heads(server).conditions().create
    assert REMEMBERED not in server.objects
    assert Heads(server).conditions().create
    assert REMEMBERED in server.objects


@pytest.mark.parametrize(
    "remembered",
    [b"", b"[]", b"{}", b'{"create": 1, "replace": "quoted"}', b'{"create": true, "replace": "x"}'],
)
def test_what_cannot_be_believed_is_found_out_again(remembered):
    server = Server()
    server.objects[REMEMBERED] = remembered
    assert Heads(server).conditions().replace == QUOTED
    assert Conditions(**json.loads(server.objects[REMEMBERED])).create


@pytest.mark.parametrize("replace", [(QUOTED,), (PLAIN,)])
def test_who_was_overtaken_is_told(replace):
    server = Server(replace=replace)
    heads = Heads(server)
    heads.put("head", b"one", None)
    with pytest.raises(Lost):
        heads.put("head", b"two", None)
    before = server.get("head", 10)
    heads.put("head", b"two", before)
    with pytest.raises(Lost):
        heads.put("head", b"three", before)
    assert server.objects["head"] == b"two"
    assert heads.put("head", b"two", before) == server.get("head", 9)[1]  # a repeated attempt
