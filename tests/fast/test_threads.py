"""Work in parts: the setting, order, exceptions, nesting, and BLAS put back as it was."""

import contextvars
import functools
import os
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibn.fast.cpu import threads
from minibn.fast.cpu.threads import (
    SETTING,
    blocks,
    count,
    limit_threads,
    map_shares,
    parallel,
    share,
)

threadpoolctl = pytest.importorskip("threadpoolctl")


def blas_threads():
    return [i["num_threads"] for i in threadpoolctl.threadpool_info() if i["user_api"] == "blas"]


@pytest.fixture
def two_blas_threads():
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        yield before


# -- the setting


def test_all_cores_are_used_unless_the_setting_says_otherwise(monkeypatch):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for unset in (None, ""):
        monkeypatch.delenv(SETTING, raising=False)
        if unset is not None:
            monkeypatch.setenv(SETTING, unset)
        assert count() == cores
    monkeypatch.setenv(SETTING, "3")
    assert count() == 3


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5", "2 ", "²"])
def test_a_setting_that_is_no_number_is_an_error_with_the_remedy(wrong, monkeypatch):
    monkeypatch.setenv(SETTING, wrong)
    with pytest.raises(ValueError, match=f"{SETTING}='.*' must be a number .* Unset it"):
        count()


def test_limited_holds_inside_also_when_nested_and_after_exceptions(monkeypatch):
    monkeypatch.setenv(SETTING, "5")
    with limit_threads(2):
        with pytest.raises(ZeroDivisionError), limit_threads(4):
            assert count() == 4
            raise ZeroDivisionError
        assert count() == 2
    assert count() == 5
    with pytest.raises(ValueError, match="threads=0 must be 1 or more"), limit_threads(0):
        pass


def test_limited_belongs_to_the_thread_that_says_it(monkeypatch):
    monkeypatch.setenv(SETTING, "5")
    seen = []
    with limit_threads(2):
        other = threading.Thread(target=lambda: seen.append(count()))
        other.start()
        other.join()
    assert seen == [5]


# -- parts


@given(st.integers(1, 5))
def test_results_are_in_the_order_of_the_parts(n):
    def part(i):
        time.sleep(0.001 * (n - i))
        return i

    assert parallel(part, n) == list(range(n))


def test_each_part_has_a_thread_of_its_own_and_one_of_them_is_this_one():
    meeting = threading.Barrier(3, timeout=10)

    def part(i):
        meeting.wait()  # all three are here at once
        return threading.get_ident()

    found = parallel(part, 3)
    assert found[0] == threading.get_ident()
    assert len(set(found)) == 3


@pytest.mark.parametrize("bad", [{0}, {1}, {2}, {0, 2}, {1, 2}])
def test_an_exception_of_any_part_is_raised_when_all_have_ended(bad):
    ended = []

    def part(i):
        if i in bad:
            raise KeyError(i)
        time.sleep(0.01)
        ended.append(i)

    with pytest.raises(KeyError) as caught:
        parallel(part, 3)
    assert caught.value.args[0] == min(bad)
    assert sorted(ended) == sorted({0, 1, 2} - bad)
    assert parallel(lambda i: i, 3) == [0, 1, 2]
    assert threads._part.get() is None


def test_parts_and_results_are_let_go_when_all_is_done():
    class Kept(np.ndarray):  # can be watched
        pass

    def watched():
        array = np.ones(3).view(Kept)
        seen.append(weakref.ref(array))
        return array

    def part(i, shared):
        return shared, watched()

    seen = []
    parallel(functools.partial(part, shared=watched()), 3)
    assert len(seen) == 4
    assert not any(ref() is not None for ref in seen)


here = contextvars.ContextVar("here", default="nowhere")


def test_error_settings_and_context_variables_hold_in_every_part():
    token = here.set("inside")
    try:
        with np.errstate(divide="raise"):
            assert parallel(lambda i: (here.get(), np.geterr()["divide"]), 3) == 3 * [
                ("inside", "raise")
            ]

            def part(i):
                return np.ones(3) / (np.zeros(3) if i == 2 else 1)

            with pytest.raises(FloatingPointError):
                parallel(part, 3)
    finally:
        here.reset(token)


def test_a_part_changes_no_context_but_its_own():
    parallel(lambda i: i and here.set("changed"), 3)
    assert here.get() == "nowhere"


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_part_does_not_divide_its_work_again(n):
    def part(i):
        here_now = threading.get_ident()
        inner = parallel(lambda j: (i, j, threading.get_ident() == here_now), 2)
        shares = map_shares(lambda s: s, 10)
        return inner, shares, count()

    with limit_threads(3):
        for i, (inner, shares, seen) in enumerate(parallel(part, n)):
            if n > 1:
                assert inner == [(i, 0, True), (i, 1, True)]
                assert (shares, seen) == ([slice(0, 10)], 1)
        assert count() == 3


def test_several_threads_of_the_program_may_call_at_once():
    results = {}

    def work(k):
        results[k] = [parallel(lambda i: (k, i), 3) for _ in range(20)]

    callers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert results == {k: 20 * [[(k, 0), (k, 1), (k, 2)]] for k in range(4)}


# -- BLAS


def test_blas_has_one_thread_inside_and_as_many_as_before_afterwards(two_blas_threads):
    for n in (1, 3):
        inside = parallel(lambda i: blas_threads(), n)
        assert all(set(found) == {1} for found in inside)
        assert blas_threads() == two_blas_threads
        with pytest.raises(ZeroDivisionError):
            parallel(lambda i: 1 // 0, n)
        assert blas_threads() == two_blas_threads


def test_limited_limits_blas_too_and_puts_it_back(two_blas_threads):
    with pytest.raises(ZeroDivisionError), limit_threads(1):
        assert set(blas_threads()) == {1}
        parallel(lambda i: 0, 2)
        assert set(blas_threads()) == {1}
        raise ZeroDivisionError
    assert blas_threads() == two_blas_threads


OVERLAPPING = """
import threading, numpy, threadpoolctl
from minibn.fast.cpu.threads import one_blas_thread

def blas():
    return [i["num_threads"] for i in threadpoolctl.threadpool_info() if i["user_api"] == "blas"]

with threadpoolctl.threadpool_limits(2, user_api="blas"):
    pass  # leaves nobody in charge
before, inside = blas(), []
first_in, second_in = threading.Event(), threading.Event()

def first():
    with one_blas_thread():
        first_in.set()
        second_in.wait(10)
        inside.append(blas())

def second():
    first_in.wait(10)
    with one_blas_thread():
        second_in.set()
        callers[0].join(10)

callers = [threading.Thread(target=f) for f in (first, second)]
for caller in callers:
    caller.start()
callers[1].join(20)
assert all(n == 1 for n in inside[0]), inside
assert blas() == before, (blas(), before)
with one_blas_thread():
    assert all(n == 1 for n in blas())
assert blas() == before
"""


def test_blas_is_put_back_after_calls_that_overlap():
    """The first to come is the first to go. If the second put back what it found, that were 1."""
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    subprocess.run([sys.executable, "-c", OVERLAPPING], timeout=60, check=True, env=environment)


# -- processes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_computes_with_threads_of_its_own():
    code = (
        "import os, warnings\n"
        "warnings.simplefilter('ignore')\n"  # Python 3.12 warns of forks beside threads
        "from minibn.fast.cpu.threads import parallel\n"
        "assert parallel(lambda i: i, 3) == [0, 1, 2]\n"
        "child = os.fork()\n"
        "found = parallel(lambda i: i * i, 3)\n"
        "if child == 0:\n"
        "    os._exit(0 if found == [0, 1, 4] else 1)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0


# -- shares and blocks


@given(st.integers(0, 1000), st.integers(1, 20))
def test_shares_are_nearly_equal_runs_that_cover_all_in_order(n, k):
    cut = [share(n, i, k) for i in range(k)]
    assert [x for part in cut for x in range(n)[part]] == list(range(n))
    lengths = [part.stop - part.start for part in cut]
    assert max(lengths) - min(lengths) <= 1


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 50))
def test_blocks_cover_a_number_or_a_share_in_order(a, b, size):
    for things, expected in (
        (a, range(a)),
        (slice(min(a, b), max(a, b)), range(min(a, b), max(a, b))),
    ):
        cut = list(blocks(things, size))
        assert [x for part in cut for x in range(part.start, part.stop)] == list(expected)
        assert all(part.stop - part.start == size for part in cut[:-1])
        assert all(0 < part.stop - part.start <= size for part in cut)


@given(st.integers(0, 50), st.integers(0, 20), st.integers(1, 4))
def test_work_is_shared_out_to_no_more_threads_than_have_enough_to_do(n, least, limit):
    with limit_threads(limit):
        parts = map_shares(lambda part: part, n, least)
    assert [x for part in parts for x in range(n)[part]] == list(range(n))
    assert len(parts) <= limit
    if len(parts) > 1:
        assert min(part.stop - part.start for part in parts) >= least
