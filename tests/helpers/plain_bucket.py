"""A bucket whose keys are any text, as AWS keeps them; the server of `s3_world` tidies // and refuses .. itself."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, quote, unquote, urlsplit

TIME = datetime(2026, 1, 1, tzinfo=UTC)


class Handler(BaseHTTPRequestHandler):
    objects: ClassVar[dict[str, bytes]]
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"0"')
        self.send_header("Last-Modified", format_datetime(TIME, usegmt=True))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @property
    def key(self) -> str:
        return unquote(urlsplit(self.path).path).lstrip("/").partition("/")[2]

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        if "list-type" in asked:
            start = asked.get("prefix", [""])[0]
            keys = sorted(k for k in self.objects if k.startswith(start))
            asked_for_urls = "encoding-type" in asked
            names = {key: quote(key) if asked_for_urls else escape(key) for key in keys}
            rows = "".join(
                f"<Contents><Key>{name}</Key><Size>{len(self.objects[key])}</Size><ETag>0</ETag>"
                f"<LastModified>{TIME:%Y-%m-%dT%H:%M:%SZ}</LastModified></Contents>"
                for key, name in names.items()
            )
            head = f"{'<EncodingType>url</EncodingType>' * asked_for_urls}<IsTruncated>false</IsTruncated>"
            self.answer(200, f"<ListBucketResult>{head}{rows}</ListBucketResult>".encode())
        elif self.key in self.objects:
            self.answer(200, self.objects[self.key])
        else:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>" if self.command == "GET" else b"")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.objects[self.key] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200)

    def do_DELETE(self) -> None:
        self.objects.pop(self.key, None)
        self.answer(204)

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def plain_bucket(objects: dict[str, bytes]) -> Iterator[dict[str, str]]:
    """Serve `objects` (key -> bytes) of one bucket on the loopback address; yields the environment that leads there.

    Lists, reads, writes and deletes; every change is made in `objects`.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bucket", (Handler,), {"objects": objects}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "geheim", "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
