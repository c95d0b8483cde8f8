"""An object store that fails: moto's server behind a proxy that answers 503, 404 once, half, late, wrong or not at all.

Segment from and to S3, clean and publish there. Each ends with the right bytes, or in a clear line, after which the
same command ends right. In the content of a GeoTIFF no byte is changed: it has no checksums, and over plain HTTP nobody
could tell. Where S3 is reached by HTTPS, as by default, TLS does.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

from ..chaos_scene import OPTIONS, bundle_path, make_reference
from .content import difference
from .s3_proxy import FAULTS, Proxy
from .trial import Trial, swathe

PART, BUCKET, DATES = "s3", "bucket", "2026-01-01T00:00:00Z"
QUICK = tuple(fault for fault in FAULTS if fault != "stall")  # which takes its time
SHARES = (0.05, 0.15) * 2  # of requests that fail; most of a minute goes by each time, as stalls are waited for
SECONDS = 300.0  # for a command: a handful of stalls take a minute
STORE = {"segment": ".zarr", "clean": ".zarr", "publish": ""}  # endings
KEYS = {
    "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}  # fmt: skip


def run(seed: int, quick: bool, folder: Path) -> Iterator[Trial]:
    """Try all verbs at all shares; see `trial.Trial`."""
    inputs = folder / "inputs"
    inputs.mkdir()
    make_reference(inputs, 256 if quick else 640)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it tells of each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        with Proxy(url, "scene.tif") as proxy:
            yield from _tried(seed, quick, folder, inputs, Bucket(url), proxy)
    finally:
        server.stop()


class Bucket:
    """The store without the proxy."""

    def __init__(self, url: str) -> None:
        self.client = boto3.client(
            "s3", endpoint_url=url, aws_access_key_id="key", aws_secret_access_key="secret", region_name="us-east-1"
        )
        self.client.create_bucket(Bucket=BUCKET)

    def upload(self, path: Path, key: str) -> None:
        """Put a file, or all files of a folder."""
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            name = key if path.is_file() else f"{key}/{file.relative_to(path)}"
            self.client.upload_file(str(file), BUCKET, name)

    def move(self, key: str, folder: Path) -> Path:
        """Get all objects below a key as files, and remove them."""
        pages = list(self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{key}/"))
        for name in [one["Key"] for page in pages for one in page.get("Contents", ())]:
            (target := folder / name).parent.mkdir(parents=True, exist_ok=True)
            self.client.download_file(BUCKET, name, str(target))
            self.client.delete_object(Bucket=BUCKET, Key=name)
        return folder / key


def _tried(seed: int, quick: bool, folder: Path, inputs: Path, bucket: Bucket, proxy: Proxy) -> Iterator[Trial]:
    bucket.upload(inputs / "scene.tif", "scene.tif")
    bucket.upload(inputs / "reference.zarr", "reference.zarr")
    environment = {**KEYS, "AWS_ENDPOINT_URL": proxy.url, "AWS_S3_ENDPOINT": proxy.url.removeprefix("http://"),
                   "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE", "GDAL_HTTP_TIMEOUT": "10"}  # fmt: skip
    scene, store = f"s3://{BUCKET}/scene.tif", f"s3://{BUCKET}/reference.zarr"
    verbs = {
        "segment": ("segment", scene, "-m", bundle_path(inputs), *OPTIONS, "-q"),
        "clean": ("clean", store, "--min-object", 9, "-q"),
        "publish": ("publish", store, "--side", 512, "--dates", DATES, "-q"),
    }
    for number, share in enumerate((0.05,) if quick else SHARES):
        for name, words in list(verbs.items())[: 1 if quick else None]:
            key = f"out/{name}{STORE[name]}"  # always the same, since catalogues hold their own address
            right = folder / "right" / key
            if not right.exists():
                proxy.fail(seed, 0.0)
                done = swathe(*words, "-o", f"s3://{BUCKET}/{key}", environment=environment)
                yield Trial(PART, f"{name} without faults", done.code == 0, done.said[-300:])
                bucket.move(key, folder / "right")
            proxy.fail(seed + number, share, QUICK if quick else FAULTS)
            yield _try(name, words, key, share, environment, right, bucket, proxy, folder / str(number))


def _try(
    name: str, words: tuple[object, ...], key: str, share: float, environment: Mapping[str, str], right: Path,
    bucket: Bucket, proxy: Proxy, folder: Path,
) -> Trial:  # fmt: skip
    """Run a command while storage fails; then, if it did not end well, once more while it does not."""
    line = (*words, "-o", f"s3://{BUCKET}/{key}")
    done = swathe(*line, environment=environment, seconds=SECONDS)
    faults = ", ".join(f"{count} {fault}" for fault, count in sorted(proxy.done.items())) or "none"
    what = f"{name} at {share:.0%} ({faults})"
    if not done.is_clear or "internal error" in done.said:
        return Trial(PART, what, False, f"ended with {done.code}: {done.said[-300:]}")
    proxy.fail(0, 0.0)
    if done.code:
        again = swathe(*line, environment=environment)
        if again.code:
            return Trial(PART, what, False, f"again: {again.last} (first {done.last})")
    other = difference(right, bucket.move(key, folder))
    return Trial(PART, what, not other, other or (f"after: {done.last}" if done.code else "at once"))
