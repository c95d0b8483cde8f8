"""Networks, receptive fields, bundles and foreign weights: what is built, measured, kept, and refused."""

import hashlib
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import RECEPTIVE_FIELDS, SHARED, metadata, network, receptive_field, save
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import models.bundle as bundles
from models import Band, Bundle, ClassInfo, divide, load_bundle, measure_receptive_field, min_max, save_bundle, z_score
from models.build import NETWORKS, build, compare
from models.bundle import ITEM, NETWORK, WEIGHTS
from models.deterministic import deterministic_upsampling, sigmoid, softmax
from models.errors import BundleError, NetworkError
from models.importing import read_state_dict, rename
from models.metadata import ReceptiveField, Scaling
from models.mlm import from_item, to_item
from models.segmenter import Segmenter
from models.system import cache_folder

CHECKPOINT = SHARED / "checkpoints/tristangiando_simple_unet_v2/simple_unet_v2_subset100_epoch10.pth"
SMP = {"encoder_name": "resnet18", "decoder_channels": [16, 8, 8, 8, 8]}


@pytest.mark.parametrize("bands", [1, 4, 11])
@pytest.mark.parametrize("classes", [1, 2, 7])
@pytest.mark.parametrize("architecture", ["simple-unet", "unet"])
def test_any_number_of_bands_and_classes(architecture, bands, classes):
    assert network(architecture, bands, classes)(torch.zeros(2, bands, 64, 96)).shape == (2, classes, 64, 96)


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_every_depth_of_resnet(depth):
    with torch.device("meta"):
        assert build("unet-resnet", 3, 2, depth=depth)(torch.zeros(1, 3, 128, 64)).shape == (1, 2, 128, 64)


def test_default_sizes_are_the_articles():
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in build(name, 3, 2).parameters()) for name in NETWORKS}
    assert 400_000 < counts["simple-unet"] < 700_000
    assert 31_000_000 < counts["unet"] < 31_100_000  # Ronneberger's 31,030,593 and the batch norms
    assert counts["unet-resnet"] > 42_500_000  # the encoder's alone


@pytest.mark.parametrize(
    ("architecture", "options", "says"),
    [
        ("u-net", {}, "unknown network 'u-net'; known: simple-unet, unet, unet-resnet, smp:Unet"),
        ("smp:Nothing", {}, "has no 'Nothing'; it has: "),
        ("unet", {"depth": 18}, "it takes no option depth"),
        ("simple-unet", {"widths": [8, 8]}, "cannot be built"),
        ("unet", {"widths": []}, "cannot be built"),
        ("unet", {"widths": "abc"}, "cannot be built"),
        ("unet", {"widths": [10**40, 8]}, "cannot be built"),
        ("unet-resnet", {"depth": 19}, "cannot be built"),
        ("smp:Unet", {"encoder_name": "no-such"}, "cannot be built"),
        ("smp:Unet", {"encoder_name": "tu-hf-hub:somebody/something"}, "fetch it from a hub"),
    ],
)
def test_networks_that_cannot_be_built(architecture, options, says):
    with pytest.raises(NetworkError, match=says) as caught:
        build(architecture, 3, 2, **options)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(("bands", "classes"), [(0, 2), (3, 0), (-1, 2)])
def test_a_network_has_bands_and_classes(bands, classes):
    with pytest.raises(NetworkError, match="at least one band and one class"):
        build("unet", bands, classes)


def test_smp_never_asks_a_hub_for_weights(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a network was built with the network"))
    made = build("smp:Unet", 5, 3, **SMP, encoder_weights="imagenet")
    assert made.eval()(torch.zeros(1, 5, 64, 64)).shape == (1, 3, 64, 64)


def stack(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize(
    ("made", "right"),
    [
        (stack(nn.Conv2d(2, 3, 1)), ReceptiveField(1, 0)),
        (stack(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 5, padding=2)), ReceptiveField(1, 3)),
        (stack(nn.Conv2d(2, 2, 3, padding=4, dilation=4), nn.Conv2d(2, 2, 3, padding=1)), ReceptiveField(1, 5)),
        (stack(nn.Conv2d(2, 2, (1, 9), padding=(0, 4))), ReceptiveField(1, 4)),
        (stack(nn.MaxPool2d(2), nn.Upsample(scale_factor=2)), ReceptiveField(2, 1)),
        (stack(nn.AvgPool2d(4), nn.Conv2d(2, 2, 3, padding=1), nn.Upsample(scale_factor=4)), ReceptiveField(4, 7)),
        (stack(nn.MaxPool2d(3), nn.Upsample(scale_factor=3)), ReceptiveField(3, 2)),
    ],
)
def test_receptive_field_is_the_analytic_one(made, right):
    assert measure_receptive_field(made, 2) == right


@pytest.mark.parametrize("architecture", ["simple-unet", "unet"])
def test_receptive_field_of_our_networks(architecture):
    assert measure_receptive_field(network(architecture, 2, 2), 2) == RECEPTIVE_FIELDS[architecture]


@pytest.mark.slow
def test_receptive_field_of_the_deep_encoder():
    assert measure_receptive_field(network("unet-resnet", 1, 1), 1) == RECEPTIVE_FIELDS["unet-resnet"]


@pytest.mark.parametrize("architecture", ["simple-unet", "unet"])
def test_no_pixel_beyond_the_radius_matters_and_one_at_it_does(architecture):
    """Seen by numbers, not by NaN: every phase of the stride, each column changed beyond all others."""
    made, found = network(architecture, 1, 1).double(), receptive_field(architecture)
    size = 64 * 4
    base = torch.randn(1, 1, 64, size, dtype=torch.float64)
    furthest = 0
    with torch.inference_mode():
        answer = made(base)
        for column in range(128, 128 + found.stride):
            changed = base.clone()
            changed[..., column] += 100
            columns = torch.nonzero((made(changed) != answer).any(dim=2)[0, 0])
            furthest = max(furthest, int((columns - column).abs().max()))
    assert found.radius - found.stride < furthest <= found.radius


class SqueezeExcite(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.mean(dim=(2, 3), keepdim=True).sigmoid()


@pytest.mark.parametrize(
    "made",
    [stack(nn.InstanceNorm2d(2)), stack(nn.GroupNorm(1, 2)), stack(nn.Conv2d(2, 2, 3, padding=1), SqueezeExcite())],
)
def test_unbounded_networks_are_recognised(made):
    found = measure_receptive_field(made, 2)
    assert found.radius is None
    assert found.halo is None


class Added(nn.Module):
    """A convolution, and something of the whole input that no NaN shows."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.first = kind, nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, columns = (torch.linspace(0, 1, side) for side in x.shape[2:])
        return (
            self.first(x)
            + {
                "rows": lambda: rows[:, None],
                "columns": lambda: columns,
                "columns counted": lambda: torch.arange(x.shape[3]) / 64,
                "largest": lambda: torch.nan_to_num(x.amax((2, 3), keepdim=True)),
                "smallest of a row": lambda: torch.nan_to_num(x).amin(3, keepdim=True),
                "nothing": lambda: torch.zeros(1),
            }[self.kind]()
        )


@pytest.mark.parametrize("step", [torch.sqrt, torch.log1p])
def test_pixels_that_a_network_cannot_take_are_not_tried(step):
    class Rooted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.first(step(x))

    assert measure_receptive_field(Rooted(), 2) == ReceptiveField(1, 1)


@pytest.mark.parametrize("kind", ["rows", "columns", "columns counted", "largest", "smallest of a row"])
def test_what_no_nan_shows_has_no_radius(kind):
    assert measure_receptive_field(Added("nothing"), 2) == ReceptiveField(1, 1)
    assert measure_receptive_field(Added(kind), 2).radius is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "options", "bounded"),
    [
        ("smp:Unet", SMP, True),
        ("smp:Unet", {"encoder_name": "efficientnet-b0", "decoder_channels": [16, 8, 8, 8, 8]}, False),
        ("smp:FPN", {"encoder_name": "resnet18"}, None),
    ],
)
def test_receptive_fields_of_smp(architecture, options, bounded):
    found = measure_receptive_field(build(architecture, 3, 2, **options), 3)
    assert found.stride == 32
    if bounded is not None:
        assert (found.radius is not None) == bounded


def test_network_of_another_size_has_no_receptive_field():
    with pytest.raises(NetworkError, match="another size"):
        measure_receptive_field(stack(nn.Conv2d(2, 2, 3)), 2)


def test_scaling_is_its_formula():
    values = torch.tensor([0.0, 50.0, 200.0]).reshape(1, 1, 1, 3)
    asked = {z_score([50], [25]): [-2, 0, 6], min_max([50], [150]): [-0.5, 0, 1.5], divide([100]): [0, 0.5, 2]}
    for scaling, right in asked.items():
        assert Segmenter(nn.Identity(), scaling).logits(values).flatten().tolist() == right


@pytest.mark.parametrize(
    "made",
    [
        lambda: z_score([1.0], [0.0]),
        lambda: min_max([3.0], [3.0]),
        lambda: divide([0.0]),
        lambda: z_score([float("nan")], [1.0]),
        lambda: divide([float("inf")]),
        lambda: z_score([1.0, 2.0], [1.0]),
        lambda: Scaling("log", (1.0,), (1.0,)),
    ],
)
def test_scaling_that_makes_no_sense(made):
    with pytest.raises(BundleError):
        made()


@pytest.mark.parametrize("classes", [1, 2, 3, 6])
def test_softmax_and_sigmoid_are_torchs(classes):
    logits = torch.randn(2, classes, 17, 19) * 20
    torch.testing.assert_close(softmax(logits), torch.softmax(logits, dim=1), atol=5e-7, rtol=0)
    torch.testing.assert_close(sigmoid(logits), torch.sigmoid(logits), atol=2e-7, rtol=0)


@pytest.mark.parametrize(("kernel", "extra"), [(3, 1), (4, 0)])
@pytest.mark.parametrize("bias", [True, False])
def test_steady_upsampling_is_the_transposed_convolution(kernel, extra, bias):
    plain = nn.ConvTranspose2d(5, 7, kernel, stride=2, padding=1, output_padding=extra, bias=bias).double()
    deterministic = deterministic_upsampling(stack(plain))
    x = torch.randn(2, 5, 9, 12, dtype=torch.float64)
    assert not isinstance(deterministic[0], nn.ConvTranspose2d)
    torch.testing.assert_close(deterministic(x), plain(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "options", [{"kernel_size": 2, "stride": 2}, {"kernel_size": 4, "stride": 2, "padding": 1, "groups": 2}]
)
def test_other_transposed_convolutions_are_left_alone(options):
    assert isinstance(deterministic_upsampling(stack(nn.ConvTranspose2d(4, 4, **options)))[0], nn.ConvTranspose2d)


def test_sigmoid_of_one_channel_gives_two_classes():
    values = torch.randn(1, 1, 4, 4)
    found = Segmenter(nn.Identity(), divide([1.0]), "sigmoid")(values)
    torch.testing.assert_close(found[:, 1:], torch.sigmoid(values))
    torch.testing.assert_close(found.sum(dim=1), torch.ones(1, 4, 4))


def test_bundle_comes_back_as_it_was(tmp_path):
    described = metadata(
        "unet", bands=4, classes=3, dtype="float32", scaling=min_max([0, 1, 2, 3], [10, 11, 12, 13]),
        resolution=(0.5, 10.0), patch=128, description="déjà vu", provenance={"data": ["a", 1]}, metrics={"iou": 0.5},
    )  # fmt: skip
    made = network("unet", 4, 3)
    folder, packed = save_bundle(tmp_path / "b", made, described), save_bundle(tmp_path / "b.zip", made, described)
    for bundle in (folder, packed, load_bundle(tmp_path / "b"), load_bundle(tmp_path / "b.zip")):
        assert bundle.metadata == described
        assert bundle.parameters == sum(p.numel() for p in made.parameters())
        for key, tensor in bundle.network().state_dict().items():
            assert torch.equal(tensor, made.state_dict()[key])


def test_digest_is_of_the_content(tmp_path):
    bundle = save(tmp_path / "b", metadata("unet"))
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (WEIGHTS, ITEM):
            archive.write(tmp_path / "b" / name, name)
    assert load_bundle(tmp_path / "b.zip").digest == bundle.digest
    weights = bytearray((tmp_path / "b" / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (tmp_path / "b" / WEIGHTS).write_bytes(weights)
    assert load_bundle(tmp_path / "b").digest != bundle.digest


def test_digest_is_of_contract_and_weights_alone(tmp_path, monkeypatch):
    described, made = metadata("unet"), network("unet", 3, 2)
    first = save_bundle(tmp_path / "a", made, described)

    class Later(bundles.datetime):
        @classmethod
        def now(cls, zone: Any = None) -> Any:
            return bundles.datetime(2031, 5, 6, tzinfo=zone)

    monkeypatch.setattr(bundles, "datetime", Later)
    for number, change in enumerate(
        (
            {},
            {"provenance": {"command": "swathe train -o b"}},
            {"metrics": {"test": {"iou": 0.5}}},
            {"description": "x"},
        )
    ):
        again = save_bundle(tmp_path / f"{number}.zip", made, replace(described, **change))
        assert again.item["properties"]["datetime"].startswith("2031")
        assert again.digest == first.digest
    others = ({"name": "other"}, {"dtype": "int16"}, {"scaling": z_score([1] * 3, [2] * 3)}, {"background": None},
              {"classes": (described.classes[0], replace(described.classes[1], name="other"))})  # fmt: skip
    digests = {save_bundle(tmp_path / f"o{n}", made, replace(described, **o)).digest for n, o in enumerate(others)}
    assert len({*digests, first.digest}) == len(others) + 1


def test_bundles_of_before_keep_their_digests(tmp_path):
    shutil.copytree(bundles.SHIPPED / "clouds", tmp_path / "clouds")
    item = json.loads((tmp_path / "clouds" / ITEM).read_text())
    item["properties"].pop("swathe:digest", None)
    for band in item["properties"]["bands"]:
        band.pop("swathe:quantiles", None)
    (tmp_path / "clouds" / ITEM).write_text(json.dumps(item))
    total = hashlib.sha256()
    for name in (ITEM, WEIGHTS):
        total.update(hashlib.sha256((tmp_path / "clouds" / name).read_bytes()).digest())
    assert load_bundle(tmp_path / "clouds").digest == total.hexdigest()


def test_existing_bundle_is_replaced_only_on_request(tmp_path):
    first = save(tmp_path / "b", metadata("unet"), seed=1)
    with pytest.raises(BundleError, match="exists"):
        save(tmp_path / "b", metadata("unet"), seed=2)
    assert load_bundle(tmp_path / "b").digest == first.digest
    for suffix in ("b", "b.zip"):
        save_bundle(tmp_path / suffix, network("unet", 3, 2, seed=2), metadata("unet"), overwrite=True)
        second = save_bundle(tmp_path / suffix, network("unet", 3, 2, seed=3), metadata("unet"), overwrite=True)
        assert load_bundle(tmp_path / suffix).digest == second.digest != first.digest
    assert {path.name for path in tmp_path.iterdir()} == {"b", "b.zip", "b.sha256", "b.zip.sha256"}


@pytest.mark.parametrize("suffix", ["b", "b.zip"])
@pytest.mark.parametrize("failing", ["safetensors.torch.save", "models.bundle.to_item", "models.bundle.put_in_place"])
def test_saving_is_all_or_nothing(suffix, failing, tmp_path, monkeypatch):
    old = save(tmp_path / f"old-{suffix}", metadata("unet"), seed=1)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(failing, fail)
    for name in ("new", "old"):
        with pytest.raises(BundleError, match="no space"):
            save_bundle(tmp_path / f"{name}-{suffix}", network("unet", 3, 2, seed=2), metadata("unet"), overwrite=True)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".sha256"] == [f"old-{suffix}"]
    assert load_bundle(tmp_path / f"old-{suffix}").digest == old.digest


def test_replacing_that_fails_keeps_the_old(tmp_path, monkeypatch):
    old, move = save(tmp_path / "b", metadata("unet"), seed=1), bundles.os.replace

    def fail(source: Path, target: Path) -> None:
        if Path(target) == tmp_path / "b" and Path(source).name == "bundle":
            raise OSError("disk on fire")
        move(source, target)

    monkeypatch.setattr(bundles.os, "replace", fail)
    with pytest.raises(BundleError, match="on fire"):
        save_bundle(tmp_path / "b", network("unet", 3, 2, seed=2), metadata("unet"), overwrite=True)
    assert load_bundle(tmp_path / "b").digest == old.digest


@pytest.mark.parametrize("name", [WEIGHTS, NETWORK])
@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_weights_of_the_users_own_are_not_replaced_as_a_bundle(name, suffix, tmp_path):
    place = tmp_path / f"mine{suffix}"
    if suffix:
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr(name, b"mine")
    else:
        place.mkdir()
        (place / name).write_bytes(b"mine")
    with pytest.raises(BundleError, match=r"is no bundle \(it has no bundle\.json\); only a bundle is replaced"):
        save_bundle(place, network("unet", 3, 2), metadata("unet"), overwrite=True)
    kept = zipfile.ZipFile(place).read(name) if suffix else (place / name).read_bytes()
    assert kept == b"mine"
    (tmp_path / "empty").mkdir()
    save_bundle(tmp_path / "empty", network("unet", 3, 2), metadata("unet"), overwrite=True)


def test_facts_and_network_must_agree(tmp_path):
    with pytest.raises(BundleError, match=r"of another shape down\.0\.0\.weight"):
        save_bundle(tmp_path / "b", network("unet", 4, 2), metadata("unet", bands=3))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "two words"}, {"name": ""}, {"bands": 0}, {"classes": 1}, {"activation": "relu"},
        {"bands": 2, "scaling": divide([1.0])}, {"options": {"bands": 3}}, {"options": {"widths": [1] * 2000}},
    ],
)  # fmt: skip
def test_facts_that_make_no_sense(changes):
    with pytest.raises(BundleError):
        metadata("unet", **changes)


def test_bands_and_classes_have_different_names():
    with pytest.raises(BundleError, match="different names"):
        metadata_with(bands=(Band("red", 0.0), Band("red", 0.0)))
    with pytest.raises(BundleError, match="different names"):
        metadata_with(classes=(ClassInfo("a", "000000"), ClassInfo("a", "FFFFFF")))


def metadata_with(**changes: Any) -> Any:
    return replace(metadata("unet", bands=2), **changes)


def test_missing_bundle_names_those_there_are():
    with pytest.raises(BundleError, match="no bundle 'nonsense': neither a path here, nor a shipped bundle"):
        load_bundle("nonsense")


def test_bundle_opens_without_torch(tmp_path):
    save(tmp_path / "b", metadata("unet"))
    code = f"import sys; from models import load_bundle; load_bundle({str(tmp_path / 'b')!r}); print('torch' in sys.modules)"  # noqa: E501
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def item_of(**changes: Any) -> dict[str, Any]:
    return json.loads(json.dumps(to_item(metadata("unet", **changes), WEIGHTS, 1000, "2026-01-02T03:04:05Z")))


def test_item_comes_back():
    assert from_item(item_of()) == metadata("unet")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path] + [place for key, child in children for place in places(child, (*path, key))]


PLACES = places(item_of())


@settings(max_examples=400)
@given(st.lists(st.tuples(st.sampled_from(PLACES), st.just("drop") | anything), min_size=1, max_size=3))
def test_no_item_raises_anything_but_our_error(changes):
    item: Any = item_of()
    for place, value in changes:
        item = changed(item, place, value)
    with suppress(BundleError):
        from_item(item)


def changed(item: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    parent = item
    for key in place[:-1]:
        if not isinstance(parent, dict | list) or (isinstance(parent, dict) and key not in parent):
            return item
        parent = parent[key] if isinstance(parent, dict) or (isinstance(key, int) and key < len(parent)) else None
    if isinstance(parent, dict) and value == "drop":
        parent.pop(place[-1], None)
    elif isinstance(parent, dict) or (
        isinstance(parent, list) and isinstance(place[-1], int) and place[-1] < len(parent)
    ):
        parent[place[-1]] = value
    return item


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "good", metadata("unet")).path


def refused(path: Path, says: str) -> None:
    with pytest.raises(BundleError, match=says) as caught:
        load_bundle(path).network()
    assert len(str(caught.value).splitlines()) <= 2
    assert len(str(caught.value)) < 1000


def edit(folder: Path, **changes: Any) -> None:
    item = json.loads((folder / ITEM).read_text())
    item["properties"] |= changes
    (folder / ITEM).write_text(json.dumps(item))


def test_folder_without_weights(folder):
    (folder / WEIGHTS).unlink()
    refused(folder, "holds no weights.safetensors")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe\x00", b"[" * 100_000, b"{}", b'{"properties": 5}'])
def test_item_that_is_none(content, folder):
    (folder / ITEM).write_bytes(content)
    refused(folder, "is not a usable bundle")


def test_huge_item_is_not_read(folder):
    with open(folder / ITEM, "r+b") as file:
        file.truncate(2**33)
    refused(folder, "at most 4,194,304 are read")


def test_huge_header_of_weights(folder):
    (folder / WEIGHTS).write_bytes((2**60).to_bytes(8, "little") + b"{}")
    refused(folder, "weights.safetensors is damaged")


def test_huge_weights_are_not_read(folder):
    with open(folder / WEIGHTS, "r+b") as file:
        file.truncate(2**34)
    bundle = Bundle(metadata("unet"), folder, "")  # hashing 16 GB of nothing is not the point here
    with pytest.raises(BundleError, match="17,179,869,184 bytes, the network needs"):
        bundle.network()


def test_truncated_weights(folder):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    refused(folder, "weights.safetensors is damaged")


def test_pickle_in_the_place_of_weights(folder, tmp_path):
    (folder / WEIGHTS).write_bytes(pickle.dumps(Boobytrap(tmp_path / "ran")))
    refused(folder, "weights.safetensors is damaged")
    assert not (tmp_path / "ran").exists()


def test_weights_of_other_shapes(folder):
    state = network("unet", 3, 2, widths=[4, 8, 16]).state_dict()
    save_file(state, folder / WEIGHTS)
    refused(folder, "do not fit the network .*of another shape")


def test_weights_that_lack_and_exceed(folder):
    state = network("unet", 3, 2).state_dict()
    state["intruder"] = state.pop("final.bias")
    save_file(state, folder / WEIGHTS)
    refused(folder, "missing final.bias; unexpected intruder")


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("unet", {"widths": [10**9, 10**9]}),
        ("unet", {"widths": [30_000, 30_000]}),
        ("unet", {"widths": [1] * 600}),
        ("simple-unet", {"widths": [20_000] * 3}),
        ("smp:Unet", {"decoder_channels": [30_000] * 5}),
        ("torch.hub", {}),
        ("unet", {"bands": 3}),
    ],
)
def test_absurd_options_take_no_memory(architecture, options, folder):
    edit(folder, **{"mlm:architecture": architecture, "mlm:hyperparameters": options})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(folder, ".")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, "x", None])
def test_scaling_that_would_poison_everything(value, folder):
    item = json.loads((folder / ITEM).read_text())
    item["properties"]["mlm:input"][0]["value_scaling"][1]["stddev"] = value
    (folder / ITEM).write_text(json.dumps(item))
    refused(folder, "is not a usable bundle")


@pytest.mark.parametrize("entry", [{"stride": 0, "radius": 5}, {"stride": 8, "radius": -1}, {"stride": 10**12, "radius": 5},  # noqa: E501
                                   {"stride": 8, "radius": 10**12}, {"stride": float("inf"), "radius": 5}])  # fmt: skip
def test_receptive_field_that_makes_no_sense(entry, folder):
    edit(folder, **{"swathe:footprint": entry})
    refused(folder, "is not a usable bundle")


def pack(folder: Path, path: Path, **extra: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (ITEM, WEIGHTS):
            archive.writestr(name, extra.pop(name, (folder / name).read_bytes()))
        for name, content in extra.items():
            archive.writestr(name, content)
    return path


def test_zip_slip_is_never_extracted(folder, tmp_path):
    path = pack(folder, tmp_path / "slip.zip", **{"../escaped": b"x", str(tmp_path / "absolute"): b"x"})
    before = sorted(tmp_path.rglob("*"))
    load_bundle(path).network()
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path.parent / "escaped").exists()


def test_zip_bomb(folder, tmp_path):
    refused(pack(folder, tmp_path / "b.zip", **{WEIGHTS: bytes(2**26)}), "packed like a zip bomb")
    refused(pack(folder, tmp_path / "c.zip", **{ITEM: b" " * 2**22}), "packed like a zip bomb")


@settings(max_examples=60)
@given(cut=st.floats(0, 0.999), flip=st.none() | st.floats(0, 0.999))
def test_damaged_zip(cut, flip, bundle_of, tmp_path):
    """Whatever is cut off or flipped: our own error, or (where a flip hits what nobody reads) a bundle."""
    path = tmp_path / "b.zip"
    if not (tmp_path / "whole.zip").exists():
        pack(bundle_of("unet").path, tmp_path / "whole.zip")
    content = bytearray((tmp_path / "whole.zip").read_bytes())
    if flip is None:
        content = content[: int(cut * len(content))]
    else:
        content[int(flip * len(content))] ^= 0xFF
    path.write_bytes(content)
    try:
        load_bundle(path).network()
    except BundleError:
        return
    assert flip is not None


def test_file_that_is_no_bundle(tmp_path):
    (tmp_path / "b.zip").write_text("a letter")
    refused(tmp_path / "b.zip", "cannot be read as a bundle")


class Boobytrap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_malicious_checkpoint_is_not_run(tmp_path):
    for name in ("evil.pt", "evil.safetensors"):
        torch.save({"state_dict": {"weight": torch.zeros(1), "trap": Boobytrap(tmp_path / "ran")}}, tmp_path / name)
        with pytest.raises(NetworkError, match="no code in it is run"):
            read_state_dict(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.module."])
def test_state_dicts_are_found_where_scripts_put_them(wrapper, prefix, tmp_path):
    state = network("unet", 3, 2).state_dict()
    content: Any = {prefix + key: tensor for key, tensor in state.items()}
    torch.save({wrapper: content, "epoch": 3} if wrapper else content, tmp_path / "c.pt")
    assert compare(network("unet", 3, 2), read_state_dict(tmp_path / "c.pt")) == ""


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(3)])
def test_checkpoint_without_weights(content, tmp_path):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(NetworkError, match="holds no tensors by name"):
        read_state_dict(tmp_path / "c.pt")


def test_checkpoint_that_is_missing_or_text(tmp_path):
    with pytest.raises(NetworkError, match="no such file"):
        read_state_dict(tmp_path / "c.pt")
    (tmp_path / "c.pt").write_text("not weights")
    with pytest.raises(NetworkError, match="cannot be read as weights"):
        read_state_dict(tmp_path / "c.pt")


def test_renaming():
    state = {"enc1.0.weight": torch.zeros(1), "enc10.bias": torch.ones(1), "other": torch.ones(2)}
    assert list(rename(state, {r"enc1\.": "down.0.", "enc": "down."})) == ["down.0.0.weight", "down.10.bias", "other"]
    with pytest.raises(NetworkError, match="two keys become 'x'"):
        rename(state, {"enc.*": "x"})
    with pytest.raises(NetworkError, match="is not a regular expression"):
        rename(state, {"(": "x"})


def test_differences_are_named():
    state = network("unet", 3, 2).state_dict()
    state["extra"] = state.pop("final.bias")
    state["final.weight"] = torch.zeros(1)
    found = compare(network("unet", 3, 2), state)
    assert found == "missing final.bias; unexpected extra; of another shape final.weight (1,), needs (2, 4, 1, 1)"
    assert compare(network("unet", 3, 2), {}).endswith("and 71 more")


def test_cache_folder_is_the_users_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.setenv("SWATHE_CACHE", str(tmp_path / "own"))
    assert cache_folder("bundles") == tmp_path / "own" / "swathe" / "bundles"
    monkeypatch.delenv("SWATHE_CACHE")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path / "user" / "swathe")
    assert cache_folder("openvino") == tmp_path / "user" / "swathe" / "openvino"
    (tmp_path / "file").touch()  # no folder can be made in it
    monkeypatch.setenv("SWATHE_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "temporary"))
    assert cache_folder("bundles") == tmp_path / "temporary" / f"swathe-{os.getuid()}" / "bundles"
    assert cache_folder("bundles").is_dir()
