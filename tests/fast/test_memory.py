"""Memory that is used again: never while somebody can still see it, and given back in the end."""

import copy
import gc
import pickle
import random
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibn import Tensor, grad
from minibn.fast.cpu import memory
from minibn.fast.cpu.memory import LINE, SMALL, empty, free_bytes, release, scratch
from minibn.testing.commands.profiles import share

LARGE = SMALL // 4  # float32 numbers in a megabyte


@pytest.fixture(autouse=True)
def nothing_waits():
    release()
    yield
    release()


def address(x):
    return x.__array_interface__["data"][0]


def owner(x):
    """Whose memory it is: the buffer of an array from `empty`."""
    while isinstance(x, np.ndarray):
        x = x.base
    return x.buffer


# -- arrays


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int64, bool, ">f4"])
@pytest.mark.parametrize("shape", [(), (3,), (0,), (5, 0, 2), (SMALL,), (7, 400, 401), (1, SMALL)])
@pytest.mark.parametrize("make", [empty, scratch])
def test_arrays_are_as_those_of_np_empty(make, shape, dtype):
    x = make(shape, dtype)
    assert (x.shape, x.dtype) == (shape, np.dtype(dtype))
    assert type(x) is np.ndarray
    assert x.flags.c_contiguous and x.flags.writeable and x.flags.aligned
    x[...] = 1
    assert x.all()


def test_large_arrays_begin_on_a_cache_line():
    for n in range(LARGE, LARGE + 20):
        assert address(empty((n,), np.float32)) % LINE == 0


def test_an_array_of_exactly_the_small_size_and_one_byte_less_are_both_right():
    for n in (SMALL - 1, SMALL, SMALL + 1):
        x = empty((n,), np.uint8)
        x[:] = 7
        assert (int(x[0]), int(x[-1]), x.size) == (7, 7, n)


# -- use again


def test_the_memory_of_an_array_that_died_is_used_again():
    x = empty((LARGE,), np.float32)
    before = address(x)
    del x
    assert free_bytes() >= SMALL
    y = empty((LARGE // 2, 2), np.float32)
    assert address(y) == before
    assert free_bytes() == 0


def test_a_view_keeps_the_memory():
    x = empty((1000, LARGE // 1000 + 1), np.float32)
    x[...] = 5
    views = [x[3:], x.T, x.reshape(-1)[::7], x.view(np.uint8)[10:]]
    before = address(x)
    del x
    while views:
        assert free_bytes() == 0
        assert address(empty((1000, LARGE // 1000 + 1), np.float32)) != before
        release()
        views.pop()
    assert free_bytes() > 0
    assert address(empty((1000, LARGE // 1000 + 1), np.float32)) == before


def test_memoryviews_and_buffers_keep_it_too():
    x = empty((LARGE,), np.float32)
    x[:] = 3
    view = memoryview(x)
    del x
    assert free_bytes() == 0
    other = empty((LARGE,), np.float32)
    other[:] = 4
    assert view[5] == 3
    view.release()


def test_a_buffer_is_taken_by_arrays_of_about_its_size_and_by_scratch_up_to_four_times_smaller():
    def taken_by(make, n):
        release()
        x = empty((8 * LARGE,), np.float32)
        before = address(x)
        del x
        return address(make((n,), np.float32)) == before

    assert taken_by(empty, 7 * LARGE)
    assert not taken_by(empty, 5 * LARGE)
    assert not taken_by(empty, 8 * LARGE + 100)
    assert taken_by(scratch, 3 * LARGE)
    assert not taken_by(scratch, LARGE)


def test_the_smallest_buffer_that_fits_is_taken():
    sizes = [1.2, 1.0, 1.1]
    arrays = [empty((int(s * LARGE),), np.float32) for s in sizes]
    smallest = address(arrays[1])
    del arrays
    assert address(empty((LARGE,), np.float32)) == smallest


def test_release_gives_all_that_waits_back_and_nothing_that_is_in_use():
    kept = empty((LARGE,), np.float32)
    kept[:] = 2
    gone = owner(empty((LARGE,), np.float32))
    watch = weakref.ref(gone)
    del gone
    assert free_bytes() > 0
    release()
    assert free_bytes() == 0
    assert watch() is None
    assert (kept == 2).all()


@pytest.mark.parametrize("held", [0, 1])  # so that an even and an odd number came and went before
def test_a_buffer_that_nobody_takes_is_given_back_after_a_while(held, monkeypatch):
    monkeypatch.setattr(memory, "PATIENCE", 100)
    held = [empty((LARGE,), np.float32) for _ in range(held)]
    watch = weakref.ref(owner(empty((9 * LARGE,), np.float32)))
    for _ in range(20):
        empty((LARGE,), np.float32)
    assert watch() is not None
    for _ in range(200):
        empty((LARGE,), np.float32)
    assert watch() is None
    assert free_bytes() < 2 * SMALL  # the one that is used all the time
    del held


@settings(max_examples=share(40))
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_arrays_that_live_at_once_never_share_memory(seed, most):
    """Arrays and views come and go at random; each is filled with a number of its own."""
    draw, alive = random.Random(seed), []
    for number in range(40):
        if alive and draw.random() < 0.5:
            alive.pop(draw.randrange(len(alive)))
        make = draw.choice([empty, scratch])
        x = make((draw.randint(LARGE, 3 * LARGE) // 64, 64), np.float32)
        x[...] = number
        if draw.random() < 0.3:
            x = x[draw.randrange(5) :: draw.randint(1, 3), ::2]
        alive = [*alive[-most:], (number, x)]
        if number % 8 == 0:
            for value, array in alive:
                assert array[0, 0] == array[-1, -1] == value
    for value, array in alive:
        assert (array == value).all()


# -- threads, collection, copies


def test_threads_may_take_and_drop_arrays_at_once():
    wrong = []

    def work(k):
        draw = random.Random(k)
        held = []
        for step in range(60):
            x = empty((draw.randint(LARGE, 2 * LARGE),), np.float32)
            x[:] = 1000 * k + step
            held.append((1000 * k + step, x))
            if len(held) > 3:
                held.pop(draw.randrange(4))
            wrong.extend(
                v for v, a in held if not (a[0] == v and a[-1] == v and a[len(a) // 2] == v)
            )

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert not wrong


def test_arrays_in_cycles_come_back_by_garbage_collection_even_inside_a_call():
    class Holder:
        pass

    def cycle():
        holder = Holder()
        holder.me, holder.x = holder, empty((LARGE,), np.float32)

    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            cycle()
        assert free_bytes() == 0
    finally:
        gc.enable()
    before = gc.get_threshold()
    gc.set_threshold(
        1
    )  # from here on collections run everywhere, in `_take` with its lock held too
    try:
        for _ in range(20):
            cycle()
            empty((LARGE,), np.float32)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert free_bytes() > 0


def test_a_gradient_shares_no_memory_with_a_cotangent_that_a_kernel_has_made():
    c = empty((LARGE,), np.float32)
    c[:] = 1
    x, y = (Tensor(np.ones(LARGE, np.float32), requires_grad=True) for _ in range(2))
    (x + y).backward(c)
    for g in (x.grad, y.grad, *grad(x + y, [x, y], c), grad(x + y, x, c[:])):
        assert not np.shares_memory(g.data, c)
    assert not np.shares_memory(x.grad.data, y.grad.data)


def test_copies_and_pickles_are_arrays_of_their_own():
    x = empty((LARGE,), np.float32)
    x[:] = np.arange(LARGE)
    copies = [x.copy(), copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))]
    for other in copies:
        assert not np.shares_memory(other, x)
    x[:] = 0
    for other in copies:
        np.testing.assert_array_equal(other, np.arange(LARGE, dtype=np.float32))


def test_a_program_may_end_while_arrays_live():
    code = (
        "import numpy as np\n"
        "from minibn.fast.cpu import memory\n"
        "x = memory.empty((1 << 20,), np.float32)\n"
        "y = memory.empty((1 << 20,), np.float32)\n"
        "del y\n"
        "class Late:\n"
        "    def __del__(self): self.x = None\n"
        "late = Late(); late.x = memory.empty((1 << 20,), np.float32); late.me = late\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=30, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
