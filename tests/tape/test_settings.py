"""A `with` block holds for the thread or the asyncio task that is in it, and for no other."""

import asyncio
import contextvars
import sys
import threading

import numpy as np
import pytest

import minibn
from minibn import Tensor, detect_anomaly, no_grad, ops
from minibn.autograd import observers
from minibn.autograd.dispatch import mode
from minibn.autograd.tape import set_grad_enabled
from minibn.backend import get_backend
from minibn.fast.precision import current as precision
from minibn.setting import Choice, Override, Setting

SETTINGS = {
    "no_grad": (no_grad, lambda: (Tensor([1.0], requires_grad=True) * 2).requires_grad),
    "recording": (lambda: set_grad_enabled(False), lambda: (leaf() * 2).requires_grad),
    "kernels": (lambda: minibn.kernels("reference"), mode),
    "precision": (lambda: minibn.precision("bf16"), precision),
    "backend": (lambda: minibn.use("strict"), lambda: get_backend().name),
    "profile": (minibn.profile, lambda: len(observers.current())),
    "detect_anomaly": (detect_anomaly, lambda: len(observers.current())),
}


def leaf():
    return Tensor(np.array([1.0]), requires_grad=True)


@pytest.mark.parametrize("name", SETTINGS)
def test_another_task_does_not_see_it(name):
    enter, look = SETTINGS[name]
    outside = look()

    async def inside(entered, seen):
        with enter():
            assert look() != outside
            entered.set()
            await seen.wait()
            assert look() != outside
        assert look() == outside

    async def beside(entered, seen):
        await entered.wait()
        assert look() == outside
        seen.set()

    async def both():
        entered, seen = asyncio.Event(), asyncio.Event()
        await asyncio.gather(inside(entered, seen), beside(entered, seen))

    asyncio.run(both())
    assert look() == outside


def test_a_task_trains_while_another_evaluates():
    x, gradients = leaf(), []

    async def evaluate(steps):
        with no_grad():
            for _ in range(steps):
                assert not (x * x).requires_grad
                await asyncio.sleep(0)

    async def train(steps):
        for _ in range(steps):
            y = (x * x).sum()
            await asyncio.sleep(0)
            x.grad = None
            y.backward()
            gradients.append(x.grad.item())

    async def both():
        await asyncio.gather(evaluate(5), train(5))

    asyncio.run(both())
    assert gradients == [2.0] * 5


def test_a_task_takes_over_what_holds_where_it_is_started():
    async def child():
        return (leaf() * 2).requires_grad

    async def parent():
        with no_grad():
            return await asyncio.create_task(child())

    assert asyncio.run(parent()) is False


@pytest.mark.parametrize("name", SETTINGS)
def test_a_new_thread_begins_with_the_defaults(name):
    enter, look = SETTINGS[name]
    outside, seen = look(), []
    with enter():
        thread = threading.Thread(target=lambda: seen.append(look()))
        thread.start()
        thread.join()
    assert seen == [outside]


def test_a_generator_that_is_left_open_keeps_its_setting_to_its_own_context():
    def values():
        with no_grad():
            yield (leaf() * 2).requires_grad

    running = values()
    assert contextvars.copy_context().run(next, running) is False
    assert (leaf() * 2).requires_grad


def test_a_choice_names_the_nearest_one_and_changes_nothing():
    colour = Choice("colour", ("red", "green"), default="red")
    with pytest.raises(ValueError, match=r"colour 'gren' is unknown. Did you mean 'green'\?"):
        colour.choose("gren")
    with pytest.raises(ValueError, match=r"colour 7 is unknown. There are red, green\."):
        colour.choose(7)
    assert colour.get() == "red"


def test_a_setting_is_restored_after_an_exception():
    depth = Setting("depth", 0)
    with pytest.raises(RuntimeError), depth.override(1):
        raise RuntimeError
    assert depth.get() == 0


def test_nothing_else_keeps_state_of_a_thread():
    """There is one mechanism: threading.local would leak from task to task."""
    from support.copies import ROOT

    used = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "minibn").rglob("*.py")
        if "threading.local" in path.read_text(encoding="utf-8")
        or ("ContextVar" in path.read_text(encoding="utf-8") and path.name != "setting.py")
    ]
    assert used == []


def test_an_op_in_no_grad_gives_what_it_gives_outside():
    x = leaf()
    with no_grad():
        y = ops.exp(x)
    assert y.item() == ops.exp(x).item()


def test_set_grad_enabled_holds_from_the_call_on_as_pytorchs():
    try:
        set_grad_enabled(False)
        assert not (leaf() * 2).requires_grad
        with set_grad_enabled(True):
            assert (leaf() * 2).requires_grad
        assert not (leaf() * 2).requires_grad
    finally:
        set_grad_enabled(True)
    with set_grad_enabled(True):
        pass
    assert (leaf() * 2).requires_grad


class Interrupt(Exception):
    pass


@pytest.mark.parametrize("line", range(8))
def test_an_interrupt_at_any_line_of_entering_leaves_the_setting_as_it_was(line):
    """As a signal's handler: raised at the line-th line that runs after the call."""
    setting = Setting("number", 0)
    left = [line]

    def trace(frame, event, argument):
        if event == "line" and frame.f_code is Override.__enter__.__code__:
            left[0] -= 1
            if left[0] < 0:
                sys.settrace(None)
                raise Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with setting.override(1):
            sys.settrace(before)
    except Interrupt:
        pass
    finally:
        sys.settrace(before)
    assert setting.get() == 0
