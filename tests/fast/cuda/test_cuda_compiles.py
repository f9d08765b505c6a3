"""Every CUDA source compiles for a GPU, with every set of macros that it is launched with.

NVRTC compiles for a GPU on machines that have none (`pip install minibn[nvrtc]`). Which macros
there are, the launches tell: rows of the registry and training steps run on the emulator with
launches that only note what was asked for, so that sizes may be large.
"""

import re

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from suite.laws.kernels import fast_points
from support.cuda import ROWS_WITH_KERNELS, on

import minibn
from experiments.training.step import one_step
from experiments.vgg.runs import network, sgd
from experiments.vgg.settings import Settings
from minibn import Tensor, grad, ops
from minibn.backend import get_backend
from minibn.fast.cuda import products
from minibn.fast.cuda.program import HERE, Launches, Program, note_launches
from minibn.fast.precision import MANTISSA
from minibn.random import integers

ARCHITECTURE = "sm_90"  # of the H100 and H200
SOURCES = sorted(path.stem for path in HERE.glob("*.cu"))
KERNEL = re.compile(r"EXPORT\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(")


def rows(dtype: type) -> None:
    """Value and gradients of each row of the registry in which a CUDA kernel may run."""
    there = get_backend()
    for row in ROWS_WITH_KERNELS:

        @settings(max_examples=8, phases=[Phase.generate], derandomize=True, database=None)
        @given(fast_points(row))
        def run(problem):
            leaves = [Tensor(there.asarray(x, dtype), requires_grad=True) for x in problem.inputs]
            y = problem.f(*leaves)
            grad(y, leaves, there.xp.ones_like(y.data), unused="zeros")

        run()


def steps(variant: str, width: float, images: int) -> None:
    """Two training steps, with momentum."""
    s = Settings(model="vgg11", width=width, momentum=0.9, weight_decay=1e-4)
    model = network(s, variant, 0).train()
    optimizer = sgd(s, model, 0.1)
    x = np.zeros((images, 32, 32, 3), np.uint8)
    for _ in range(2):
        one_step(model, optimizer, x, np.zeros(images, int))


def tiles(precision: str) -> None:
    """The products of a convolution and of a matrix product, by every tile that they may take."""
    there = get_backend()
    for tile in products.TILES[precision]:

        def plan(M: int, N: int, K: int, precision: str, chip: object, tile=tile) -> products.Plan:
            return products.Plan(tile, 2, 1)

        products.problem.cache_clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(products, "plan", plan)
            uneven = [(32, 10, 2)] if tile is products.TILES[precision][-1] else []
            for C, F, stride in ((3, 64, 1), (64, 64, 1), *uneven):
                shapes = ((2, 4, 4, C), (3, 3, C, F))
                x, w = (Tensor(there.xp.ones(s, np.float32), requires_grad=True) for s in shapes)
                ops.conv2d(x, w, stride=stride, padding=1).sum().backward()
                x, w = (Tensor(there.xp.ones(s, np.float32), requires_grad=True)
                        for s in ((8, C), (C, F)))  # fmt: skip
                (x @ w).sum().backward()
        products.problem.cache_clear()


@pytest.fixture(scope="module")
def launches() -> Launches:
    found: Launches = {}
    with on("emulated"), note_launches(found), np.errstate(all="ignore"):
        for precision in MANTISSA:
            with minibn.precision(precision):
                with minibn.kernels("always"):
                    rows(np.float32)
                    steps("noisy-batchnorm", 1 / 16, 4)
                    tiles(precision)
                for variant in ("standard", "noisy-batchnorm"):
                    steps(variant, 1 / 4, 8)
        with minibn.kernels("always"):
            rows(np.float64)
        integers(get_backend(), 1, 2, 5)
    return found


def compiled(text: str, macros: tuple[tuple[str, object], ...] = ()) -> str:
    """The compiler's log; an error if there is more to tell than nothing."""
    nvrtc = pytest.importorskip("cupy", exc_type=ImportError).cuda.nvrtc
    try:
        nvrtc.getVersion()
    except Exception as error:  # however the library's absence shows
        pytest.skip(f"NVRTC can't be loaded: {error}. pip install 'minibn[nvrtc]'")
    options = [f"--gpu-architecture={ARCHITECTURE}", "-std=c++17"]
    options += [f"-D{key}={value}" for key, value in macros]
    source = nvrtc.createProgram(text, "kernels.cu", (), ())
    try:
        nvrtc.compileProgram(source, tuple(options))
    except nvrtc.NVRTCError:
        raise AssertionError(nvrtc.getProgramLog(source)) from None
    finally:
        log = nvrtc.getProgramLog(source)
        nvrtc.destroyProgram(source)
    return log


@pytest.mark.filterwarnings("ignore")  # CuPy's, about the driver that is not there
@pytest.mark.parametrize("name", SOURCES)
def test_every_source_compiles_with_all_macros_that_it_is_launched_with(name, launches):
    asked = [macros for source, macros in launches if source == name]
    assert asked, f"nothing launches {name}.cu here: add what does to `launches`"
    for macros in asked:
        assert compiled(Program(name).text, macros).strip("\0\n ") == "", macros


@pytest.mark.parametrize("name", SOURCES)
def test_every_kernel_of_every_source_is_launched(name, launches):
    own = set(KERNEL.findall((HERE / f"{name}.cu").read_text(encoding="utf-8")))
    used = {f for (source, _), asked in launches.items() if source == name for f in asked}
    assert own - used == set(), "these are launched by nothing that runs here"


SOURCE = """
#define EXPORT extern "C" __global__ void
EXPORT f(REAL* out) { %s }
"""


@pytest.mark.filterwarnings("ignore")  # as above
@pytest.mark.parametrize(
    "fault, told",
    [
        ("REAL x = 1 +; out[0] = x;", "expected an expression"),
        ("out[0] = y;", '"y" is undefined'),
        ("__shared__ REAL x[9999]; x[threadIdx.x] = 1; __syncthreads(); *out = x[5];", "shared"),
    ],
)
def test_a_fault_would_show(fault, told):
    with pytest.raises(AssertionError, match=told):
        compiled(SOURCE % fault, (("REAL", "double"),))
    assert compiled(SOURCE % "out[0] = 1;", (("REAL", "double"),)) is not None
