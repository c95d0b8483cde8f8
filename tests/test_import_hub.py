"""`hf:owner/name` against a server that answers as the Hugging Face Hub does: pinned, checked, refused in a line."""

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from foreign import save_smp

from models.build import build
from models.errors import BundleError
from models.importing import describe_model, import_model
from models.imports import hub
from models.imports.hub import Snapshot, fetch_snapshot, with_origin
from models.imports.recognise import recognise

constants = pytest.importorskip("huggingface_hub.constants")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS = (".safetensors", ".onnx", ".bin", ".dlpk", ".data")  # large files, which a second address gives


@dataclass
class Repository:
    """What a server of the Hub has of one repository."""

    files: dict[str, bytes] = field(default_factory=dict)
    sent: dict[str, bytes] = field(default_factory=dict)  # instead of what is listed
    listed: dict[str, Any] = field(default_factory=dict)  # over the answer
    error: tuple[int, str] | None = None
    asked: list[str] = field(default_factory=list)
    endpoint: str = ""

    def info(self) -> dict[str, Any]:
        siblings = []
        for name, content in self.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
            if name.endswith(LFS):
                entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        return {"_id": "1", "id": "lab/roads", "sha": COMMIT, "private": False, "downloads": 0, "likes": 0, "tags": [],
                "siblings": siblings, "cardData": {"license": "cc-by-4.0"}, **self.listed}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """Answers as huggingface.co: the API, `resolve` with its headers, and a redirection for large files."""

    hub: Repository

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.error is not None:
            self.answer(self.hub.error[0], b"{}", {"X-Error-Code": self.hub.error[1]})
        elif path in (
            "/api/models/lab/roads",
            "/api/models/lab/roads/revision/v1",
            f"/api/models/lab/roads/revision/{COMMIT}",
        ):
            self.answer(200, json.dumps(self.hub.info()).encode(), {"Content-Type": "application/json"})
        elif path.startswith(f"/lab/roads/resolve/{COMMIT}/"):
            self.resolve(path.removeprefix(f"/lab/roads/resolve/{COMMIT}/"))
        elif path.startswith("/large/"):
            self.answer(200, self.hub.sent.get(path[7:], self.hub.files[path[7:]]), {})
        else:
            code = "RevisionNotFound" if "/revision/" in path else "RepoNotFound"
            self.answer(404, b"{}", {"X-Error-Code": code})

    def resolve(self, name: str) -> None:
        listed = self.hub.files[name]
        etag = f'"{hashlib.sha256(listed).hexdigest()}"'
        if name.endswith(LFS):
            elsewhere = self.hub.endpoint.replace("127.0.0.1", "localhost")  # another host, as the Hub's
            headers = {
                "Location": f"{elsewhere}/large/{name}",
                "X-Linked-Etag": etag,
                "X-Linked-Size": str(len(listed)),
            }
            self.answer(302, b"", headers)
        else:
            self.answer(200, self.hub.sent.get(name, listed), {"ETag": etag})

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Iterator[Repository]:
    found = Repository()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answering", (Handler,), {"hub": found}))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    found.endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", found.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def smp_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in save_smp(folder).iterdir()}


def fetch(repository: Repository, tmp_path: Path, reference: str = "hf:lab/roads") -> Snapshot:
    return fetch_snapshot(reference, endpoint=repository.endpoint, cache=tmp_path / "cache")


def refused(repository: Repository, tmp_path: Path, *words: str, reference: str = "hf:lab/roads") -> None:
    with pytest.raises(BundleError) as caught:
        fetch(repository, tmp_path, reference)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 600
    for word in words:
        assert word in said


@pytest.mark.parametrize("reference", ["hf:lab/roads", "hf:lab/roads@v1", f"hf:lab/roads@{COMMIT}"])
def test_folder_of_smp_is_fetched_and_pinned(repository, tmp_path, reference):
    repository.files = smp_files(tmp_path / "made") | {
        "flax_model.msgpack": b"not wanted",
        "pytorch_model.bin": b"the same again",
    }
    snapshot = fetch(repository, tmp_path, reference)
    assert (snapshot.commit, snapshot.digest) == (COMMIT, hashlib.sha256(b"weights").hexdigest())
    assert sorted(path.name for path in snapshot.path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    found = with_origin(recognise(snapshot.path), snapshot)
    assert (found.facts["name"], found.facts["architecture"], found.inputs) == ("roads", "smp:Unet", 4)
    assert found.facts["provenance"] == {"source": f"{repository.endpoint}/lab/roads", "revision": COMMIT,
                                         "sha256": snapshot.digest, "licence": "cc-by-4.0"}  # fmt: skip
    assert found.notes[-1].endswith(f"hf:lab/roads@{COMMIT}")
    assert set(found.sources) >= set(found.facts)


def test_settings_that_swathe_exported_come_along(repository, tmp_path):
    repository.files = smp_files(tmp_path / "made") | {"swathe.json": b'{"bands": ["red", "green", "blue", "nir"]}'}
    assert recognise(fetch(repository, tmp_path).path).facts["bands"] == ["red", "green", "blue", "nir"]


def test_what_is_there_is_not_fetched_again(repository, tmp_path):
    repository.files = smp_files(tmp_path / "made")
    fetch(repository, tmp_path)
    repository.asked.clear()
    fetch(repository, tmp_path)
    assert not [asked for asked in repository.asked if asked.startswith("GET /large") or "GET /lab" in asked]


def test_import_records_commit_and_digest(repository, tmp_path):
    network = build("unet", 3, 2, widths=[4, 8]).eval()
    safetensors.torch.save_file(network.state_dict(), tmp_path / "net.safetensors")
    repository.files = {
        "net.safetensors": (tmp_path / "net.safetensors").read_bytes(),
        "README.md": b"---\nlicense: mit\n---\n",
    }
    settings = {"bands": ["red", "green", "blue"], "dtype": "uint8", "scaling": {"divisor": 255}, "classes": ["a", "b"]}
    bundle = import_model("hf:lab/roads@v1", tmp_path / "bundle", config=settings)
    assert bundle.metadata.architecture == "unet"
    assert bundle.metadata.name == "roads"
    assert bundle.metadata.provenance["revision"] == COMMIT
    assert bundle.metadata.provenance["licence"] == "cc-by-4.0"
    assert bundle.metadata.provenance["sha256"] == hashlib.sha256(repository.files["net.safetensors"]).hexdigest()
    assert f"hf:lab/roads@{COMMIT}" in describe_model("hf:lab/roads", config=settings)


def test_one_of_several_networks(repository, tmp_path):
    repository.files = {"a.onnx": b"a", "b/b.onnx": b"b", "b/b.onnx.data": b"numbers", "c/c.onnx.data": b"others"}
    refused(repository, tmp_path, "holds 2 (a.onnx, b/b.onnx)", "name its file")
    snapshot = fetch(repository, tmp_path, "hf:lab/roads/b/b.onnx")
    assert sorted(path.name for path in snapshot.path.parent.iterdir()) == ["b.onnx", "b.onnx.data"]
    refused(repository, tmp_path, "there is no c.onnx", reference="hf:lab/roads/c.onnx")
    repository.files = {"README.md": b"nothing"}
    refused(repository, tmp_path, "holds none")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_arrives_is_compared_with_the_commit(repository, tmp_path, name):
    repository.files = smp_files(tmp_path / "made")
    whole = repository.files[name]
    repository.sent = {name: bytes([whole[0] ^ 1]) + whole[1:]}
    refused(repository, tmp_path, name, "is not what its commit holds")


@pytest.mark.parametrize(("error", "word"), [
    ((401, "RepoNotFound"), "is not there, or is private"),
    ((403, "GatedRepo"), "accepted its terms"),
    ((404, "RevisionNotFound"), "no such branch, tag or commit"),
    ((403, ""), "cannot be fetched"),
])  # fmt: skip
def test_answers_of_the_hub(repository, tmp_path, error, word):
    repository.error = error
    refused(repository, tmp_path, word)


def test_names_that_are_not_there(repository, tmp_path):
    refused(repository, tmp_path, "is not there", reference="hf:lab/rivers")
    refused(repository, tmp_path, "no such branch", reference="hf:lab/roads@v9")
    with pytest.raises(BundleError, match="where there is no network, download it elsewhere"):
        fetch_snapshot("hf:lab/roads", endpoint="http://127.0.0.1:1", cache=tmp_path)


@pytest.mark.parametrize("reference", ["hf:", "hf:roads", "hf:lab/../../etc", "hf:lab/roads@../..",
                                       "hf:a/b c?d", "hf:http://a/b", "hf:a/b\nc",
                                       "hf:" + "a" * 5000])  # fmt: skip
def test_names_that_are_none(repository, tmp_path, reference):
    refused(repository, tmp_path, "names nothing on the Hub", reference=reference)
    assert not repository.asked


def test_the_extra_that_is_missing(repository, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused(repository, tmp_path, "hf:owner/name needs huggingface-hub: pip install 'swathe[hub]'")


def test_hostile_answers(repository, tmp_path, monkeypatch):
    repository.files = {"../../evil.safetensors": b"a", "/etc/evil.onnx": b"a", ".git/evil.onnx": b"a"}
    refused(repository, tmp_path, "holds none")
    for listed in ({"sha": None}, {"sha": "../../x"}, {"siblings": [{"rfilename": f"{n}.onnx"} for n in range(10_001)]},
                   {"siblings": None}, {"siblings": [{"rfilename": "a.onnx", "size": 2**40}]},
                   {"siblings": 5}):  # fmt: skip
        repository.listed = listed
        refused(repository, tmp_path)
    assert not [asked for asked in repository.asked if "/resolve/" in asked or "/large/" in asked]
    monkeypatch.setattr(hub, "LARGEST", 10)
    repository.files, repository.listed = smp_files(tmp_path / "made"), {}
    refused(repository, tmp_path, "at most 10 are fetched")
