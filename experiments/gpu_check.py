"""What only a GPU can show: CuPy against NumPy, then a short training on each, in one command.

    python -m experiments.gpu_check [--out DIR] [--data cifar10 --data-dir DIR]

1. the tests marked `gpu` (every op, layer and short training on CuPy);
2. the first losses of every variant on both backends, from the same weights, side by side;
3. what `minibn.analysis` measures on both, in float64: walk, covariate shift, drift, curvature;
4. the time of a step of VGG-16 with BatchNorm at batch 128.

Writes gpu_check.json into --out and ends with exit code 0 only if everything agrees. Without a GPU
it says what is missing (exit code 2); `--backend strict` rehearses 2 to 4.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.running.command_line import UsageError, at_least, one_of, parse, report, setting
from experiments.running.settings import DATA
from experiments.running.streams import write_json
from experiments.running.study import environment
from experiments.running.training import cores, one_step
from experiments.vgg.runs import network, sgd
from experiments.vgg.settings import VARIANTS, Settings
from minibn import use
from minibn.analysis import Hessian, covariate_shift, distribution_shift, probe, snapshot
from minibn.backend import get_backend
from minibn.data import Batches, load, normalize
from minibn.errors import BackendUnavailable, DataError
from minibn.ops import softmax_cross_entropy
from reference_models.vgg import VGG

PROGRAM = "python -m experiments.gpu_check"
TOLERANCE = 2e-3  # of the loss, in float32 after a few steps, without TF32
MEASURED = 1e-6  # of measurements in float64 (normals of the noise differ by a few ulp)


@dataclass(frozen=True)
class Options:
    backend: str = setting("cupy", "what to check against numpy: cupy, or strict for a rehearsal")
    data: str = setting("shapes", f"the data set: {', '.join(DATA)}")
    data_dir: str | None = setting(None, "where CIFAR-10 lies", kind=str)
    model: str = setting("vgg16", f"the network that is timed: {', '.join(VGG)}")
    width: float = setting(1.0, "factor on its channels")
    variants: tuple[str, ...] = setting(tuple(VARIANTS), "the variants whose losses are compared")
    steps: int = setting(5, "steps of each variant that are compared")
    rounds: int = setting(30, "steps that are timed")
    batch_size: int = setting(128, "images per step")
    out: str = setting("runs/gpu_check", "folder for gpu_check.json")


def losses(variant: str, backend: str, batches: Batches, steps: int) -> list[float]:
    """The first losses of a narrow VGG-11 on a backend."""
    settings = Settings(model="vgg11", width=0.25)
    with use(backend):
        model = network(settings, variant, seed=0)
        optimizer = sgd(settings, model, 0.01)
        results = [one_step(model, optimizer, *batches.batch(i))[0] for i in range(steps)]
        return [float(loss.item()) for loss in results]


def measurements(backend: str, batches: Batches) -> list[float]:
    """What `minibn.analysis` says of an update of a narrow VGG-11 with noisy BatchNorm, in float64,
    where nothing is left to rounding: a walk, covariate shift, drift, curvature."""
    settings = Settings(model="vgg11", width=0.125)
    with use(backend) as where:
        model = network(settings, "noisy-batchnorm", seed=0, dtype=np.float64)
        images, labels = batches.batch(0)
        batch = normalize(where.asarray(images), np.float64), labels
        walk = probe(model, batch, [0.05, 0.1])
        before = snapshot(model)
        loss = softmax_cross_entropy(model(batch[0]), labels)
        loss.backward()
        sgd(settings, model, 0.1).step()
        after = {name: p.data for name, p in model.named_parameters()}
        shifts = covariate_shift(model, batch, before, after)
        moved = distribution_shift(model, batch, before, after, ["relu3"])[0]
        H = Hessian(model, batch)
        return [
            walk.loss, *walk.losses, *walk.gradient_change, *(shift.l2 for shift in shifts),
            moved.mean_drift, moved.wasserstein, H.along_gradient(), *H.eigenvalues(1).values,
        ]  # fmt: skip


def step_times(options: Options, batches: Batches) -> list[float]:
    """Seconds of single steps of the timed network, after three that are not counted."""
    settings = Settings(model=options.model, width=options.width)
    with use(options.backend) as backend:
        model = network(settings, "batchnorm", seed=0)
        optimizer = sgd(settings, model, 0.1)
        times = []
        for i in range(3 + options.rounds):
            backend.synchronize()
            began = time.perf_counter()
            one_step(model, optimizer, *batches.batch(i))
            backend.synchronize()
            times.append(time.perf_counter() - began)
        return times[3:]


def gpu_tests() -> int:
    """pytest's exit code for the tests marked gpu."""
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "pytest", "-m", "gpu", str(root / "tests")]
    return subprocess.run(command, cwd=root, check=False).returncode


def check(options: Options) -> int:
    get_backend(options.backend)  # says what is missing
    threads = cores()
    data = load(options.data, options.data_dir)
    batches = Batches(data.train_images, data.train_labels, options.batch_size, seed=0)
    found: dict[str, Any] = {"tests": gpu_tests() if options.backend == "cupy" else None}
    agree = True
    for variant in options.variants:
        ours, theirs = (
            losses(variant, b, batches, options.steps) for b in ("numpy", options.backend)
        )
        worst = max(abs(a - b) / abs(a) for a, b in zip(ours, theirs, strict=True))
        agree &= bool(np.isfinite(worst)) and worst <= TOLERANCE
        found[variant] = {"numpy": ours, options.backend: theirs, "worst_relative": worst}
        print(f"{variant}: numpy and {options.backend} differ by at most {worst:.1e} of the loss")
    few = Batches(data.train_images, data.train_labels, min(16, options.batch_size), seed=0)
    ours, theirs = (measurements(b, few) for b in ("numpy", options.backend))
    worst = max(abs(a - b) / max(abs(a), 1e-12) for a, b in zip(ours, theirs, strict=True))
    agree &= bool(np.isfinite(worst)) and worst <= MEASURED
    found["analysis"] = {"numpy": ours, options.backend: theirs, "worst_relative": worst}
    print(f"analysis: numpy and {options.backend} differ by at most {worst:.1e}")
    times = step_times(options, batches)
    spread = [1000 * t for t in (min(times), statistics.median(times), max(times))]
    print(
        f"{options.model} width {options.width:g}, batch {options.batch_size}: a step takes "
        f"{spread[1]:.2f} ms (min {spread[0]:.2f}, max {spread[2]:.2f}, n = {len(times)})"
    )
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    environment_ = environment(get_backend(options.backend), threads)
    write_json(
        folder / "gpu_check.json",
        {"environment": environment_, **found, "step_milliseconds": [1000 * t for t in times]},
    )
    print(f"Written: {folder / 'gpu_check.json'}")
    return 0 if agree and not found["tests"] else 1


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        given = parse(
            Options,
            sys.argv[1:] if arguments is None else arguments,
            program=PROGRAM,
            description=str(__doc__).partition("\n\n")[0],
        )
        options = Options(**given)
        one_of("--backend", options.backend, ("cupy", "strict"))
        one_of("--data", options.data, DATA)
        one_of("--model", options.model, tuple(VGG))
        for variant in options.variants:
            one_of("--variants", variant, tuple(VARIANTS))
        for name in ("steps", "rounds", "batch_size"):
            at_least("--" + name.replace("_", "-"), getattr(options, name), 1)
        return check(options)
    except (UsageError, DataError, BackendUnavailable, OSError) as error:
        return report(PROGRAM, error)


if __name__ == "__main__":
    sys.exit(main())
