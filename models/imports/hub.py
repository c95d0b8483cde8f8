"""Networks on the Hugging Face Hub: `hf:owner/name[/file][@revision]` fetched, pinned to a commit, checked by digest.

Only what a network needs is fetched, into the Hub's own cache; nothing is run. Which files a repository holds, their
sizes and digests are those of the commit, and what arrives is compared with them.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import BundleError, require_extra
from ..redact import printable, redact_url
from .found import Found
from .parts import bundle_name, cache_of, read_table
from .smp_folder import CLASS, CONFIG, SETTINGS, WEIGHTS

PREFIX = "hf:"
REFERENCE = re.compile(
    r"(?P<repo>[\w.-]{1,96}/[\w.-]{1,96})(?P<file>(?:/[\w.+ -]{1,200}){0,10})(?:@(?P<revision>[\w./-]{1,200}))?"
)
NETWORKS = (".onnx", ".safetensors", ".ckpt", ".pth", ".pt", ".pt2", ".bin", ".dlpk")
DATA = (".onnx.data", ".onnx_data")  # of large ONNX files, beside these
CARD = "README.md"
MOST_FILES = 10_000
LARGEST = 2**34  # bytes of what is fetched of one repository


@dataclass(frozen=True)
class Snapshot:
    """A repository of the Hub as it was at one commit.

    Parameters
    ----------
    path
        Of the folder, or of the one file that is its network.
    repository, commit
        Its name as owner/name, and the full commit.
    digest
        SHA-256 of the network's file.
    licence
        As its card says; empty: it does not.
    endpoint
        Address of the server.
    """

    path: Path
    repository: str
    commit: str
    digest: str
    licence: str
    endpoint: str


def is_reference(model: object) -> bool:
    """Whether a model is named by its place on the Hub."""
    return isinstance(model, str) and model.startswith(PREFIX)


def fetch_snapshot(reference: str, *, endpoint: str | None = None, cache: Path | None = None) -> Snapshot:
    """Fetch what a network needs from a repository of the Hub.

    Parameters
    ----------
    reference
        `hf:owner/name`; `hf:owner/name/model.onnx` for one of several files; `@` and a branch, tag or commit.
    endpoint
        Address of the server. None: of the environment's `HF_ENDPOINT`, else the Hub's own.
    cache
        Folder for what is fetched. None: the one of `huggingface_hub`.

    Raises
    ------
    BundleError
        The name is none; there is no such repository, no network in it or to it; or what arrived is something else.
    """
    found = REFERENCE.fullmatch(reference.removeprefix(PREFIX))
    if found is None or ".." in reference:
        raise BundleError(
            f"{printable(reference)[:200]} names nothing on the Hub: give hf:owner/name, or hf:owner/name@revision"
        )
    require_extra("hub", f"{PREFIX}owner/name", "huggingface_hub", error=BundleError)
    repository, revision = found["repo"], found["revision"]
    endpoint = endpoint or os.environ.get("HF_ENDPOINT") or None
    try:
        commit, files, licence = _listed(repository, revision, endpoint)
        names = _chosen(files, found["file"].lstrip("/"), reference)
        size = sum(files[name][0] for name in names)
        if size > LARGEST:
            raise BundleError(f"{reference} has {size:,} bytes; at most {LARGEST:,} are fetched")
        paths = {name: _fetched(repository, name, commit, endpoint, cache) for name in names}
    except BundleError:
        raise
    except Exception as error:  # of huggingface_hub, its client for HTTP, and the file system
        raise BundleError(_reason(reference, error)) from error
    for name in names:
        _check_digest(paths[name], files[name], f"{reference}: {name}")
    weights = next(paths[name] for name in names if name.endswith(NETWORKS))
    path = weights.parent if PurePosixPath(weights.name).name in WEIGHTS and CONFIG in paths else weights
    return Snapshot(path, repository, commit, _sha256(weights), licence, _address(endpoint))


def with_origin(found: Found, snapshot: Snapshot) -> Found:
    """Return what was recognised, with where it came from."""
    origin = {
        "source": f"{snapshot.endpoint}/{snapshot.repository}",
        "revision": snapshot.commit,
        "sha256": snapshot.digest,
    }
    origin |= {"licence": snapshot.licence} if snapshot.licence else {}
    facts = {**found.facts, "name": bundle_name(snapshot.repository.partition("/")[2])}
    facts["provenance"] = {**found.facts.get("provenance", {}), **origin}
    where = f"the Hub, at commit {snapshot.commit[:12]}"
    note = f"the same again, whatever is changed there: {PREFIX}{snapshot.repository}@{snapshot.commit}"
    return replace(
        found, facts=facts, sources={**found.sources, "name": where, "provenance": where}, notes=(*found.notes, note)
    )


def refuse_hub_folder(path: Path) -> None:
    """Refuse a folder of the Hub that describes a network which no architecture here builds. Raises BundleError."""
    if not path.is_dir() or not (path / CONFIG).is_file():
        return
    if not (path / CONFIG).resolve().is_relative_to(cache_of(path).resolve()):
        raise BundleError(f"{path / CONFIG} is a link that leads out of its folder: copy the file itself")
    config = read_table(path / CONFIG) or {}
    names = config.get("architectures")
    if isinstance(names, list) and names:
        raise BundleError(f"{path} is a model of transformers ({printable(str(names[0]))[:60]}): make ONNX of it, "
                          f"`optimum-cli export onnx --model {path} onnx`, and import that")  # fmt: skip
    if isinstance(config.get("architecture"), str) and CLASS not in config:
        raise BundleError(f"{path} is an encoder of timm ({printable(config['architecture'])[:60]}), which classifies "
                          "whole images: give the network of segmentation that was trained with it")  # fmt: skip
    if isinstance(config.get("_class_name"), str):
        raise BundleError(
            f"{path} is a model of diffusers ({printable(config['_class_name'])[:60]}), which segments nothing"
        )


Listed = tuple[int, str, str]  # of a file: bytes, and its SHA-256 or the SHA-1 of its blob in git; one is empty


def _listed(repository: str, revision: str | None, endpoint: str | None) -> tuple[str, dict[str, Listed], str]:
    """Ask for the commit and the files of a repository."""
    from huggingface_hub import HfApi

    info = HfApi(endpoint=endpoint).model_info(repository, revision=revision, files_metadata=True)
    siblings = info.siblings or []
    if not re.fullmatch(r"[0-9a-f]{40}", info.sha or "") or len(siblings) > MOST_FILES:
        raise BundleError(
            f"{repository} answers without a commit, or with {len(siblings):,} files: it is no repository of the Hub"
        )
    files = {one.rfilename: (int(one.size or 0), *_digests(one)) for one in siblings}
    card: Any = info.card_data
    return str(info.sha), files, printable(str(card.get("license") or ""))[:60] if card else ""


def _digests(file: Any) -> tuple[str, str]:
    return (str(file.lfs.sha256), "") if file.lfs else ("", str(file.blob_id or ""))


def _chosen(files: Mapping[str, Listed], asked: str, reference: str) -> list[str]:
    """Return the files that a network needs: a description and its weights, or the one that is a network."""
    known = [name for name in files if not name.startswith((".", "/")) and ".." not in name.split("/")]
    card = [name for name in (CARD, SETTINGS) if name in known]
    if asked:
        if asked not in known:
            raise BundleError(f"{reference}: there is no {asked}; there are {', '.join(sorted(known)[:8])}")
        return [asked, *_beside(asked, known), *card]
    weights = [name for name in WEIGHTS if name in known]
    if CONFIG in known and weights:
        return [CONFIG, weights[0], *card]
    networks = [name for name in known if name.endswith(NETWORKS)]
    if len(networks) != 1:
        said = f"{len(networks)} ({', '.join(sorted(map(printable, networks))[:5])})" if networks else "none"
        raise BundleError(
            f"{reference} should hold one network, and holds {said}: name its file, as {PREFIX}owner/name/model.onnx"
        )
    return [networks[0], *_beside(networks[0], known), *card]


def _beside(network: str, known: Sequence[str]) -> list[str]:
    """Return what an ONNX file may keep its weights in."""
    folder = network.rpartition("/")[0]
    return [
        name
        for name in known
        if network.endswith(".onnx") and name.endswith(DATA) and name.rpartition("/")[0] == folder
    ]


def _address(endpoint: str | None) -> str:
    from huggingface_hub import constants

    return redact_url(endpoint or constants.ENDPOINT).rstrip("/")


def _fetched(repository: str, name: str, commit: str, endpoint: str | None, cache: Path | None) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repository, name, revision=commit, endpoint=endpoint, cache_dir=cache))


def _check_digest(path: Path, listed: Listed, whose: str) -> None:
    _, sha256, blob = listed
    if sha256 and _sha256(path) != sha256:
        raise BundleError(
            f"{whose} is not what its commit holds: its SHA-256 differs. Remove {path.resolve()}, and try again"
        )
    if blob and not sha256:
        content = path.read_bytes()
        if hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() != blob:
            raise BundleError(f"{whose} is not what its commit holds. Remove {path.resolve()}, and try again")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(reference: str, error: Exception) -> str:
    kind = type(error).__name__
    said = " ".join(str(error).split())[:200] or kind
    known = {
        "GatedRepoError": "is given only to those who accepted its terms: do so on its page, then `hf auth login`",
        "RepositoryNotFoundError": "is not there, or is private: see the name, or `hf auth login`",
        "RevisionNotFoundError": "has no such branch, tag or commit",
        "RemoteEntryNotFoundError": "has no such file",
        "OfflineModeIsEnabled": "is not fetched, since HF_HUB_OFFLINE is set: give a folder",
    }
    if kind in known:
        return f"{reference} {known[kind]}"
    return (
        f"{reference} cannot be fetched ({said}): where there is no network, download it elsewhere, and give its folder"
    )
