"""The catalogue of wrong gradients is one, and our suite finds every mistake in it."""

import functools
import json
from collections import Counter

import numpy as np
import pytest
from suite.functions import FUNCTIONS, RIGHT, WRONG
from suite.mutants import FAMILIES, MUTANTS, kill
from suite.mutants.mutant import wrong
from suite.mutants.problems import draw_examples, plain_problems
from suite.mutants.run import finding, fresh, our_suite, over_problems, problems, run_mutants, ties
from suite.registry import CASES

from minibn import Tensor, grad, ops
from minibn.autograd.dispatch import kernels
from minibn.ops.elementwise import Exp
from minibn.testing.tensors import gradient_and_vjp

EVERY_MUTANT = pytest.mark.parametrize("name", MUTANTS)
SUITE = our_suite()


def test_there_are_more_than_sixty_mutants_and_some_of_every_family():
    of_family = Counter(mutant.family for mutant in MUTANTS.values())
    assert len(MUTANTS) >= 60
    assert set(of_family) == set(FAMILIES)
    assert min(of_family.values()) >= 5


def test_every_mutant_says_its_mistake_and_names_an_op():
    for mutant in MUTANTS.values():
        assert mutant.sentence.endswith("."), mutant.name
        assert mutant.case in CASES, mutant.name


# -- a mutant is wrong, and only for a while


def traces(problem):
    """All that can be seen of an op at a point: value, gradients, what became of what went in."""
    for dtype in (np.float64, np.float32):
        inputs = [x.astype(dtype) for x in problem.inputs]
        c = problem.cotangent().astype(dtype)
        leaves = [Tensor(x, requires_grad=True) for x in inputs]
        y = problem.f(*leaves)
        found = [g.data for g in grad(y, leaves, c, unused="zeros")]
        for array in (y.data, *found, *inputs, c):
            yield array.dtype, array.shape, array.tobytes()
        yield [np.shares_memory(a, b) for a in found for b in (c, *found) if a is not b]
    _, second = gradient_and_vjp(problem.f)
    arrays = (*problem.inputs, problem.cotangent())
    v = np.random.default_rng(0).standard_normal(sum(x.size for x in arrays))
    yield [h.tobytes() for h in second(v, *arrays)]


def seen(point):
    try:
        with np.errstate(all="ignore"), kernels("reference"):
            return list(traces(fresh(point)))
    except Exception as error:  # an error can be seen, too
        return type(error).__name__


@functools.cache
def points_of(case, kink):
    points = [tied.problem for tied in ties(case, 10)] if kink else problems(case, "drawn", 80)
    return [(point, seen(point)) for point in points]


@pytest.mark.filterwarnings("ignore")
@EVERY_MUTANT
def test_a_mutant_changes_something_that_can_be_seen(name):
    mutant = MUTANTS[name]
    points = points_of(mutant.case, mutant.kink)
    with mutant.applied():
        changed = next(((p, right) for p, right in points if seen(p) != right), None)
    assert changed, mutant.sentence
    point, right = changed
    assert seen(point) == right, "it is still wrong afterwards"


@EVERY_MUTANT
def test_nothing_stays_patched_not_even_after_an_exception(name):
    mutant = MUTANTS[name]
    before = dict(vars(mutant.target))
    with pytest.raises(ZeroDivisionError), mutant.applied():
        assert any(vars(mutant.target)[k] is not before.get(k) for k in mutant.changes)
        mutant.target.left_behind = 1
        raise ZeroDivisionError
    assert dict(vars(mutant.target)) == before


def test_two_mutants_of_one_name_are_refused():
    def exp_gives_zeros(self, g, out, x):
        """Once more."""

    with pytest.raises(ValueError, match="exp_gives_zeros"):
        wrong(Exp, "exp")(exp_gives_zeros)


# -- the suite


def most_likely_first(mutant):
    """The checks, those that were made for such a mistake before the others."""
    first = "ties" if mutant.kink else "order 2" if mutant.order == 2 else "gradient"
    return sorted(SUITE, key=lambda check: check.name != first)


@EVERY_MUTANT
def test_our_suite_kills(name):
    mutant = MUTANTS[name]
    checks = most_likely_first(mutant)
    assert any(finding(check, mutant.case, "drawn", mutant) for check in checks), mutant.sentence


def test_what_is_said_of_the_right_op_too_is_no_finding():
    def always(problem):
        raise AssertionError("as always")

    grumbler = over_problems("grumbler", "", always, 5)
    assert finding(grumbler, "exp", "plain") == "AssertionError: as always"
    assert finding(grumbler, "exp", "plain", MUTANTS["exp_gives_zeros"]) == ""


def test_mutants_that_only_unusual_problems_show_survive_the_usual_ones():
    gradient = SUITE[0]
    for name in ("max_pool2d_overwrites_overlaps", "conv2d_aligns_the_remainder_at_the_end"):
        mutant = MUTANTS[name]
        assert finding(gradient, mutant.case, "plain", mutant) == ""
        assert finding(gradient, mutant.case, "drawn", mutant)


def test_drawn_problems_are_always_the_same_and_not_all_alike():
    one, two = (draw_examples(CASES["sum"].problems, 20) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.inputs[0], b.inputs[0])
    assert len({p.inputs[0].tobytes() for p in one}) > 12


def test_plain_batch_norm_is_a_fresh_layer():
    for problem in plain_problems("batch_norm"):
        _, gamma, beta = problem.inputs
        assert (gamma == 1).all()
        assert (beta == 0).all()


# -- the command


def test_the_command_prints_who_kills_whom(capsys, tmp_path):
    file = tmp_path / "kill.json"
    code = kill.main(["--case", "exp", "--no-peers", "--examples", "3", "--json", str(file)])
    text = capsys.readouterr().out
    data = json.loads(file.read_text())
    assert code == 0
    assert "elementwise: exp_gives_zeros" in text
    assert "the whole suite" in text
    assert "--case exp" in text
    assert f"numpy {np.__version__}" in text
    assert set(data["mutants"]) == {n for n, m in MUTANTS.items() if m.case == "exp"}
    said = data["mutants"]["exp_gives_zeros"]["said"]
    assert said["plain"]["gradient"].startswith(("GradientError", "Vacuous"))
    assert data["correct"]["exp"]["drawn"]["gradient"] == ""


def test_two_processes_find_what_one_finds():
    one, two = (
        run_mutants(["exp_gives_zeros"], ["exp"], peers=False, examples=2, jobs=jobs)
        for jobs in (1, 2)
    )
    assert (one.mutants, one.correct) == (two.mutants, two.correct)


def test_a_single_mutant_is_told_in_full(capsys):
    kill.main(["--mutant", "sqrt_loses_the_half", "--no-peers", "--examples", "3", "--markdown"])
    text = capsys.readouterr().out
    assert "sqrt_loses_the_half (sqrt): 1/z for 1/2z." in text
    assert "| gradient | ours |" in text


@pytest.mark.parametrize("flag, name, near", [("--mutant", "sqrt_loses", "sqrt_loses_the_half"),
                                              ("--case", "batchnorm", "batch_norm")])  # fmt: skip
def test_a_misspelt_name_shows_the_near_miss(flag, name, near, capsys):
    with pytest.raises(SystemExit) as stop:
        kill.main([flag, name])
    assert stop.value.code == 2
    assert near in capsys.readouterr().err


def test_what_is_not_installed_is_said(monkeypatch, capsys):
    monkeypatch.setattr("suite.mutants.peers.importlib.util.find_spec", lambda name: None)
    kill.main(["--mutant", "exp_gives_zeros", "--examples", "1"])
    text = capsys.readouterr().out
    assert "skipped: torch gradcheck: torch is not installed" in text
    assert "skipped: HIPS check_grads: autograd is not installed" in text


def test_ops_compute_what_they_did_before():
    np.testing.assert_array_equal(ops.exp(np.zeros(2)), np.ones(2))


def test_the_command_runs_on_the_catalogue_of_functions(capsys, tmp_path):
    file = tmp_path / "kill.json"
    kill.main(["--catalogue", "functions", "--no-peers", "--examples", "1", "--json", str(file)])
    text = capsys.readouterr().out
    data = json.loads(file.read_text())["functions"]
    assert f"{len(WRONG)} wrong gradients of {len(FUNCTIONS)} NumPy functions" in text
    assert "check_vjp" in text
    assert set(data["wrong"]) == set(WRONG)
    assert set(data["right"]) == set(RIGHT)
    assert data["wrong"]["gelu_without_the_density"]["by_hand"]["check_vjp"]
    assert data["right"]["gelu"]["complaints"]["check_vjp"] == ""
