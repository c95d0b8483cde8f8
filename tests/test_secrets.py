"""Secrets of addresses, headers, profiles and environments, and control characters of names: none is shown or kept."""

import base64
import json
import logging
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import unhurried
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.errors import SceneError, SwatheError
from models.redact import HIDDEN, RedactingFilter, printable, redact, redact_url, remember_secrets, shown
from pipeline.jobs.events import Event
from pipeline.jobs.json_log import JsonLog

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
