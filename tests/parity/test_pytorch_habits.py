"""What a user of PyTorch brings along: its tensors, its habits with Tensor, layers and groups."""

import copy

import numpy as np
import pytest
from parity.torch_adapter import torch

from minibn import Tensor, nn, ops, optim, to_numpy


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool"])
def test_a_tensor_of_pytorch_is_taken_with_its_values_and_dtype(dtype):
    theirs = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
    for x in (theirs, theirs.T, theirs[:, 1:], theirs[0, 0]):
        ours = Tensor(x)
        assert ours.dtype == np.dtype(dtype) and ours.tolist() == x.tolist()
        np.testing.assert_array_equal(to_numpy(x), x.numpy())


def test_a_tensor_of_pytorch_is_copied():
    theirs = torch.ones(3)
    ours = Tensor(theirs)
    theirs += 1
    assert ours.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(2, requires_grad=True),
        lambda: torch.ones(2, dtype=torch.bfloat16),
        lambda: torch.ones(2, device="meta"),
        lambda: torch.ones(2).to_sparse(),
    ],
)
def test_one_that_can_not_be_taken_says_how(make):
    with pytest.raises(TypeError, match=r"torch.* can't be converted.*x\.detach\(\)\.cpu\(\)"):
        Tensor(make())


def test_an_op_names_the_remedy_for_a_tensor_of_pytorch():
    x = torch.ones(2, 2)
    for call in (ops.relu, ops.sum, ops.softmax, nn.ReLU(), lambda x: Tensor([1.0, 2.0]) @ x):
        with pytest.raises(TypeError, match=r"torch.* is no array.*minibn\.Tensor\(x\)"):
            call(x)


@pytest.mark.parametrize("source", ["state_dict", "named_parameters"])
def test_from_pytorch_takes_a_state_dict_as_it_is(source):
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Flatten(),
        torch.nn.Linear(48, 5),
    )  # fmt: skip
    theirs(torch.randn(4, 2, 6, 6))  # moves the running statistics
    ours = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm(3), nn.Flatten(), nn.Linear(48, 5))
    state = theirs.state_dict() if source == "state_dict" else dict(theirs.named_parameters())
    ours.initialize(seed=0)
    ours.load_state_dict(
        nn.from_pytorch(state, flattened={"3": (4, 4, 3)}), strict=source == "state_dict"
    )
    x = torch.randn(2, 2, 6, 6)
    theirs.train(), ours.train()
    expected = theirs(x).detach().numpy()
    actual = ours(Tensor(x.permute(0, 2, 3, 1)))
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_numbers_and_formats_are_pytorchs():
    for value in (-2.75, 0.0, 3.5):
        ours, theirs = Tensor(value), torch.tensor(value, dtype=torch.float64)
        for f in (float, int, bool, complex, "{:.3f}".format, "{:>9.1e}".format, "{}".format):
            assert f(ours) == f(theirs)
        for f in (float, int, bool):
            assert f(Tensor([[value]])) == f(torch.tensor([[value]], dtype=torch.float64))
    for ours, theirs in ((Tensor([1.0, 2.0]), torch.ones(2)), (Tensor([]), torch.ones(0))):
        for f in (float, int, bool):
            with pytest.raises((TypeError, RuntimeError, ValueError)):
                f(theirs)
            with pytest.raises(TypeError):
                f(ours)
    for x in (Tensor([1.0]), torch.ones(1)):
        with pytest.raises(TypeError):
            f"{x:.3f}"


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.flatten(1), lambda x: x.flatten(0, 1), lambda x: x.flatten(),
        lambda x: x[0, 0].t(),
        lambda x: x.unsqueeze(0), lambda x: x.unsqueeze(-1), lambda x: x.squeeze(),
        lambda x: x.squeeze(1), lambda x: x.view(-1, 3), lambda x: x.permute(2, 0, 1, 3),
        lambda x: x.clamp(-0.5, 0.5), lambda x: x.clamp(min=0.1), lambda x: x.clip(max=0.0),
        lambda x: x.std(correction=1), lambda x: x.var(correction=0), lambda x: x.norm(),
        lambda x: x.softmax(-1), lambda x: x.log_softmax(1), lambda x: x.abs().sqrt().exp().log(),
        lambda x: x.clone(), lambda x: x.min(), lambda x: x.max(), lambda x: x.pow(2),
    ],
)  # fmt: skip
def test_a_method_of_that_name_gives_the_same_value_and_gradient(call):
    array = np.random.default_rng(0).normal(size=(2, 1, 2, 3))
    ours, theirs = Tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
    a, b = call(ours), call(theirs)
    assert a.shape == tuple(b.shape)
    np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-12)
    (a * a).sum().backward(), (b * b).sum().backward()
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_the_gradient_of_std_without_spread_is_that_of_pytorch():
    x, y = Tensor(np.ones(3), requires_grad=True), torch.ones(3, requires_grad=True)
    x.std(correction=1).backward(), y.std().backward()
    assert x.grad.tolist() == y.grad.tolist() == [0, 0, 0]


def test_slices_lists_and_copies_have_the_names_of_pytorchs():
    ours = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU())
    theirs = torch.nn.Sequential(
        torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2), torch.nn.ReLU()
    )
    for part in (slice(1, 3), slice(-2, None), slice(None, None, 2)):
        names = [[name for name, _ in net[part].named_parameters()] for net in (ours, theirs)]
        assert names[0] == names[1]
    listed = [m.ModuleList([m.Linear(2, 2), m.Linear(2, 2)]) for m in (nn, torch.nn)]
    tables = [m.ModuleDict({"a": m.Linear(2, 2)}) for m in (nn, torch.nn)]
    for pair in (listed, tables):
        names = [[name for name, _ in copy.deepcopy(net).named_parameters()] for net in pair]
        assert names[0] == names[1]


def test_rates_of_groups_give_pytorchs_weights():
    rng = np.random.default_rng(0)
    values, gradients = rng.normal(size=(2, 4)), rng.normal(size=(5, 2, 4))
    ours = [Tensor(v.copy(), requires_grad=True) for v in values]
    theirs = [torch.tensor(v, requires_grad=True) for v in values]
    pair = [
        kind([{"params": p[:1], "lr": 0.03}, {"params": p[1:]}], lr=0.1, momentum=0.9)
        for kind, p in ((optim.SGD, ours), (torch.optim.SGD, theirs))
    ]
    for step, both in enumerate(gradients):
        for optimizer in pair:
            for i, group in enumerate(optimizer.param_groups):
                group["lr"] = group["lr"] * 0.9 if i else 0.02 + 0.01 * step
        for p, q, g in zip(ours, theirs, both, strict=True):
            p.grad, q.grad = Tensor(g.copy()), torch.tensor(g)
        for optimizer in pair:
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-12)
