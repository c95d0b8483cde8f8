"""A proxy on loopback before an object store, that fails now and then: by a seed, and at a share of the requests.

As S3 does, it refuses a body that does not have the checksum that it was sent with; the store behind it may not.
"""

import asyncio
import base64
import hashlib
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Self

import google_crc32c
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, web

FAULTS = ("503", "404 once", "reset", "truncated", "stall", "flip down", "flip up")
STALL = 12  # seconds; longer than a server is waited for
STALLS = 0.3  # share of the stalls drawn that happen, as each takes its time; the others are resets
LARGEST = 2**28
HOP = {"transfer-encoding", "connection", "content-encoding", "content-length", "keep-alive"}
SUMS: dict[str, Callable[[bytes], bytes]] = {
    "x-amz-checksum-crc32": lambda body: zlib.crc32(body).to_bytes(4, "big"),
    "x-amz-checksum-crc32c": lambda body: google_crc32c.value(body).to_bytes(4, "big"),
    "x-amz-checksum-sha256": lambda body: hashlib.sha256(body).digest(),
    "content-md5": lambda body: hashlib.md5(body, usedforsecurity=False).digest(),
}


class Proxy:
    """The running proxy.

    Parameters
    ----------
    store
        URL of the store behind it.
    spared
        A key in whose content no byte is changed: what has no checksums cannot be protected.
    """

    def __init__(self, store: str, spared: str) -> None:
        self.store, self.spared = store, spared
        self.random, self.share, self.faults = Random(0), 0.0, FAULTS
        self.done, self.missed = Counter[str](), set[str]()
        self.unprotected = 0
        self.url = ""
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        self.ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def fail(self, seed: int, share: float, faults: tuple[str, ...] = FAULTS) -> None:
        """Fail at this share of the requests from now on."""
        self.random, self.share, self.faults = Random(seed), share, faults
        self.done.clear()
        self.missed.clear()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._start())
        self.ready.set()
        self.loop.run_forever()
        self.loop.run_until_complete(self.runner.cleanup())
        self.loop.run_until_complete(self.session.close())
        self.loop.close()

    async def _start(self) -> None:
        self.session = ClientSession(
            auto_decompress=False, timeout=ClientTimeout(total=60), cookie_jar=DummyCookieJar()
        )
        app = web.Application(client_max_size=LARGEST)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self.runner = web.AppRunner(app, access_log=None)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    def _draw(self, request: web.Request) -> str:
        if self.random.random() >= self.share:
            return ""
        fault = self.random.choice(self.faults)
        if fault == "stall" and self.random.random() >= STALLS:
            fault = "reset"
        is_object = request.path.count("/") >= 2 and request.path.strip("/").count("/") >= 1
        flips = {"flip down": "GET", "flip up": "PUT"}
        if fault in flips and (request.method != flips[fault] or not is_object or self.spared in request.path):
            return ""
        if fault == "404 once" and (request.method not in ("GET", "HEAD") or request.path in self.missed):
            return ""
        self.missed.add(request.path)
        self.done[fault] += 1
        return fault

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        fault, body = self._draw(request), await request.read()
        if fault == "503":
            return _refusal(503, "SlowDown")
        if fault == "404 once":
            return web.Response(
                status=404, text="<Error><Code>NoSuchKey</Code></Error>", content_type="application/xml"
            )
        if fault == "stall":
            await asyncio.sleep(STALL)
        if fault in ("reset", "stall"):
            return self._cut(request)
        if fault == "flip up" and body:
            body = self._flip(body)
            if self._is_refused(request, body):
                return web.Response(
                    status=400, text="<Error><Code>BadDigest</Code></Error>", content_type="application/xml"
                )
            self.unprotected += 1
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in HOP - {"content-encoding"}
        }
        async with self.session.request(
            request.method, f"{self.store}{request.raw_path}", headers=headers, data=body or None, allow_redirects=False
        ) as answer:
            content = await answer.read()
            kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in HOP]
            if request.method == "HEAD" and "Content-Length" in answer.headers:
                kept.append(("Content-Length", answer.headers["Content-Length"]))
            status = answer.status
        if fault == "flip down" and content and status < 300:
            content = self._flip(content)
        if fault == "truncated" and len(content) > 1:
            return await self._half(request, status, kept, content)
        return web.Response(status=status, headers=kept, body=content if request.method != "HEAD" else None)

    def _flip(self, body: bytes) -> bytes:
        place = self.random.randrange(len(body))
        return body[:place] + bytes([body[place] ^ 1 << self.random.randrange(8)]) + body[place + 1 :]

    def _is_refused(self, request: web.Request, body: bytes) -> bool:
        """Whether S3 would see that a body is not what was sent; a signed body in pieces has a checksum at its end."""
        if "aws-chunked" in request.headers.get("Content-Encoding", ""):
            return True
        sent = [(request.headers[name], add) for name, add in SUMS.items() if name in request.headers]
        return any(base64.b64decode(told) != add(body) for told, add in sent)

    @staticmethod
    def _cut(request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    @staticmethod
    async def _half(
        request: web.Request, status: int, headers: list[tuple[str, str]], body: bytes
    ) -> web.StreamResponse:
        answer = web.StreamResponse(status=status, headers=dict(headers) | {"Content-Length": str(len(body))})
        await answer.prepare(request)
        await answer.write(body[: len(body) // 2])
        if request.transport is not None:
            request.transport.close()
        return answer


def _refusal(status: int, code: str) -> web.Response:
    return web.Response(status=status, text=f"<Error><Code>{code}</Code></Error>", content_type="application/xml")
