"""Secrets of addresses, headers, profiles and environments, and control characters of names: none is shown or kept."""

import base64
import json
import logging
import pickle
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest
from conftest import unhurried
from distributed import Client
from helpers import GRID, UTM, pixels, write_raster
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from shell import shell
from stores import town, write_store

from models import Bundle
from models import redact as redacting
from models.errors import LONGEST, BundleError, SceneError, SwatheError
from models.redact import HIDDEN, RedactingFilter, printable, redact, redact_url, remember_secrets, shown
from pipeline import publish, run, write_report
from pipeline.jobs.events import Event
from pipeline.jobs.json_log import JsonLog
from pipeline.jobs.run_log import RunLog

MARK = "Zq7"  # begins each secret, so that no other text has it by chance
secrets = st.text("abcXYZ0189-._~", min_size=8, max_size=24).map(lambda text: f"{MARK}{text}Q")
odd_secrets = st.text("abcXYZ019-._~+/=!$&'()*,;:@?#%|<>[]{}^`\\\"", min_size=8, max_size=24).map(
    lambda text: f"{MARK}{text}Q"
)
FORMS: dict[str, Callable[[str, str], str]] = {
    "aws": lambda at, s: f"http://{at}?X-Amz-Credential={s}%2F2&X-Amz-Security-Token={s}&X-Amz-Signature={s}",
    "azure": lambda at, s: f"http://{at}?sv=2024-01-01&sr=b&sig={s}&se=2026-01-01T00%3A00%3A00Z",
    "gcs": lambda at, s: f"http://{at}?GoogleAccessId=me%40x&Expires=1&Signature={s}",
    "token": lambda at, s: f"http://{at}?token={s}",
    "key": lambda at, s: f"http://{at}?b=1&api_key={s}",
    "bare": lambda at, s: f"http://{at}?{s}",
    "fragment": lambda at, s: f"http://{at}#access_token={s}",
    "user": lambda at, s: f"http://me:{s}@{at}",
    "gdal": lambda at, s: f"/vsicurl/http://{at}?sig={s}",
    "gdal user": lambda at, s: f"/vsicurl/http://me:{s}@{at}",
    "options": lambda at, s: f"/vsicurl?max_retry=0&url={quote(f'http://{at}?token={s}', safe='')}",
    "one slash": lambda at, s: f"http:/me:{s}@{at}?sig={s}",
    "chained": lambda at, s: f"simplecache::http://me:{s}@{at}?sig={s}",
    "encoded": lambda at, s: f"http://{at}/{quote(f'http://me:{s}@h/x.tif?token={s}', safe='')}",
    "encoded twice": lambda at, s: "http%253A%252F%252F" + quote(quote(f"me:{s}@{at}?token={s}", safe=""), safe=""),
}


def spellings(secret: str) -> list[str]:
    """A secret as it may stand in a text: as it is, percent-encoded, and in base64 at each of three places."""
    coded = {base64.b64encode(b"x" * shift + secret.encode())[shift + 1 : -4].decode() for shift in range(3)}
    return [MARK, quote(MARK), *coded]


def assert_free(text: str, secret: str) -> None:
    for one in spellings(secret):
        assert one not in text, f"{one} is in {text[max(0, text.index(one) - 200) : text.index(one) + 100]!r}"


# --- the function -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@given(secret=secrets, around=st.sampled_from(["{}", "'{}' not recognized", "at {}: no, at ({}).", '["{}", "b"]']))
@settings(max_examples=20, suppress_health_check=unhurried)
def test_an_address_is_told_without_its_secrets(form: str, secret: str, around: str) -> None:
    address = FORMS[form]("host.org:80/a/b@2x.tif", secret)
    told = redact(around.replace("{}", address))
    assert_free(told, secret)
    assert_free(redact_url(address), secret)
    assert "host.org" in told
    assert redact(told) == told
    assert redact_url(redact_url(address)) == redact_url(address)
    assert told.startswith(around.partition("{}")[0])
    assert told.endswith(around.rpartition("{}")[2])


@given(secret=odd_secrets)
@example(secret=f"{MARK}a/b?c#d@eQ")
@settings(max_examples=100)
def test_odd_characters_of_a_password_or_token_hide_nothing_less(secret: str) -> None:
    assert_free(redact(f"no http://host/x.tif?token={secret} there"), secret)
    assert_free(redact_url(f"https://me:{quote(secret, safe='')}@host/x.tif"), secret)
    if not re.search(r":\d*/", f":{secret}"):  # a number before a slash is a port
        assert_free(redact_url(f"https://me:{secret}@host/x.tif"), secret)


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer {}", "authorization: basic {}", "headers {'Authorization': 'Bearer {}'}",
        "GET /a.tif?sv=1&sig={} HTTP/1.1", 'token = "{}"', "AWS_SECRET_ACCESS_KEY={}", '{"password": "{}"}',
        "GDAL_HTTP_HEADERS=Authorization:Bearer%20{}", "sig%3D{}", "Cookie: session={}", "x-amz-security-token: {}",
        "-----BEGIN PRIVATE KEY-----\nab\n{}\n-----END PRIVATE KEY-----", "Basic {}", "Ocp-Apim-Subscription-Key: {}",
    ],
)  # fmt: skip
def test_what_follows_the_name_of_a_secret_is_hidden(text: str) -> None:
    secret = f"{MARK}abcdefgh"
    assert_free(redact(text.replace("{}", secret)), secret)


@pytest.mark.parametrize(
    "text",
    [
        "/data/a b/LC08_B?.TIF", "/data/me@home/x#1.tif", "s3://bucket/a@b/c.tif", "tcp://127.0.0.1:8786",
        "wrong credentials: give others",
        "http://[::1]:80/x@y.tif", "https://host/a%23b.tif", "zip:///data/a.zip", "vrt://a.tif?bands=1",
        "no worker for 3 min; 2 Slurm jobs pending (tls://10.0.0.1:88).",
        "key.pem (secret), for 3 days",
        "/vsizip/a.zip/b.tif", "C:/data/x.tif",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact_url(text) == text
    if not text.startswith("vrt:"):
        assert shown(text) == text


@pytest.mark.parametrize("piece", ["x", "token", "token-", "a.", "https://u:p@", "!", "%25", "/vsicurl?url="])
@pytest.mark.parametrize("before", ["", "http://host/a:", "/vsicurl?url=", "token="])
def test_long_texts_are_redacted_at_once(before: str, piece: str) -> None:
    began = time.process_time()
    redact(before + piece * (50_000 // len(piece)) + "x")
    assert time.process_time() - began < 1


def test_addresses_in_one_another_are_told_to_some_depth_alone() -> None:
    assert redact("/vsicurl?url=" * 3 + "https://u:p@host/a.tif?sig=1") == "https://host/a.tif"
    assert redact("/vsicurl?url=" * 2000 + "https://u:p@host/a.tif?sig=1") == "/vsicurl"


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    told = str(BundleError(f"it has '{'x' * 9000}': another one is needed"))
    assert told.startswith("it has 'xx")
    assert told.endswith("xx': another one is needed")
    assert len(told) <= LONGEST
    assert str(BundleError("a" * LONGEST)) == "a" * LONGEST


def test_values_of_the_environment_and_of_profiles_are_hidden_wherever_they_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DASK_GATEWAY__AUTH__PASSWORD", f"{MARK}from/env")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/home/me/credentials")
    remember_secrets({"env": {"MY_TOKEN": f"{MARK}profile"}, "memory": "16 GiBytes"})
    coded = base64.b64encode(f"{MARK}from/env".encode()).decode()
    told = redact(
        f"sbatch said {MARK}from/env, {quote(f'{MARK}from/env', safe='')}, {coded}, {MARK}profile, 16 GiBytes"
    )
    assert told == f"sbatch said {HIDDEN}, {HIDDEN}, {HIDDEN}, {HIDDEN}, 16 GiBytes"
    assert redact("see /home/me/credentials") == "see /home/me/credentials"


@pytest.mark.parametrize("name", ["HF_TOKEN", "MY_SECRET_SETTING", "DB_PASSWORD", "X_API_KEY"])
@pytest.mark.parametrize(
    ("value", "is_secret"),
    [
        ("true", False), ("1", False), ("short12", False), ("20261129", False), ("-1234567.25", False),
        ("disabled", False), ("Required", False), ("{folder}", False), ("{folder}/a b.txt", False), ("~/there", False),
        ("{HOME}", False), ("{USER}", False), ("{LANG}", False), ("{PWD}", False),
        ("{folder}/none", True), ("eightchr", True), ("1234567a", True), ("20261129" * 4, True), ("a/b+c==d", True),
        ("disabled1", True), ("/abc/def", True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["environment", "profile"])
def test_values_of_settings_are_no_secrets_whatever_their_names(
    name: str, value: str, is_secret: bool, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for known, there in (("HOME", str(tmp_path)), ("USER", "somebody1"), ("LANG", "en_US.UTF-8"), ("PWD", "/x/y/z/w")):
        monkeypatch.setenv(known, there)
        value = value.replace(f"{{{known}}}", there)
    for file in ("a b.txt", "there"):
        (tmp_path / file).touch()
    value = value.replace("{folder}", str(tmp_path))
    monkeypatch.setattr(redacting, "_remembered", {})
    monkeypatch.setenv(name, value) if way == "environment" else remember_secrets({"env": {name: value}})
    text = f"could not open <{value}>"
    assert redact(text) == (f"could not open <{HIDDEN}>" if is_secret else text)


# --- where texts leave ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SwatheError, *SwatheError.__subclasses__(), *SceneError.__subclasses__()])
def test_every_error_is_made_without_secrets_and_control_characters(kind: type[SwatheError]) -> None:
    error = kind(f"http://me:{MARK}a@h/x\x1b[2J\x9b1m\u202e.tif is\nbroken")
    assert str(error) == "http://h/x\\x1b[2J\\x9b1m\\u202e.tif is\nbroken"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_events_and_the_log_in_json_hide_what_they_are_told(tmp_path: Path) -> None:
    said = f"lost http://h/x?sig={MARK}a\x1b[2J"
    event = Event("worker-unfit", said, {"reason": said, "blocks": [said, 3]})
    assert MARK not in repr(event)
    with open(tmp_path / "log", "w+") as file:
        JsonLog(file).write("error", text=said, more={"a": [said], said: Path(said)})
        file.seek(0)
        line = file.read()
    assert MARK not in line
    assert json.loads(line)["text"] == "lost http://h/x"


def test_loggers_hide_messages_arguments_and_tracebacks(caplog: pytest.LogCaptureFixture) -> None:
    record = logging.LogRecord("a", logging.ERROR, __file__, 1, "at %s", (f"http://h/x?sig={MARK}a",), None)
    try:
        raise OSError(f"http://h/x?sig={MARK}a")
    except OSError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    RedactingFilter().filter(record)
    told = logging.Formatter().format(record)
    assert MARK not in told
    assert "OSError: http://h/x" in told
    for name in ("swathe", "distributed.worker"):
        assert any(isinstance(one, RedactingFilter) for one in logging.getLogger(name).filters)


@given(name=st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), min_size=1))
def test_no_control_character_of_a_name_is_shown(name: str) -> None:
    for show in (shown, printable):
        told = show(f"a{name}b")
        assert all(c.isprintable() or c in "\n\t" for c in told)
        assert told.encode()
    assert "\n" not in printable(f"a{name}b")


# --- the verbs, into their errors -------------------------------------------------------------------------------------


class Server(BaseHTTPRequestHandler):
    """Gives files of a folder by ranges; says 403 or 404, or sends what is no raster, where the name says so."""

    folder: Path

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        file = self.folder / name
        if "403" in name or not (file.is_file() or "broken" in name):
            self.answer(403 if "403" in name else 404, b"")
            return
        content = b"no raster " * 400 if "broken" in name else file.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self.answer(200, content)
            return
        start, stop = int(asked[1]), min(int(asked[2] or len(content) - 1) + 1, len(content))
        span = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        self.answer(206 if start < stop else 416, content[start:stop], span)

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        more = {"Accept-Ranges": "bytes", "ETag": '"1"', "Content-Length": str(len(content))}
        for name, value in (more | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            with suppress(ConnectionError):
                self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    folder = tmp_path_factory.mktemp("served")
    write_raster(folder / "scene.tif", pixels((3, 96, 128), "uint16"), crs=UTM, transform=GRID)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Server,), {"folder": folder}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


VERBS = [
    "info {}", "--debug info {}", "plan {} -m {bundle}", "segment {} -m {bundle} -o a.zarr",
    "segment {} -m {bundle} -o b.zarr --log json", "segment {} -m {bundle} -o a.tif --bands 7,8,9",
    "index {} -o c.parquet", "segment scene.tif -m {} -o d.zarr", "bundles {}", "objects {} -o e.zarr",
    "stats town.zarr --zones {} -o f.csv", "report town.zarr --scene {} -o g.html", "publish town.zarr -o {}",
    "segment scene.tif -m {bundle} -o h.zarr --scheduler {}", "vectorise town.zarr -o {}",
    "segment scene.tif -m {bundle} -o {} --log json", "info scene.tif --alpha {}",
]  # fmt: skip
PLACES = ["{}/scene.tif", "{}/none.tif", "{}/403.tif", "{}/broken.tif", "127.0.0.1:9/scene.tif"]


def assert_folder_free(folder: Path, secret: str) -> None:
    for path in folder.rglob("*"):
        assert_free(str(path.relative_to(folder)), secret)
        if path.is_file():
            assert_free(path.read_bytes().decode("latin-1"), secret)
            if path.suffix == ".parquet":
                table = pq.read_table(path)
                assert_free(f"{table.to_pydict()} {table.schema.metadata}", secret)


def every_verb(folder: Path, served: tuple[Path, str], bundle: Bundle, secret: str, which: slice) -> None:
    write_raster(folder / "scene.tif", pixels((3, 96, 128), "uint16"), crs=UTM, transform=GRID)
    write_store(folder / "town.zarr", town(96, 128))
    every = [(verb, place, form) for verb in VERBS for place in PLACES for form in FORMS]
    with shell(folder) as swathe:
        for verb, place, form in every[which]:
            address = FORMS[form](place.replace("{}", served[1]), secret)
            words = [word.replace("{bundle}", str(bundle.path)).replace("{}", address) for word in verb.split()]
            done = swathe(*words)
            assert_free(done.out + done.err, secret)
            assert "internal error" not in done.err
    assert_folder_free(folder, secret)


def test_no_verb_tells_or_keeps_a_secret(
    tmp_path: Path, served: tuple[Path, str], bundle_of: Callable[..., Bundle]
) -> None:
    every_verb(tmp_path, served, bundle_of(), f"{MARK}sig-nature_1Q", slice(0, None, 211))


@pytest.mark.slow
@given(secret=secrets, start=st.integers(0, 96))
# shrinking would run each verb many times
@settings(max_examples=1, deadline=None, suppress_health_check=unhurried, phases=[Phase.generate])
def test_no_verb_tells_or_keeps_any_secret(
    tmp_path_factory: pytest.TempPathFactory,
    served: tuple[Path, str],
    bundle_of: Callable[..., Bundle],
    secret: str,
    start: int,
) -> None:
    every_verb(tmp_path_factory.mktemp("run"), served, bundle_of(), secret, slice(start, None, 97))


@pytest.mark.parametrize("form", ["aws", "user", "gdal"])
def test_a_run_continues_under_another_signature_and_keeps_none(
    form: str,
    tmp_path: Path,
    served: tuple[Path, str],
    bundle_of: Callable[..., Bundle],
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    address = [FORMS[form](f"{served[1]}/scene.tif", f"{MARK}{number}00signature") for number in range(2)]
    if form == "user":
        address[1] = FORMS["token"](f"{served[1]}/scene.tif", f"{MARK}another")
    how: dict[str, Any] = {"tile": 64, "block": 64, "client": client, "show": False}
    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "add", stop)
        with pytest.raises(KeyboardInterrupt):
            run(address[0], bundle_of(), tmp_path / "a.zarr", **how)
    again = run(address[1], bundle_of(), tmp_path / "a.zarr", **how)
    assert again.resumed > 0
    assert_folder_free(tmp_path, f"{MARK}000signature")
    write_report(tmp_path / "a.zarr", tmp_path / "a.html")
    publish(tmp_path / "a.zarr", tmp_path / "published", side=512, client=client, show=False)
    assert_folder_free(tmp_path, f"{MARK}000signature")
