"""Indexes of what STAC APIs find: a server on this machine that answers by POST or GET, page by page."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pystac_client
import pytest
from click.testing import CliRunner
from indexing import collection_of, item_of, write_json, write_raster

from models.errors import SceneError
from pipeline.catalog.build import build_index
from pipeline.catalog.search import StacSearch
from pipeline.cli.app import cli
from pipeline.io.places import allowing


@pytest.fixture(autouse=True)
def allowed(tmp_path):
    """What Items of the server lead to here."""
    with allowing([tmp_path, "127.0.0.1"]):
        yield


CONFORMS = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/item-search",
    "https://api.stacspec.org/v1.0.0/item-search#query",
]
PAGE = 2


class Api:
    """A STAC API over some Items; `asked` holds the method and the parameters of each search."""

    def __init__(self, items, *, post=True):
        self.items, self.post, self.asked, self.fails, self.loops = items, post, [], 0, False
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}/api"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def root(self):
        links = [
            {"rel": "self", "href": self.url},
            {"rel": "root", "href": self.url},
            {"rel": "search", "href": f"{self.url}/search", "type": "application/geo+json", "method": "GET"},
        ]
        if self.post:
            links.append({**links[-1], "method": "POST"})
        return {
            "type": "Catalog", "stac_version": "1.0.0", "id": "api", "description": "of a test",
            "conformsTo": CONFORMS, "links": links,
        }  # fmt: skip

    def search(self, method, wanted):
        """Return a page of what is asked for, with a link to the next."""
        self.asked.append((method, wanted))
        collections = wanted.get("collections")
        names = collections.split(",") if isinstance(collections, str) else collections
        query = wanted.get("query") or {}
        query = json.loads(query) if isinstance(query, str) else query
        most = float(query.get("eo:cloud_cover", {}).get("lt", 101))
        found = [
            item for item in self.items
            if (not names or item["collection"] in names) and item["properties"].get("eo:cloud_cover", 0) < most
        ]  # fmt: skip
        start = int(wanted.get("token", 0))
        page, links = found[start : start + PAGE], []
        if start + PAGE < len(found) or self.loops:
            token = 0 if self.loops else start + PAGE
            if method == "POST":
                links = [
                    {"rel": "next", "href": f"{self.url}/search", "method": "POST", "body": {**wanted, "token": token}}
                ]
            else:
                terms = {**{key: str(value) for key, value in wanted.items()}, "token": token}
                links = [
                    {"rel": "next", "href": f"{self.url}/search?" + "&".join(f"{k}={v}" for k, v in terms.items())}
                ]
        return collection_of(*page, links=links)

    def _handler(api):
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def answer(self, content, status=200):
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                parts = urlsplit(self.path)
                if api.fails:
                    return self.answer({"description": "out of order"}, api.fails)
                if parts.path == "/api":
                    return self.answer(api.root())
                if parts.path == "/api/search":
                    return self.answer(api.search("GET", {k: v[0] for k, v in parse_qs(parts.query).items()}))
                return self.answer({}, 404)

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not api.post:
                    return self.answer({"description": "no such method"}, 405)
                return self.answer(api.search("POST", body))

        return Handler


@pytest.fixture
def items(tmp_path):
    """Five Items of two collections, of which one is cloudy."""
    made = []
    for n, name in enumerate("abcde"):
        path = write_raster(tmp_path / "files" / f"{name}.tif", left=70 * n)
        made.append(
            item_of(
                name, {"data": f"file://{path}"}, "s2" if n < 4 else "s1", **{"eo:cloud_cover": 90 if n == 3 else n}
            )
        )
    return made


@pytest.fixture(params=[True, False], ids=["post", "get"])
def api(items, request):
    served = Api(items, post=request.param)
    yield served
    served.close()


def test_a_search_is_followed_through_its_pages(api, tmp_path):
    search = StacSearch(api.url, ("s2",), (10, 40, 20, 50), "2024-05-01/2024-05-31", ("eo:cloud_cover<50",))
    result = build_index([], tmp_path / "scenes.parquet", search=search, show=False)
    assert sorted(result.index.ids) == ["a", "b", "c"]
    assert result.index.table["swathe:key"][0] == "s2/a"
    assert [*result.index.cloud_covers] == [0, 1, 2]
    method, first = api.asked[0]
    assert method == ("POST" if api.post else "GET")
    assert len(api.asked) == 2
    box = first["bbox"] if api.post else [float(part) for part in first["bbox"].split(",")]
    assert box == [10, 40, 20, 50]
    assert first["datetime"] == "2024-05-01T00:00:00Z/2024-05-31T23:59:59Z"
    again = build_index([], tmp_path / "scenes.parquet", search=StacSearch(api.url), show=False)
    assert (again.added, again.changed, again.unchanged) == (2, 0, 3)


def test_searches_of_pystac_client_and_saved_ones_are_followed(api, tmp_path):
    search = pystac_client.Client.open(api.url).search(method="POST" if api.post else "GET", collections=["s2"])
    first = api.search("POST" if api.post else "GET", {"collections": ["s2"] if api.post else "s2"})
    saved = write_json(tmp_path / "saved.json", first)
    link = write_json(tmp_path / "link.json", {"links": first["links"]})
    for number, (given, count) in enumerate(
        [(search, 4), (saved, 4), (f"{api.url}/search?collections=s2", 4), (link, 2)]
    ):
        result = build_index(given, tmp_path / f"{number}.parquet", show=False)
        assert len(result.index) == count


def test_the_command_searches(api, tmp_path):
    words = ["index", "--stac", api.url, "--collection", "s1", "--bbox", "10,40,20,50", "-o", tmp_path / "s.parquet"]
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert "1 added" in done.stdout
    assert f"looking for scenes in {api.url}" in done.stderr
    for wrong in (["--bbox", "1,2,3"], ["--bbox", "a,b,c,d"]):
        assert CliRunner().invoke(cli, ["index", "--stac", api.url, *wrong, "-o", "s.parquet"]).exit_code == 2
    assert CliRunner().invoke(cli, ["index", "--collection", "s1", "-o", "s.parquet"]).exit_code == 2


def test_servers_that_fail_find_nothing_or_go_round_are_named_in_a_line(items, tmp_path):
    api = Api(items)
    output = tmp_path / "scenes.parquet"

    def refused(said, search=None, scenes=()):
        with pytest.raises(SceneError, match=said) as caught:
            build_index(list(scenes), output, search=search, show=False)
        assert "\n" not in str(caught.value)
        assert "hidden" not in str(caught.value)
        assert not output.exists()

    refused("found nothing", StacSearch(api.url, ("none",)))
    refused("cannot be searched", StacSearch(f"{api.url}/nowhere?token=hidden"))
    api.fails = 500
    refused("cannot be searched: .*500", StacSearch(f"{api.url}?token=hidden"))
    api.fails, api.loops = 0, True
    refused("lead back", scenes=[f"{api.url}/search?collections=s1"])
    api.close()
    refused("cannot be searched", StacSearch(api.url.replace("http://", "http://user:hidden@")))


def test_what_is_secret_in_addresses_is_in_no_index(tmp_path, items):
    served = _files(tmp_path / "files")
    items[1]["assets"]["data"]["href"] = f"{served.url}/b.tif?sig=hidden"
    content = write_json(tmp_path / "found.json", collection_of(*items[:2]))
    output = tmp_path / "scenes.parquet"
    url = f"{served.url.replace('http://', 'http://user:hidden@')}/c.tif?sig=hidden"
    result = build_index([content, url], output, show=False)
    assert sorted(result.index.ids) == ["a", "b", "c"]
    assert b"hidden" not in output.read_bytes()
    assert "hidden" not in "".join(result.index.table.to_csv())
    assert build_index([content, url], output, show=False).unchanged == 3  # by ETag and size
    with pytest.raises(SceneError, match="without the URL's query, which an index must not hold") as caught:
        build_index(f"{served.url}/absent.tif?sig=hidden", output, show=False)
    assert "hidden" not in str(caught.value)
    served.close()


def _files(folder):
    """Serve the files of a folder, with ETags and ranges."""

    class Served:
        pass

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_HEAD(self):
            self.do_GET(body=False)

        def do_GET(self, body=True):
            path = folder / urlsplit(self.path).path.strip("/")
            if not path.is_file():
                self.send_error(404)
                return
            content, span = path.read_bytes(), self.headers.get("Range")
            if span:
                start, _, end = span.removeprefix("bytes=").partition("-")
                part = content[int(start) : int(end) + 1 if end else None]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{int(start) + len(part) - 1}/{len(content)}")
            else:
                part = content
                self.send_response(200)
            self.send_header("ETag", f'"{hash(content)}"')
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            if body:
                self.wfile.write(part)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    served = Served()
    served.url = f"http://127.0.0.1:{server.server_port}"
    served.close = lambda: (server.shutdown(), server.server_close())
    return served
