"""Agreement with PyTorch, where it is installed: optimizers, BatchNorm, a whole step of VGG-11."""

import importlib.util

import numpy as np
import pytest

from minibn import Tensor, nn, ops, optim
from minibn.backend import to_numpy
from minibn.nn import from_pytorch, to_pytorch
from reference_models import vgg

if importlib.util.find_spec("torch") is None:
    pytest.skip("PyTorch is not installed: pip install torch", allow_module_level=True)

import torch

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """PyTorch's threads wait for each other on a busy machine: thirty times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def theirs(array):
    return torch.from_numpy(np.array(array))


# -- optimizers

SGDS = [
    {"lr": 0.1},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
    {"lr": 0.1, "weight_decay": 0.05},
]
ADAMS = [
    {"lr": 0.1},
    {"lr": 0.1, "betas": (0.5, 0.7), "eps": 0.1},
    {"lr": 0.1, "weight_decay": 0.05},
]


@pytest.mark.parametrize(
    ("name", "settings"),
    [("SGD", s) for s in SGDS] + [("Adam", s) for s in ADAMS] + [("AdamW", s) for s in ADAMS],
)
def test_an_optimizer_takes_the_same_ten_steps(backend, name, settings):
    w, grads = RNG.normal(size=(4, 3)), RNG.normal(size=(10, 4, 3))
    ours = Tensor(backend.asarray(w), requires_grad=True)
    other = theirs(w).requires_grad_()
    optimizer = getattr(optim, name)([ours], **settings)
    other_optimizer = getattr(torch.optim, name)([other], **settings)
    for g in grads:
        ours.grad, other.grad = Tensor(backend.asarray(g)), theirs(g)
        optimizer.step()
        other_optimizer.step()
        np.testing.assert_allclose(to_numpy(ours.data), other.detach().numpy(), rtol=1e-10)


def test_clipping_agrees(backend):
    grads = RNG.normal(size=(2, 5))
    ours, other = [], []
    for g in grads:
        ours.append(Tensor(backend.asarray(g), requires_grad=True))
        ours[-1].grad = Tensor(backend.asarray(g))
        other.append(theirs(g).requires_grad_())
        other[-1].grad = theirs(g)
    norm = optim.clip_grad_norm(ours, 0.5)
    expected = torch.nn.utils.clip_grad_norm_(other, 0.5)
    assert float(to_numpy(norm)) == pytest.approx(expected.item(), rel=1e-12)
    for p, q in zip(ours, other, strict=True):
        np.testing.assert_allclose(to_numpy(p.grad.data), q.grad.numpy(), rtol=1e-12)


def test_the_cosine_schedule_agrees():
    other = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(other, 20, eta_min=0.1)
    for step in range(20):
        expected = schedule.get_last_lr()[0]
        assert optim.cosine(0.3, 20, end=0.1)(step) == pytest.approx(expected, rel=1e-12)
        other.step()
        schedule.step()


# -- BatchNorm


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize("shape", [(6, 3), (4, 2, 5, 3)])
def test_batch_norm_agrees_over_a_training_and_an_evaluation(backend, momentum, shape):
    norm = nn.BatchNorm(3, momentum=momentum).initialize(0, dtype=np.float64)
    norm.gamma.place(RNG.normal(size=3))
    norm.beta.place(RNG.normal(size=3))
    other = {2: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}[len(shape)]
    other = other(3, momentum=momentum).double()
    other.load_state_dict({k: theirs(v) for k, v in to_pytorch(norm.state_dict()).items()})
    for training in (True, True, True, False):
        x, cotangent = RNG.normal(size=shape) * 3 + 1, RNG.normal(size=shape)
        a = Tensor(backend.asarray(x), requires_grad=True)
        b = theirs(np.moveaxis(x, -1, 1)).requires_grad_()
        norm.zero_grad(), other.zero_grad()
        ya, yb = norm.train(training)(a), other.train(training)(b)
        ya.backward(backend.asarray(cotangent))
        yb.backward(theirs(np.moveaxis(cotangent, -1, 1)))
        close(to_numpy(ya.data), np.moveaxis(yb.detach().numpy(), 1, -1))
        close(to_numpy(a.grad.data), np.moveaxis(b.grad.numpy(), 1, -1))
        close(to_numpy(norm.gamma.grad.data), other.weight.grad.numpy())
        close(to_numpy(norm.beta.grad.data), other.bias.grad.numpy())
    state = from_pytorch({name: t.numpy() for name, t in other.state_dict().items()})
    for name, array in norm.state_dict().items():
        close(array, state[name])


def close(a, b, tolerance=1e-10):
    """Equal shapes, and a difference of at most `tolerance` of the largest value."""
    assert a.shape == b.shape
    assert abs(a - b).max() <= tolerance * max(abs(b).max(), 1e-300)


# -- VGG-11


def torch_vgg11(net):
    """The same network of PyTorch's layers, and our names to theirs."""
    layers, modules = [], {}
    for name, part in net.children():
        modules[name] = str(len(layers))
        if isinstance(part, nn.Conv2d):
            _, _, C, F = part.weight.shape
            layers.append(torch.nn.Conv2d(C, F, 3, padding=1, bias=part.bias is not None))
        elif isinstance(part, nn.BatchNorm):
            layers.append(torch.nn.BatchNorm2d(part.gamma.shape[0]))
        elif isinstance(part, nn.Linear):
            layers.append(torch.nn.Linear(*part.weight.shape))
        elif isinstance(part, nn.MaxPool2d):
            layers.append(torch.nn.MaxPool2d(2))
        else:
            layers.append({nn.ReLU: torch.nn.ReLU, nn.Flatten: torch.nn.Flatten}[type(part)]())
    return torch.nn.Sequential(*layers).double(), modules


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("flattened", [False, True])
def test_steps_of_vgg11_have_the_same_logits_loss_gradients_and_statistics(
    backend, norm, flattened
):
    """With `flattened` the last pooling is left out, so that Flatten sees images of 2×2."""
    parts = dict(vgg("vgg11", width=0.25, norm=norm, head="32").children())
    shapes = {}
    if flattened:
        del parts["pool5"]
        parts["linear9"] = nn.Linear(2 * 2 * 128, 32)
        shapes = {"linear9": (2, 2, 128)}
    net = nn.Sequential(**parts).initialize(0, dtype=np.float64)
    other, modules = torch_vgg11(net)
    converted = to_pytorch(net.state_dict(), modules, shapes)
    other.load_state_dict({name: theirs(array) for name, array in converted.items()})

    def ours_of(state):
        return from_pytorch({n: t.detach().numpy() for n, t in state.items()}, modules, shapes)

    optimizer = optim.SGD(net.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    other_optimizer = torch.optim.SGD(other.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    for _ in range(2):
        x, labels = RNG.normal(size=(8, 32, 32, 3)), RNG.integers(0, 10, 8)
        net.zero_grad(), other.zero_grad()
        logits = net(backend.asarray(x))
        loss = ops.softmax_cross_entropy(logits, labels)
        loss.backward()
        other_logits = other(theirs(x.transpose(0, 3, 1, 2)))
        other_loss = torch.nn.functional.cross_entropy(other_logits, theirs(labels))
        other_loss.backward()
        close(to_numpy(logits.data), other_logits.detach().numpy())
        assert float(loss.item()) == pytest.approx(other_loss.item(), rel=1e-10)
        # A norm's parameters are told by a weight of one axis: gradients carry the same names.
        expected = ours_of({name: p.grad for name, p in other.named_parameters()})
        for name, p in net.named_parameters():
            close(to_numpy(p.grad.data), expected[name])
        optimizer.step()
        other_optimizer.step()
    state, expected = net.state_dict(), ours_of(other.state_dict())
    assert state.keys() == expected.keys()
    for name in state:
        close(state[name], expected[name], 1e-9)
