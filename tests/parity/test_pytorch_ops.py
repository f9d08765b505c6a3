"""Every op against PyTorch in float64: values, gradients and second derivatives."""

import numpy as np
import pytest
from hypothesis import given, settings
from parity.torch_adapter import Pair, compare, tensor, torch
from parity.torch_pairs import PAIRS

from minibn import ops

EVERY_PAIR = pytest.mark.parametrize("name", PAIRS)


def compare_at_drawn_points(name: str, order: int, examples: int) -> None:
    """Fails also if all derivatives were zeros; prints the worst difference (pytest -s)."""
    seen = []

    @settings(max_examples=examples)
    @given(PAIRS[name])
    def examine(pair):
        seen.append(compare(pair, order))

    examine()
    assert max(largest for largest, _ in seen) > 0, "all derivatives were zeros"
    worst = max(difference for _, difference in seen)
    print(f"\n{worst:.0e} of the largest entry: {name}, order {order}, at {len(seen)} points")


@EVERY_PAIR
def test_values_and_gradients_agree_with_pytorch(name):
    compare_at_drawn_points(name, 1, settings().max_examples)


@EVERY_PAIR
def test_second_derivatives_agree_with_pytorch(name):
    compare_at_drawn_points(name, 2, settings().max_examples * 3 // 5)


def test_sign_and_one_hot_agree_with_pytorch():
    x = np.array([-2.0, -0.0, 0.0, 1e-300, 3.0])
    np.testing.assert_array_equal(ops.sign(x), torch.sign(tensor(x)).numpy())
    labels = np.array([2, 0, 3, 3])
    theirs = torch.nn.functional.one_hot(tensor(labels), 5).double().numpy()
    np.testing.assert_array_equal(ops.one_hot(labels, 5, float), theirs)


@pytest.mark.parametrize("order", [1, 2])
def test_a_difference_in_the_eleventh_digit_is_found(order):
    x = np.random.default_rng(0).standard_normal(5)

    def nearly(x):  # the value is right, the derivatives are not
        return torch.exp(x) + 1e-11 * (torch.exp(x) - torch.exp(x).detach())

    compare(Pair(ops.exp, torch.exp, (x,)), order)
    with pytest.raises(AssertionError, match="they differ by"):
        compare(Pair(ops.exp, nearly, (x,)), order)
