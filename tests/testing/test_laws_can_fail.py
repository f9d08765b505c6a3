"""A law that can't fail is worse than none: each has a fault, beside it in `tests/suite/laws/`."""

import pytest
from suite.laws import FAULTS, LAWS

from minibn.autograd import tape
from minibn.autograd.dispatch import kernels
from minibn.backend import get_backend

# A fault must break its law, and not fall over a slip of its own.
BROKEN = r"law broken: .*\n  \[\w+\] (?!TypeError|AttributeError|NameError)"
PATCHES = [name for name, fault in FAULTS.items() if fault.patch]


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.problem])
def test_an_op_that_breaks_it_breaks_the_law(name):
    with pytest.raises(AssertionError, match=BROKEN):
        LAWS[name](FAULTS[name].problem, get_backend("numpy"))


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.subject])
def test_a_wrong_stand_in_breaks_the_law(name):
    with pytest.raises(AssertionError, match=BROKEN):
        LAWS[name].run(FAULTS[name].case, subject=FAULTS[name].subject, shrink=False)


@pytest.mark.parametrize("name", PATCHES)
def test_a_fault_planted_in_minibn_breaks_the_law(name, monkeypatch):
    target, attribute, value = FAULTS[name].patch
    monkeypatch.setattr(target, attribute, value, raising=attribute != "reversed")
    try:
        with kernels("reference"), pytest.raises(AssertionError, match=BROKEN):
            LAWS[name].run(FAULTS[name].case, shrink=False)  # no kernel in place of what is broken
    finally:
        tape.grad_enabled.set(True)


def test_each_law_has_a_fault_of_one_kind():
    assert set(FAULTS) == set(LAWS), "add_faults(...), in the file of the law"
    for name, fault in FAULTS.items():
        assert bool(fault.problem) + bool(fault.subject) + bool(fault.patch) == 1, name
