"""The registry of kernels: which one runs, who chooses, and what the graph keeps of it."""

import asyncio
import gc
import threading
import weakref

import numpy as np
import pytest

import minibn
from minibn import Op, Tensor, apply, grad, ops
from minibn.autograd.anomaly import AnomalyError, detect_anomaly
from minibn.autograd.dispatch import find_kernel, kernels, mode
from minibn.backend import get_backend
from minibn.fast.fused_ops import fused_block
from minibn.fast.kernel import Kernel
from minibn.fast.selection import kernels_of


class Double(Op):
    """y = 2 x.    x̄ = 2 ȳ"""

    def forward(self, x):
        return x * 2

    def vjp(self, g, out, x):
        return g * 2


class FastDouble(Kernel):
    """The same, and tells what it saw."""

    seen = []  # noqa: RUF012  emptied by the fixture

    @classmethod
    def fits(cls, op, x):
        return x.dtype == np.float64

    @classmethod
    def pays(cls, op, x):
        return x.size >= 4

    def forward(self, x):
        self.kept = np.ones(3)
        self.seen.append(("forward", self.needs_input_grad, self.keep))
        return x + x

    def vjp(self, g, out, x):
        self.seen.append(("vjp", self.needs_input_grad, self.keep))
        return g + g


class Never(Kernel):
    @classmethod
    def fits(cls, op, x):
        return False


@pytest.fixture(autouse=True)
def table(monkeypatch):
    """FastDouble stands in for Double on NumPy."""
    FastDouble.seen.clear()
    monkeypatch.setitem(kernels_of(get_backend("numpy")), Double, (Never, FastDouble))
    assert mode() == "fast"
    yield
    assert mode() == "fast"


def runs(x):
    """Whether the kernel ran on x."""
    FastDouble.seen.clear()
    y = apply(Double(), x)
    np.testing.assert_array_equal(y, 2 * x)
    return bool(FastDouble.seen)


LARGE, SMALL = np.arange(5.0), np.arange(2.0)


# -- modes


@pytest.mark.parametrize(
    "name, large, small",
    [("fast", True, False), ("lean", True, False), ("reference", False, False), ("always", 1, 1)],
)
def test_a_mode_says_where_kernels_run(name, large, small):
    with kernels(name):
        assert mode() == name
        assert (runs(LARGE), runs(SMALL)) == (bool(large), bool(small))
        assert not runs(LARGE.astype(np.float32)), "it does not fit"


def test_a_choice_holds_until_the_next_one_or_the_end_of_its_with_statement():
    try:
        kernels("reference")
        assert mode() == "reference"
        with kernels("always"):
            assert mode() == "always"
            with kernels("lean") as chosen:
                assert (mode(), chosen.value) == ("lean", "lean")
            assert mode() == "always"
        assert mode() == "reference"
    finally:
        kernels("fast")


def test_a_choice_may_be_entered_twice():
    chosen = kernels("lean")
    with chosen:
        with kernels("reference"), chosen:
            assert mode() == "lean"
        assert mode() == "lean"
    assert mode() == "fast"


def test_the_mode_is_restored_after_an_exception():
    with pytest.raises(ZeroDivisionError), kernels("always"):
        raise ZeroDivisionError
    assert mode() == "fast"


@pytest.mark.parametrize(
    "name, remedy",
    [
        ("refrence", "Did you mean 'reference'"),
        ("quick", "There are fast, lean, "),
        (None, "There are"),
    ],
)
def test_an_unknown_name_is_an_error_with_the_remedy_and_changes_nothing(name, remedy):
    with pytest.raises(ValueError, match=f"kernels {name!r} is unknown. .*{remedy}"):
        kernels(name)
    assert mode() == "fast"


def test_a_choice_belongs_to_the_thread_that_makes_it():
    seen = []
    with kernels("always"):
        other = threading.Thread(target=lambda: seen.append(mode()))
        other.start()
        other.join()
    assert seen == ["fast"]


def test_a_choice_belongs_to_the_task_that_makes_it():
    async def work(name):
        with kernels(name):
            await asyncio.sleep(0)
            return mode()

    async def both():
        return await asyncio.gather(work("always"), work("lean"))

    assert asyncio.run(both()) == ["always", "lean"]


def test_the_parts_of_a_kernel_see_the_mode_of_their_caller():
    from minibn.fast.cpu.threads import parallel

    with kernels("lean"):
        assert parallel(lambda i: mode(), 3) == ["lean"] * 3


# -- what runs


def test_the_first_kernel_that_fits_runs_and_the_node_and_the_profile_say_so():
    x = Tensor(LARGE, requires_grad=True)
    with minibn.profile() as profile:
        y = apply(Double(), x)
        assert type(y.node.kernel) is FastDouble
        np.testing.assert_array_equal(grad(y, x, LARGE).data, 2 * LARGE)
    rows = {(row.name, row.phase) for row in profile.rows}
    assert rows >= {("Double (FastDouble)", phase) for phase in ("forward", "backward")}
    with kernels("reference"), minibn.profile() as profile:
        y = apply(Double(), x)
        assert y.node.kernel is None
        grad(y, x, LARGE)
    assert {row.name for row in profile.rows} == {"Double"}


def test_in_reference_no_kernel_is_even_asked(monkeypatch):
    def asked(*_):
        raise AssertionError("a kernel was asked")

    for every in kernels_of(get_backend("numpy")).values():
        for kernel in every:
            for method in ("fits", "pays", "forward", "vjp"):
                monkeypatch.setattr(kernel, method, asked)
    rng = np.random.default_rng(0)
    x = Tensor(rng.standard_normal((4, 6, 6, 3)), requires_grad=True)
    with kernels("reference"):
        y = ops.conv2d(x, rng.standard_normal((3, 3, 3, 2)), padding=1)
        y = ops.max_pool2d(fused_block(y, np.ones(2), np.ones(2), eps=1e-3, relu=True))
        ops.softmax_cross_entropy(ops.reshape(y, (4, 18)), np.arange(4)).backward()
    assert x.grad is not None


@pytest.mark.parametrize("name", ["always", "fast", "lean"])
def test_a_kernel_knows_what_is_wanted_and_whether_to_keep(name):
    def seen(x, pull=True):
        FastDouble.seen.clear()
        with kernels(name):
            y = apply(Double(), x)
            if pull:
                grad(y, x, LARGE)
        return FastDouble.seen

    keep = name != "lean"
    leaf = Tensor(LARGE, requires_grad=True)
    assert seen(leaf) == [("forward", (True,), keep), ("vjp", (True,), keep)]
    assert seen(Tensor(LARGE), False) == [("forward", (False,), False)]
    assert seen(LARGE, False) == [("forward", (False,), False)]
    with minibn.no_grad():
        assert seen(leaf, False) == [("forward", (False,), False)]


def test_a_mode_of_the_forward_pass_decides_about_the_backward_pass_too():
    x = Tensor(LARGE, requires_grad=True)
    y = apply(Double(), x)
    with kernels("reference"):
        grad(y, x, LARGE)
    assert [step for step, *_ in FastDouble.seen] == ["forward", "vjp"]


def test_under_create_graph_the_definition_is_differentiated():
    x = Tensor(LARGE, requires_grad=True)
    slope = grad(apply(Double(), x), x, Tensor(LARGE), create_graph=True)
    assert [step for step, *_ in FastDouble.seen] == ["forward"]
    np.testing.assert_array_equal(slope.data, 2 * LARGE)


@pytest.mark.parametrize("dtype", [np.complex128, np.complex64, np.float16])
def test_other_dtypes_get_the_definition_of_every_op(dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 6, 6, 3)).astype(dtype)
    w = rng.standard_normal((3, 3, 3, 2)).astype(dtype)
    v = np.ones(3, dtype)

    def results():
        yield ops.conv2d(x, w)
        yield fused_block(x, v, v, eps=1e-2, relu=True, pool=2)
        yield ops.max_pool2d(x)
        yield ops.matmul(x, w[0, 0])

    with kernels("reference"):
        expected = list(results())
    with kernels("always"):
        found = list(results())
    for ours, right in zip(found, expected, strict=True):
        assert ours.dtype == right.dtype
        np.testing.assert_array_equal(ours, right)


@pytest.mark.parametrize("first, second", [(np.float32, np.float64), (np.float64, np.float32)])
def test_mixed_dtypes_are_promoted_as_without_kernels(first, second):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 6, 6, 3)).astype(first)
    w = rng.standard_normal((3, 3, 3, 2)).astype(second)

    def results(name):
        with kernels(name):
            leaves = [Tensor(a, requires_grad=True) for a in (x, w)]
            y = ops.conv2d(*leaves)
            z = fused_block(leaves[0], np.ones(3, second), relu=True, pool=2)
            slopes = grad(y, leaves, np.ones(y.shape))
            return [a.data for a in (y, z, *slopes)]

    for ours, right in zip(results("always"), results("reference"), strict=True):
        assert ours.dtype == right.dtype
        np.testing.assert_allclose(ours, right, rtol=1e-4, atol=1e-4)


def test_on_another_backend_no_kernel_stands_in():
    strict = get_backend("strict")
    with kernels("always"):
        assert find_kernel(Double(), [strict.asarray(LARGE)]) is None


# -- what the graph keeps


def test_a_released_node_lets_go_of_what_its_kernel_kept():
    class Kept(np.ndarray):  # can be watched
        pass

    x = Tensor(LARGE, requires_grad=True)
    for retain, alive in ((True, True), (False, False)):
        y = apply(Double(), x)
        y.node.kernel.kept = np.ones(3).view(Kept)
        watch, kernel = weakref.ref(y.node.kernel.kept), weakref.ref(y.node.kernel)
        grad(y, x, LARGE, retain_graph=retain)
        assert (watch() is not None, kernel() is not None) == (alive, alive)
        del y
        assert watch() is None


def test_a_graph_that_dies_takes_what_kernels_kept_along_without_collection():
    gc.disable()
    try:
        x = Tensor(LARGE, requires_grad=True)
        y = apply(Double(), apply(Double(), x))
        watch = weakref.ref(y.node.kernel)
        del y
        assert watch() is None
    finally:
        gc.enable()


def test_winograds_tiles_are_freed_with_the_node():
    rng = np.random.default_rng(0)
    x = Tensor(rng.standard_normal((2, 5, 5, 3)), requires_grad=True)
    w = Tensor(rng.standard_normal((3, 3, 3, 2)), requires_grad=True)
    with kernels("always"):
        y = ops.conv2d(x, w, padding=1)
        watches = [weakref.ref(a) for a in y.node.kernel.saved]
        y.sum().backward()
        assert not any(watch() is not None for watch in watches)


# -- anomalies


def test_an_anomaly_in_a_kernel_names_the_op():
    with kernels("always"), detect_anomaly(), np.errstate(all="ignore"):
        x = Tensor(np.array([1.0, 1e308]), requires_grad=True)
        with pytest.raises(AnomalyError, match="Double"):
            apply(Double(), x)
        y = apply(Double(), Tensor(np.ones(2), requires_grad=True))
        with pytest.raises(AnomalyError, match="Double"):
            y.backward(np.array([1.0, 1e308]))


def test_a_kernel_that_gives_too_few_gradients_is_told_like_an_op():
    class Wrong(FastDouble):
        def vjp(self, g, out, x):
            return g, g

    x = Tensor(LARGE, requires_grad=True)
    y = apply(Double(), x)
    y.node.kernel.__class__ = Wrong
    with pytest.raises(minibn.errors.GraphError, match=r"Double\.vjp returned 2 gradients for 1"):
        grad(y, x, LARGE)
