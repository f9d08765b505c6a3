"""The registry: every op and every layer is in it, and what it says of each of them is true."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from suite.registry import CASES, LAYERS

from minibn import Tensor, grad, nn
from minibn.backend import get_backend, to_numpy, use
from minibn.testing.commands.profiles import share
from minibn.testing.layer_problem import call
from minibn.testing.problem import Problem
from minibn.testing.tensors import check_problem

ROWS = {**CASES, **LAYERS}
KINKS = {name: case for name, case in CASES.items() if case.kinks is not None}


def each(rows):
    return pytest.mark.parametrize("case", rows.values(), ids=rows.keys())


def examine(strategy, check, examples=25):
    """Random with `HYPOTHESIS_PROFILE=dev`, like every test."""
    settings(max_examples=share(examples))(given(strategy)(check))()


def counted(strategy, label, examples=200):
    """How often each label is given: the same examples on every run."""
    counts = Counter()

    @settings(max_examples=examples, derandomize=True, database=None, phases=[Phase.generate])
    @given(strategy)
    def count(example):
        counts.update(label(example))

    count()
    return counts


def as_problem(drawn):
    return drawn if isinstance(drawn, Problem) else drawn.problem()


def gradients(problem, inputs, cotangent, backend="numpy"):
    found = get_backend(backend)
    leaves = [Tensor(found.asarray(x), requires_grad=True) for x in inputs]
    g = grad(problem.f(*leaves), leaves, found.asarray(cotangent), unused="zeros")
    return [to_numpy(each) for each in g]


# -- what a row draws


@each(LAYERS)
def test_a_layer_row_draws_that_layer(case, request):
    name = request.node.callspec.id
    counts = counted(case.problems, lambda drawn: [type(drawn.layer).__name__], examples=10)
    assert set(counts) == {name}


# -- kinks


@each(KINKS)
def test_at_a_tie_the_gradient_is_what_the_documentation_promises(case):
    def check(tied):
        problem, c = tied.problem, tied.problem.cotangent()
        expected = tied.expected(c, *problem.inputs)
        for ours, promised in zip(gradients(problem, problem.inputs, c), expected, strict=True):
            assert ours.shape == promised.shape
            np.testing.assert_allclose(ours, promised, rtol=1e-13, atol=1e-14)

    examine(case.kinks, check, examples=50)
    assert case.convention


def on_the_kink(tied):
    """Whether another convention would give another gradient: whether f is not smooth here."""
    problem, c, rng = tied.problem, tied.problem.cotangent(), tied.problem.rng()
    along = [rng.standard_normal(x.shape) for x in problem.inputs]

    def ahead(h):
        moved = [x + h * u for x, u in zip(problem.inputs, along, strict=True)]
        return np.sum(c * (problem.f(*moved) - problem.f(*problem.inputs))) / h

    return [abs(ahead(1e-6) - ahead(-1e-6)) > 1e-3]


@each(KINKS)
def test_most_tied_problems_are_on_a_kink(case):
    assert counted(case.kinks, on_the_kink)[True] > 100


# -- the complex step


@each(CASES)
def test_the_complex_step_serves_at_most_points(case):
    """It is the exact oracle, and an op loses it in silence whose value takes np.abs or np.var of
    complex numbers: the other oracles serve, with fewer digits."""

    def label(drawn):
        report = check_problem(as_problem(drawn))
        return [x.how.partition(",")[0] for x in report.inputs if x.verdict == "agrees"]

    counts = counted(case.problems, label, examples=20)
    assert counts["complex step"] > 0.8 * counts.total() > 0, f"{counts}: use real(), xp.where"


# -- linearity


def sums(problem, group):
    """c·J(u+v), c·J(u) + c·J(v) and the size of their terms, for J = f - f(0) in that group."""
    rng, c = problem.rng(), problem.cotangent()
    u, v = ({i: rng.standard_normal(problem.inputs[i].shape) for i in group} for _ in range(2))

    def at(step):
        inputs = [step.get(i, x) for i, x in enumerate(problem.inputs)]
        return c * np.asarray(problem.f(*inputs))

    zero = at({i: np.zeros_like(problem.inputs[i]) for i in group})
    both, one, other = at({i: u[i] + v[i] for i in group}), at(u), at(v)
    size = sum(np.abs(y).sum() for y in (zero, both, one, other))
    return (both - zero).sum(), (one + other - 2 * zero).sum(), size


@each({name: case for name, case in ROWS.items() if case.linear})
def test_an_op_is_linear_where_its_row_says_so_and_its_gradient_is_the_adjoint(case):
    def check(drawn):
        problem = as_problem(drawn)
        c, rng = problem.cotangent(), problem.rng()
        g = gradients(problem, problem.inputs, c)
        for group in case.linear_in(problem):
            together, apart, size = sums(problem, group)
            assert abs(together - apart) <= 1e-12 * size
            u = [
                rng.standard_normal(x.shape) if i in group else x
                for i, x in enumerate(problem.inputs)
            ]
            zero = [0 * x if i in group else x for i, x in enumerate(problem.inputs)]
            image, origin = c * np.asarray(problem.f(*u)), c * np.asarray(problem.f(*zero))
            pulled = sum((g[i] * u[i]).sum() for i in group)
            scale = np.abs(image).sum() + np.abs(origin).sum()
            assert abs((image - origin).sum() - pulled) <= 1e-12 * scale + 1e-13

    examine(case.problems, check)


@each(ROWS)
def test_where_an_op_is_linear_its_row_says_so(case):
    """Each input outside the declared groups has an example in which sums are not kept."""
    declared = {i for group in case.linear for i in group}

    def label(drawn):
        problem = as_problem(drawn)
        for i in set(range(len(problem.inputs))) - declared:
            together, apart, size = sums(problem, (i,))
            yield i, abs(together - apart) <= 1e-9 * size

    with np.errstate(all="ignore"):
        counts = counted(case.problems, label, examples=100)
    for i, linear in counts:
        assert not linear or (i, False) in counts, f"linear in input {i}, which is not declared"


# -- precision


@each(ROWS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_lower_precision_keeps_the_digits_that_are_declared(case, dtype):
    promised = case.digits_of(dtype)

    def check(drawn):
        problem = as_problem(drawn)
        rng, c = problem.rng(), problem.cotangent().astype(dtype)
        rounded = problem.astype(dtype).inputs
        wide = [x.astype(float) for x in rounded]
        exact = gradients(problem, wide, c.astype(float))
        others = [gradients(problem, wide, rng.standard_normal(c.shape)) for _ in range(4)]
        for i, ours in enumerate(gradients(problem, rounded, c)):
            assert ours.dtype == dtype
            scale = max(np.abs(g[i]).max(initial=0) for g in (exact, *others))
            error = np.abs(ours.astype(float) - exact[i]).max(initial=0)
            assert promised is None or error <= 10**-promised * scale, f"input {i}"

    if promised is None:
        with np.errstate(all="ignore"):
            examine(case.problems, check, examples=5)
    else:
        examine(case.problems, check, examples=15)


# -- layers


@each(LAYERS)
@pytest.mark.parametrize("backend", ["numpy", "strict"])
def test_the_gradient_of_every_layer_is_right_in_its_input_and_its_parameters(case, backend):
    def check(drawn):
        check_problem(drawn.problem(), backend)

    with use(backend):
        examine(case.problems, check, examples=10)


@each(LAYERS)
def test_a_layer_as_a_function_gives_what_the_layer_gives_and_leaves_no_trace(case):
    def check(drawn):
        problem, layer = drawn.problem(), drawn.layer
        before = layer.state_dict()
        once, again = problem.f(*problem.inputs), problem.f(*problem.inputs)
        np.testing.assert_array_equal(once, again)
        assert len(drawn.names) == len(problem.inputs)
        for name, values in layer.state_dict().items():
            np.testing.assert_array_equal(values, before[name])
        np.testing.assert_array_equal(layer(drawn.x) if not layer.parameters()
                                      else layer(drawn.x).numpy(), once)  # fmt: skip
        moves = any((v != before[k]).any() for k, v in layer.state_dict().items())
        assert moves == (layer.training and (case.stateful or case.draws))

    examine(case.problems, check, examples=15)


def test_a_layer_as_a_function_is_restored_after_an_exception():
    layer = nn.Linear(2, 3).initialize(0, np.float64)
    weight = layer.weight
    with pytest.raises(Exception, match="expects 2 inputs"):
        call(np.ones((1, 5)), np.ones((2, 3)), np.ones(3), layer=layer)
    assert layer.weight is weight


@each(LAYERS)
def test_layers_are_drawn_in_both_modes_with_no_trivial_parameter(case):
    def label(drawn):
        yield "training" if drawn.layer.training else "eval"
        for name, p in drawn.layer.named_parameters():
            assert p.dtype == np.float64
            if not np.isin(p.data, (0, 1)).all():
                yield name

    counts = counted(case.problems, label, examples=60)
    assert all(n >= 10 for n in counts.values()), counts
    assert set(counts) >= {"training", "eval"}
