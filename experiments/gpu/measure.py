"""The measurements of `experiments.gpu_check`, each in a process of its own:

    python -m experiments.gpu.measure PART FILE '{"backend": "cupy", ...}'

FILE is written after every result.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarking.device import device_of
from experiments.gpu.choices import compare_kernels
from experiments.gpu.tiles import compare_plans
from experiments.output import say
from experiments.training.json_files import write_json
from experiments.training.loop import cores
from experiments.training.provenance import environment
from experiments.training.step import one_step
from experiments.vgg.runs import network, sgd
from experiments.vgg.settings import Settings
from minibn import kernels, use
from minibn.analysis import Hessian, covariate_shift, distribution_shift, probe, snapshot
from minibn.backend import get_backend
from minibn.console import prints_anywhere
from minibn.data import Batches, load, normalize
from minibn.ops import softmax_cross_entropy

TOLERANCE = 2e-3  # of the loss, in float32 after a few steps, without TF32
ANALYSIS_TOLERANCE = 1e-6  # of the analysis, in float64 (normals of the noise differ by a few ulp)


@dataclass(frozen=True)
class Sizes:
    """The sizes of the measurements, their backend and data."""

    backend: str
    variants: tuple[str, ...]
    data: str = "shapes"
    data_dir: str | None = None
    narrow: float = 0.25  # width of the VGG-11 whose losses are compared
    steps: int = 5  # of each variant that are compared
    batch: int = 128
    model: str = "vgg16"
    width: float = 1.0
    large_batch: int = 8192
    large_steps: int = 5

    def batches(self, size: int) -> Batches:
        data = load(self.data, self.data_dir)
        return Batches(data.train_images, data.train_labels, size, seed=0)


def device_environment(s: Sizes, path: Path) -> bool:
    """What the results may depend on."""
    found: dict[str, Any] = environment(get_backend(s.backend), cores())
    found["variables"] = {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(("CUDA_", "CUPY_", "MINIBN_", "NVIDIA_VISIBLE", "OPENBLAS_"))
    }
    write_json(path, found)
    for name, value in found.items():
        say(f"{name:<20} {value}")
    if shutil.which("nvidia-smi"):
        subprocess.run(["nvidia-smi"], check=False, timeout=60)
    return True


def losses(s: Sizes, variant: str, backend: str, batches: Batches) -> list[float]:
    """The first losses of a narrow VGG-11 on a backend."""
    settings = Settings(model="vgg11", width=s.narrow)
    with use(backend):
        model = network(settings, variant, seed=0)
        optimizer = sgd(settings, model, 0.01)
        results = [one_step(model, optimizer, *batches.batch(i))[0] for i in range(s.steps)]
        return [float(loss.item()) for loss in results]


def measurements(backend: str, batches: Batches) -> list[float]:
    """What `minibn.analysis` measures at an update of a narrow VGG-11 with noisy BatchNorm, in
    float64, where rounding does not matter: a probe, covariate shift, drift, curvature."""
    settings = Settings(model="vgg11", width=0.125)
    with use(backend) as where:
        model = network(settings, "noisy-batchnorm", seed=0, dtype=np.float64)
        images, labels = batches.batch(0)
        batch = normalize(where.asarray(images), np.float64), labels
        along = probe(model, batch, [0.05, 0.1])
        before = snapshot(model)
        loss = softmax_cross_entropy(model(batch[0]), labels)
        loss.backward()
        sgd(settings, model, 0.1).step()
        after = {name: p.data for name, p in model.named_parameters()}
        shifts = covariate_shift(model, batch, before, after)
        moved = distribution_shift(model, batch, before, after, ["relu3"])[0]
        H = Hessian(model, batch)
        return [
            along.loss, *along.losses, *along.gradient_change, *(shift.l2 for shift in shifts),
            moved.mean_drift, moved.wasserstein, H.along_gradient(), *H.eigenvalues(1).values,
        ]  # fmt: skip


def apart(ours: Iterable[float], theirs: Iterable[float]) -> float:
    """The largest relative difference; infinite if a number is not finite."""
    gaps = [abs(a - b) / max(abs(a), 1e-12) for a, b in zip(ours, theirs, strict=True)]
    return max(float(gap) if np.isfinite(gap) else np.inf for gap in gaps)


def agreement(s: Sizes, path: Path) -> bool:
    """Compare the variants' losses, then the analysis, on NumPy and on the backend. Returns whether
    they agree."""
    found: dict[str, Any] = {}
    batches, few = s.batches(s.batch), s.batches(min(16, s.batch))
    for name in (*s.variants, "analysis"):
        allowed = ANALYSIS_TOLERANCE if name == "analysis" else TOLERANCE
        ours, theirs = (
            measurements(b, few) if name == "analysis" else losses(s, name, b, batches)
            for b in ("numpy", s.backend)
        )
        worst = apart(ours, theirs)
        found[name] = {
            "numpy": ours, s.backend: theirs, "worst_relative": worst, "agree": worst <= allowed,
        }  # fmt: skip
        write_json(path, found)
        say(f"{name}: numpy and {s.backend} differ by at most {worst:.1e}, {allowed:.0e} allowed")
    return all(each["agree"] for each in found.values())


def steps_at(s: Sizes, batch: int, backend: Any) -> dict[str, Any]:
    """Seconds of a step, and the bytes of arrays at its peak; or that memory is exhausted."""
    here, settings = device_of(backend), Settings(model=s.model, width=s.width)
    x = np.random.default_rng(0).integers(0, 256, (batch, 32, 32, 3), np.uint8)
    labels = np.arange(batch) % 10
    model = network(settings, "batchnorm", seed=0)
    optimizer = sgd(settings, model, 0.1)

    def step() -> None:
        one_step(model, optimizer, x, labels)

    try:
        peak = here.peak(lambda: step, 2)
        return {"seconds_a_step": here.clock.seconds(step, s.large_steps), **peak}
    except here.out_of_memory_errors as error:
        return {"exhausted": str(error)}
    finally:
        here.tidy()


def large(s: Sizes, path: Path) -> bool:
    """A few steps at a batch that fills the device, "fast" and "lean"."""
    found: dict[str, Any] = {"model": s.model, "width": s.width, "batch": s.large_batch}
    with use(s.backend) as backend:
        for mode in ("fast", "lean"):
            with kernels(mode):
                found[mode] = took = steps_at(s, s.large_batch, backend)
            write_json(path, found)
            say(f"kernels {mode}: {describe_step(took)}")
            gc.collect()
    return "seconds_a_step" in found["lean"]


def describe_step(took: dict[str, Any]) -> str:
    if "exhausted" in took:
        return f"memory is exhausted: {took['exhausted']}"
    return f"{took['seconds_a_step']:.3f} s a step, at most {took['peak'] / 1e9:.1f} GB in arrays"


def timings(s: Sizes, path: Path, compare: Any) -> bool:
    """The ways to compute each call of a step, timed beside the one that is chosen."""
    with use(s.backend) as backend:
        settings = Settings(model=s.model, width=s.width)
        for record in compare(device_of(backend), settings, s.batch):
            write_json(path, record)
    return True


PARTS: dict[str, Callable[[Sizes, Path], bool]] = {
    "environment": device_environment,
    "agreement": agreement,
    "choices": partial(timings, compare=compare_kernels),
    "tiles": partial(timings, compare=compare_plans),
    "large": large,
}


@prints_anywhere
def main(arguments: list[str]) -> int:
    """Measure one part. Exit code 1 if its check fails."""
    name, path, sizes = arguments
    given: dict[str, Any] = json.loads(sizes)
    given["variants"] = tuple(given["variants"])
    assert set(given) <= {field.name for field in fields(Sizes)}
    began = time.perf_counter()
    right = PARTS[name](Sizes(**given), Path(path))
    say(f"{name}: {time.perf_counter() - began:.1f} s" + ("" if right else ": FAILED"))
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
