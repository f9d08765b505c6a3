"""Which check finds which mutant: our suite, and others' checkers, run one by one.

Every check is a list of trials for a case, and has found the mutant when one of them raises. It
must not raise for the right op on the same trials: a check that always raises would find
everything.
"""

from __future__ import annotations

import copy
import functools
import multiprocessing
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minibn.backend import get_backend
from minibn.testing.problem import Problem
from minibn.testing.tensors import check_gradients, check_problem, forward_and_vjp
from suite.laws import LAWS, RowLaw
from suite.mutants.mutant import MUTANTS, Mutant
from suite.mutants.peers import PEERS, Peer
from suite.mutants.problems import draw_examples, plain_problems
from suite.registry import CASES, Tied

Trial = Callable[[], Any]
SETS = ("plain", "drawn")
Findings = dict[str, dict[str, str | None]]  # set of problems -> check -> `finding`


@dataclass(frozen=True)
class Check:
    """A check: `trials(case, set)` are its runs for a case; none if it does not apply."""

    name: str
    kind: str  # "ours", "a law", or the kind of the peer
    mechanics: str
    trials: Callable[[str, str], Iterator[Trial]]


@functools.cache
def problems(case: str, which: str, examples: int) -> list[Problem]:
    return (
        plain_problems(case) if which == "plain" else draw_examples(CASES[case].problems, examples)
    )


def fresh(example: Any) -> Any:
    """A copy: some mutants write into their arguments."""
    return copy.deepcopy(example)


def over_problems(name: str, mechanics: str, ask: Callable[[Problem], Any], examples: int) -> Check:
    def trials(case: str, which: str) -> Iterator[Trial]:
        for problem in problems(case, which, examples):
            yield functools.partial(ask, fresh(problem))

    return Check(name, "ours", mechanics, trials)


def in_float32(problem: Problem) -> None:
    inputs = [x.astype(np.float32) for x in problem.inputs]
    check_gradients(
        problem.f,
        *inputs,
        seed=problem.seed,
        zero_gradient=problem.flat,
        allow_empty=True,
        diagnose=False,
    )


@functools.cache
def ties(case: str, examples: int) -> list[Tied]:
    kinks = CASES[case].kinks
    return [] if kinks is None else draw_examples(kinks, examples)


def check_promise(tied: Tied) -> None:
    """Raise unless the gradient at ties is the documented one."""
    problem = tied.problem
    c, (_, vjp) = problem.cotangent(), forward_and_vjp(problem.f)
    promised = tied.expected(c, *problem.inputs)
    for g, p in zip(vjp(c, *problem.inputs), promised, strict=True):
        np.testing.assert_allclose(g, p, rtol=1e-12, atol=1e-12)


def at_ties(case: str, which: str) -> Iterator[Trial]:
    for tied in ties(case, 10) if which == "drawn" else ():
        yield functools.partial(check_promise, fresh(tied))


def of_law(law: RowLaw, examples: int) -> Check:
    @functools.cache
    def points(case: str) -> list[Any]:
        return draw_examples(law.draw(case), examples)

    def trials(case: str, which: str) -> Iterator[Trial]:
        if which == "plain" or not law.applies_to(case):
            return
        about = () if law.subject is None else (law.subject(case),)
        for point in points(case):
            yield functools.partial(law, *about, fresh(point), get_backend("numpy"))

    return Check(law.name, "a law", law.sentence, trials)


def of_peer(peer: Peer, examples: int) -> Check:
    def trials(case: str, which: str) -> Iterator[Trial]:
        for problem in problems(case, which, examples):
            rng = np.random.default_rng((problem.seed, 5))
            inputs = fresh(problem.inputs)
            yield functools.partial(peer.check, *forward_and_vjp(problem.f), inputs, rng)

    return Check(peer.name, peer.kind, peer.mechanics, trials)


def our_suite(examples: int = 40, of_laws: int = 3) -> list[Check]:
    """Every check of ours, the general ones first. Laws that compare backends are left out: the
    mutants are written in NumPy."""
    return [
        over_problems(
            "gradient",
            "check_problem(order=1)",
            functools.partial(check_problem, diagnose=False),
            examples,
        ),
        over_problems(
            "order 2",
            "check_problem(order=2): Hessian-vector products, too",
            functools.partial(check_problem, order=2, diagnose=False),
            (examples + 1) // 2,
        ),
        over_problems("float32", "float32, judged against float64", in_float32, examples),
        Check("ties", "ours", "the promised gradient at exact ties, and at 0", at_ties),
        *(
            of_law(law, min(of_laws, law.examples))
            for law in LAWS.values()
            if law.group != "backends" and not CASES.keys().isdisjoint(law.over)
        ),
    ]


def their_checkers(examples: int = 40) -> list[Check]:
    """Every peer that is installed."""
    return [of_peer(peer, examples) for peer in PEERS.values() if peer.installed]


def finding(check: Check, case: str, which: str, mutant: Mutant | None = None) -> str | None:
    """The first error that the check raises for the mutant (for the right op, without one); "" for
    none, None if it does not apply here. An error that it raises for the right op, too, is no
    finding."""
    trials = list(check.trials(case, which))
    start, asked = 0, len(trials)
    while (complaint := _first(trials, start, asked, mutant)) is not None:
        index, message = complaint
        trials = list(check.trials(case, which))  # with fresh copies
        if mutant is None or _first(trials, index, index + 1, None) is None:
            return message
        start = index + 1
    return "" if asked else None


def _first(
    trials: list[Trial], start: int, stop: int, mutant: Mutant | None
) -> tuple[int, str] | None:
    """The first trial that raises, and its message."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        with mutant.applied() if mutant else nullcontext():
            for i in range(start, stop):
                try:
                    trials[i]()
                except Exception as error:  # any error counts as a finding
                    return i, " ".join(f"{type(error).__name__}: {error}".split())
    return None


# -- all of them


@dataclass
class MutationResults:
    """The result of every check for every mutant, and for every right op."""

    peers: list[Check]
    suite: list[Check]
    mutants: dict[str, Findings] = field(default_factory=dict)
    correct: dict[str, Findings] = field(default_factory=dict)

    @property
    def survivors(self) -> list[str]:
        """Mutants that no check of ours finds."""
        ours = {check.name for check in self.suite}
        return [name for name, results in self.mutants.items() if not killers(results, ours)]

    @property
    def false_alarms(self) -> list[str]:
        """Right ops for which a check of ours raises."""
        ours = {check.name for check in self.suite}
        return [case for case, results in self.correct.items() if killers(results, ours)]


def killers(results: Findings, among: Collection[str], sets: Iterable[str] = SETS) -> list[str]:
    """The checks that found something."""
    return [name for name in among if any(results[which].get(name) for which in sets)]


@functools.cache
def _checks(peers: bool, examples: int) -> tuple[list[Check], list[Check]]:
    return their_checkers(examples) if peers else [], our_suite(examples)


def _findings(name: str, of_mutant: bool, peers: bool, examples: int) -> Findings:
    """The result of every check for a mutant, or for the right op of a case."""
    mutant = MUTANTS[name] if of_mutant else None
    checks = [check for some in _checks(peers, examples) for check in some]
    case = mutant.case if mutant else name
    return {
        which: {check.name: finding(check, case, which, mutant) for check in checks}
        for which in SETS
    }


def run_mutants(
    mutants: Iterable[str] = (),
    cases: Iterable[str] = (),
    *,
    peers: bool = True,
    examples: int = 40,
    jobs: int = 1,
) -> MutationResults:
    """Run every check on these mutants, and on the right ops of these cases, in so many `jobs`."""
    result = MutationResults(*_checks(peers, examples))
    ask = functools.partial(_findings, peers=peers, examples=examples)
    wrong = list(mutants)
    names = [*wrong, *cases]
    is_wrong = [i < len(wrong) for i in range(len(names))]
    # Fresh processes: a fork of one that has threads may hang.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn) if jobs > 1 else nullcontext() as pool:
        found = pool.map(ask, names, is_wrong) if pool else map(ask, names, is_wrong)
        for i, findings in enumerate(found):
            progress(f"{i + 1} of {len(names)}  {names[i]}")
            (result.mutants if is_wrong[i] else result.correct)[names[i]] = findings
    progress("")
    return result


def progress(line: str) -> None:
    """The line in the place of the last one; nothing where nobody reads along."""
    if sys.stderr.isatty():
        print(f"\r{line:<75}" + ("" if line else "\r"), end="", file=sys.stderr, flush=True)
