"""Every law on everything that it is about; the registry of laws, its table, laws for others.

That each law can fail is shown in `test_laws_can_fail.py`.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from suite.laws import LAWS
from suite.laws.kernels import FAST, fast_points
from suite.laws.row_law import EVERY_LAYER, EVERY_OP, GROUPS, about, points_of
from suite.laws.row_law import law as register
from suite.mutants.problems import draw_examples
from support.backends import DEVICES, chosen

import minibn.testing
from minibn import Op, Tensor, grad, ops
from minibn.autograd.dispatch import kernels
from minibn.errors import GraphError
from minibn.fast.kernel import Kernel
from minibn.testing import Problem
from minibn.testing.commands.profiles import share
from minibn.testing.laws import LAWS as LAWS_ABOUT_ANYTHING
from minibn.testing.laws import check_laws, laws_page, make_op
from minibn.testing.laws.base import law as register_law
from minibn.testing.strategies import conv2d_problems
from minibn.testing.tensors import check_problem

PAIRS = [(law, case) for law in LAWS.values() for case in law.over]
ON_DEVICES = [law for law in LAWS.values() if law.devices]


@pytest.mark.parametrize("law, case", PAIRS, ids=[f"{law.name}-{case}" for law, case in PAIRS])
def test_law(law, case):
    with kernels("reference"):
        law.run(case)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("law", ON_DEVICES, ids=lambda law: law.name)
def test_law_on_devices(law, name):
    with chosen(name) as backend:
        for case in law.over:
            try:
                law.run(case, examples=share(2), backend=backend)
            except AssertionError as error:
                error.add_note(f"about {case}, on {name}")
                raise


# -- with kernels in the ops' places

BESIDE = [(law, case) for law, case in PAIRS if case in FAST and law.group != "kernels"]
THREE_BY_THREE = conv2d_problems("beyond", most=5, kernel=3, stride=1)


@pytest.mark.parametrize("law, case", BESIDE, ids=[f"{law.name}-{case}" for law, case in BESIDE])
def test_law_with_kernels(law, case):
    if law.draw is points_of:
        law = replace(law, draw=fast_points)
    elif law.group == "convolution" and law.name != "unseen_pixels_do_nothing":  # needs strides
        law = replace(law, draw=lambda case: THREE_BY_THREE | LAWS[law.name].draw(case))
    with kernels("always"):
        law.run(case, examples=share(4))


@pytest.mark.parametrize("case", FAST)
def test_the_gradient_is_right_with_kernels(case):
    @settings(max_examples=share(12))
    @given(fast_points(case))
    def check(problem):
        check_problem(problem)

    with kernels("always"):
        check()


def test_the_law_of_kernels_is_about_every_row_in_which_one_runs(monkeypatch):
    ran = set()

    def spy(self, op):
        self.op = op
        if isinstance(op, Op):
            ran.add(case)

    monkeypatch.setattr(Kernel, "__init__", spy)
    for case in EVERY_OP + EVERY_LAYER:
        with kernels("always"):
            for problem in draw_examples(points_of(case), 6):
                problem.f(*problem.inputs)
    assert ran == set(FAST), "name the row in laws/kernels.py, beside its op"


def test_the_table_in_the_docs_is_the_one_that_the_laws_make():
    written = Path(minibn.testing.__file__).with_name("LAWS.md").read_text(encoding="utf-8")
    page = laws_page(LAWS_ABOUT_ANYTHING.values())
    assert written == page, "run: python -m minibn.testing.laws > minibn/testing/LAWS.md"


def test_the_table_of_a_checkout_has_every_law_and_says_what_it_is_about():
    page = laws_page(LAWS.values(), about)
    assert all(f"`{name}` |" in page for name in LAWS)
    assert f"anything; tested on {len(EVERY_OP)} ops and {len(EVERY_LAYER)} layers" in page
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == list(
        dict.fromkeys(law.group for law in LAWS.values())
    )


def test_every_group_has_laws_and_every_law_is_one_sentence():
    assert {law.group for law in LAWS.values()} == set(GROUPS)
    for law in LAWS.values():
        assert law.sentence.endswith("."), law.name
        assert law.sentence.count(". ") == 0, law.name
        assert law.over, law.name


def test_every_op_and_every_layer_is_put_through_the_laws_about_anything():
    generic = [law for law in LAWS.values() if law.generic]
    assert len(generic) >= 20
    for law in generic:
        assert all(law.applies_to(case) for case in EVERY_OP + EVERY_LAYER)


def test_a_law_about_other_cases_says_so():
    with pytest.raises(ValueError, match="is not about 'conv2d'"):
        LAWS["input_gradients_sum_to_zero"].run("conv2d")


def test_laws_have_unique_names_and_known_groups():
    def linear_in_the_cotangent(problem, backend):
        pass

    with pytest.raises(ValueError, match="registered already"):
        register_law("graph", "It is.")(linear_in_the_cotangent)
    with pytest.raises(ValueError, match="registered already"):
        register("graph", "It is.", over=EVERY_OP)(linear_in_the_cotangent)
    with pytest.raises(ValueError, match="group 'grph' is unknown"):
        register("grph", "It is.", over=EVERY_OP)


# -- for others


def normalise(x):
    """Somebody's own layer, made of ops: each row to length one."""
    return x / ops.norm(x, axis=-1, keepdims=True)


def test_somebody_elses_op_is_put_through_the_laws_about_anything(backend):
    x = np.random.default_rng(0).standard_normal((3, 4))
    check_laws(Problem(normalise, (x,)), backend)


def softplus(x):
    return np.log1p(np.exp(x))


def test_a_function_with_a_hand_written_vjp_is_put_through_them_too():
    x = np.random.default_rng(0).standard_normal((3, 4))
    right = make_op(softplus, lambda g, x: g / (1 + np.exp(-x)))
    check_laws(Problem(right, (x,)), without=("backends", "second order"))


def into_the_cotangent(g, x):
    g /= 1 + np.exp(-x)
    return g


@pytest.mark.parametrize(
    "vjp, name",
    [
        (lambda g, x: g * g / (1 + np.exp(-x)), "linear_in_the_cotangent"),
        (into_the_cotangent, "nothing_is_modified"),
        (lambda g, x: g.astype(float) / (1 + np.exp(-x)), "dtype_in_is_dtype_out"),
        (lambda g, x: (g / (1 + np.exp(-x))).sum(0), "the_shape_of_the_input"),
    ],
)
def test_what_is_broken_is_told_by_name_and_sentence(vjp, name):
    x = np.random.default_rng(0).standard_normal((3, 4))
    problem = Problem(make_op(softplus, vjp), (x,))
    with pytest.raises(AssertionError, match=f"laws are broken(.|\n)*\\[{name}\\]") as caught:
        check_laws(problem, without=("backends", "second order"))
    assert LAWS[name].sentence in str(caught.value)


def test_somebody_elses_op_can_be_put_through_the_laws_about_an_op_of_ours():
    def without_the_variance_term(g, x, gamma, beta, eps):
        axes = tuple(range(x.ndim - 1))
        s = 1 / np.sqrt(x.var(axes) + eps)
        x_hat = (x - x.mean(axes)) * s
        return gamma * s * (g - g.mean(axes)), (g * x_hat).sum(axes), g.sum(axes)

    def wrong(x, gamma, beta, *, eps):
        f = make_op(
            lambda *inputs: ops.batch_norm(*inputs, eps=eps),
            lambda g, *inputs: without_the_variance_term(g, *inputs, eps),
        )
        return f(x, gamma, beta)

    LAWS["input_gradients_sum_to_zero"].run("batch_norm", subject=wrong)
    with pytest.raises(AssertionError, match="⟨x̄, x̂⟩"):
        LAWS["orthogonal_to_x_hat_up_to_eps"].run("batch_norm", subject=wrong)


def test_what_is_to_be_left_out_must_exist():
    problem = Problem(ops.exp, (np.ones(3),))
    with pytest.raises(ValueError, match="'backend'"):
        check_laws(problem, without=("backend",))


def test_a_walk_over_a_released_graph_raises_even_where_zeros_would_do():
    x = Tensor(np.ones(2), requires_grad=True)
    y = x * x
    grad(y, x, np.ones(2))
    with pytest.raises(GraphError, match="released"):
        grad(y, x, np.ones(2), unused="zeros")
