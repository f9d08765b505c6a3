"""The parts of `experiments.gpu_check`, in the order of their worth: the command of each in each
way to compute, its time limit, and its result in one line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from experiments.gpu.losses import describe, float_or_inf
from experiments.gpu.sitting import WAYS, Part, WrongResult
from experiments.training.json_files import read_json
from experiments.training.study import Study

NAMES = ("losses", "steps", "paper", "laws", "kernels")
PYTHON = [sys.executable, "-m"]

# The paper's setting. Runs are made seed by seed, in each by rate, in each by variant.
TRAINING = [
    *("--variants", "batchnorm", "standard", "noisy-batchnorm", "noisy-standard"),
    *("--lr", "0.1", "0.5", "--seed", "0", "1", "2", "3", "4"),
    *("--steps", "15000", "--eval-every", "1000", "--checkpoint-every", "5000"),
]
# What the claims need. `reproduce --scale paper` measures more, and oftener.
RECORDERS = ["--probe-every", "100", "--shift-every", "500", "--record-every", "500"]
NO_RECORDERS = ["--record-every", "0"]
TINY_TRAINING = [
    *("--quick", "--data", "shapes", "--width", "0.0625", "--steps", "4", "--batch-size", "8"),
    *("--test-size", "10", "--variants", "batchnorm", "noisy-batchnorm"),
]
# The laws of the registry, with CUDA kernels in the ops' places; the kernels' own; trainings.
LAWS = (
    *("tests/gpu/test_gpu_ops.py", "tests/fast/cuda", "tests/testing/test_laws.py"),
    *("tests/gpu/test_gpu_training.py", "tests/gpu/test_gpu_memory.py"),
)


def all_parts(options: Any, folder: Path) -> list[Part]:
    """The parts that are not turned off."""
    rehearsal, without = options.rehearse, set(options.without)
    backend = options.backend
    trained_on = "strict" if backend == "emulated" else backend

    def measure(name: str, way: str) -> list[str]:
        sizes = {"backend": backend, "way": way, "precision": options.precision,
                 "rehearsal": rehearsal}  # fmt: skip
        file = str(folder / f"{name}.json")
        return [*PYTHON, "experiments.gpu.measure", name, file, json.dumps(sizes)]

    def steps(way: str) -> list[str]:
        small = ["--quick", "--variants", "batchnorm"]
        full = [*("--models", "vgg16", "vgg11", "--variants", "batchnorm"),
                *("--batch", "128", "512", "--rounds", "5")]  # fmt: skip
        ours = ["--ways", *{"graph": ("eager", "graph"), "launches": ("eager",)}.get(way, (way,))]
        alone = ["--alone"] if "pytorch" in without else []
        return [
            *PYTHON, "experiments.benchmark", "--backend", backend, "--parts", "precision",
            *(small if rehearsal else full), *ours, *alone, "--json", str(folder / "steps.json"),
        ]  # fmt: skip

    def train(way: str) -> list[str]:
        # A captured graph computes the same bits as its launches: one study.
        study = folder / ("paper-reference" if way == "reference" else "paper")
        captured = "on" if backend == "cupy" else "auto"
        place, graph = _data_dir(options), ["--graph", captured if way == "graph" else "off"]
        if (study / "study.json").exists():
            return [*PYTHON, "experiments.vgg_cifar", "--resume", str(study), *graph, *place]
        kernels, digits = "fast", options.precision
        if way == "reference":  # which does not round
            kernels, digits = "reference", "fp32"
        return [
            *PYTHON, "experiments.vgg_cifar", *graph, "--backend", trained_on,
            "--kernels", kernels, "--precision", digits,
            *(TINY_TRAINING if rehearsal else [*TRAINING, "--data", "cifar10", *place]),
            *(NO_RECORDERS if "recorders" in without else RECORDERS), "--out", str(study),
        ]  # fmt: skip

    def laws(way: str) -> list[str]:
        # CuPy may still use what NumPy deprecates, which makes no result wrong.
        how = ["-m", "gpu", "-vv", "-rN", "-W", "default::DeprecationWarning"]
        what = ["tests/gpu/test_gpu_training.py"] if rehearsal else [*LAWS, "-n", "8"]
        return [*PYTHON, "pytest", *how, *what]

    found = [
        Part(
            "losses", "50 steps of every variant, beside NumPy's losses", 45,
            lambda way: measure("losses", way), lambda: _losses(folder), in_ways=True,
        ),
        Part(
            "steps", "the time of a training step, beside PyTorch's", 90,
            steps, lambda: _steps(folder), in_ways=True, partial=True,
        ),
        Part(
            "paper", "the paper's setting on CIFAR-10, as many runs as the time holds", None,
            train, lambda: _paper(folder), in_ways=True, goes_on=True,
        ),
        Part(
            "laws", "the laws of ops and kernels", 60,
            laws, lambda: _laws(folder / "laws.log", options.backend == "cupy"), partial=True,
        ),
        Part(
            "kernels", "each call of a step by each kernel, each product by each tile", 60,
            lambda way: measure("kernels", way), lambda: _kernels(folder), partial=True,
        ),
    ]  # fmt: skip
    return [part for part in found if part.name not in without]


def first_way(options: Any) -> str:
    """The first way to compute that is not turned off. The strict double alone has no graphs."""
    without = {"graph"} if options.backend == "strict" else set()
    without |= set(options.without)
    return WAYS[2] if "cuda" in without else WAYS[1] if "graph" in without else WAYS[0]


def _data_dir(options: Any) -> list[str]:
    if options.rehearse or options.data_dir is None:
        return []
    return ["--data-dir", str(Path(options.data_dir).absolute())]


def _losses(folder: Path) -> str:
    found = read_json(folder / "losses.json", environment=dict)
    where = found.pop("environment")
    wrong = [name for name, case in found.items() if not case["agree"]]
    worst = max(found, key=lambda name: float_or_inf(found[name]["of_allowed"]))
    text = f"{len(found) - len(wrong)} of {len(found)} agree with NumPy's; the furthest, {worst}: "
    text += describe(found[worst])
    device = ", ".join(f"{key} {where[key]}" for key in ("device", "cupy", "numpy") if key in where)
    return f"{device}: {text}" + (f". NOT: {', '.join(wrong)}" if wrong else "")


def _steps(folder: Path) -> str:
    found = read_json(folder / "steps.json", precision=list)["precision"]
    shown = []
    for each in found:
        case = each["case"]
        times = ", ".join(f"{name} {t['median_ms']:.2f}" for name, t in each["times"].items())
        shown.append(f"{case['model']} {case['batch']} {case['precision']}: {times}")
    return "ms a step. " + "; ".join(shown)


def _paper(folder: Path) -> str:
    """From the studies: the runs that are done, their last losses, and the time that they took."""
    done, steps, seconds, recorders = [], 0, 0.0, 0.0
    for study in sorted(folder.glob("paper*/study.json")):
        for run in Study(study.parent).runs():
            metrics = run.records("metrics")
            steps += len(metrics)
            timings = run.records("timings")
            seconds += sum(record["seconds"] for record in timings)
            recorders += sum(record["recorders"] for record in timings)
            if run.result is not None:
                done.append(f"{run.name} {run.result['status']}, loss {metrics[-1]['loss']:.3f}")
    share = f"{recorders / max(seconds, 1e-9):.0%} of it in recorders"
    return f"{steps:,} steps in {seconds:.1f} s, {share}: {'; '.join(done)}"


def _laws(log: Path, on_gpu: bool) -> str:
    """Counts of pytest's log, a line a test. Raises ValueError if on a GPU no test passed, and
    WrongResult if one failed."""
    text = log.read_text(encoding="utf-8", errors="replace")
    passed, failed, skipped = (
        len(
            re.findall(rf"\b(?:{word})(?: +\[| tests/)", text)
        )  # after the name, or (workers) before it
        for word in ("PASSED", "FAILED|ERROR", "SKIPPED")
    )
    if on_gpu and not passed:
        raise ValueError("no test passed")
    line = f"{passed} passed, {failed} failed, {skipped} skipped"
    if failed:
        raise WrongResult(line)
    return line


def _kernels(folder: Path) -> str:
    found = read_json(folder / "kernels.json", machine=dict, calls=list, products=list)
    rates = (f"{p} {rate / 1e12:.1f}" for p, rate in found["machine"]["product_flops"].items())
    copy = found["machine"]["copy_bytes_per_second"] / 1e9
    slow = sum(call["chosen"] != call["fastest"] for call in found["calls"])
    plans = sum(each["chosen"] != each["best"] for each in found["products"])
    return (
        f"copies {copy:.0f} GB/s, products in TFLOP/s: {', '.join(rates)}; another kernel is "
        f"faster in {slow} of {len(found['calls'])} calls, another plan in {plans} of "
        f"{len(found['products'])} products"
    )
