"""The parts of `experiments.gpu_check`: the command, the time limit and the result in one line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from experiments.gpu.measure import describe_step
from experiments.gpu.sitting import ROOT, Part
from experiments.training.json_files import read_json
from experiments.training.study import Study
from experiments.vgg.settings import VARIANTS

# The sizes of a rehearsal, or of --quick, which only shows that the parts run.
TINY: dict[str, Any] = {
    "variants": ["batchnorm", "l1"], "narrow": 1 / 16, "steps": 1, "batch": 4, "model": "vgg11",
    "width": 1 / 16, "large_batch": 8, "large_steps": 1,
}  # fmt: skip
TINY_TRAINING = [
    *("--quick", "--data", "shapes", "--width", "0.0625", "--steps", "4", "--batch-size", "8"),
    *("--test-size", "10"),
]
STEPS = ("machine", "steps", "compiled", "precision", "memory")  # parts of the benchmark
NAMES = (
    *("environment", "tests", "agreement", "machine", "choices", "tiles", "benchmark"),
    *("paper", "large", "all-tests", "reproduce"),
)


def all_parts(options: Any, folder: Path) -> list[Part]:
    """In their order: first what the others need; last what fills any time."""
    python, quick = [sys.executable, "-m"], options.quick
    backend = ["--backend", options.backend]
    data = [*("--data", options.data), *_data_dir(options)]
    precision = ["--precision", options.precision]
    sizes = {"backend": options.backend, "data": options.data, "data_dir": options.data_dir}
    sizes |= TINY if quick else {"variants": list(VARIANTS)}

    def measure(name: str) -> list[str]:
        file = str(folder / f"{name}.json")
        return [*python, "experiments.gpu.measure", name, file, json.dumps(sizes)]

    def test(name: str, *what: str) -> list[str]:
        # CuPy may still use what NumPy deprecates, which makes no result wrong.
        how = ["-m", "gpu", "-rfE", "-W", "default::DeprecationWarning"]
        return [*python, "pytest", *how, f"--junitxml={folder / name}.xml", *what]

    def benchmark(name: str, *which: str) -> list[str]:
        file = ["--json", str(folder / f"{name}.json")]
        small = ["--quick", "--variants", "batchnorm"] if quick else []
        return [
            *python, "experiments.benchmark", *backend, *precision, *small, "--parts", *which, *file
        ]  # fmt: skip

    paper = folder / "paper"
    training = [
        *python, "experiments.vgg_cifar", *backend, *precision, "--variants", "batchnorm",
        "--seed", str(options.seed), "--record-every", "0", "--eval-every", "1000",
    ]  # fmt: skip
    if (paper / "study.json").exists():
        training = [*python, "experiments.vgg_cifar", "--resume", str(paper), *_data_dir(options)]
    else:
        training += [*(TINY_TRAINING if quick else data), "--out", str(paper)]
    scale = "quick" if quick else "paper"
    reproduce = [
        *python, "experiments.reproduce", "--scale", scale, *backend, *precision,
        *_data_dir(options), "--seed", str(options.seed), "--out", str(folder / "reproduce"),
    ]  # fmt: skip
    at_hand = quick or options.data == "cifar10"
    new = ["tests/gpu/test_gpu_training.py"] if quick else ["tests/gpu", "tests/backend"]
    others = (p.name for p in sorted((ROOT / "tests").iterdir()) if p.is_dir())
    old = [f"tests/{name}" for name in others if name not in ("gpu", "backend", "support")]
    on_gpu = options.backend == "cupy"

    found = [
        Part(
            "environment", "the device and the versions", 30, 5,
            measure("environment"), lambda: _environment(folder),
        ),
        Part(
            "tests", "tests of ops, layers, trainings, kernels on a GPU", 420, 20,
            test("tests", *new), lambda: _tests(folder / "tests.xml", on_gpu),
        ),
        Part(
            "agreement", "losses of all variants, and the analysis, on both backends", 120, 15,
            measure("agreement"), lambda: _agreement(folder),
        ),
        Part(
            "machine", "copy bandwidth, product rates, each kernel's share of a step", 90, 10,
            benchmark("machine", "machine", "kernels"), lambda: _machine(folder),
        ),
        Part(
            "choices", "all kernels that fit, at each call of a step", 120, 15,
            measure("choices"), lambda: _choices(folder),
        ),
        Part(
            "tiles", "all tiles, at each product of a step", 90, 15,
            measure("tiles"), lambda: _tiles(folder),
        ),
        Part(
            "benchmark", "training steps and memory, against PyTorch where it is", 300, 20,
            benchmark("benchmark", *(STEPS[:2] if quick else STEPS)), lambda: _benchmark(folder),
        ),
        Part(
            "paper", "the paper's settings, one variant", 180, 20,
            training, lambda: _paper(paper), goes_on=True,
        ),
        Part(
            "large", "a batch that fills the device", 60, 15,
            measure("large"), lambda: _large(folder),
        ),
        Part(
            "all-tests", "every other test that takes a backend", 240, 60,
            test("all-tests", *old), lambda: _tests(folder / "all-tests.xml", on_gpu),
        ),
        Part(
            "reproduce", f"all trainings of the paper, --scale {scale}", 6 if quick else 1500, 5,
            reproduce if at_hand else None, lambda: _reproduce(folder / "reproduce" / scale),
            instead="it trains on CIFAR-10: --data cifar10 --data-dir DIR", goes_on=True,
        ),
    ]  # fmt: skip
    return [part for part in found if part.name != "all-tests" or not quick]  # it takes minutes


def _data_dir(options: Any) -> list[str]:
    return (
        [] if options.data_dir is None else ["--data-dir", str(Path(options.data_dir).absolute())]
    )


def _environment(folder: Path) -> str:
    found = read_json(folder / "environment.json", device=str)
    return ", ".join(f"{key} {found[key]}" for key in ("device", "cupy", "numpy") if key in found)


def _tests(path: Path, on_gpu: bool) -> str:
    """Counts of pytest's report. Raises ValueError if on a GPU all tests were skipped."""
    text = path.read_text(encoding="utf-8")
    names = ("tests", "failures", "errors", "skipped")
    all_, failed, errors, skipped = (
        int(re.search(rf'<testsuite [^>]*\b{name}="(\d+)"', text)[1])  # type: ignore[index]  # no report: an error is wanted
        for name in names
    )
    passed = all_ - failed - errors - skipped
    if on_gpu and not passed:
        raise ValueError("no test ran")
    return f"{passed} passed, {failed + errors} failed, {skipped} skipped"


def _agreement(folder: Path) -> str:
    found = read_json(folder / "agreement.json")
    name = max(found, key=lambda name: found[name]["worst_relative"])
    wrong = [name for name in found if not found[name]["agree"]]
    return f"differ by at most {found[name]['worst_relative']:.1e} ({name})" + (
        f"; not within the tolerance: {', '.join(wrong)}" if wrong else ""
    )


def _machine(folder: Path) -> str:
    found = read_json(folder / "machine.json", machine=dict)["machine"]
    rates = (f"{p} {rate / 1e12:.1f}" for p, rate in found["product_flops"].items())
    copy = found["copy_bytes_per_second"] / 1e9
    return f"copies {copy:.0f} GB/s, products in TFLOP/s: {', '.join(rates)}"


def _choices(folder: Path) -> str:
    found = read_json(folder / "choices.json", calls=list)
    return f"{len(found['better'])} of {len(found['calls'])} calls have a faster kernel than chosen"


def _tiles(folder: Path) -> str:
    found = read_json(folder / "tiles.json", products=list)["products"]
    better = sum(each["best"] != each["chosen"] for each in found)
    return f"{better} of {len(found)} products have a faster plan than chosen; see tiles.log"


def _paper(folder: Path) -> str:
    """From the study: the steps, the seconds that they took, and the last loss."""
    (run,) = Study(folder).runs()
    seconds = sum(record["seconds"] for record in run.records("timings"))
    metrics = run.records("metrics")
    return f"{len(metrics):,} steps in {seconds:.1f} s, loss {metrics[-1]['loss']:.3f}"


def _large(folder: Path) -> str:
    found = read_json(folder / "large.json")
    modes = "; ".join(f"{mode}: {describe_step(found[mode])}" for mode in ("fast", "lean"))
    return f"{found['model']}, batch {found['batch']:,}: {modes}"


def _benchmark(folder: Path) -> str:
    found = read_json(folder / "benchmark.json")
    targets = found.get("targets", [])
    reached = sum(not target["verdict"].startswith("missed") for target in targets)
    return f"{reached} of {len(targets)} targets reached; see benchmark.log"


def _reproduce(folder: Path) -> str:
    done = read_json(folder / "done.json") if (folder / "done.json").exists() else {}
    return f"{len(done)} studies done" + (f": {', '.join(done)}" if done else "")
