"""The kernels that a sitting launches, compiled beforehand: on a machine without a GPU, so that a
machine with one spends its time on measurements.

Which kernels, and with which macros, the launches tell: training steps run on the strict double,
with launches that are noted and compute nothing, so that all sizes are those of the sitting.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np

from experiments.gpu.losses import CASES
from experiments.training.loop import cores
from experiments.training.recorders import predictions
from experiments.training.step import one_step
from experiments.vgg.runs import network, sgd
from experiments.vgg.settings import Settings
from minibn import checkpoint, kernels, precision, use
from minibn.fast.cuda import products
from minibn.fast.cuda.program import Launches, Macros, Program, note_launches
from minibn.fast.precision import MANTISSA
from minibn.fast.selection import emulation

ARCHITECTURE = "sm_90"  # of the H100 and H200
FOLDER = "prepared"


def launches_of_a_sitting(digits: str) -> Launches:
    """What a sitting launches whose trainings are in this precision."""
    found: Launches = {}
    with use("strict"), emulation.override(True), note_launches(found), np.errstate(all="ignore"):
        trainings = {(c.variant, c.model, c.batch, c.precision) for c in CASES}
        variants = ("batchnorm", "standard", "noisy-batchnorm", "noisy-standard")
        trainings |= set(product(variants, ("vgg16",), (128,), ("fp32", digits)))
        trainings |= set(product(("batchnorm",), ("vgg16", "vgg11"), (128, 512), MANTISSA))
        for training in sorted(trainings):
            _step(*training)
        for tile in products.TILES[digits]:  # of which the part `kernels` tries each
            with patch.object(products, "plan", lambda *_, tile=tile: products.Plan(tile, 2, 1)):
                products.problem.cache_clear()
                _step("batchnorm", "vgg16", 128, digits)
        products.problem.cache_clear()
    return found


def _step(variant: str, model: str, batch: int, digits: str) -> None:
    """Two training steps, with momentum, and the predictions of an evaluation."""
    settings = Settings(model=model, momentum=0.9, weight_decay=5e-4)
    images = np.zeros((batch, 32, 32, 3), np.uint8)
    with precision(digits), kernels("fast"):
        net = network(settings, variant, seed=0)
        for way in (settings, Settings(model=model)):
            one_step(net, sgd(way, net, 0.1), images, np.arange(batch) % 10)
        predictions(net, images[:1].repeat(250, axis=0))


def prepare(folder: Path, digits: str) -> Iterator[str]:
    """Compile all of them into the folder, on all cores; what it holds is kept. Yields a line on
    each. Raises RuntimeError, with the compiler's words, for a kernel that does not compile."""
    folder.mkdir(parents=True, exist_ok=True)
    todo = [
        (name, macros, path)
        for name, macros in launches_of_a_sitting(digits)
        if not (path := folder / Program(name).file_of(macros, ARCHITECTURE)).exists()
    ]
    with ProcessPoolExecutor(cores()) as pool:
        codes = pool.map(_compile, [name for name, _, _ in todo], [macros for _, macros, _ in todo])
        for (name, _, path), code in zip(todo, codes, strict=True):
            with checkpoint.atomic_write(path) as file:
                file.write(code)
            yield f"{name}: {path.name}, {len(code):,} bytes"


def _compile(name: str, macros: Macros) -> bytes:
    return Program(name).compile(macros, ARCHITECTURE)
