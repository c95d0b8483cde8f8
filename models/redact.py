"""What may be shown and written down of texts that hold addresses, secrets, or names that others chose.

Of an address, user, password, query and fragment are left out whatever they say: signatures have too many names, and a
signed address is another one each day. In other texts, what follows the name of a secret is hidden, as what headers say
of who asks, private keys, and the values of environment variables with such names. Imports nothing of the project.
"""

import logging
import os
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "***"
LEAST = 8  # characters of a value that is looked for wherever it stands
DEEPEST = 8  # of addresses of GDAL's within one another; below, none is told
FLAGS = re.IGNORECASE
PART = r"[^\s\x00-\x1f\x7f]"  # of an address within a text
SCHEMES = "https?|s3a?|gc?s|az|abfss?|adl|oss|ftps?|sftp|ssh|webhdfs|hdfs|tcp|tls|wss?"
ADDRESS = re.compile(
    r"(?:/vsi\w+\?|/vsi(?:curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)(?:_streaming)?/"
    rf"|(?<![a-z0-9])(?:{SCHEMES}):/|(?<![a-z0-9+.-])(?!(?:file|vrt|zip|tar)://)[a-z][a-z0-9+.-]*://"
    rf"|(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*%(?:25)*3a%(?:25)*2f){PART}*",
    FLAGS,
)
REMOTE = (("/vsicurl/", ""), ("/vsis3/", "s3://"), ("/vsigs/", "gs://"))
NESTED = re.compile(r"%(?:25)*3a%(?:25)*2f", FLAGS)  # an address within one, percent-encoded
QUERY_BEGINS = re.compile(r"[?#]|%(?:25)*3f(?=[\w.-]+%(?:25)*3d)", FLAGS)
USER = re.compile(r"(:/+)[^/]*@")
FOLDERS = ("PWD", "OLDPWD")  # variables that say where a shell is and was, and no secret
OPEN = ("HOME", "USER", "LOGNAME", "HOSTNAME", "LANG", "SHELL", *FOLDERS)  # what these hold is in most messages
NUMBER = re.compile(r"[+-]?\d{1,20}(\.\d{1,20})?")
WORDS = {"anonymous", "disabled", "optional", "required", "undefined", "unlimited"}  # shorter ones are none anyway
ODD_PASSWORD = re.compile(r":/+(?!\[)[^/@]*:(?!\d*(?:/|$))")  # with a slash or question mark: no port
SENTENCE = "\"'])}>,;:.!?"  # goes on after an address
GDAL_URL = re.compile(r"[?&]url=([^&]*)", FLAGS)
SECRETS = (
    r"token|secret|passw|pwd|signature|api[-_.]?key|access[-_]?key|account[-_]?key|sharedkey|subscription[-_]key"
    r"|authorization|cookie|sessionid|x-amz-|x-goog-"
)
VALUE = rf"""("[^"\n]*"|'[^'\n]*'|(?:bearer|basic|negotiate|digest)(?:[ +]|%20)+{PART}+|{PART}+)"""
# A name is looked for from the start of a word alone, and without steps back: else a long word took minutes.
NAME, WORD = r"(?<![\w.-])(?=[\w.-]*(?:{}))", r"[\w.-]*+"
NAMED = re.compile(
    rf"""((?:{NAME.format(f"{SECRETS}|credential")}{WORD}|(?<![\w.-])sig)["']?(?:\s?=\s?|%(?:25)*3d)"""
    rf"""|{NAME.format(SECRETS)}{WORD}["']?:\s?(?!/)){VALUE}""",
    FLAGS,
)
SCHEME_SAID = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9+/._~=%-]{6,}")
REQUEST = re.compile(rf"(?<=\S)\?[\w.%~-]+={PART}*")  # as of the path in a request's first line
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL)
SECRET_NAME = re.compile(rf"(?:{SECRETS}|credential|headers)(?!.*(?:_file|_path|_dir|application_credentials)$)", FLAGS)
LOGGERS = (
    "swathe", "distributed.worker", "distributed.scheduler", "distributed.core", "distributed.nanny",
    "distributed.client", "distributed.protocol.core", "rasterio", "rasterio._env", "rasterio._err", "fsspec",
    "fsspec.http", "s3fs", "aiohttp.client", "asyncio", "dask_jobqueue.core", "py.warnings",
)  # fmt: skip

_remembered: dict[str, None] = {}


def redact_url(path: str) -> str:
    """Return a path as it may be written down: of an address, no user, password, query or fragment.

    Local paths stay as they are. Of GDAL's names for what is on a server, the plain address is returned.
    """
    return _url(path, 0)


def _url(path: str, depth: int) -> str:
    for prefix, scheme in REMOTE:
        if path.startswith(prefix):
            path = scheme + path.removeprefix(prefix)
            break
    found = ADDRESS.search(path)
    return path[: found.start()] + _plain(path[found.start() :], depth) if found else path


def redact(text: str) -> str:
    """Return a text without the secrets that can be told in it; doing it twice changes nothing more."""
    text = PRIVATE_KEY.sub(HIDDEN, text)
    text = ADDRESS.sub(_in_a_sentence, text)
    text = NAMED.sub(_value_hidden, text)
    text = SCHEME_SAID.sub(rf"\1 {HIDDEN}", text)
    text = REQUEST.sub("", text)
    for secret in (*_of_environment(), *_remembered):
        text = text.replace(secret, HIDDEN)
    return text


def shown(text: str) -> str:
    """Return a text as a terminal or a log may have it: redacted, control characters escaped but for line breaks."""
    plain = "".join(c if c.isprintable() or c in "\n\t\u00a0\u202f" else ascii(c)[1:-1] for c in text)
    return redact(plain)


def printable(text: str) -> str:
    """Return a name or text that others chose in one line, redacted, without control characters."""
    return redact(" ".join("".join(c if c.isprintable() else " " for c in text).split()))


def shown_facts(value: Any) -> Any:
    """Return JSON's values with each text, names too, as it may be shown."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, Mapping):
        return {shown_facts(key): shown_facts(item) for key, item in value.items()}
    return [shown_facts(item) for item in value] if isinstance(value, list | tuple) else value


def remember_secrets(table: Mapping[str, Any]) -> None:
    """Let `redact` of this process hide the values in a table, as a profile's, whose names are those of secrets."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            remember_secrets(value)
        elif isinstance(value, str) and SECRET_NAME.search(str(name)):
            _remembered.update(dict.fromkeys(_spellings(value)))


def _of_environment() -> Iterable[str]:
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and name not in FOLDERS:
            yield from _spellings(value)


def _spellings(value: str) -> list[str]:
    """Return a secret as it is, percent-encoded, and as headers have it; nothing of a value that is none."""
    if _is_ordinary(value):
        return []
    return [value, quote(value, safe=""), b64encode(value.encode(errors="surrogateescape")).decode()]


def _is_ordinary(value: str) -> bool:
    """Whether a value is that of a setting, whatever its name: hidden, it would make messages unreadable."""
    if len(value) < LEAST or value.lower() in WORDS or NUMBER.fullmatch(value):
        return True
    is_path = "/" in value and os.path.exists(os.path.expanduser(value))
    return is_path or value in (os.environ.get(name) for name in OPEN)


class RedactingFilter(logging.Filter):
    """Redacts what a logger is told, tracebacks too, before any handler has it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Put the text as it may be shown in the place of message and arguments."""
        record.msg, record.args = shown(record.getMessage()), None
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = shown(logging.Formatter().formatException(record.exc_info))
            record.exc_info = None
        return True


def redact_logs() -> None:
    """Let our logger, and those of libraries that may be told addresses, redact what they are told."""
    for logger in map(logging.getLogger, LOGGERS):
        if not any(isinstance(there, RedactingFilter) for there in logger.filters):
            logger.addFilter(RedactingFilter())


def _value_hidden(found: "re.Match[str]") -> str:
    name, value = found.groups()
    if value[0] in "\"'" and value[0] == value[-1]:
        return f"{name}{value[0]}{HIDDEN}{value[0]}"
    return name + HIDDEN + value[len(value.rstrip(SENTENCE)) :]


def _in_a_sentence(found: "re.Match[str]") -> str:
    address = found.group().rstrip(SENTENCE)
    return _plain(address) + found.group()[len(address) :]


def _plain(address: str, depth: int = 0) -> str:
    """Return an address, whatever it is nested in, without what may be secret."""
    if NESTED.search(address):
        address = _decoded(address)
    if re.match(r"/vsi\w+\?", address):  # options of GDAL's, of which one is the address
        inner = GDAL_URL.search(address) if depth < DEEPEST else None
        return _url(_decoded(inner[1]), depth + 1) if inner else address.partition("?")[0]
    head = USER.sub(r"\1", QUERY_BEGINS.split(address, maxsplit=1)[0])
    odd = ODD_PASSWORD.search(head)
    if odd and "@" in address[odd.end() :]:
        return head[: odd.start()] + _plain("://" + address.rpartition("@")[2])
    return head


def _decoded(text: str) -> str:
    """Undo percent-encoding, however often it was done."""
    for _ in range(8):
        if (plain := unquote(text)) == text:
            break
        text = plain
    return text
