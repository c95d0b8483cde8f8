"""Losses are the papers' formulas on any batch with ignored pixels, steady in any precision, and each one teaches."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import jaccard_score
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torchvision.ops import sigmoid_focal_loss

from models.build import build
from train.config import Loss
from train.config.schema import IGNORE
from train.fitting.losses import make_loss

NAMES = ("dice", "cross-entropy", "dice+cross-entropy", "focal", "lovasz")
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """Logits `(n, class, y, x)` float64 and labels `(n, y, x)`."""

    logits: Numbers
    labels: NDArray[np.int64]
    told: Loss

    @property
    def classes(self) -> int:
        return self.logits.shape[1]

    def ours(self, dtype: torch.dtype = torch.float64) -> float:
        made = make_loss(self.told, self.classes)
        return made(torch.from_numpy(self.logits).to(dtype), torch.from_numpy(self.labels)).item()


@st.composite
def cases(draw: st.DrawFn, names: tuple[str, ...] = NAMES, spread: float = 3.0) -> Case:
    """Often without one of the classes, without any counted pixel, or of a single pixel."""
    classes = draw(st.integers(2, 5))
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)))
    ignored = draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))
    present = draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=classes, unique=True))
    weights = draw(st.one_of(st.just(()), st.tuples(*[st.sampled_from([0.25, 1.0, 3.0])] * classes)))
    smoothing, gamma = draw(st.sampled_from([0.0, 0.1, 0.5])), draw(st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = random.choice(present, shape)
    labels[random.random(shape) < ignored] = IGNORE
    logits = random.normal(0, spread, (shape[0], classes, *shape[1:]))
    return Case(logits, labels, Loss(draw(st.sampled_from(names)), weights, smoothing, gamma))


def counted(case: Case) -> tuple[Numbers, NDArray[np.int64]]:
    """Probabilities `(pixel, class)` and classes `(pixel,)` of the pixels that count."""
    keep = case.labels != IGNORE
    chosen = np.moveaxis(case.logits, 1, -1)[keep]
    powers = np.exp(chosen - chosen.max(1, keepdims=True, initial=-np.inf))
    return powers / powers.sum(1, keepdims=True), case.labels[keep]


def dice(case: Case) -> float:
    probability, truth = counted(case)
    scores = []
    for value in range(case.classes):
        overlap = sum(p for p, t in zip(probability[:, value], truth, strict=True) if t == value)
        scores.append((2 * overlap + 1) / (probability[:, value].sum() + (truth == value).sum() + 1))
    return 1 - float(np.mean(scores))


def weights_of(case: Case) -> Numbers:
    return np.array(case.told.class_weights or [1.0] * case.classes)


def entropy(case: Case) -> float:
    (probability, truth), weights, smoothing = counted(case), weights_of(case), case.told.label_smoothing
    total = 0.0
    for p, t in zip(probability, truth, strict=True):
        wanted = np.full(case.classes, smoothing / case.classes)
        wanted[t] += 1 - smoothing
        total -= float((wanted * weights * np.log(p)).sum())
    return total / weights[truth].sum() if len(truth) else 0.0


def focal(case: Case) -> float:
    (probability, truth), weights = counted(case), weights_of(case)
    right = probability[np.arange(len(truth)), truth]
    each = -weights[truth] * (1 - right) ** case.told.gamma * np.log(right)
    return float(each.sum() / weights[truth].sum()) if len(truth) else 0.0


def lovasz(case: Case) -> float:
    """Definition 1 of the paper with its equation 6, set by set; the mean is over the classes present."""
    probability, truth = counted(case)
    losses = []
    for value in np.unique(truth):
        has = set(np.flatnonzero(truth == value).tolist())
        errors = [1 - p if t == value else p for p, t in zip(probability[:, value], truth, strict=True)]
        wrong: set[int] = set()
        total = before = 0.0
        for pixel in sorted(range(len(errors)), key=lambda place: -errors[place]):
            wrong = wrong | {pixel}
            now = len(wrong) / len(has | wrong)
            total, before = total + errors[pixel] * (now - before), now
        losses.append(total)
    return float(np.mean(losses)) if losses else 0.0


REFERENCES: dict[str, Callable[[Case], float]] = {
    "dice": dice,
    "cross-entropy": entropy,
    "dice+cross-entropy": lambda case: dice(case) + entropy(case),
    "focal": focal,
    "lovasz": lovasz,
}


@pytest.mark.parametrize("name", NAMES)
@hypothesis(max_examples=150)
@given(data=st.data())
def test_a_loss_is_its_formula(name: str, data: st.DataObject) -> None:
    case = data.draw(cases((name,)))
    assert case.ours() == pytest.approx(REFERENCES[name](case), rel=1e-6, abs=1e-9)
    assert case.ours(torch.float32) == pytest.approx(REFERENCES[name](case), rel=1e-4, abs=1e-5)


@hypothesis(max_examples=150)
@given(case=cases(), filler=st.sampled_from([0.0, -3.0, 1e30, np.inf, -np.inf, np.nan]))
def test_ignored_pixels_count_nowhere(case: Case, filler: float) -> None:
    ignored = np.repeat((case.labels == IGNORE)[:, None], case.classes, axis=1)
    results = []
    for logits in (case.logits, np.where(ignored, filler, case.logits)):
        given_ = torch.from_numpy(logits).float().requires_grad_()
        loss = make_loss(case.told, case.classes)(given_, torch.from_numpy(case.labels))
        loss.backward()
        results.append((loss.item(), given_.grad))
    (loss, gradient), (same, same_gradient) = results
    assert loss == same
    assert np.isfinite(loss)
    assert torch.equal(gradient, same_gradient)
    assert torch.isfinite(gradient).all()
    assert (gradient[torch.from_numpy(ignored)] == 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("extra", [Loss(), Loss(class_weights=(0.1, 1, 9), label_smoothing=0.2, gamma=0.5)])
def test_nothing_but_ignored_pixels_is_zero(name: str, extra: Loss) -> None:
    logits = torch.randn(2, 3, 5, 4, requires_grad=True)
    told = Loss(name, extra.class_weights, extra.label_smoothing, extra.gamma)  # type: ignore[arg-type]
    loss = make_loss(told, 3)(logits, torch.full((2, 5, 4), IGNORE))
    loss.backward()
    assert loss.shape == ()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pixels", [1, 30])
def test_pixels_that_count_have_a_gradient(name: str, pixels: int) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(1, 3, 1, pixels, requires_grad=True), torch.arange(pixels)[None, None] % 3
    make_loss(Loss(name), 3)(logits, labels).backward()
    assert logits.grad is not None
    assert (logits.grad != 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("classes", [2, 4])
def test_gradients_are_those_of_finite_differences(name: str, classes: int) -> None:
    torch.manual_seed(1)
    logits = torch.randn(2, classes, 3, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, classes, (2, 3, 4))
    labels[0, 0] = IGNORE
    made = make_loss(Loss(name, label_smoothing=0.1, gamma=1.5), classes)
    assert torch.autograd.gradcheck(lambda x: made(x, labels), (logits,))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_full(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    rough = torch.randn(2, 3, 16, 16).to(dtype)
    labels = torch.randint(0, 3, (2, 16, 16))
    labels[torch.rand(labels.shape) < 0.2] = IGNORE
    made = make_loss(Loss(name, (1, 2, 3), 0.1), 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = made(rough, labels)
    assert mixed.dtype == torch.float32
    assert mixed.item() == made(rough.float(), labels).item()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [20.0, 100.0, 6e4, 1e30])
@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.5, 2.0])
def test_extreme_logits_have_finite_losses_and_gradients(name: str, size: float, gamma: float) -> None:
    labels = torch.tensor([[[0, 1, 0, 1, IGNORE, 0]]])
    logits = size * torch.tensor([[[[1.0, -1, -1, 1, 1, 0]], [[-1.0, 1, 1, -1, 1, 0]]]])
    logits.requires_grad_()
    loss = make_loss(Loss(name, gamma=gamma), 2)(logits, labels)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()  # type: ignore[arg-type]
    assert loss.item() > 0.3  # two of five are wrong


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_what_is_certain_and_right_costs_nothing(name: str, gamma: float) -> None:
    labels = torch.randint(0, 3, (2, 8, 8))
    logits = (200 * one_hot(labels, 3).movedim(-1, 1).float()).requires_grad_()
    loss = make_loss(Loss(name, gamma=gamma), 3)(logits, labels)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(logits.grad).all()  # type: ignore[arg-type]


@hypothesis(max_examples=60)
@given(case=cases())
def test_a_batch_is_judged_as_one_image(case: Case) -> None:
    logits, labels = torch.from_numpy(case.logits), torch.from_numpy(case.labels)
    made = make_loss(case.told, case.classes)
    beside = made(torch.cat(list(logits), dim=-1)[None], torch.cat(list(labels), dim=-1)[None])
    assert made(logits, labels).item() == pytest.approx(beside.item(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_memory_layout_changes_nothing(name: str) -> None:
    torch.manual_seed(3)
    logits, labels = torch.randn(2, 3, 16, 24), torch.randint(0, 3, (2, 16, 24))
    made = make_loss(Loss(name), 3)
    assert made(logits.contiguous(memory_format=torch.channels_last), labels) == made(logits, labels)


def random_batch(classes: int, size: int = 40) -> tuple[Tensor, Tensor]:
    torch.manual_seed(4)
    labels = torch.randint(0, classes, (2, size, size))
    labels[torch.rand(labels.shape) < 0.3] = IGNORE
    return torch.randn(2, classes, size, size, dtype=torch.float64), labels


@pytest.mark.parametrize("classes", [2, 5])
def test_others_give_the_same_where_they_are_right(classes: int) -> None:
    """With every class present and some pixel counted, so are segmentation-models-pytorch's Dice and Lovász."""
    logits, labels = random_batch(classes)
    weights = tuple(float(value) for value in range(1, classes + 1))
    theirs = {
        Loss("dice"): smp.losses.DiceLoss("multiclass", ignore_index=IGNORE, smooth=0.5),  # on half of ours
        Loss("lovasz"): smp.losses.LovaszLoss("multiclass", ignore_index=IGNORE),
        Loss("cross-entropy"): nn.CrossEntropyLoss(ignore_index=IGNORE),
        Loss("cross-entropy", weights, 0.3): nn.CrossEntropyLoss(
            torch.tensor(weights, dtype=torch.float64), ignore_index=IGNORE, label_smoothing=0.3
        ),
        Loss("focal", weights, gamma=0.0): nn.CrossEntropyLoss(
            torch.tensor(weights, dtype=torch.float64), ignore_index=IGNORE
        ),
    }
    for told, other in theirs.items():
        ours = logits.clone().requires_grad_()
        same = logits.to(torch.float32 if told.name == "lovasz" else torch.float64).requires_grad_()
        loss, wanted = make_loss(told, classes)(ours, labels), other(same, labels)
        assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
        (gradient,), (wanted_gradient,) = torch.autograd.grad(loss, ours), torch.autograd.grad(wanted, same)
        torch.testing.assert_close(gradient, wanted_gradient.double(), rtol=5e-3, atol=1e-7)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_loss_of_two_classes_is_that_of_a_sigmoid(gamma: float) -> None:
    """A softmax of (0, x) is the sigmoid of x, of which torchvision has the paper authors' own loss."""
    logits, labels = random_batch(2)
    logits[:, 0] = 0
    keep = labels != IGNORE
    theirs = sigmoid_focal_loss(logits[:, 1][keep], labels[keep].double(), alpha=-1, gamma=gamma, reduction="mean")
    assert make_loss(Loss("focal", gamma=gamma), 2)(logits, labels).item() == pytest.approx(theirs.item(), rel=1e-9)


@hypothesis(max_examples=60)
@given(case=cases(("lovasz",)))
def test_lovasz_of_hard_answers_is_one_minus_iou(case: Case) -> None:
    chosen = case.logits.argmax(1)
    certain = torch.from_numpy(200.0 * np.eye(case.classes)[chosen]).movedim(-1, 1)
    keep = case.labels != IGNORE
    truth = case.labels[keep]
    scores = [jaccard_score(truth == value, chosen[keep] == value, zero_division=0) for value in np.unique(truth)]
    wanted = 1 - np.mean(scores) if len(scores) else 0
    made = make_loss(Loss("lovasz"), case.classes)
    assert made(certain, torch.from_numpy(case.labels)).item() == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("classes", [2, 3])
def test_lovasz_gradients_are_exact_in_a_large_batch(classes: int) -> None:
    """Differences of a Jaccard loss near 1 in float32 would be wrong by percents here."""
    torch.manual_seed(5)
    logits = torch.randn(2, classes, 512, 512)
    labels = (torch.rand(2, 512, 512) < 0.02).long()
    rough, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    made = make_loss(Loss("lovasz"), classes)
    made(rough, labels).backward()
    made(exact, labels).backward()
    assert rough.grad is not None
    assert exact.grad is not None
    difference = (rough.grad - exact.grad).norm() / exact.grad.norm()
    assert difference < 1e-3  # a few pixels whose errors are equal in float32 change places


def test_an_absent_class_costs_the_more_the_more_is_seen_of_it() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    made, costs = make_loss(Loss("dice"), 3), []
    for seen in (0, 4, 8, 32):
        answers = torch.zeros(64, dtype=torch.int64)
        answers[:seen] = 2
        costs.append(made(200.0 * one_hot(answers, 3).movedim(1, 0).reshape(1, 3, 8, 8), labels).item())
    assert all(less < more for less, more in pairwise(costs))


def test_weights_move_with_the_module_and_are_not_in_its_state() -> None:
    made = make_loss(Loss("focal", (1, 4)), 2)
    assert [value.tolist() for value in made.buffers()] == [[1.0, 4.0]]
    assert made.state_dict() == {}


def test_the_losses_are_five() -> None:
    """No two names give the same function."""
    logits, labels = random_batch(3)
    values = [make_loss(Loss(name), 3)(logits, labels).item() for name in NAMES]  # type: ignore[arg-type]
    assert all(abs(one - other) > 1e-3 for one, other in combinations(values, 2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_gives_the_same(name: str) -> None:
    logits, labels = random_batch(3)
    made = make_loss(Loss(name, (1, 2, 3), 0.1), 3)
    wanted = made(logits, labels).item()
    assert made.to("cuda")(logits.cuda(), labels.cuda()).item() == pytest.approx(wanted, rel=1e-9)


def made_chip(size: int = 64) -> tuple[Tensor, Tensor]:
    """Bright rectangles with noise, and some rows that nobody judged."""
    random = np.random.default_rng(0)
    labels = np.zeros((size, size), np.int64)
    for y, x in random.integers(0, size - 16, (5, 2)):
        labels[y : y + random.integers(6, 16), x : x + random.integers(6, 16)] = 1
    pixels = random.normal(0, 0.5, (3, size, size)) + 1.5 * labels
    labels[:4] = IGNORE
    return torch.from_numpy(pixels.astype(np.float32))[None], torch.from_numpy(labels)[None]


@pytest.mark.parametrize("architecture", ["simple-unet", "unet"])
@pytest.mark.parametrize("name", NAMES)
def test_each_loss_learns_a_chip(architecture: str, name: str, threads: None) -> None:
    """IoU above 0.99, judged by scikit-learn in evaluation mode; the list of all networks is another test's."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = build(architecture, 3, 2, widths=[8, 16, 16])
    pixels, labels = made_chip()
    made = make_loss(Loss(name), 2)  # type: ignore[arg-type]
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for step in range(500):
        made(network.train()(pixels), labels).backward()
        optimiser.step()
        optimiser.zero_grad()
        if step % 25 == 24 and chip_iou(network, pixels, labels) > 0.99:
            return
    pytest.fail(f"IoU is {chip_iou(network, pixels, labels):.3f}")


@torch.no_grad()
def chip_iou(network: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    keep = labels != IGNORE
    return float(jaccard_score(labels[keep], network.eval()(pixels).argmax(1)[keep]))


def test_cross_entropy_of_torch_is_nan_without_pixels() -> None:
    """Why ours divides for itself."""
    assert torch.isnan(cross_entropy(torch.randn(1, 2, 1, 1), torch.full((1, 1, 1), IGNORE), ignore_index=IGNORE))
