"""`profile` times every op once, by name and pass, whatever nests, fails or runs beside it."""

import threading
import time

import numpy as np
import pytest

import minibn
from minibn import Tensor, grad, nn, ops
from minibn.autograd import observers, profiling
from minibn.autograd.tape import Op, apply
from minibn.backend import array_module
from minibn.fast import selection
from minibn.fast.kernel import Kernel
from minibn.ops.elementwise import Exp

NAP = 0.004


class Doze(Op):
    """y = x, after a nap. Its vjp naps twice as long, half of it in an op inside."""

    def forward(self, x):
        time.sleep(NAP)
        return x * 1

    def vjp(self, g, out, x):
        time.sleep(NAP)
        return apply(Doze(), g)


class Stumble(Op):
    """It never arrives, neither way."""

    def __init__(self, way: str) -> None:
        self.way = way

    def forward(self, x):
        if self.way == "forward":
            raise RuntimeError("stumbled")
        return x * 1

    def vjp(self, g, out, x):
        raise RuntimeError("stumbled")


def leaf(backend, shape=(2, 3)):
    return Tensor(backend.asarray(np.ones(shape)), requires_grad=True)


def rows(p):
    return {(row.name, row.phase): row for row in p.rows}


def test_every_op_of_both_passes_is_counted_by_its_name(backend):
    x = leaf(backend)
    with minibn.profile() as p:
        for _ in range(3):
            grad((ops.exp(x) + ops.exp(x)).sum(), x)
    found = rows(p)
    assert found["Exp", "forward"].calls == found["Exp", "backward"].calls == 6
    assert found["Add", "forward"].calls == 3
    assert found["Exp", "forward"].bytes == 6 * x.data.nbytes


def test_an_op_inside_a_vjp_takes_its_time_from_the_op_around_it(backend):
    y = apply(Doze(), leaf(backend)).sum()
    with minibn.profile() as p:
        y.backward()
    row = rows(p)["Doze", "backward"]  # the vjp, and the forward that runs inside it
    assert row.calls == 2
    assert row.ms == pytest.approx(row.inclusive_ms, rel=1e-6)  # counted once though nested
    assert 2000 * NAP <= row.ms < p.elapsed_ms


def test_own_times_add_up_to_the_time_in_ops_and_with_the_rest_to_all_of_it(backend):
    model = nn.Sequential(conv=nn.Conv2d(2, 3, 3), norm=nn.BatchNorm(3), relu=nn.ReLU())
    model.initialize(0)
    x = backend.asarray(np.random.default_rng(0).normal(size=(4, 6, 6, 2)).astype(np.float32))
    with minibn.profile() as p:
        model(x).sum().backward()
        time.sleep(NAP)
    assert sum(row.ms for row in p.rows) == pytest.approx(p.ops_ms)
    assert sum(row.share for row in p.rows) == pytest.approx(p.ops_ms / p.elapsed_ms)
    assert p.ops_ms + 1000 * NAP <= p.elapsed_ms
    assert all(0 <= row.ms <= row.inclusive_ms + 1e-9 for row in p.rows)
    assert [row.ms for row in p.rows] == sorted((row.ms for row in p.rows), reverse=True)


def test_an_outer_profile_counts_what_an_inner_one_counts(backend):
    x = leaf(backend)
    with minibn.profile() as outer:
        ops.exp(x)
        with minibn.profile() as inner:
            ops.exp(x)
        ops.exp(x)
    assert rows(outer)["Exp", "forward"].calls == 3
    assert rows(inner)["Exp", "forward"].calls == 1
    assert not observers.current()


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_an_op_that_raises_is_counted_and_leaves_nothing_behind(backend, way):
    x = leaf(backend)
    with minibn.profile() as p, pytest.raises(RuntimeError, match="stumbled"):
        apply(Stumble(way), x).sum().backward()
    assert rows(p)["Stumble", way].calls == 1
    with pytest.raises(RuntimeError, match="out of the block"), minibn.profile():
        raise RuntimeError("out of the block")
    assert not observers.current()
    with minibn.profile() as p:
        ops.exp(x)
    row = rows(p)["Exp", "forward"]  # at the top again, not inside what raised
    assert row.ms == row.inclusive_ms


def test_threads_are_profiled_apart(backend):
    x, counts = leaf(backend).data, {}
    ready = threading.Barrier(2)

    def work(times: int) -> None:
        with minibn.profile() as p:
            ready.wait()
            for _ in range(times):
                ops.exp(x)
        counts[times] = [(row.name, row.calls) for row in p.rows]

    with minibn.profile() as here:
        threads = [threading.Thread(target=work, args=(n,)) for n in (3, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts == {3: [("Exp", 3)], 5: [("Exp", 5)]}
    assert here.rows == []


def test_the_kernel_that_ran_is_named(backend, monkeypatch):
    class Shortcut(Kernel):
        def forward(self, x):
            return array_module(x).exp(x)

        def vjp(self, g, out, x):
            return g * out

    monkeypatch.setattr(selection, "kernels_of", lambda backend: {Exp: (Shortcut,)})
    monkeypatch.setattr(selection, "is_verified", lambda *_: True)
    x = leaf(backend)
    with minibn.profile() as p:
        ops.exp(x).sum().backward()
        with minibn.kernels("reference"):
            ops.exp(x)
    assert {name for name, _ in rows(p)} >= {"Exp (Shortcut)", "Exp"}
    assert rows(p)["Exp (Shortcut)", "backward"].calls == 1


def test_a_gradient_of_a_gradient_is_profiled_too(backend):
    x = leaf(backend)
    with minibn.profile() as p:
        slope = grad(ops.exp(x).sum(), x, create_graph=True)
        grad(slope.sum(), x)
    assert rows(p)["Exp", "backward"].calls == 2


def test_the_device_is_waited_for_around_every_op(backend, monkeypatch):
    waits = []
    monkeypatch.setattr(type(backend), "synchronize", lambda self: waits.append(self.name))
    with minibn.profile():
        ops.exp(leaf(backend))
    assert waits == [backend.name] * 2
    ops.exp(leaf(backend))
    assert len(waits) == 2  # without a profile nobody waits


def test_a_part_has_a_row_and_ops_inside_it_keep_theirs(backend):
    x = leaf(backend)
    with minibn.profile() as p, profiling.part("update"):
        time.sleep(NAP)
        ops.exp(x)
    update = rows(p)["update", ""]
    assert update.ms >= 1000 * NAP and update.ms < update.inclusive_ms
    assert rows(p)["Exp", "forward"].calls == 1
    with profiling.part("nobody looks"):
        ops.exp(x)


def test_the_table_has_a_line_per_row_and_adds_up(backend):
    with minibn.profile() as p:
        ops.exp(leaf(backend)).sum().backward()
    lines = str(p).splitlines()
    assert len(lines) == len(p.rows) + 3
    assert lines[0].split()[:2] == ["op", "pass"] and lines[-1].startswith("elapsed")
    shares = [float(word[:-1]) for line in lines for word in line.split() if word.endswith("%")]
    assert sum(shares) == pytest.approx(100, abs=0.1 * len(shares))


def test_an_empty_profile_prints_a_table_too():
    with minibn.profile() as p:
        pass
    assert p.rows == [] and "elapsed" in str(p)
