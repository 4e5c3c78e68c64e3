"""Answers ListObjectsV2 for the nginx bed, which has files and no listings.

    python -I -S benchmarks/s3_listing.py ROOT BUCKET

Prints the port that it listens on. An object is a file below ``ROOT/BUCKET``, or a folder of
numbered parts below ``ROOT/.parts/BUCKET``. Answers are whole, of one page.
"""

from __future__ import annotations

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<Name>{bucket}</Name><Prefix>{prefix}</Prefix><KeyCount>{count}</KeyCount>"
    "<MaxKeys>1000000</MaxKeys><IsTruncated>false</IsTruncated>"
)
_OBJECT = (
    "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
    "<ETag>&quot;sink&quot;</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass>"
    "</Contents>"
)
_FOLDER = "<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>"


def objects(root: str, bucket: str, prefix: str) -> dict[str, int]:
    """Keys below a prefix and their sizes."""
    found: dict[str, int] = {}
    for base, part in ((f"{root}/{bucket}", False), (f"{root}/.parts/{bucket}", True)):
        for folder, _, files in os.walk(os.path.join(base, os.path.dirname(prefix))):
            for file in files:
                key = os.path.relpath(folder if part else os.path.join(folder, file), base)
                if key.startswith(prefix):
                    found[key] = found.get(key, 0) + os.stat(os.path.join(folder, file)).st_size
    return found


def listing(root: str, bucket: str, prefix: str, delimiter: str) -> bytes:
    """The answer, in XML."""
    keys: dict[str, int] = {}
    folders: set[str] = set()
    for key, size in objects(root, bucket, prefix).items():
        name, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
        if found:
            folders.add(f"{prefix}{name}{found}")
        else:
            keys[key] = size
    said = {"bucket": bucket, "prefix": escape(prefix), "count": len(keys) + len(folders)}
    rows = [_OBJECT.format(key=escape(key), size=keys[key]) for key in sorted(keys)]
    rows += [_FOLDER.format(key=escape(key)) for key in sorted(folders)]
    return "".join([_HEAD.format(**said), *rows, "</ListBucketResult>\n"]).encode()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        prefix, delimiter = (asked.get(name, [""])[0] for name in ("prefix", "delimiter"))
        body = listing(sys.argv[1], sys.argv[2], prefix, delimiter)
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing is logged."""


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
