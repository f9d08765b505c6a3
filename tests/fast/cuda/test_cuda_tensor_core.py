"""The layout of tensor core operands, on the emulator and on a GPU: PTX ISA, `ldmatrix`."""

import numpy as np
import pytest
from support.cuda import on_cuda

from minibn.backend import to_numpy
from minibn.fast.cuda.program import HERE, Program

SOURCE = """
EXPORT load(const float* x, float* out) {  // four matrices of bf16, with rows of 24 numbers
  DYNAMIC_SHARED(uint16_t, rows);
  int lane = threadIdx.x;
  for (int j = 0; j < 8; ++j) rows[24 * lane + j] = uint16_t(round_bf16(x[8 * lane + j], 0));
  __syncthreads();
  uint32_t r[4];
  ldmatrix<COLUMNS>(r, rows + 24 * lane);
  for (int q = 0; q < 4; ++q)
    for (int e = 0; e < 2; ++e)
      out[64 * q + 2 * lane + e] = __uint_as_float(e ? r[q] & 0xffff0000u : r[q] << 16);
}
"""


@on_cuda
@pytest.mark.parametrize("transposed", [0, 1])
def test_a_register_holds_the_documented_pair_of_each_matrix(backend, transposed):
    """Thread 4·g + t: elements 2·t and 2·t + 1 of row g, or of column g."""
    program = Program("tensor_core_sample")
    program.text = "\n".join(
        [*((HERE / name).read_text() for name in ("common.cuh", "tensor_core.cuh")), SOURCE]
    )
    x = np.arange(256, dtype=np.float32).reshape(4, 8, 8)
    out = backend.xp.empty((4, 8, 8), np.float32)
    program.launch("load", 1, 32, backend.asarray(x), out, shared=32 * 48, COLUMNS=transposed)
    np.testing.assert_array_equal(to_numpy(out), x.swapaxes(1, 2) if transposed else x)
