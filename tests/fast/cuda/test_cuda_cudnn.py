"""Convolutions by cuDNN: what we tell its front end, computed by a stand-in as cuDNN defines it.

The real front end is called where it is installed, up to where it needs a GPU.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from support.backends import chosen

from minibn import kernels, ops
from minibn.autograd.tensor import Tensor
from minibn.backend import get_backend, to_numpy
from minibn.fast import selection
from minibn.fast.cuda import cudnn
from minibn.fast.precision import precision
from minibn.ops.conv import Conv2d


class StandInTensor:
    def __init__(self, dim=None, stride=None):
        self.dim, self.stride = dim, stride

    def set_dim(self, dim):
        self.dim = dim
        return self

    def set_stride(self, stride):
        self.stride = stride
        return self

    def set_output(self, on):
        return self

    def view(self, memory):
        """Flat memory as cuDNN sees it: (N, C, H, W) or (F, C, Kh, Kw), any strides."""
        flat = memory.reshape(-1)
        strides = [s * flat.itemsize for s in self.stride]
        return np.lib.stride_tricks.as_strided(flat, self.dim, strides)


class StandInGraph:
    """Computes by loops over a kernel's pixels, from dimensions and strides alone."""

    def __init__(self, log, **settings):
        self.log = log

    def tensor(self, dim, stride):
        return StandInTensor(dim, stride)

    def _conv(self, kind, a, b, padding, stride, dilation):
        assert dilation == [1, 1]
        self.kind, self.a, self.b, self.padding, self.step = kind, a, b, padding, stride
        self.out = StandInTensor()
        return self.out

    def conv_fprop(self, image, weight, **how):
        return self._conv("fprop", image, weight, **how)

    def conv_dgrad(self, loss, filter, **how):
        return self._conv("dgrad", loss, filter, **how)

    def conv_wgrad(self, image, loss, **how):
        return self._conv("wgrad", image, loss, **how)

    def validate(self):
        self.done = ["validate"]

    def build_operation_graph(self):
        self.done.append("lower")

    def create_execution_plans(self, heuristics):
        self.done.append("plan")
        if self.out.dim == [1, 1, 1, 1]:
            raise StandIn.cudnnGraphNotSupportedError

    def deselect_numeric_notes(self, notes):
        assert self.done == ["validate", "lower", "plan"], "cuDNN marks the plans that there are"
        self.log.append((self.kind, tuple(notes)))

    def check_support(self):
        self.done.append("check")

    def build_plans(self):
        assert self.done == ["validate", "lower", "plan", "check"]

    def get_workspace_size(self):
        return 0

    def execute(self, where, workspace, handle):
        a, b, out = (t.view(where[t]) for t in (self.a, self.b, self.out))
        x, w, y = {"fprop": (a, b, out), "dgrad": (out, b, a), "wgrad": (a, out, b)}[self.kind]
        (ph, pw), (sh, sw) = self.padding, self.step
        N, C, H, W = x.shape
        padded = np.zeros((N, C, H + 2 * ph, W + 2 * pw), x.dtype)
        padded[:, :, ph : ph + H, pw : pw + W] = 0 if self.kind == "dgrad" else x
        out[...] = 0
        for k in range(w.shape[2]):
            for m in range(w.shape[3]):
                part = padded[:, :, k : k + sh * y.shape[2] : sh, m : m + sw * y.shape[3] : sw]
                if self.kind == "fprop":
                    y += np.einsum("nchw,fc->nfhw", part, w[:, :, k, m])
                elif self.kind == "dgrad":
                    part += np.einsum("nfhw,fc->nchw", y, w[:, :, k, m])
                else:
                    w[:, :, k, m] = np.einsum("nchw,nfhw->fc", part, y)
        if self.kind == "dgrad":
            x[...] = padded[:, :, ph : ph + H, pw : pw + W]


class StandIn(SimpleNamespace):
    class cudnnGraphNotSupportedError(Exception):
        pass


@pytest.fixture
def log(monkeypatch):
    """cuDNN's stand-in in its place, on the strict double; what was asked of it."""
    asked = []
    names = ("NONDETERMINISTIC", "DOWN_CONVERT_INPUTS", "TENSOR_CORE")
    stand_in = StandIn(
        pygraph=lambda **settings: StandInGraph(asked, **settings),
        data_type=SimpleNamespace(FLOAT="float"),
        numerical_note=SimpleNamespace(**{n: n for n in names}),
        heur_mode=SimpleNamespace(A="A", FALLBACK="fallback"),
        set_stream=lambda handle, stream: None,
        create_handle=lambda: "handle",
    )
    monkeypatch.setattr(cudnn, "front_end", lambda: stand_in)
    monkeypatch.setattr(cudnn, "library_of", lambda a: "cupy")
    monkeypatch.setattr(cudnn, "_address", lambda a: a._host)
    monkeypatch.setattr(cudnn, "_stream", lambda: 0)
    monkeypatch.setattr(cudnn, "_device", lambda: 0)
    cudnn.plan.cache_clear()
    cudnn._handle.cache_clear()
    with chosen("strict"):
        table = {
            Conv2d: (cudnn.CudnnConv2d,),
            ops.conv.Conv2dInputGrad: (cudnn.CudnnInputGrad,),
            ops.conv.Conv2dWeightGrad: (cudnn.CudnnWeightGrad,),
        }
        monkeypatch.setattr(selection, "kernels_of", lambda backend: table)
        yield asked
    cudnn.plan.cache_clear()
    cudnn._handle.cache_clear()


def convolved(shape, w_shape, stride, padding):
    rng = np.random.default_rng(0)
    backend = get_backend()
    x, w = (
        Tensor(backend.asarray(rng.standard_normal(s).astype(np.float32)), requires_grad=True)
        for s in (shape, w_shape)
    )
    y = ops.conv2d(x, w, stride=stride, padding=padding)
    y.backward(backend.asarray(rng.standard_normal(y.shape).astype(np.float32)))
    return [to_numpy(a) for a in (y, x.grad, w.grad)]


@pytest.mark.parametrize(
    ("shape", "w_shape", "stride", "padding"),
    [
        ((2, 6, 5, 3), (3, 3, 3, 4), 1, 1),
        ((1, 7, 8, 2), (3, 2, 2, 5), (2, 1), (0, 2)),
        ((3, 4, 4, 6), (1, 1, 6, 2), 1, 0),
    ],
)
def test_what_cudnn_is_told_is_our_convolution(log, shape, w_shape, stride, padding):
    with cudnn.prefer():
        found = convolved(shape, w_shape, stride, padding)
    assert [kind for kind, _ in log] == ["fprop", "dgrad", "wgrad"]
    with kernels("reference"):
        expected = convolved(shape, w_shape, stride, padding)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_it_runs_only_where_it_was_chosen(log):
    convolved((2, 4, 4, 3), (3, 3, 3, 4), 1, 1)
    assert log == []
    with cudnn.prefer(), cudnn.prefer(False):
        convolved((2, 4, 4, 3), (3, 3, 3, 4), 1, 1)
    assert log == []


def test_tensor_cores_are_left_out_for_fp32_and_taken_for_tf32(log):
    with cudnn.prefer():
        convolved((2, 4, 4, 3), (3, 3, 3, 4), 1, 1)
        assert all("TENSOR_CORE" in notes for _, notes in log)
        log.clear()
        with precision("tf32"):
            convolved((2, 4, 4, 3), (3, 3, 3, 4), 1, 1)
    assert len(log) == 3
    assert not any("TENSOR_CORE" in notes for _, notes in log)
    assert all("NONDETERMINISTIC" in notes for _, notes in log)


def test_bf16_and_float64_are_not_its(log):
    x, w = np.zeros((1, 4, 4, 2), np.float32), np.zeros((3, 3, 2, 2), np.float32)
    op = ops.conv.conv2d_op(x, w, 1, 1)
    with cudnn.prefer():
        assert cudnn.CudnnConv2d.fits(op, x, w)
        assert not cudnn.CudnnConv2d.fits(op, x.astype(np.float64), w.astype(np.float64))
        with precision("bf16"):
            assert not cudnn.CudnnConv2d.fits(op, x, w)


def test_a_shape_without_a_plan_is_left_to_others(log):
    with cudnn.prefer():
        found = convolved((1, 1, 1, 1), (1, 1, 1, 1), 1, 0)
    with kernels("reference"):
        expected = convolved((1, 1, 1, 1), (1, 1, 1, 1), 1, 0)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("kind", ["fprop", "dgrad", "wgrad"])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_real_front_end_has_the_names_that_we_use(kind, stride):
    pytest.importorskip("cudnn", reason="NVIDIA's front end is not installed")
    x, w = np.zeros((2, 9, 8, 16), np.float32), np.zeros((3, 3, 16, 32), np.float32)
    op = ops.conv.conv2d_op(x, w, stride, 1)
    graph, _, out = cudnn.describe(
        kind, (op.stride, op.padding, op.x_shape, op.w_shape, op.y_shape)
    )
    graph.deselect_numeric_notes([cudnn.front_end().numerical_note.TENSOR_CORE])
    assert out.dim == {
        "fprop": [2, 32, *op.y_shape[1:3]], "dgrad": [2, 16, 9, 8], "wgrad": [32, 16, 3, 3]
    }[kind]  # fmt: skip
