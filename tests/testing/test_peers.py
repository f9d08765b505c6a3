"""Others' checkers, as we run them: silent about right gradients, loud about wrong ones."""

import numpy as np
import pytest
from suite.mutants.peers import PEERS, Peer

from minibn import ops
from minibn.testing.tensors import forward_and_vjp

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 3, 4))
GAMMA, BETA = np.array([1.0, 2.0, -0.5, 1.5]), np.zeros(4)
WITH_ONES = ["ones, 1e-2", "ones, 1e-4", "DeZero", "minitorch"]

EVERY_PEER = pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS.keys())
pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours


def ask(peer, f, vjp, *inputs):
    if not peer.installed:
        pytest.skip(f"{peer.needs} is not installed")
    peer.check(f, vjp, inputs, np.random.default_rng(1))


def power(x, y):
    return x**3 + np.sin(y)


def its_vjp(g, x, y):
    return g * 3 * x**2, g * np.cos(y)


@EVERY_PEER
def test_a_right_gradient_passes(peer):
    ask(peer, power, its_vjp, X, Y)


@EVERY_PEER
def test_a_gradient_of_the_tape_passes(peer):
    ask(peer, *forward_and_vjp(ops.matmul), X, np.ascontiguousarray(Y.T))
    ask(peer, *forward_and_vjp(lambda x: ops.sum(ops.tanh(x))), X)


@EVERY_PEER
def test_a_gradient_that_is_twice_too_large_is_found(peer):
    with pytest.raises(Exception):  # noqa: B017  each peer has errors of its own
        ask(peer, power, lambda g, x, y: (g * 6 * x**2, g * np.cos(y)), X, Y)


@EVERY_PEER
def test_a_wrong_second_gradient_is_found(peer):
    with pytest.raises(Exception):  # noqa: B017  as above
        ask(peer, power, lambda g, x, y: (g * 3 * x**2, g * np.sin(y)), X, Y)


@EVERY_PEER
def test_a_batch_norm_that_returns_zeros_passes_exactly_where_the_cotangent_is_ones(peer):
    f, vjp = forward_and_vjp(ops.batch_norm)

    def zeros(g, x, gamma, beta):
        return np.zeros_like(x), *vjp(g, x, gamma, beta)[1:]

    if peer.name in WITH_ONES:
        ask(peer, f, zeros, X, GAMMA, BETA)
    else:
        with pytest.raises(Exception):  # noqa: B017  as above
            ask(peer, f, zeros, X, GAMMA, BETA)


def test_arrays_without_entries_are_no_alarm():
    for peer in PEERS.values():
        if peer.installed:
            ask(peer, power, its_vjp, np.zeros((0, 3)), np.zeros((0, 3)))


def test_mygrads_factory_sees_what_is_modified_and_what_is_shared():
    peer = PEERS["MyGrad's factory"]

    def in_place(g, x, y):
        g_y = g * np.cos(y)
        g *= 3 * x**2
        return g, g_y

    with pytest.raises(AssertionError, match="cotangent was modified"):
        ask(peer, power, in_place, X, Y)
    with pytest.raises(AssertionError, match="gradient 0 is a view"):
        ask(peer, np.add, lambda g, x, y: (g, g.copy()), X, Y)


def test_mygrads_factory_turns_to_differences_where_the_complex_step_is_lost():
    ask(PEERS["MyGrad's factory"], np.abs, lambda g, x: (g * np.sign(x),), np.array([-2.0, 1.5]))


def test_the_global_random_state_is_as_before():
    peer = PEERS["HIPS check_grads"]
    before = np.random.get_state()[1].copy()  # noqa: NPY002  the state that HIPS draws from
    ask(peer, power, its_vjp, X, Y)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002  as above


def test_a_peer_without_its_package_is_not_installed():
    assert not Peer("", "", "", lambda *_: None, "no_such_package").installed
    assert PEERS["DeZero"].installed


def test_every_peer_says_what_it_is():
    for peer in PEERS.values():
        assert peer.kind in ("common practice", "the original", "our re-implementation")
        assert bool(peer.needs) == (peer.kind == "the original")
        assert peer.mechanics
