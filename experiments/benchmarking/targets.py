"""Performance targets, and whether a run of the benchmark reaches them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

ROUNDS = 7  # fewer decide nothing
GROWTH = 1.15  # of the time per image, from a batch of GROWS_FROM on
GROWS_FROM = 32
MEMORY = 1.2  # of PyTorch's peak
START_UP = {"import minibn": 0.15, "python -m experiments.vgg_cifar --help": 0.7}  # seconds

# (model, batch, noisy) -> (at most, the aim) of our time over PyTorch's best
STEPS = {
    ("vgg16", 128, False): (0.65, 0.5),
    ("vgg11", 128, False): (0.7, 0.55),
    ("vgg16", 128, True): (0.8, None),
    ("vgg11", 128, True): (0.8, None),
    ("vgg16", 16, False): (1.0, 0.8),
    ("vgg11", 16, False): (1.0, 0.8),
}

# On a GPU, at these batches: (at most, the aim) of our time over PyTorch's, by the part
GPU_BATCHES = (128, 512)
GPU_STEPS = {"steps": (1.0, 0.7), "compiled": (1.3, None)}
GPU_MEMORY = ("vgg16", 8192, 100e9)  # this network with this batch trains in so many bytes


@dataclass(frozen=True)
class Verdict:
    """A target and the measured number."""

    what: str
    found: float
    at_most: float
    aim: float | None = None

    def __str__(self) -> str:
        if self.found > self.at_most:
            return f"missed by {self.found / self.at_most - 1:.0%}"
        if self.aim is None:
            return "reached"
        return "reached, and the aim" if self.found <= self.aim else "reached, not the aim"


def verdicts(record: dict[str, Any]) -> Iterator[Verdict]:
    """The targets that a record of the benchmark says something about."""
    for step in record.get("steps", []):
        case = step["case"]
        limits = STEPS.get((case["model"], case["batch"], case["variant"].startswith("noisy")))
        if limits and case["width"] == 1 and step["ratio"]:
            what = f"step of {case['model']} {case['variant']}, batch {case['batch']}"
            yield Verdict(f"{what}, over PyTorch's best", step["ratio"]["medians"], *limits)
    for peaks in record.get("memory", []):
        case, found = peaks["case"], {name: p["step"] for name, p in peaks["bytes"].items()}
        theirs = [found[name] for name in found if name.startswith("PyTorch")]
        for mode in ("fast", "lean"):
            if theirs:
                what = f"peak memory of {case['model']}, batch {case['batch']} ({mode})"
                ratio = found[f"minibn {mode}"] / min(theirs)
                yield Verdict(f"{what}, over PyTorch's lower", ratio, MEMORY)
    per_image = {
        row["case"]["batch"]: row["times"]["minibn"]["median_ms"] / row["case"]["batch"]
        for row in record.get("scaling", {}).get("batch", [])
        if row["case"]["batch"] >= GROWS_FROM
    }
    if GROWS_FROM in per_image and len(per_image) > 1:
        worst = max(per_image.values()) / per_image[GROWS_FROM]
        yield Verdict(f"time per image, worst batch over {GROWS_FROM}'s", worst, GROWTH)
    for name, limit in START_UP.items():
        if name in record.get("startup", {}):
            yield Verdict(f"{name}, seconds", record["startup"][name]["median_ms"] / 1000, limit)


def gpu_verdicts(record: dict[str, Any]) -> Iterator[Verdict]:
    """The targets that a record of the benchmark on a GPU says something about."""
    for part, limits in GPU_STEPS.items():
        for step in record.get(part, []):
            case = step["case"]
            aimed_at = case["batch"] in GPU_BATCHES and case["precision"] == "tf32"
            if aimed_at and case["width"] == 1 and step["ratio"]:
                what = f"step of {case['model']} {case['variant']}, batch {case['batch']}"
                yield Verdict(
                    f"{what}, over {step['ratio']['rival']}", step["ratio"]["medians"], *limits
                )
    model, batch, most = GPU_MEMORY
    for peaks in record.get("memory", []):
        case, found = peaks["case"], peaks["bytes"]
        if (case["model"], case["batch"], case["width"]) == (model, batch, 1):
            for name in found:
                if name.startswith("minibn"):
                    what = f"memory of {model} {case['variant']}, batch {batch} ({name}), bytes"
                    yield Verdict(what, found[name]["peak"], most)
