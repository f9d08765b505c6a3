"""Every op on PyTorch's own samples of it: values and gradients, contiguous and not.

The samples are those that PyTorch's tests run (`op_db`): broadcasting, 0-d and empty arrays, every
setting. What does not translate is counted with its reason; `pytest -s` prints the counts.
"""

from collections import Counter

import numpy as np
import pytest
from parity.opinfo_pairs import PAIRS, WITHOUT, Untranslated
from parity.torch_adapter import close, terms_of, torch

from minibn import Tensor, grad, ops

pytest.importorskip("expecttest", reason="PyTorch's samples need it: pip install expecttest")
pytestmark = pytest.mark.filterwarnings("default")  # of PyTorch's test modules


@pytest.fixture(scope="module")
def opinfos():
    from torch.testing._internal.common_methods_invocations import op_db  # takes seven seconds

    return {".".join(filter(None, (op.name, op.variant_test_name))): op for op in op_db}


def walk(x, f):
    """x with f applied to each tensor in it."""
    if isinstance(x, torch.Tensor):
        return f(x)
    if isinstance(x, (tuple, list)) and not isinstance(x, torch.Size):
        return type(x)(walk(v, f) for v in x)
    if isinstance(x, dict):
        return {k: walk(v, f) for k, v in x.items()}
    return tuple(x) if isinstance(x, torch.Size) else x


def listed(y):
    return list(y) if isinstance(y, (tuple, list)) else [y]


class Leaves:
    """The tensors of a sample that require a gradient, and minibn's on the same memory."""

    def __init__(self):
        self.theirs, self.ours = [], []

    def __call__(self, tensor):
        array = tensor.detach().numpy()
        if not tensor.requires_grad:
            return array
        self.theirs.append(tensor)
        self.ours.append(Tensor(array, requires_grad=True))
        return self.ours[-1]


def compare(op, translate, sample, rng, strided):
    """Raises Untranslated, or AssertionError; returns the largest entry of the gradients."""
    leaves = Leaves()
    x, args, kwargs = walk((sample.input, sample.args, sample.kwargs), leaves)
    ours = listed(translate(x, *args, **kwargs))
    theirs = listed(op(sample.input, *sample.args, **sample.kwargs))
    assert len(ours) == len(theirs)
    cotangents = [cotangent(rng, y, strided) for y in theirs]
    terms = terms_of(*(x.data for x in leaves.ours), *cotangents)
    values = [y.data if isinstance(y, Tensor) else y for y in ours]
    for y, other in zip(values, theirs, strict=True):
        close(y, other.detach().numpy(), what="the values", terms=terms)
        assert np.asarray(y).dtype == other.detach().numpy().dtype
    if not leaves.ours or not isinstance(ours[0], Tensor):  # what has no gradient: zeros
        return 0.0
    pairs = zip(ours, cotangents, strict=True)
    total = sum(ops.sum(y * c) for y, c in pairs) if len(ours) > 1 else ours[0]
    seed = () if len(ours) > 1 else (cotangents[0],)
    found = grad(total, leaves.ours, *seed, unused="zeros")
    expected = torch.autograd.grad(
        theirs, leaves.theirs, [torch.from_numpy(c) for c in cotangents],
        allow_unused=True, materialize_grads=True,
    )  # fmt: skip
    for g, e in zip(found, expected, strict=True):
        close(g.data, e.numpy(), what="a gradient", terms=terms)
    return max((float(np.abs(e.numpy()).max(initial=0)) for e in expected), default=0.0)


def cotangent(rng, y, strided):
    """Normal numbers; `strided`: every second one of an array in Fortran order, back to front."""
    shape = tuple(y.shape)
    if not strided or not shape:
        return np.asarray(rng.standard_normal(shape))
    wide = np.asfortranarray(rng.standard_normal((*shape[:-1], 2 * shape[-1])))
    return wide[..., ::2]


@pytest.mark.parametrize("name", PAIRS)
def test_an_op_agrees_with_pytorch_on_pytorchs_own_samples(name, opinfos):
    compared, skipped, largest = 0, Counter(), 0.0
    rng = np.random.default_rng(0)
    for full, translate in PAIRS[name]:
        op = opinfos[full]
        torch.manual_seed(0)
        floats = op.supports_dtype(torch.float64, "cpu")
        dtype = torch.float64 if floats else torch.int64
        for sample in op.sample_inputs("cpu", dtype, requires_grad=floats):
            for strided in (False, True):
                at = sample.noncontiguous() if strided else sample
                try:
                    found = compare(op, translate, at, rng, strided)
                except Untranslated as reason:
                    skipped[str(reason)] += 1
                    continue
                except AssertionError as error:
                    raise AssertionError(f"{full}, strided={strided}: {at.summary()}") from error
                compared, largest = compared + 1, max(largest, found)
    print(f"\n{name}: {compared} agree", *(f"{n} × {why}" for why, n in skipped.items()), sep="; ")
    assert compared > 0, f"no sample was compared: {dict(skipped)}"
    assert largest > 0 or name in ("one_hot", "sign"), "all gradients were zeros"


def test_every_op_is_compared_or_says_why_not():
    assert set(PAIRS) | set(WITHOUT) == set(ops.__all__)
    assert not set(PAIRS) & set(WITHOUT)
