"""The laws about anything, over every row of the registry; and a fault for each."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from minibn import Op, Tensor, apply, ops
from minibn.autograd import backward, tape
from minibn.ops.arithmetic import Add
from minibn.setting import Override
from minibn.testing.laws.base import add_law
from minibn.testing.problem import Problem
from suite.laws.faults import Fault, add_faults
from suite.laws.row_law import LAWS, LAWS_ABOUT_ANYTHING, RowLaw, points_of
from suite.registry import CASES


def points_of_one_shape(case: str) -> st.SearchStrategy[Problem]:
    """The op's problems; where inputs broadcast, with the first one's shape in every place."""

    def repeat_first(problem: Problem) -> Problem:
        return Problem(problem.f, problem.inputs[:1] * len(problem.inputs), problem.seed)

    broadcasts = case == "mse" or (case in CASES and CASES[case].operands == 2)
    return points_of(case).map(repeat_first) if broadcasts else points_of(case)


for each in LAWS_ABOUT_ANYTHING.values():
    drawn = points_of_one_shape if each.name == "both_places_add_up" else points_of
    add_law(LAWS, RowLaw(**vars(each), draw=drawn))


# -- faults

X = np.random.default_rng(0).standard_normal((3, 4))
Y = np.random.default_rng(1).standard_normal((3, 4))


def expo(vjp, forward=np.exp):
    """exp with this vjp(g, out)."""

    class Broken(Op):
        needs_output = True

        def forward(self, x):
            return forward(x)

        def vjp(self, g, out, x):
            return vjp(g, out)

    return Problem(lambda x: apply(Broken(), x), (X,))


def into(g, out):
    g *= 2
    return g * out


def by_chance(x):
    return np.exp(x) + np.random.default_rng().random() * 1e-9


def counted(g, out, calls=[]):  # noqa: B006  it remembers on purpose
    calls.append(1)
    return g * out * len(calls)


def in_memory_order(x):
    return np.exp(x.ravel(order="K").reshape(x.shape))


def by_identity(x, y):
    return x * tape.value(x) if x is y else x * y


def unequal(x):
    return ops.exp(x) * (1 + 1e-12 * isinstance(x, Tensor))


def unlike_numpy(x):
    return ops.exp(x) * (1.0 if isinstance(tape.value(x), np.ndarray) else 1.001)


def own_nothing(g, owned):
    return Tensor(tape.value(g))


def forgetful(self, *error):
    """An `Override.__exit__` that doesn't restore after an exception."""
    if error == (None, None, None):
        self.setting.set(self._before.pop())


add_faults(
    linear_in_the_cotangent=Fault(problem=expo(lambda g, out: g * g * out)),
    zero_at_the_zero_cotangent=Fault(problem=expo(lambda g, out: g * out + 1e-3)),
    finite_where_the_value_is=Fault(problem=expo(lambda g, out: g * np.inf)),
    both_places_add_up=Fault(problem=Problem(by_identity, (X, X))),
    nothing_is_modified=Fault(problem=expo(into)),
    memory_layout_changes_nothing=Fault(problem=expo(lambda g, out: g * out, in_memory_order)),
    zero_strides_change_nothing=Fault(
        problem=expo(lambda g, out: g * out * (2 if 0 in g.strides else 1))
    ),
    dtype_in_is_dtype_out=Fault(problem=Problem(lambda x: x * np.ones(4), (X,))),
    the_same_bits_twice=Fault(problem=expo(lambda g, out: g * out, by_chance)),
    the_value_is_the_same=Fault(problem=Problem(unequal, (X,))),
    fan_out_adds_up=Fault(problem=expo(lambda g, out: np.clip(g, -1, 1) * out)),
    unused_results_change_nothing=Fault(problem=expo(counted)),
    as_on_numpy=Fault(problem=Problem(unlike_numpy, (X,))),
    backends_do_not_mix=Fault(problem=Problem(lambda x, y: x * 1, (X, Y))),
    hessian_symmetry=Fault(problem=expo(lambda g, out: tape.value(g) * out)),
    the_derivative_of_the_gradient=Fault(problem=expo(lambda g, out: g * tape.value(out))),
    the_shape_of_the_input=Fault("add", patch=(backward, "_fit", lambda g, *_: g)),
    nothing_is_shared=Fault("add", patch=(backward, "_own", own_nothing)),
    detached_inputs_get_nothing=Fault("exp", patch=(Tensor, "detach", lambda self: self)),
    diamonds_add_up=Fault("exp", patch=(Add, "vjp", lambda self, g, out, x, y: (g, None))),
    a_second_walk=Fault("exp", patch=(tape.Node, "release", lambda self: None)),
    exceptions_leave_no_trace=Fault("exp", patch=(Override, "__exit__", forgetful)),
)
