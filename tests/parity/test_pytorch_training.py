"""Training beside PyTorch, from the same weights: optimizers, BatchNorm, ten steps of VGG-11."""

import numpy as np
import pytest
from parity.torch_adapter import close, tensor, torch

from minibn import Tensor, nn, ops, optim
from minibn.backend import get_backend, to_numpy
from minibn.nn import from_pytorch, to_pytorch
from reference_models.vgg import vgg

RNG = np.random.default_rng(0)


# -- optimizers

STEPS = 1e-10  # of the largest entry: rounding grows from step to step

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
    other = tensor(w).requires_grad_()
    optimizer = getattr(optim, name)([ours], **settings)
    other_optimizer = getattr(torch.optim, name)([other], **settings)
    for g in grads:
        ours.grad, other.grad = Tensor(backend.asarray(g)), tensor(g)
        optimizer.step()
        other_optimizer.step()
        np.testing.assert_allclose(to_numpy(ours.data), other.detach().numpy(), rtol=1e-10)


def test_clipping_agrees(backend):
    grads = RNG.normal(size=(2, 5))
    ours, other = [], []
    for g in grads:
        ours.append(Tensor(backend.asarray(g), requires_grad=True))
        ours[-1].grad = Tensor(backend.asarray(g))
        other.append(tensor(g).requires_grad_())
        other[-1].grad = tensor(g)
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
def test_batch_norm_agrees_over_three_trainings_and_an_evaluation(backend, momentum, shape):
    norm = nn.BatchNorm(3, momentum=momentum).initialize(0, dtype=np.float64)
    norm.gamma.place(RNG.normal(size=3))
    norm.beta.place(RNG.normal(size=3))
    other = {2: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}[len(shape)]
    other = other(3, momentum=momentum).double()
    other.load_state_dict({k: tensor(v) for k, v in to_pytorch(norm.state_dict()).items()})
    for training in (True, True, True, False):
        x, cotangent = RNG.normal(size=shape) * 3 + 1, RNG.normal(size=shape)
        a = Tensor(backend.asarray(x), requires_grad=True)
        b = tensor(np.moveaxis(x, -1, 1)).requires_grad_()
        norm.zero_grad(), other.zero_grad()
        ya, yb = norm.train(training)(a), other.train(training)(b)
        ya.backward(backend.asarray(cotangent))
        yb.backward(tensor(np.moveaxis(cotangent, -1, 1)))
        close(to_numpy(ya.data), np.moveaxis(yb.detach().numpy(), 1, -1))
        close(to_numpy(a.grad.data), np.moveaxis(b.grad.numpy(), 1, -1))
        close(to_numpy(norm.gamma.grad.data), other.weight.grad.numpy())
        close(to_numpy(norm.beta.grad.data), other.bias.grad.numpy())
    state = from_pytorch({name: t.numpy() for name, t in other.state_dict().items()})
    for name, array in norm.state_dict().items():
        close(array, state[name])


# -- VGG-11


class Twins:
    """A network of minibn and the same of PyTorch's layers, from the same weights."""

    def __init__(self, net, flattened=None):
        self.net, self.flattened = net, flattened or {}
        layers, self.modules = [], {}
        for name, part in net.children():
            self.modules[name] = str(len(layers))
            layers.append(self.layer(part))
        self.other = torch.nn.Sequential(*layers).double()
        converted = to_pytorch(net.state_dict(), self.modules, self.flattened)
        self.other.load_state_dict({name: tensor(array) for name, array in converted.items()})

    @staticmethod
    def layer(part):
        if isinstance(part, nn.Conv2d):
            _, _, C, F = part.weight.shape
            return torch.nn.Conv2d(C, F, 3, padding=1, bias=part.bias is not None)
        if isinstance(part, nn.BatchNorm):
            return torch.nn.BatchNorm2d(part.gamma.shape[0])
        if isinstance(part, nn.Linear):
            return torch.nn.Linear(*part.weight.shape)
        if isinstance(part, nn.MaxPool2d):
            return torch.nn.MaxPool2d(2)
        return {nn.ReLU: torch.nn.ReLU, nn.Flatten: torch.nn.Flatten}[type(part)]()

    def ours_of(self, state):
        """PyTorch's tensors by name, as arrays with our names and layout."""
        arrays = {name: t.detach().numpy() for name, t in state.items()}
        return from_pytorch(arrays, self.modules, self.flattened)

    def passes(self, backend, x, labels):
        """Forward and backward through both; (logits, loss) of each."""
        self.net.zero_grad(), self.other.zero_grad()
        logits = self.net(backend.asarray(x))
        loss = ops.softmax_cross_entropy(logits, labels)
        loss.backward()
        other_logits = self.other(tensor(x.transpose(0, 3, 1, 2)))
        other_loss = torch.nn.functional.cross_entropy(other_logits, tensor(labels))
        other_loss.backward()
        ours = to_numpy(logits.data), loss.item()
        return ours, (other_logits.detach().numpy(), other_loss.item())

    def compare_gradients(self, tolerance):
        # A norm's parameters are told by a weight of one axis: gradients carry the same names.
        expected = self.ours_of({name: p.grad for name, p in self.other.named_parameters()})
        for name, p in self.net.named_parameters():
            close(to_numpy(p.grad.data), expected[name], tolerance, name)

    def compare_states(self, tolerance):
        """Weights, running statistics and the number of batches that they saw."""
        state, expected = self.net.state_dict(), self.ours_of(self.other.state_dict())
        assert state.keys() == expected.keys()
        for name in state:
            close(state[name], expected[name], tolerance, name)


def batches(steps, N=8):
    rng = np.random.default_rng(1)
    return [(rng.normal(size=(N, 32, 32, 3)), rng.integers(0, 10, N)) for _ in range(steps)]


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("flattened", [False, True])
def test_a_pass_of_vgg11_has_the_same_logits_loss_and_gradients(backend, norm, flattened):
    """With `flattened` the last pooling is left out, so that Flatten sees images of 2×2."""
    parts = dict(vgg("vgg11", width=0.25, norm=norm, head="32").children())
    shapes = {}
    if flattened:
        del parts["pool5"]
        parts["linear9"] = nn.Linear(2 * 2 * 128, 32)
        shapes = {"linear9": (2, 2, 128)}
    twins = Twins(nn.Sequential(**parts).initialize(0, dtype=np.float64), shapes)
    (logits, loss), (other_logits, other_loss) = twins.passes(backend, *batches(1)[0])
    close(logits, other_logits, STEPS, "the logits")
    assert loss == pytest.approx(other_loss, rel=STEPS)
    twins.compare_gradients(STEPS)
    twins.compare_states(STEPS)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}),
        ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}),
        ("Adam", {"lr": 1e-3}),
        ("AdamW", {"lr": 1e-3, "weight_decay": 0.05}),
    ],
)
def test_ten_steps_of_vgg11_with_batch_norm_end_at_the_same_weights(name, settings):
    """Losses of every step, then weights and running statistics, and evaluation with them."""
    twins = Twins(vgg("vgg11", width=0.125, norm="batch").initialize(0, dtype=np.float64))
    optimizer = getattr(optim, name)(twins.net.parameters(), **settings)
    other_optimizer = getattr(torch.optim, name)(twins.other.parameters(), **settings)
    numpy, losses = get_backend("numpy"), []
    for x, labels in batches(10):
        (_, loss), (_, other_loss) = twins.passes(numpy, x, labels)
        assert loss == pytest.approx(other_loss, rel=STEPS)
        losses.append(loss)
        optimizer.step()
        other_optimizer.step()
    assert np.ptp(losses) > 0.1, "it did not move"
    twins.compare_states(STEPS)
    twins.net.eval(), twins.other.eval()
    (logits, loss), (other_logits, other_loss) = twins.passes(numpy, *batches(1)[0])
    close(logits, other_logits, STEPS, "the logits in evaluation")
    assert loss == pytest.approx(other_loss, rel=STEPS)
