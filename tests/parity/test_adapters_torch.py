"""check_torch, and check_vjp with tensors: what they find, and that they leave no trace."""

import copy
import functools

import numpy as np
import pytest
from parity.torch_adapter import torch

from minibn.testing import GradientError, check_torch, check_vjp
from minibn.testing.libraries import like

nn, F = torch.nn, torch.nn.functional


def normal(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * g * x**2


class WrongCube(Cube):
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * g * x**2


# -- functions


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_a_function_is_checked_in_its_own_precision_and_named(dtype):
    x = normal(3, dtype=torch.float64).to(dtype)
    report = check_torch(Cube, x)
    assert report.passed and report.name == "Cube"
    assert report.inputs[0].dtype == str(dtype).removeprefix("torch.")
    with pytest.raises(GradientError, match="WrongCube: FAILED"):
        check_torch(WrongCube, x)


def test_a_scalar_is_an_input_and_an_output():
    assert check_torch(Cube, torch.tensor(2.0)).passed
    assert check_torch(lambda x: (x**2).sum(), normal(3)).passed


def test_complex_numbers_are_in_pytorchs_convention():
    z = torch.complex(normal(3), normal(3, seed=1))
    assert check_torch(lambda z: z**2 * z.abs(), z).passed
    with pytest.raises(GradientError, match="in the other convention"):
        check_torch(lambda z: z**2, z, complex_convention="jax")


def test_several_outputs_settings_and_integers_pass_through():
    def f(p, index, scale, mask, *, power):
        assert mask.dtype == torch.bool and isinstance(scale, float)
        values = torch.where(mask, p["w"] ** power, 0.0).max(dim=1)
        return {"max": values, "picked": p["w"].reshape(-1)[index] * scale, "same": p["n"]}

    p = {"w": normal(3, 4).abs() + 1, "n": torch.arange(3)}
    f3 = functools.partial(f, power=3)
    report = check_torch(f3, p, torch.tensor([0, 5]), 2.5, p["w"] > 1.5)
    assert [entry.label for entry in report.inputs] == ["input 0['w']"]


def test_wrt_and_zero_gradient_take_positions_and_names():
    def f(x, y):
        return x * y.detach() + (y - y.mean()).sum() * 0 + x

    with pytest.raises(GradientError):
        check_torch(f, normal(3), normal(3, seed=1))
    assert len(check_torch(f, normal(3), normal(3, seed=1), wrt=0).inputs) == 1


def test_one_tensor_given_twice_has_two_gradients():
    x = normal(3)
    report = check_torch(lambda x, y: x * y**2, x, x)
    assert report.passed and len(report.inputs) == 2


# -- a graph that is cut


CUTS = {
    "detach": lambda x: x.detach() ** 2,
    "data": lambda x: x.data**2,
    "fresh": lambda x: torch.tensor(x.tolist(), dtype=x.dtype) ** 2,
    "numpy": lambda x: torch.from_numpy(x.detach().numpy()) ** 2,
}


@pytest.mark.parametrize("kind", CUTS)
def test_a_cut_graph_is_named(kind):
    with pytest.raises(GradientError, match=r"the graph is cut: the output.*\.detach\(\)"):
        check_torch(CUTS[kind], normal(3))


def test_an_output_that_is_no_tensor_is_named():
    with pytest.raises(GradientError, match=r"the graph is cut.*gives a float, not a tensor"):
        check_torch(lambda x: (x**2).sum().item(), normal(3))


def test_an_input_that_no_gradient_reaches_is_named():
    with pytest.raises(GradientError, match="The graph is cut: no gradient reaches input 1"):
        check_torch(lambda x, y: x * CUTS["data"](y), normal(3), normal(3, seed=1))


class CutBatchNorm(nn.BatchNorm2d):
    """As in a course: computed on `.data`, so that the forward pass is right."""

    def forward(self, x):
        mean, var = x.data.mean((0, 2, 3)), x.data.var((0, 2, 3), unbiased=False)
        x_hat = (x.data - mean[:, None, None]) / (var[:, None, None] + self.eps).sqrt()
        return self.weight[:, None, None] * x_hat + self.bias[:, None, None]


def test_a_batch_norm_that_cuts_the_graph_is_named():
    x = normal(4, 2, 3, 3, dtype=torch.float32)
    assert torch.allclose(CutBatchNorm(2)(x), nn.BatchNorm2d(2)(x), atol=1e-5)
    assert check_torch(nn.BatchNorm2d(2), x).passed
    with pytest.raises(GradientError, match="The graph is cut: no gradient reaches input 0"):
        check_torch(CutBatchNorm(2), x)


# -- modules


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5),
        nn.Flatten(), nn.Linear(27, 4),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_modules_parameters_are_checked_by_name(dtype):
    net, x = network().to(dtype), normal(5, 2, 3, 3, dtype=dtype)
    report = check_torch(net, x, zero_gradient=["0.bias"])
    assert [entry.label for entry in report.inputs] == [
        "0.weight", "0.bias", "1.weight", "1.bias", "5.weight", "5.bias", "input 0"
    ]  # fmt: skip
    assert report.name == "Sequential"
    chosen = check_torch(net, x, wrt=["5.weight", 0])
    assert [entry.label for entry in chosen.inputs] == ["5.weight", "input 0"]


def test_a_wrong_module_is_found_by_the_name_of_its_parameter():
    class Wrong(nn.Linear):
        def forward(self, x):
            return WrongCube.apply(x @ self.weight.T) + self.bias

    with pytest.raises(GradientError) as caught:
        check_torch(Wrong(3, 2), normal(4, 3, dtype=torch.float32))
    passed = {entry.label: entry.passed for entry in caught.value.report.inputs}
    assert passed == {"weight": False, "bias": True, "input 0": False}


@pytest.mark.parametrize("by", ["module", "closure", "method"])
@pytest.mark.parametrize("training", [True, False])
def test_a_check_leaves_no_trace(by, training):
    net, x = network().train(training), normal(5, 2, 3, 3, dtype=torch.float32)
    x.requires_grad_()
    net(x).sum().backward()
    fn = {"module": net, "closure": lambda x: net(x), "method": net.forward}[by]
    before = copy.deepcopy(net.state_dict())
    objects = [id(t) for t in (*net.parameters(), *net.buffers())]
    grads = [p.grad.clone() for p in net.parameters()]
    random, legacy, values = torch.get_rng_state(), np.random.get_state(), x.detach().clone()  # noqa: NPY002
    input_grad = x.grad.clone()
    check_torch(fn, x, raises=False)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert objects == [id(t) for t in (*net.parameters(), *net.buffers())]
    assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), grads, strict=True))
    assert torch.equal(random, torch.get_rng_state()) and torch.equal(x, values)
    assert str(legacy) == str(np.random.get_state())  # noqa: NPY002
    assert torch.equal(x.grad, input_grad) and x.requires_grad
    assert net.training is training and all(m.training is training for m in net.modules())
    assert all(p.requires_grad for p in net.parameters())


def test_the_state_is_restored_after_an_error():
    class Fails(nn.BatchNorm1d):
        calls = 0

        def forward(self, x):
            y = super().forward(x)
            self.calls += 1
            if self.calls == 1 and x.dtype == torch.float64:
                raise KeyError("double")
            return y

    module = Fails(3).double()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(KeyError):
        check_torch(module, normal(4, 3))
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert module.calls == 0


def test_shared_parameters_are_one():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
            self.up.weight = self.down.weight

        def forward(self, x):
            return self.up(torch.tanh(self.down(x)))

    report = check_torch(Tied().double(), normal(4, 3))
    assert [entry.label for entry in report.inputs] == ["down.weight", "input 0"]


def test_frozen_parameters_and_modules_without_any_are_checked_for_the_rest():
    net = nn.Linear(3, 2).double()
    net.weight.requires_grad_(False)
    assert [e.label for e in check_torch(net, normal(4, 3)).inputs] == ["bias", "input 0"]
    loss = check_torch(nn.CrossEntropyLoss(), normal(4, 3), torch.tensor([0, 1, 2, 0]))
    assert [entry.label for entry in loss.inputs] == ["input 0"]


def test_a_recurrent_module_with_a_nested_output_is_checked():
    assert check_torch(nn.LSTM(2, 2).double(), normal(3, 1, 2)).passed


def test_noise_that_depends_on_the_precision_is_judged_in_that_precision():
    def noisy(x):
        return x**2 * (1 + torch.rand_like(torch.cat([x] * 40))[:3])

    report = check_torch(noisy, normal(3, dtype=torch.float32), raises=False)
    assert report.passed or "evaluated in its own precision" in str(report)


def test_a_function_that_differentiates_inside_is_checked():
    def slope(x):
        if not x.requires_grad:
            x = x.detach().requires_grad_()
        return torch.autograd.grad((x**3).sum(), x, create_graph=True)[0]

    assert check_torch(slope, normal(3)).passed
    assert check_torch(lambda x: torch.autograd.grad((x**3).sum(), x, create_graph=True)[0],
                       normal(3)).passed  # fmt: skip


def test_a_module_with_keyword_arguments_comes_by_partial():
    class Scaled(nn.Linear):
        def forward(self, x, *, scale):
            return super().forward(x) * scale

    report = check_torch(functools.partial(Scaled(3, 2).double(), scale=3.0), normal(4, 3))
    assert [entry.label for entry in report.inputs] == ["weight", "bias", "input 0"]
    assert report.name == "Scaled"


def test_a_backward_that_is_wrong_where_one_input_alone_requires_grad_is_found():
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            ctx.save_for_backward(x, y)
            return x * y

        @staticmethod
        def backward(ctx, g):
            x, y = ctx.saved_tensors
            both = all(ctx.needs_input_grad)
            return g * y, g * x if both else g * y

    with pytest.raises(GradientError, match=r"input 1: the gradient is another.*needs_input_grad"):
        check_torch(Product, normal(3), normal(3, seed=1))


def test_a_function_with_outputs_that_are_not_differentiable_is_checked():
    class Top(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, k):
            values, index = x.topk(k)
            ctx.save_for_backward(index)
            ctx.mark_non_differentiable(index)
            ctx.size = len(x)
            return values, index

        @staticmethod
        def backward(ctx, g, nothing):
            (index,) = ctx.saved_tensors
            return g.new_zeros(ctx.size).index_add(0, index, g), None

    assert check_torch(Top, normal(6), 2).passed


def test_parametrized_and_normalised_weights_are_checked():
    """Training spectral_norm takes singular vectors for constants: its gradient is not exact."""
    weight_norm = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2).double())
    spectral_norm = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2).double()).eval()
    for module in (weight_norm, spectral_norm):
        assert len(check_torch(module, normal(4, 3)).inputs) >= 3


def test_what_has_nothing_to_differentiate_is_refused():
    for arguments in ((), (torch.arange(3),), ("text",)):
        with pytest.raises(TypeError, match="nothing to differentiate"):
            check_torch(lambda *xs: torch.ones(2), *arguments)


def test_nothing_to_compare_is_no_evidence():
    with pytest.raises(GradientError, match="no entries"):
        check_torch(Cube, torch.zeros(0))
    with pytest.raises(ValueError, match="input 0 holds NaN"):
        check_torch(Cube, torch.tensor([1.0, float("nan")]))


# -- tensors of every layout


LAYOUTS = {
    "transposed": lambda: normal(4, 3).T,
    "gapped": lambda: normal(3, 8)[:, ::2],
    "expanded": lambda: normal(1, 4).expand(3, 4),
    "channels last": lambda: normal(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "empty rows": lambda: normal(3, 4)[:1],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_function_gets_tensors_of_the_strides_that_were_given(name):
    x, seen = LAYOUTS[name](), set()

    def f(x):
        seen.add(x.stride())
        return x**2

    assert check_torch(f, x).passed
    if name == "expanded":  # its entries can't be moved one by one
        assert (4, 1) in seen and seen <= {(4, 1), x.stride()}
    else:
        assert seen == {x.stride()}


def test_a_function_that_reads_memory_instead_of_the_tensor_is_found():
    class Flat(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            memory = x.as_strided((x.numel(),), (1,)).reshape(x.shape)  # as a kernel reads it
            return 2 * g * memory

    assert check_torch(Flat, normal(3, 4)).passed
    with pytest.raises(GradientError, match="WRONG"):
        check_torch(Flat, normal(4, 3).T)


def test_cotangents_keep_their_strides_on_the_way_to_pytorch():
    out = normal(4, 6)
    for array in (
        np.zeros((4, 6), order="F"), np.zeros((4, 12))[:, ::2], np.broadcast_to(np.ones(6), (4, 6)),
        np.broadcast_to(np.float64(2), (4, 6)),
    ):  # fmt: skip
        t = like(array, out, layout=False)
        assert t.stride() == tuple(s // 8 for s in array.strides)
        assert np.array_equal(t.numpy(), array)
    backwards = np.arange(24.0).reshape(4, 6)[::-1]
    assert np.array_equal(like(backwards, out, layout=False).numpy(), backwards)


@pytest.mark.parametrize(
    "x", [normal(3).to(torch.bfloat16), normal(3, 3).to_sparse()], ids=["bfloat16", "sparse"]
)
def test_what_numpy_cannot_hold_is_refused_with_a_remedy(x):
    with pytest.raises(
        TypeError, match=r"torch.Tensor can't be read as a NumPy array.*\.float\(\)"
    ):
        check_torch(lambda x: x * 2, x)


# -- check_vjp with tensors


def test_check_vjp_gives_tensors_to_who_brings_tensors():
    def f(x, p):
        assert isinstance(x, torch.Tensor) and isinstance(p["w"], np.ndarray)
        return (x * 2).sum()

    def vjp(g, x, p):
        assert isinstance(g, torch.Tensor) and g.shape == () and g.dtype == x.dtype
        assert x.requires_grad and x.dtype == torch.float32
        return g * torch.full_like(x, 2.0), None

    x = normal(3, dtype=torch.float32).requires_grad_()
    report = check_vjp(f, vjp, x, {"w": np.ones(2)}, zero_gradient=[1])
    assert [entry.dtype for entry in report.inputs] == ["float32", "float64"]


def test_check_vjp_sees_what_is_written_into_a_tensor():
    def f(x):
        x += 1
        return x * 2

    with pytest.raises(GradientError, match="f modifies its input 0 in place"):
        check_vjp(f, lambda g, x: 2 * g, normal(3))
    with pytest.raises(GradientError, match="the vjp modifies its cotangent in place"):
        check_vjp(lambda x: x * 2, lambda g, x: g.mul_(2), normal(4, 3).T)


def test_the_recipe_for_scalar_losses_works_by_hand():
    def on_arrays(x):
        return (torch.from_numpy(x) ** 2).sum().numpy()

    def vjp(g, x):
        leaf = torch.from_numpy(x).requires_grad_()
        (leaf**2).sum().backward(torch.from_numpy(g))
        return leaf.grad.numpy()

    assert check_vjp(on_arrays, vjp, np.array([0.5, -2.0])).passed


def test_the_script_of_a_failure_names_check_torch():
    report = check_torch(WrongCube, normal(3), raises=False)
    assert "from minibn.testing import check_torch" in report.script
    assert "torch.from_numpy(np.array([" in report.script
