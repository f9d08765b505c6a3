"""Synthetic studies: files like those of a training, with numbers like the paper's.

Figures and tables are made from files, so their tests need no training.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

from experiments.training.json_files import write_json
from experiments.training.study import Study

ENVIRONMENT = {"python": "3", "numpy": "2", "commit": "none", "threads": 1, "backend": "numpy"}
SETTINGS = {
    "data": "cifar10", "model": "vgg16", "width": 0.25, "head": "linear", "batch_size": 128,
    "kernels": "fast", "precision": "fp32", "init": "glorot_uniform",
}  # fmt: skip
EARLY = (1, 2, 5, 10, 20, 50)
MULTIPLES = (0.5, 1.0, 2.0, 4.0)
CONVOLUTIONS = 13
LAYERS = (1, 2, 3, 6, 7, 8, 9, 11, 13)  # that figures show of VGG-11 and of VGG-16

# variant -> (pace of learning, last accuracy, gradient change at step 0 and late, slope over steps)
KINDS = {
    "standard": (700, 0.97, 2.0, 14.0, 1.1),
    "batchnorm": (200, 0.99, 135.0, 11.0, 0.3),
    "noisy-batchnorm": (300, 0.97, 150.0, 12.0, 0.35),
    "noisy-standard": (3000, 0.5, 3.0, 30.0, 1.2),
    "l1": (170, 0.99, 77.0, 10.0, 0.3),
    "l2": (185, 0.99, 99.0, 10.0, 0.28),
    "linf": (200, 0.99, 24.0, 9.0, 0.25),
}


def probed(steps: int, every: int) -> list[int]:
    return sorted({s for s in EARLY if s < every} | set(range(0, steps, every)))


def study(
    folder: Path,
    runs: Iterable[tuple[str, float, int]],
    *,
    steps: int = 200,
    every: int = 50,
    streams: Sequence[str] = ("metrics", "test", "distributions", "landscape", "shift"),
    result: dict[str, Any] | None = None,
    **changed: Any,
) -> Study:
    """A study with a run for each (variant, rate, seed), which has these streams. changed:
    settings that differ from SETTINGS."""
    makers = {
        "metrics": metrics, "test": test_accuracy, "distributions": distributions,
        "landscape": landscape, "shift": shift, "curvature": curvature,
    }  # fmt: skip
    settings = {**SETTINGS, "steps": steps, **changed}
    for variant, lr, seed in runs:
        run = folder / "runs" / f"{variant}-lr{lr:g}-seed{seed}"
        run.mkdir(parents=True)
        config = {
            "experiment": "vgg_cifar", "variant": variant, "lr": lr, "seed": seed,
            "settings": settings, "data_fingerprint": "0", "environment": ENVIRONMENT,
        }  # fmt: skip
        write_json(run / "config.json", config)
        write_json(run / "result.json", result or {"status": "done", "steps": steps})
        for name in streams:
            key = sum(variant.encode()) + 1000 * seed + int(1e4 * lr)
            rng = np.random.default_rng([key, len(name)])
            records = makers[name](variant, lr, steps, every, rng)
            lines = (json.dumps(r) + "\n" for r in records)
            (run / f"{name}.jsonl").write_text("".join(lines))
    write_json(folder / "study.json", {"experiment": "vgg_cifar", "settings": settings})
    return Study(folder)


def _accuracy(variant: str, lr: float, steps: Any, rng: np.random.Generator) -> np.ndarray:
    pace: float
    pace, last, *_ = KINDS[variant]
    fails = variant == "standard" and lr >= 0.5
    pace, last = (1e9, 0.1) if fails else (pace * (0.1 / lr) ** 0.5, last)
    pace *= np.exp(0.1 * rng.standard_normal())
    return 0.1 + (last - 0.1) * (1 - np.exp(-np.asarray(steps) / pace))


def metrics(variant: str, lr: float, steps: int, every: int, rng: Any) -> list[dict]:
    right = rng.binomial(128, _accuracy(variant, lr, range(steps), rng)) / 128
    return [
        {"step": s, "loss": float(2.3 * (1 - a) + 0.05), "accuracy": float(a), "lr": lr}
        for s, a in enumerate(right)
    ]


def test_accuracy(variant: str, lr: float, steps: int, every: int, rng: Any) -> list[dict]:
    updates = list(range(every, steps + 1, every))
    accuracy = 0.82 * _accuracy(variant, lr, updates, rng) + 0.01
    return [
        {"step": u - 1, "updates": u, "accuracy": float(a)}
        for u, a in zip(updates, accuracy, strict=True)
    ]


def landscape(variant: str, lr: float, steps: int, every: int, rng: Any) -> list[dict]:
    _, _, first, late, slope = KINDS[variant]
    sizes = np.array(MULTIPLES) * lr
    found = []
    for s in probed(steps, every):
        share = s / (s + 100)  # from the first step's numbers to the late ones
        change = (1 - share) * first + share * late * np.exp(0.3 * rng.standard_normal())
        changes = change * np.array(MULTIPLES) ** (slope * share + 0.1)
        loss = 2.3 * (1 - float(_accuracy(variant, lr, s, rng))) + 0.1
        losses = loss + changes**2 / 4000 * rng.random(4)
        norm = change / (sizes[0] * (11 + 14 * (variant != "standard")))
        norm *= 1 + share * rng.random()
        beta = changes / (sizes * norm)
        record = {
            "step": s, "lr": lr, "direction": "gradient", "loss": loss,
            "gradient_norm": float(norm), "step_sizes": sizes.tolist(),
            "losses": losses.tolist(), "gradient_change": changes.tolist(),
            "cosine": (1 / (1 + sizes * beta)).tolist(), "beta": beta.tolist(),
            "saturated": bool(beta.argmax() == 0 and slope < 0.5), "at_ceiling": False,
        }  # fmt: skip
        if variant == "noisy-standard" and s and s == every:  # the probe's end was not finite
            for key in ("losses", "gradient_change", "cosine", "beta"):
                record[key][-1] = None
        found.append(record)
    return found


def shift(variant: str, lr: float, steps: int, every: int, rng: Any) -> list[dict]:
    normed = variant not in ("standard", "noisy-standard")
    found = []
    for s in probed(steps, every):
        start = np.exp(-s / 30)
        for layer in range(1, CONVOLUTIONS + 2):
            l2 = (0.8 if s > 100 else 0.1) * np.exp(0.4 * rng.standard_normal()) / layer**0.3
            l2 += 14 * start * normed
            cosine = np.clip(1 - 0.07 * layer * (lr / 0.1) ** 0.5 - 0.1 * normed * start, -1, 1)
            record = {
                "step": s, "layer": layer, "l2": float(l2) * (layer > 1),
                "relative": float(l2 / 2) * (layer > 1),
                "cosine": 1.0 if layer == 1 else float(cosine), "gradient_norm": 2.0,
            }  # fmt: skip
            if layer <= CONVOLUTIONS:
                moved = (0.002 if normed else 0.04) * np.exp(0.3 * rng.standard_normal())
                moved = moved + 0.2 * variant.startswith("noisy")
                record |= {"mean_drift": moved, "var_drift": moved / 2, "wasserstein": moved * 1.1}
                record["std"] = 1.0
            found.append(record)
    return found


def curvature(variant: str, lr: float, steps: int, every: int, rng: Any) -> list[dict]:
    found = []
    for s in probed(steps, every):
        top = 2 / lr * (1 - np.exp(-(s + 5) / 50)) * np.exp(0.1 * rng.standard_normal())
        found.append(
            {"step": s, "lr": lr, "along_gradient": top * (0.8 + 0.3 * rng.random()),
             "eigenvalues": [top, top / 2, top / 3], "trace": 6 * top, "trace_error": top}
        )  # fmt: skip
    return found


def distributions(variant: str, lr: float, steps: int, every: int, rng: Any) -> list[dict]:
    normed = variant not in ("standard", "noisy-standard")
    wide = {"l1": 1.4, "l2": 0.9, "linf": 0.15}.get(variant, 1.0 if normed else 0.3)
    found = []
    for s in range(steps):
        if s % every > 1:
            continue
        for layer in LAYERS:
            for place in ("activation", "norm_input")[: 1 + normed]:
                middle = rng.uniform(-0.5, 0.5) if variant.startswith("noisy") else 0.1
                middle += (0 if normed else 0.3) * s / steps
                values = middle + wide * rng.standard_normal(400) * (1 + s / steps)
                record: dict[str, Any] = {
                    "step": s, "layer": layer, "unit": 0, "place": place,
                    "mean": float(values.mean()), "var": float(values.var()),
                }  # fmt: skip
                if s % every == 0:
                    counts, edges = np.histogram(values, 24)
                    shares = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
                    record["quantiles"] = np.quantile(values, shares).tolist()
                    record["histogram"] = counts.tolist()
                    record["range"] = [float(edges[0]), float(edges[-1])]
                found.append(record)
    return found


# Not a test, though pytest would take it for one by its name.
test_accuracy.__test__ = False  # type: ignore[attr-defined]  # for pytest


@contextmanager
def catch_figures(*modules: Any) -> Iterator[dict[str, Any]]:
    """The figures that these modules would save, by name; inside, they write no files."""
    figures: dict[str, Any] = {}

    def save(figure: Any, folder: Path, name: str) -> Path:
        figures[name] = figure
        return folder / f"{name}.png"

    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.setattr(module, "save", save)
        yield figures


def legends_cut_off(figure: Any) -> list[str]:
    """The legends of a figure that reach beyond its left or right edge, with their labels."""
    renderer = figure.canvas.get_renderer()
    width = figure.bbox.width
    return [
        str([text.get_text() for text in legend.get_texts()])
        for legend in figure.legends
        if (box := legend.get_window_extent(renderer)).x0 < 0 or box.x1 > width
    ]


def drawn_texts(figure: Any) -> list[tuple[str, Any]]:
    """Every text that a figure draws, with the box around it."""
    renderer = figure.canvas.get_renderer()
    found = []
    draw = Text.draw

    def note(text: Text, *arguments: Any, **options: Any) -> None:
        if text.get_visible() and text.get_text().strip():
            found.append((text.get_text(), text.get_window_extent(renderer)))
        draw(text, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", note)
        figure.draw(renderer)
    return found


def texts_over_texts(figure: Any) -> list[tuple[str, str]]:
    """The pairs of texts of which one lies over another."""
    texts = [(text, box.padded(-1)) for text, box in drawn_texts(figure)]
    pairs = itertools.combinations(texts, 2)
    return [(one, other) for (one, a), (other, b) in pairs if a.overlaps(b)]


def texts_cut_off(figure: Any) -> list[str]:
    """The texts that reach beyond the figure's edges."""
    width, height = figure.bbox.width, figure.bbox.height
    return [
        text
        for text, box in drawn_texts(figure)
        if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1
    ]


def points_that_do_not_show(figure: Any) -> list[Any]:
    """The lines of a single point without a marker, in panels and their strips."""
    panels = [part for axes in figure.axes for part in (axes, *axes.child_axes)]
    lines = [line for axes in panels for line in axes.lines]
    return [
        line
        for line in lines
        if line.get_marker() == "None"
        and np.isfinite(np.asarray(line.get_ydata(), float)).sum() == 1
    ]


def legends_over_panels(figure: Any) -> list[str]:
    """The legends of a figure that lie over one of its panels, with its labels."""
    renderer = figure.canvas.get_renderer()
    panels = [axes.get_tightbbox(renderer) for axes in figure.axes if axes.axison]
    legends = list(figure.legends)
    legends += [a.get_legend() for a in figure.axes if a.get_legend()]
    return [
        str([text.get_text() for text in legend.get_texts()])
        for legend in legends
        if any(legend.get_window_extent(renderer).overlaps(panel) for panel in panels)
    ]
