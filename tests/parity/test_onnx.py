"""ONNX's own node tests, with inputs and expected outputs, run on minibn.

`python -m pytest tests/parity/test_onnx.py -s -k printed` shows what is covered, and what is left
out and why. How a node is computed is in onnx_arithmetic.py,
onnx_moves.py and onnx_layers.py.
"""

import functools
import warnings
from collections import Counter

import numpy as np
import pytest
from parity import onnx_arithmetic, onnx_layers, onnx_moves  # noqa: F401  # they fill NODES
from parity.onnx_runner import NODES, LeftOut, onnx, run

FLOOR = 844  # of the 1,884 cases of ONNX 1.23
TOTAL = 1884
RTOL, ATOL = 1e-3, 1e-7  # what ONNX's own runner asks, each entry by itself
OF_THE_LARGEST = {2: 2e-3, 4: 1e-6, 8: 1e-12}  # what we ask besides, by bytes of the dtype

# Cases of which ours is known not to meet RTOL. Each must fail: who mends it removes the line.
DISAGREE: dict[str, str] = {
    "test_attention_4d_causal_fp16_expanded": "a unit in the last place: our sums are in float32",
}


@functools.cache
def outcomes():
    """[(case, its outputs and the expected ones; or the LeftOut or other error that came)]"""
    with warnings.catch_warnings():
        # ONNX computes its references on import: overflows in casts and 1/0 are its subject there.
        warnings.simplefilter("ignore", RuntimeWarning)
        from onnx.backend.test.loader import load_model_tests

        cases = load_model_tests(kind="node")
    found = []
    for case in cases:
        try:
            # Some cases hold infinities on purpose, and ask for what NumPy makes of them.
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                found.append((case, run(case)))
        except Exception as error:  # told by the test of that case
            found.append((case, error))
    return found


def kind(case) -> str:
    """The node that the case is about, or "" for a function that is written out as a graph."""
    return "" if "_expanded" in case.name else case.model.graph.node[0].op_type


def check(case, outcome) -> bool:
    """Whether the case was run. Raises if it was and the outputs are not the expected ones."""
    if isinstance(outcome, LeftOut):
        return False
    if isinstance(outcome, Exception):
        raise AssertionError(f"{case.name} failed") from outcome
    for ours, theirs in zip(*outcome, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype, case.name
        np.testing.assert_allclose(ours, theirs, RTOL, ATOL, err_msg=case.name)
        finite = np.isfinite(theirs)
        if theirs.dtype.kind == "f" and finite.any():
            off = np.abs(ours[finite].astype(float) - theirs[finite]).max()
            largest = float(np.abs(theirs[finite]).max())
            assert off <= OF_THE_LARGEST[theirs.dtype.itemsize] * largest, case.name
    return True


def check_all(of_kind: str) -> int:
    return sum(
        check(case, outcome)
        for case, outcome in outcomes()
        if kind(case) == of_kind and case.name not in DISAGREE
    )


@pytest.mark.parametrize("name", sorted(NODES))
def test_the_outputs_of_a_node_are_those_that_onnx_expects(name):
    assert check_all(name) > 0, f"ONNX has no case of {name} that is run: is its row needed?"


def test_functions_written_out_as_graphs_have_the_outputs_that_onnx_expects():
    """Attention, norms, losses, activations: as ONNX defines them by simpler nodes."""
    assert check_all("") > 0


@pytest.mark.parametrize("name", DISAGREE)
def test_a_known_disagreement_is_still_there(name):
    (pair,) = ((case, outcome) for case, outcome in outcomes() if case.name == name)
    with pytest.raises(AssertionError):
        check(*pair)


def test_a_wrong_node_is_noticed(monkeypatch):
    (case,) = (case for case, _ in outcomes() if case.name == "test_relu")
    assert check(case, run(case))
    monkeypatch.setitem(NODES, "Relu", NODES["Abs"])
    with pytest.raises(AssertionError):
        check(case, run(case))


def test_coverage_is_printed_and_does_not_shrink():
    ran = [c for c, o in outcomes() if not isinstance(o, Exception) and c.name not in DISAGREE]
    left_out = Counter(str(o) for _, o in outcomes() if isinstance(o, LeftOut))
    covered, total = Counter(map(kind, ran)), len(outcomes())
    print(f"\nONNX {onnx.__version__}: {len(ran)} of {total} node tests agree,")
    print(f"{covered.pop('')} of them functions written out as graphs, the others by node:")
    print(wrapped(f"{name} {n}" for name, n in sorted(covered.items())))
    groups: dict[str, Counter] = {}
    for name, reason in DISAGREE.items():
        print(f"disagrees: {name}, {reason}")
    for reason, n in left_out.items():
        group, _, what = reason.partition(": ")
        groups.setdefault(group, Counter())[what] = n
    for group, whats in sorted(groups.items(), key=lambda item: -item[1].total()):
        print(f"left out, {group} ({whats.total()}):")
        print(wrapped(f"{what} {n}" for what, n in whats.most_common()))
    if total < TOTAL:
        pytest.skip(f"ONNX {onnx.__version__} has {total} cases; the floor is for {TOTAL}")
    assert len(ran) >= FLOOR


def wrapped(parts) -> str:
    lines = ["   "]
    for part in parts:
        if len(lines[-1]) + len(part) > 96:
            lines.append("   ")
        lines[-1] += f" {part},"
    return "\n".join(lines).rstrip(",")
