"""The catalogue of strangers" functions: every wrong gradient is found, no right one is wrong."""

import inspect
from collections import Counter

import numpy as np
import pytest
from suite.functions import FAMILIES, FUNCTIONS, RIGHT, WRONG
from suite.functions.function import function
from suite.functions.run import complaint, copied, finding, points_of

from minibn.testing import check_vjp

# Found or right only at some seeds, so these are tried at 20.
MANY_SEEDS = ("kinks", "thresholds", "ties", "precision", "state")
# What check_vjp does not find yet, and what it complains about.
MISSED: set[str] = set()
ALARMS: set[str] = set()


def still(names, name):
    """A strict xfail for a name of the list, so that the list only shrinks."""
    marks = [pytest.mark.xfail(strict=True, reason="not yet")] if name in names else []
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [still(MISSED, name) for name in WRONG])
def test_a_wrong_gradient_is_found(name):
    wrong = WRONG[name]
    for seed in range(20 if wrong.of.family in MANY_SEEDS else 1):
        assert finding(wrong, points_of(wrong), seed=seed), f"seed {seed}: {wrong.sentence}"


@pytest.mark.parametrize("name", [still(ALARMS, name) for name in RIGHT])
def test_a_right_gradient_is_not_called_wrong(name):
    right = RIGHT[name]
    for seed in range(3):
        said = complaint(right, points_of(right), seed=seed)
        assert not said, f"seed {seed}: {said}\n{right.why}"


def test_the_catalogue_has_many_of_every_family():
    assert len(WRONG) >= 110
    assert len(RIGHT) >= 120
    assert {f.family for f in FUNCTIONS.values()} == set(FAMILIES)
    assert min(Counter(w.of.family for w in WRONG.values()).values()) >= 6


def test_every_mistake_is_one_sentence_and_every_setting_a_keyword():
    for wrong in WRONG.values():
        assert wrong.sentence.endswith("."), wrong.name
        assert wrong.sentence != "None.", wrong.name
    keywords = set(inspect.signature(check_vjp).parameters)
    for entry in (*WRONG.values(), *RIGHT.values()):
        assert set(entry.settings) <= keywords, entry.name


def test_the_lists_of_what_is_open_name_entries_of_the_catalogue():
    assert set(WRONG) >= MISSED
    assert set(RIGHT) >= ALARMS


def listed(result):
    return list(result) if isinstance(result, (tuple, list)) else [result]


def traces(f, vjp, point):
    """All that can be seen of a vjp: gradients, for cotangents of several layouts and over several
    calls, their dtypes, what they share, and what became of the arguments."""
    inputs = copied(point)
    shape = np.shape(f(*inputs))
    rng = np.random.default_rng(0)
    g = np.asarray(rng.standard_normal(shape)).astype(inputs[0].dtype)
    cotangents = [g, g, g]
    if shape:
        wide = np.repeat(g, 2, axis=-1)[..., ::2]
        cotangents += [np.asfortranarray(g), np.flip(np.flip(g).copy()), wide]
    for c in cotangents:
        before = c.copy()
        found = listed(vjp(c, *inputs))
        for d in found:
            array = np.asarray(d)
            yield array.dtype, array.shape, array.tobytes(), array.flags.writeable
        yield [np.shares_memory(a, b) for a in found for b in (c, *found) if a is not b]
        yield len({id(d) for d in found}), before.tobytes() == c.tobytes()
        yield [np.asarray(x).tobytes() for x in inputs]
    moved = tuple((x + 0.125).astype(x.dtype) for x in inputs)
    first = listed(vjp(g, *moved))
    yield [np.asarray(d).tobytes() for d in first]
    yield [np.shares_memory(a, b) for a in first for b in listed(vjp(g, *moved))]


def seen(f, vjp, point):
    try:
        with np.errstate(all="ignore"):
            return list(traces(f, vjp, point))
    except Exception as error:  # an error can be seen, too
        return type(error).__name__


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_changes_something_that_can_be_seen(name):
    wrong = WRONG[name]
    for point in points_of(wrong):
        if seen(*wrong.make(), point) != seen(wrong.of.f, wrong.of.vjp, point):
            return
    pytest.fail(wrong.sentence)


def test_two_entries_of_one_name_are_refused():
    square = FUNCTIONS["square"]

    def square_modifies_its_input(g, x):
        """Once more."""

    with pytest.raises(ValueError, match="called 'square_modifies_its_input'"):
        square.wrong()(square_modifies_its_input)
    with pytest.raises(ValueError, match="square_of_a_slice"):
        square.hard("square_of_a_slice", np.zeros(2), why="")
    with pytest.raises(ValueError, match="two called 'square'"):
        function(at=[np.zeros(2)])(square.f)
