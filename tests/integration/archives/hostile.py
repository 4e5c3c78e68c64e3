"""Archives made to do harm, or broken, each with what has to be said of it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass

BLOCK = 512


@dataclass
class Hostile:
    """One archive: its bytes, what the error says, and the words of it that are needed."""

    data: bytes
    says: str
    links: str = "refuse"
    name: str = "a.tar"


def header(name: bytes = b"x", size: int | bytes = 0, kind: bytes = b"0", **fields) -> bytes:
    """One header block, with fields as raw as they are given."""
    block = bytearray(BLOCK)
    block[:100] = name[:100].ljust(100, b"\0")
    block[100:108] = fields.get("mode", b"0000644\0")
    block[108:124] = b"0000000\0" * 2
    block[124:136] = size if isinstance(size, bytes) else b"%011o\0" % size
    block[136:148] = fields.get("mtime", b"14524770400\0")
    block[156:157] = kind
    block[157:257] = fields.get("target", b"")[:100].ljust(100, b"\0")
    block[257:265] = fields.get("magic", b"ustar\x0000")
    block[345:500] = fields.get("prefix", b"").ljust(155, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = fields.get("checksum", b"%06o\0 " % sum(block))
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def member(name: bytes = b"x", data: bytes = b"", kind: bytes = b"0", **fields) -> bytes:
    return header(name, len(data), kind, **fields) + padded(data)


def pax(kind: bytes = b"x", **keys: bytes | str) -> bytes:
    records = b""
    for key, value in keys.items():
        raw = value if isinstance(value, bytes) else value.encode()
        rest = b" " + key.replace("__", ".").encode() + b"=" + raw + b"\n"
        length = len(rest) + 1
        while len(b"%d" % length) + len(rest) != length:
            length = len(b"%d" % length) + len(rest)
        records += b"%d" % length + rest
    return member(b"PaxHeader", records, kind)


def tar(*parts: bytes) -> bytes:
    return b"".join(parts) + bytes(2 * BLOCK)


def links(*pairs: tuple[bytes, bytes], first: bytes = b"") -> bytes:
    return tar(first, *(member(name, b"", b"2", target=to) for name, to in pairs))


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    return member(b"././@LongLink", name + b"\0", kind)


def long_links() -> bytes:
    """A chain of symbolic links whose path is longer than PATH_MAX, and a way out at its end."""
    step, parts = "d" * 247, []
    path = ""
    for letter in "abcdefghijklmnop":
        parts.append(pax(path=f"{path}{step}") + member(b"", b"", b"5"))
        parts.append(pax(path=f"{path}{letter}", linkpath=step) + member(b"", b"", b"2"))
        path += f"{letter}/"
    parts.append(pax(path=f"{path}{'l' * 254}", linkpath="../" * 16) + member(b"", b"", b"2"))
    parts.append(member(b"escape", b"", b"2", target=(path + "l" * 254).encode()[:100]))
    parts.append(pax(path="escape/out") + member(b"", b"out"))
    return tar(*parts)


def gzipped_bomb() -> bytes:
    """A tar with one file of 512 MiB of zeros, in half a MiB."""
    whole = zlib.compressobj(9, zlib.DEFLATED, 31)
    begin = whole.compress(header(b"zeros", 512 << 20)) + whole.flush(zlib.Z_FULL_FLUSH)
    piece = whole.compress(bytes(1 << 20)) + whole.flush(zlib.Z_FULL_FLUSH)
    return begin + piece * 512 + whole.flush()


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


GOOD = member(b"good.txt", b"good")


def of_names() -> dict[str, Hostile]:
    evil = b"evil"
    return {
        "absolute": Hostile(tar(GOOD, member(b"/etc/evil", evil)), "'/etc/evil': an absolute"),
        "up": Hostile(tar(GOOD, member(b"../evil", evil)), "'../evil': '..' in the path"),
        "up in the middle": Hostile(tar(member(b"a/../../evil", evil)), "'a/../../evil'"),
        "up at the end": Hostile(tar(member(b"a/..", evil)), "'a/..'"),
        "up in a prefix": Hostile(tar(member(b"evil", evil, prefix=b"../..")), "'../../evil'"),
        "up in pax": Hostile(tar(pax(path="../../evil"), member(b"ok", evil)), "'../../evil'"),
        "up in a long name": Hostile(
            tar(long_name(b"../" * 60 + b"evil"), member(b"ok", evil)), "'..' in the path"
        ),
        "absolute in pax": Hostile(tar(pax(path="/evil"), member(b"ok", evil)), "'/evil'"),
        "only dots": Hostile(tar(member(b"./.", evil)), "without a file"),
        "empty": Hostile(tar(member(b"", evil)), "without a file"),
        "not utf-8": Hostile(tar(member(b"caf\xe9", evil)), "not UTF-8"),
        "half a surrogate": Hostile(tar(member(b"\xed\xa0\x80", evil)), "not UTF-8"),
        "nul in pax": Hostile(tar(pax(path=b"a\0b"), member(b"ok", evil)), "NUL in the name"),
        "nul in a long name": Hostile(tar(long_name(b"a\0b"), member(b"ok")), "NUL in the name"),
        "line feed": Hostile(tar(member(b"a\nb", evil)), r"control characters"),
        "escape codes": Hostile(tar(member(b"\x1b[2J", evil)), "control characters"),
        "backslash": Hostile(tar(member(b"..\\evil", evil)), "backslashes"),
        "overlong part": Hostile(
            tar(pax(path="n" * 300), member(b"ok", evil)), "longer than 255 bytes"
        ),
        "overlong path": Hostile(
            tar(pax(path="/".join(["n" * 200] * 5)), member(b"ok", evil)), "at most 768"
        ),
        "overlong header": Hostile(
            tar(long_name(b"n" * (2 << 20)), member(b"ok", evil)), "extended headers are too long"
        ),
        "many headers": Hostile(
            tar(*[pax(comment="x")] * 40, member(b"ok")), "extended headers are too long"
        ),
        "reserved": Hostile(tar(member(b".tieredstore.json", b"{}")), "the store's own"),
        "reserved folder": Hostile(tar(member(b"a/.tieredstore/x", b"{}")), "the store's own"),
        "twice": Hostile(tar(GOOD, GOOD), "'good.txt': is there twice"),
        "twice by dots": Hostile(tar(GOOD, member(b"./good.txt", evil)), "is there twice"),
        "one letter twice": Hostile(tar(member(b"x"), member(b"x", evil)), "'x': is there twice"),
        "case": Hostile(tar(GOOD, member(b"GOOD.txt", evil)), "only in case"),
        "case of a folder": Hostile(tar(member(b"A/x"), member(b"a/y")), "only in case"),
        "composed": Hostile(
            tar(member("é".encode()), member("e\u0301".encode())), "how it is encoded"
        ),
        "file, then folder": Hostile(tar(member(b"a"), member(b"a/b")), "both a file and a folder"),
        "folder, then file": Hostile(tar(member(b"a/b"), member(b"a")), "both a file and a folder"),
        "empty folder, then file": Hostile(
            tar(member(b"a/", b"", b"5"), member(b"a")), "both a file and a folder"
        ),
        "names for all": Hostile(tar(pax(b"g", path="evil"), GOOD), "for all members at once"),
    }


def of_kinds() -> dict[str, Hostile]:
    return {
        "link out": Hostile(links((b"l", b"../../etc")), "leaves the folder", "copy"),
        "link to the root": Hostile(links((b"l", b"/etc/passwd")), "leaves the folder", "copy"),
        "link through a folder": Hostile(links((b"a/l", b"../../x")), "leaves the folder", "copy"),
        "link inside, refused": Hostile(
            links((b"l", b"good.txt"), first=GOOD), "links are refused"
        ),
        "links in a circle": Hostile(links((b"a", b"b"), (b"b", b"a")), "a link to itself", "copy"),
        "link to nothing": Hostile(links((b"a", b"b")), "no file of the archive", "copy"),
        "link to no name": Hostile(links((b"a", b"")), "a link to nothing", "copy"),
        "link to a folder": Hostile(
            links((b"l", b"d"), first=member(b"d/x")), "'d', a folder", "copy"
        ),
        "file through a link": Hostile(
            tar(member(b"l", b"", b"2", target=b"d"), member(b"l/evil")),
            "both a file and a folder",
            "copy",
        ),
        "file over a link": Hostile(
            tar(member(b"l", b"", b"2", target=b"good.txt"), GOOD, member(b"l", b"x")),
            "is there twice",
            "copy",
        ),
        "PATH_MAX": Hostile(long_links(), "both a file and a folder|leaves the folder", "copy"),
        "PATH_MAX, refused": Hostile(long_links(), "links are refused"),
        "hard link out": Hostile(
            tar(member(b"l", b"", b"1", target=b"../../etc/passwd")), "'..' in the path", "copy"
        ),
        "hard link to the root": Hostile(
            tar(member(b"l", b"", b"1", target=b"/etc/passwd")), "an absolute path", "copy"
        ),
        "hard link with content": Hostile(
            tar(GOOD, member(b"l", b"x", b"1", target=b"good.txt")), "of content", "copy"
        ),
        "character device": Hostile(tar(member(b"d", b"", b"3")), "character device"),
        "block device": Hostile(tar(member(b"d", b"", b"4")), "block device"),
        "fifo": Hostile(tar(member(b"d", b"", b"6")), "FIFO"),
        "unknown type": Hostile(tar(member(b"d", b"", b"Q")), "unknown type b'Q'"),
        "volume": Hostile(tar(member(b"d", b"", b"M")), "unknown type"),
        "sparse": Hostile(tar(member(b"s", b"", b"S")), "sparse"),
        "sparse in pax": Hostile(
            tar(pax(GNU__sparse__major="1", GNU__sparse__realsize="99999999999"), GOOD), "sparse"
        ),
        "folder with content": Hostile(tar(member(b"d/", b"xx", b"5")), "2 bytes of content"),
    }


def of_bytes() -> dict[str, Hostile]:
    whole = tar(GOOD, member(b"big", noise(50_000)))
    packed = gzip.compress(whole)
    return {
        "cut in a header": Hostile(whole[:700], "truncated"),
        "cut in content": Hostile(whole[:-20_000], "truncated"),
        "cut between members": Hostile(GOOD, "truncated"),
        "cut gzip": Hostile(packed[:-100], "truncated", name="a.tar.gz"),
        "cut gzip checksum": Hostile(packed[:-4], "truncated", name="a.tar.gz"),
        "cut bzip2": Hostile(bz2.compress(whole)[:-10], "truncated", name="a.tar.bz2"),
        "cut xz": Hostile(lzma.compress(whole)[:-10], "truncated", name="a.tar.xz"),
        "flipped gzip": Hostile(
            packed[:25_000] + bytes([packed[25_000] ^ 1]) + packed[25_001:], "damaged"
        ),
        "wrong gzip checksum": Hostile(packed[:-8] + b"1234" + packed[-4:], "damaged"),
        "flipped xz": Hostile(flipped(lzma.compress(whole), 25_000), "damaged"),
        "flipped bzip2": Hostile(flipped(bz2.compress(whole), 25_000), "damaged"),
        "wrong checksum": Hostile(tar(GOOD, header(b"x", checksum=b"0000001\0")), "checksum"),
        "no number": Hostile(tar(GOOD, header(b"x", b"0x1F\0\0\0\0\0\0\0\0")), "is no number"),
        "negative size": Hostile(tar(header(b"x", b"\xff" * 12)), "a size of -1 bytes"),
        "vast size": Hostile(tar(header(b"x", b"\x80" + b"\x7f" * 11)), "more than the allowed"),
        "lying size": Hostile(tar(header(b"x", 1 << 29)), "truncated"),
        "no size in pax": Hostile(tar(pax(size="1e9"), GOOD), "a size that is no number"),
        "broken pax": Hostile(tar(member(b"p", b"99 path=x\n", b"x"), GOOD), "malformed extended"),
        "garbage after tar": Hostile(whole + bytes(512) + b"garbage", "trailing garbage"),
        "tar after tar": Hostile(whole + whole, "trailing garbage"),
        "garbage after gzip": Hostile(packed + b"garbage", "trailing garbage"),
        "garbage after zeros": Hostile(packed + bytes(99) + b"garbage", "trailing garbage"),
        "garbage after xz": Hostile(lzma.compress(whole) + b"garbage", "trailing garbage"),
        "garbage after bzip2": Hostile(bz2.compress(whole) + b"garbage!", "trailing garbage"),
        "bomb": Hostile(gzipped_bomb(), "expands to more than"),
        "no file": Hostile(tar(member(b"d/", b"", b"5")), "holds no file"),
        "only text": Hostile(b"<html>" * 200, "no archive that is known"),
        "nothing": Hostile(b"", "no archive that is known"),
    }


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for mask, (name, data) in zip("qvw", members, strict=False):
            info = zipfile.ZipInfo(mask * len(name.encode()), (2020, 1, 1, 0, 0, 0))
            info.compress_type = method
            archive.writestr(info, data)
    whole = out.getvalue()
    for mask, (name, _) in zip("qvw", members, strict=False):
        # Afterwards: the library puts some names right.
        whole = replaced_names(whole, mask.encode() * len(name.encode()), name.encode())
    return whole


def replaced_names(whole: bytes, old: bytes, new: bytes) -> bytes:
    at = whole.index(old)
    whole = whole[:at] + new + whole[at + len(old) :]
    at = whole.index(old, whole.index(b"PK\x01\x02"))
    return whole[:at] + new + whole[at + len(old) :]


def changed(whole: bytes, magic: bytes, offset: int, value: bytes) -> bytes:
    """A zip archive with some bytes after each header that begins with ``magic`` replaced."""
    at = whole.find(magic)
    while at >= 0:
        whole = whole[: at + offset] + value + whole[at + offset + len(value) :]
        at = whole.find(magic, at + 4)
    return whole


def zip_with_mode(mode: int, data: bytes = b"x") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("special", (2020, 1, 1, 0, 0, 0))
        info.create_system = 3
        info.external_attr = mode << 16
        archive.writestr(info, data)
    return out.getvalue()


def overlapping() -> bytes:
    """Two entries of the list for one and the same content."""
    one = zipped(("abcd.txt", noise(1000)))
    start = one.index(b"PK\x01\x02")
    end = one.index(b"PK\x05\x06")
    entry = one[start:end]
    listed = entry + entry
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, len(listed), start, 0)
    return one[:start] + listed + tail


def listed(data: bytes, *entries: tuple[int, int, int]) -> bytes:
    """A zip archive of deflated members ``f0``, ``f1``, …: offset, packed size and size of each."""
    end = b""
    for n, (offset, packed, size) in enumerate(entries):
        fields = (20, 20, 0, 8, 0, 33, zlib.crc32(bytes(1 << 20)), packed, size, 2, 0, 0, 0, 0, 0)
        end += struct.pack("<4s6H3L5H2L", b"PK\1\2", *fields, offset) + b"f%d" % n
    count = len(entries)
    return (
        data + end + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(end), len(data), 0)
    )


def local(n: int) -> bytes:
    return struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 33, 0, 0, 0, 2, 0) + b"f%d" % n


def quilt() -> bytes:
    """Members that hold one another: the content of each goes over those that follow."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(bytes(1 << 20)) + packer.flush()
    data = local(0) + local(1) + local(2) + body
    return listed(data, *((32 * n, len(data) - 32 * n - 32, 1 << 20) for n in range(3)))


def zip_bomb() -> bytes:
    """1 GiB of zeros, and truly as many."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    body = piece * 1024 + packer.flush()
    return listed(local(0) + body, (0, len(body), 1 << 30))


def of_zips() -> dict[str, Hostile]:
    good = zipped(("good.txt", b"good" * 1000))
    end = good.index(b"PK\x05\x06")
    found = {
        "zip up": Hostile(zipped(("../evil", b"x")), "'../evil'"),
        "zip absolute": Hostile(zipped(("/evil", b"x")), "'/evil'"),
        "zip backslash": Hostile(zipped(("..\\evil", b"x")), "backslashes"),
        "zip nul": Hostile(zipped(("a\0b", b"x")), "NUL"),
        "zip not utf-8": Hostile(good.replace(b"good.txt", b"g\xe9od.txt"), "not UTF-8"),
        "zip twice": Hostile(zipped(("aa", b"1"), ("bb", b"2")).replace(b"bb", b"aa"), "twice"),
        "zip case": Hostile(zipped(("aa", b"1"), ("AA", b"2")), "only in case"),
        "zip link out": Hostile(zip_with_mode(0o120777, b"../../etc"), "leaves", "copy"),
        "zip link": Hostile(zip_with_mode(0o120777, b"good"), "links are refused"),
        "zip device": Hostile(zip_with_mode(0o020666), "a device"),
        "zip fifo": Hostile(zip_with_mode(0o010666), "pipe"),
        "zip smaller": Hostile(changed(good, b"PK\1\2", 24, b"\n\0\0\0"), "10 are declared"),
        "zip larger": Hostile(
            changed(good, b"PK\1\2", 24, struct.pack("<L", 9999)), "9999 are declared"
        ),
        "zip vast": Hostile(
            changed(good, b"PK\1\2", 24, struct.pack("<L", (1 << 32) - 2)), "expands to more"
        ),
        "zip wrong checksum": Hostile(changed(good, b"PK\1\2", 16, b"1234"), "checksum"),
        "zip other name": Hostile(good.replace(b"good.txt", b"evil.txt", 1), "another name"),
        "zip encrypted": Hostile(changed(good, b"PK\1\2", 8, b"\1\0"), "encrypted"),
        "zip method": Hostile(changed(good, b"PK\1\2", 10, b"\x63\0"), "method 99"),
        "zip bomb": Hostile(zip_bomb(), "expands to more than"),
        "zip overlapping": Hostile(overlapping(), "overlap"),
        "zip quilt": Hostile(quilt(), "overlap"),
        "zip cut": Hostile(good[: end - 10], "list of members is missing"),
        "zip garbage": Hostile(good + b"garbage", "trailing garbage"),
        "zip offset": Hostile(changed(good, b"PK\1\2", 42, b"\7\0\0\0"), "no header where"),
        "zip vast list": Hostile(
            good[: end + 8] + b"\1\0\1\0\xff\xff\xff\x7f" + good[end + 16 :], "lists"
        ),
        "zip flipped": Hostile(flipped(zipped(("nn", noise(9000))), 5000), "damaged|content"),
    }
    for hostile in found.values():
        hostile.name = "a.zip"
    return found


def zstds() -> dict[str, Hostile]:
    from datasets_prep.download.archives.kinds import _zstd_module

    zstd = _zstd_module()
    whole = tar(GOOD, member(b"big", noise(50_000)))
    checked = {zstd.CompressionParameter.checksum_flag: 1}
    packed = zstd.compress(whole, options=checked)
    wide = {
        zstd.CompressionParameter.window_log: 30,
        zstd.CompressionParameter.content_size_flag: 0,
    }
    maker = zstd.ZstdCompressor(options=wide)
    vast = maker.compress(whole) + maker.flush()
    zeros = zstd.ZstdCompressor()
    bomb = zeros.compress(header(b"z", 1 << 30))
    for _ in range(300):
        bomb += zeros.compress(bytes(1 << 20))
    bomb += zeros.flush()
    return {
        "zstd window": Hostile(vast, "damaged"),
        "zstd cut": Hostile(packed[:-100], "truncated"),
        "zstd flipped": Hostile(flipped(packed, 20_000), "damaged"),
        "zstd garbage": Hostile(packed + b"garbage!", "trailing garbage"),
        "zstd bomb": Hostile(bomb, "expands"),
    }


def collection() -> dict[str, Hostile]:
    return {**of_names(), **of_kinds(), **of_bytes(), **of_zips(), **zstds()}


def by_tarfile(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """An ordinary tar archive, as the standard library writes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()
