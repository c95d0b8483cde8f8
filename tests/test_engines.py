"""Engines: every dtype, two engines against each other, a GPU that is short of memory, a cache that is damaged."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers import SPREAD, metadata, middle, network, pixels, receptive_field, save

import models.engine as engines
from models import z_score
from models.deterministic import deterministic_convolutions, deterministic_upsampling
from models.encoding import STEPS, Encoding, classify, encode
from models.engine import EngineSpec, make_engine, resolve
from models.engine_openvino import _encoded
from models.engine_torch import fold_batch_norm
from models.errors import EngineError
from models.hardware import cpu_gains
from models.openvino_core import CORE, ov

CPU = {name: EngineSpec(name=name, device="cpu", threads=1) for name in ("torch", "openvino")}
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64")


@pytest.mark.parametrize("engine", CPU)
def test_every_dtype_gives_what_its_values_as_float32_give(engine, bundle_of, threads):
    made = make_engine(bundle_of("unet"), CPU[engine])
    values = pixels((2, 3, 32, 48), "uint8")
    right = made.predict(values.astype(np.float32))
    assert right.shape == (2, 2, 32, 48)
    assert right.dtype == np.float32
    np.testing.assert_allclose(right.sum(axis=1), 1, atol=1e-6)
    for dtype in DTYPES:
        seven_bits = (values // 2).astype(dtype)
        np.testing.assert_array_equal(made.predict(seven_bits), made.predict(seven_bits.astype(np.float32)))
    for given in (values[:, :, ::-1, ::-1], np.asfortranarray(values), values.astype(">u2"), read_only(values)):
        np.testing.assert_array_equal(made.predict(given), made.predict(np.array(given, np.float32)))


def read_only(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values.flags.writeable = False
    return values


@pytest.mark.parametrize("architecture", ["simple-unet", "unet"])
@pytest.mark.parametrize("head", [{"classes": 2}, {"classes": 4}, {"activation": "sigmoid"}])
def test_openvino_is_near_torch(architecture, head, bundle_of, threads):
    bundle = bundle_of(architecture, **head)
    values = pixels((1, 3, 96, 128))
    one, other = (make_engine(bundle, spec).predict(values) for spec in CPU.values())
    np.testing.assert_allclose(one, other, atol=1e-5, rtol=0)
    assert one.std() > 0.1


ENCODINGS = {
    "likeliest": Encoding(None, "uint8", (0, 1)),
    "one threshold": Encoding((None, 0.7), "uint8", (1,)),
    "map alone": Encoding((None, 0.5)),
    "by class": Encoding((0.3, None, 0.25, 0.4), "float16", (2, 0)),
    "of four": Encoding(None, "float32", (0, 1, 2, 3)),
    "background last": Encoding((0.5, 0.5, 0.5, None), "uint8", (0, 1, 2, 3)),
}


@pytest.mark.parametrize("engine", CPU)
@pytest.mark.parametrize("name", ENCODINGS)
def test_engines_encode_as_the_host_does(engine, name, bundle_of, threads):
    """What leaves the engine are the very bytes that numpy makes of its probabilities."""
    encoding = ENCODINGS[name]
    count = 4 if max(len(encoding.thresholds or ()), len(encoding.kept)) == 4 else 2
    made = make_engine(bundle_of("unet", classes=count), CPU[engine])
    values = pixels((2, 3, 96, 128))
    found, right = made.segment(values, encoding), made.predict(values)
    for number, probabilities in enumerate(right):
        np.testing.assert_array_equal(found.class_map[number], classify(probabilities, encoding.thresholds))
        assert len(np.unique(found.class_map)) > 1
        if encoding.probability is None:
            assert found.probability is None
            continue
        kept = encode(probabilities[list(encoding.kept)], np.dtype(encoding.probability))
        np.testing.assert_array_equal(found.probability[number], kept)
        assert found.probability.dtype == encoding.probability


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_openvino_rounds_probabilities_as_numpy_does(precision):
    """Around every step and every threshold, float by float: a fused multiply and add would round otherwise."""
    steps = np.concatenate([(np.arange(251) + 0.5) / STEPS, np.arange(251) / STEPS]).astype(np.float32)
    near = (steps.view(np.int32)[:, None] + np.arange(-40, 41)).view(np.float32)
    foreground = np.clip(np.nan_to_num(near), 0, 1)
    probabilities = np.stack([1 - foreground, foreground])
    encoding = Encoding((None, 0.7), "uint8", (0, 1))
    given = ov.opset13.parameter([-1, 2, -1, -1], ov.Type.f32)
    graph = _encoded(ov.Model([given], [given]), encoding)
    class_map, kept = CORE.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": precision})(
        probabilities[None]
    ).values()
    np.testing.assert_array_equal(class_map[0, 0], classify(probabilities, encoding.thresholds))
    np.testing.assert_array_equal(kept[0], encode(probabilities, np.dtype("uint8")))


@pytest.mark.parametrize("engine", CPU)
def test_threads_share_an_engine(engine, bundle_of, threads):
    spec = EngineSpec(name=engine, device="cpu", threads=2)
    made, encoding = make_engine(bundle_of("unet"), spec), Encoding(None, "uint8", (1,))
    tiles = [pixels((1, 3, 64 + 16 * (n % 3), 64), seed=n) for n in range(12)]
    alone = [made.segment(tile, encoding).probability for tile in tiles]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda tile: made.segment(tile, encoding).probability, tiles))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_engine_is_the_plain_network(bundle_of, threads):
    """Folded, deterministic and channels-last: still what the segmenter gives."""
    for architecture in ("simple-unet", "unet"):
        values = pixels((1, 3, 64, 64))
        found = make_engine(bundle_of(architecture), CPU["torch"]).predict(values)
        with torch.inference_mode():
            right = bundle_of(architecture).segmenter()(torch.from_numpy(values.astype(np.float32)))
        np.testing.assert_allclose(found, right, atol=2e-5, rtol=0)


def test_folding_leaves_no_batch_norm(bundle_of):
    folded = fold_batch_norm(bundle_of("unet").network())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())


def test_network_that_cannot_be_traced_is_not_folded():
    class Branching(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    made = Branching().eval()
    assert fold_batch_norm(made) is made


def test_small_inputs_are_convolved_as_large_ones_are(threads):
    """`nn.Conv2d` takes another library below 20,480 numbers, and rounds otherwise: a scene's corner would differ."""
    torch.set_num_threads(1)
    made = deterministic_convolutions(deterministic_upsampling(network("simple-unet", 3, 2)))
    x = torch.randn(1, 3, 320, 320).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        whole, part = made(x), made(x[..., :136, :136].contiguous(memory_format=torch.channels_last))
    assert torch.equal(whole[..., :72, :72], part[..., :72, :72])


def test_two_engines_for_two_dtypes(tmp_path, threads):
    made = {}
    for dtype in ("uint8", "uint16"):
        described = metadata("unet", dtype=dtype, scaling=z_score([middle(dtype)] * 3, [SPREAD.get(dtype, 800.0)] * 3))
        made[dtype] = make_engine(save(tmp_path / dtype, described), CPU["openvino"])
    for dtype in ("uint8", "uint16", "uint8"):
        assert made[dtype].predict(pixels((1, 3, 64, 64), dtype)).std() > 0.1


@pytest.mark.parametrize("damage", ["xml", "bin", "both", "swap"])
def test_openvino_cache_survives_damage(damage, tmp_path, monkeypatch, bundle_of, threads):
    monkeypatch.setenv("SWATHE_CACHE", str(tmp_path))
    values = pixels((1, 3, 64, 64))
    right = make_engine(bundle_of("unet"), CPU["openvino"]).predict(values)
    (xml,), (weights,) = tmp_path.rglob("*.xml"), tmp_path.rglob("*.bin")
    if damage == "swap":  # killed between the two: the weights of another writer are the same weights
        xml.unlink()
    if damage in ("xml", "both"):
        xml.write_bytes(xml.read_bytes()[: xml.stat().st_size // 2])
    if damage in ("bin", "both"):
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    np.testing.assert_array_equal(make_engine(bundle_of("unet"), CPU["openvino"]).predict(values), right)


def test_openvino_cache_is_used(tmp_path, monkeypatch, bundle_of, threads):
    monkeypatch.setenv("SWATHE_CACHE", str(tmp_path))
    values = pixels((1, 3, 64, 64))
    right = make_engine(bundle_of("unet"), CPU["openvino"]).predict(values)
    monkeypatch.setattr("models.bundle.Bundle.segmenter", lambda *_: pytest.fail("the network was converted again"))
    np.testing.assert_array_equal(make_engine(bundle_of("unet"), CPU["openvino"]).predict(values), right)


def test_openvino_without_a_cache(tmp_path, monkeypatch, bundle_of, threads):
    monkeypatch.setattr("openvino.save_model", fail)
    monkeypatch.setenv("SWATHE_CACHE", str(tmp_path))
    assert make_engine(bundle_of("unet"), CPU["openvino"]).predict(pixels((1, 3, 64, 64))).shape == (1, 2, 64, 64)
    assert not list(tmp_path.rglob("*.xml"))


def fail(*_: object, **__: object) -> None:
    raise RuntimeError("no space left on device")


def test_auto_is_openvino_here_unless_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(engines, "may_have_cuda", lambda: False)
    assert (resolve(EngineSpec()).name, resolve(EngineSpec()).device) == ("openvino", "cpu")
    assert resolve(EngineSpec(compile=True)).name == "torch"
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert resolve(EngineSpec()).name == "torch"
    with pytest.raises(EngineError, match="not installed"):
        resolve(EngineSpec(name="openvino"))


def test_auto_is_torch_on_a_gpu(monkeypatch):
    monkeypatch.setattr(engines, "may_have_cuda", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(engines, "gpu_name", lambda: "a GPU")
    assert (resolve(EngineSpec()).name, resolve(EngineSpec()).device) == ("torch", "cuda")
    with pytest.raises(EngineError, match="runs on CPUs"):
        resolve(EngineSpec(name="openvino", device="cuda"))


def test_missing_gpu_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="no CUDA device is visible"):
        resolve(EngineSpec(name="torch", device="cuda"))


@pytest.mark.parametrize("wrong", [{"name": "tensorflow"}, {"device": "tpu"}, {"precision": "int4"}, {"threads": 0}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(EngineError):
        EngineSpec(**wrong)


needs_bf16 = pytest.mark.skipif(not cpu_gains("bf16"), reason="this CPU gains nothing from bf16")


@needs_bf16
@pytest.mark.parametrize("engine", CPU)
def test_half_precision_is_near(engine, bundle_of, threads):
    values = pixels((1, 3, 64, 64))
    right = make_engine(bundle_of("unet"), CPU[engine]).predict(values)
    spec = EngineSpec(name=engine, device="cpu", precision="bf16", threads=1)
    np.testing.assert_allclose(make_engine(bundle_of("unet"), spec).predict(values), right, atol=0.2)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])
@pytest.mark.parametrize("architecture", ["simple-unet", "unet"])
def test_calls_at_a_time_on_a_cpu_change_no_bit(architecture, precision, bundle_of, threads):
    """However many calls share the threads, whatever tile a pixel is in: also in bf16, where sums differ by 1e-2."""
    bundle = bundle_of(architecture)
    halo, values = bundle.metadata.receptive_field.halo, pixels((1, 3, 320, 264))
    whole = make_engine(bundle, EngineSpec("torch", "cpu", precision, threads=1)).predict(values)
    made = make_engine(bundle, EngineSpec("torch", "cpu", precision, threads=3))
    cuts = [(0, 0, 8, 8), (64, 8, 120, 128), (120, 72, 16, 64), (8, 0, 56, 136)] * 3

    def answer(cut: tuple[int, ...]) -> np.ndarray:
        top, left, height, width = cut
        tile = values[:, :, top : top + height + 2 * halo, left : left + width + 2 * halo]
        return made.predict(tile)[..., halo : halo + height, halo : halo + width]

    with ThreadPoolExecutor(4) as pool:
        for (top, left, height, width), found in zip(cuts, pool.map(answer, cuts), strict=True):
            rows, columns = slice(top + halo, top + halo + height), slice(left + halo, left + halo + width)
            np.testing.assert_array_equal(found, whole[..., rows, columns])


def test_tiles_of_any_width_have_the_same_bits_in_openvino(bundle_of):
    """Without AVX-512 transposed convolutions sum in another order with the width: one of five was seen to differ."""
    halo, values = bundle_of().metadata.receptive_field.halo, pixels((1, 3, 160, 520))
    engine = make_engine(bundle_of(), EngineSpec("openvino", "cpu", threads=1))
    whole = engine.predict(values)
    for width in range(144, 520, 8):
        kept = slice(0, width - halo)
        np.testing.assert_array_equal(engine.predict(values[..., :width])[..., kept], whole[..., kept])


@pytest.mark.parametrize(
    ("kernel", "padding", "more", "replaced"),
    [(3, 1, 1, True), (4, 1, 0, True), ((4, 3), 1, (0, 1), True), (2, 0, 0, False), (4, 0, 0, False), (5, 2, 1, False)],
)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of tracing
def test_what_stands_for_transposed_convolutions_in_openvino(kernel, padding, more, replaced, monkeypatch):
    from models import openvino_upsampling as upsampling
    from models.openvino_core import CORE

    values = torch.randn(2, 5, 7, 9)
    layer = torch.nn.ConvTranspose2d(5, 3, kernel, stride=2, padding=padding, output_padding=more).eval()
    model = upsampling.ov.convert_model(layer, example_input=values)
    monkeypatch.setattr(upsampling, "cpu_name", lambda: "x86_64 avx512+vnni")
    kinds = [node.get_type_name() for node in upsampling.same_bits_upsampling(model).get_ops()]
    assert "ConvolutionBackpropData" in kinds
    monkeypatch.setattr(upsampling, "cpu_name", lambda: "x86_64 avx2")
    kinds = [node.get_type_name() for node in upsampling.same_bits_upsampling(model).get_ops()]
    assert ("ConvolutionBackpropData" not in kinds) == replaced
    (found,) = CORE.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(values.numpy()).values()
    torch.testing.assert_close(torch.from_numpy(found), layer(values).detach(), atol=1e-5, rtol=0)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible here")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 5e-3), ("fp16", 0.05), ("bf16", 0.2)])
@pytest.mark.parametrize("architecture", ["simple-unet", "unet", "unet-resnet"])
def test_gpu_is_near_the_cpu(architecture, precision, tolerance, bundle_of, threads):
    side = 4 * max(64, receptive_field(architecture).stride)
    values = pixels((3, 3, side, side))
    right = make_engine(bundle_of(architecture), CPU["torch"]).predict(values)
    made = make_engine(bundle_of(architecture), EngineSpec(name="torch", device="cuda", precision=precision))
    np.testing.assert_allclose(made.predict(values), right, atol=tolerance)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_calls_at_a_time_on_a_gpu_change_nothing(precision, bundle_of):
    """The same tiles alone and among others, the same bits; and what leaves the GPU is what numpy makes of it."""
    spec = EngineSpec(name="torch", device="cuda", precision=precision)
    made, encoding = make_engine(bundle_of("unet"), spec), ENCODINGS["one threshold"]
    tiles = [pixels((1 + n % 3, 3, 256 + 64 * (n % 2), 256), seed=n) for n in range(24)]
    for tile in tiles[:2]:  # the first of each shape goes alone, to be measured
        made.segment(tile, encoding)
    alone = [made.predict(tile) for tile in tiles]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda tile: made.segment(tile, encoding), tiles))
    for found, right in zip(together, alone, strict=True):
        for number, probabilities in enumerate(right):
            np.testing.assert_array_equal(found.class_map[number], classify(probabilities, encoding.thresholds))
            kept = encode(probabilities[list(encoding.kept)], np.dtype("uint8"))
            np.testing.assert_array_equal(found.probability[number], kept)
    assert made.batch >= 8


BREAK = """
import sys, numpy, torch
from models import load_bundle
from models.engine import EngineSpec, make_engine
from models.errors import DeviceLostError

engine = make_engine(load_bundle(sys.argv[1]), EngineSpec("torch", "cuda"))
tile = numpy.ones((1, 3, 64, 64), "uint16")
engine.predict(tile)
try:
    torch.zeros(1, device="cuda")[torch.tensor([5], device="cuda")]
    torch.cuda.synchronize()
except RuntimeError:
    pass
for again in (lambda: engine.predict(tile), lambda: make_engine(load_bundle(sys.argv[1]), EngineSpec("torch", "cuda"))):
    try:
        again()
    except DeviceLostError as error:
        print(error)
"""


@pytest.mark.gpu
@needs_gpu
def test_gpu_that_fails_is_known_by_its_error(bundle_of):
    """In a process of its own, whose GPU is lost to it for good."""
    done = subprocess.run([sys.executable, "-c", BREAK, bundle_of("unet").path], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    assert all(line.startswith("the GPU failed (") and "CUDA error" in line for line in lines)


@pytest.mark.gpu
@needs_gpu
def test_gpu_takes_every_dtype(bundle_of):
    made = make_engine(bundle_of("unet"), EngineSpec(name="torch", device="cuda"))
    for dtype in DTYPES:
        values = (pixels((1, 3, 32, 32), "uint8") // 2).astype(dtype)
        np.testing.assert_array_equal(made.predict(values), made.predict(values.astype(np.float32)))


SIGNALLED = """
import os, signal, sys, threading
import numpy as np
from models.bundle import load_bundle
from models.engine import EngineSpec, make_engine

engines = [make_engine(load_bundle(sys.argv[1]), EngineSpec(name="openvino", device="cpu", threads=1))]
engines[0].predict(np.zeros((1, 3, 64, 64), "uint8"))
thread = threading.Thread(target=engines.clear)
thread.start()
thread.join()
signal.signal(signal.SIGUSR1, lambda *_: print("heard"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="a signal of POSIX")
def test_a_signal_is_heard_after_an_engine_was_dropped_by_another_thread(bundle_of):
    """OpenVINO would leave the first thread with a stack for signals that is no memory any more."""
    words = [sys.executable, "-c", SIGNALLED, str(bundle_of("unet").path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
