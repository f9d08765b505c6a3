"""Rounding to bf16 and products of rounded factors, beside PyTorch's."""

import numpy as np
import pytest
from parity.torch_adapter import channels_first, tensor, torch
from support.rounding import floats

import minibn
from minibn import ops
from minibn.fast.rounding import round_to

UNIT = 2.0**-24  # of float32: the largest relative error of one operation


def test_rounding_to_bf16_is_pytorchs_for_every_first_half_of_a_number():
    """All 65,536 values of what is kept, with last halves around 0, around a tie and at the end."""
    last = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    x = ((np.arange(2**16, dtype=np.uint32) << 16)[:, None] | last).view(np.float32).ravel()
    theirs = tensor(x).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(round_to(x, "bf16"), theirs)  # NaN where theirs is


@pytest.mark.parametrize("name", ["conv2d", "matmul"])
def test_a_product_in_bf16_is_pytorchs_before_it_rounds_the_result_too(name):
    """Under autocast PyTorch rounds factors as here, and then the result, whose float32 sums may
    lie on either side of a tie."""
    if name == "conv2d":
        x, w = floats(0, 2, 8, 8, 16), floats(1, 3, 3, 16, 24)
        convolution = channels_first(torch.nn.functional.conv2d)
        theirs = lambda x, w: convolution(x, w.permute(3, 2, 0, 1))  # noqa: E731  # one of two
        ours, terms = ops.conv2d, 144
    else:
        x, w = floats(0, 40, 30), floats(1, 30, 20)
        theirs, ours, terms = torch.matmul, ops.matmul, 30
    with minibn.precision("bf16"):
        found = ours(x, w)
        size = ours(np.abs(x), np.abs(w))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = theirs(tensor(x), tensor(w)).float().numpy()
    most = 2.0**-8 * np.abs(found) + 2 * terms * UNIT * size
    assert (np.abs(found - expected) <= most).all()
    assert not (np.abs(ours(x, w) - expected) <= most).all(), "or it would pass without rounding"
