"""Probes along a training: on schedule, as measured directly, without effect on the training."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies import ONE, SMALL, STEPS, TWO, assert_same_study, killed, main, runs, settings

from experiments.paper import shown_layers
from experiments.training.json_files import float_array, json_number, json_numbers
from experiments.training.probes import FIRST_STEPS, CovariateShift, Landscape, is_due
from experiments.training.recorders import Distributions
from experiments.training.step import Step, Task, one_step
from experiments.training.study import Run
from experiments.vgg.runs import load_data, network, sgd
from minibn import grad, nn, ops, optim, to_numpy
from minibn.analysis import distribution_shift, layers_of, probe, snapshot
from minibn.data import Batches, Dataset, pad_crop_flip
from minibn.fast.cpu import threads

SETTINGS = settings(*SMALL)
LAYERS = 9  # of VGG-11: eight convolutions and the classifier
LISTS = ("step_sizes", "losses", "gradient_change", "cosine", "beta")
UNIT = ("mean_drift", "var_drift", "wasserstein", "std")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the runs: another number of threads rounds otherwise."""
    with threads.limit_threads(1):
        yield


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data(SETTINGS)


# -- when, and in which form


@given(st.integers(0, 10_000), st.integers(1, 1000))
def test_a_measurement_falls_on_each_multiple_and_on_some_of_the_first_steps(step, every):
    early = step in FIRST_STEPS and step < every
    assert is_due(step, every) == (step in range(0, step + 1, every) or early)
    assert is_due(0, every) and not is_due(step, 0)


def test_the_first_steps_of_a_training_are_seen_at_growing_intervals():
    assert [t for t in range(301) if is_due(t, 100)] == [0, 1, 2, 5, 10, 20, 50, 100, 200, 300]
    assert [t for t in range(20) if is_due(t, 6)] == [0, 1, 2, 5, 6, 12, 18]
    assert [t for t in range(4) if is_due(t, 1)] == [0, 1, 2, 3]


@given(st.floats())
def test_a_number_has_seven_digits_and_null_stands_for_what_is_not_finite(x):
    if math.isfinite(x):
        assert json_number(x) == pytest.approx(x, rel=1e-6)
        assert json_number(json_number(x)) == json_number(x)
    else:
        assert json_number(x) is None
    assert json_numbers(np.array([x, 1.0])) == [json_number(x), 1.0]


def test_whoever_reads_numbers_says_what_null_stands_for():
    assert float_array(json_numbers([1.5, math.inf, math.nan]), math.inf).tolist() == [
        1.5,
        math.inf,
        math.inf,
    ]
    assert np.isnan(float_array([None, math.nan, 2.0], math.nan)).tolist() == [True, True, False]


def test_a_trained_run_has_its_probes_and_shifts_on_schedule(whole: Path) -> None:
    (run,) = runs(whole)
    probes, shifts = run.records("landscape"), run.records("shift")
    assert [(r["step"], r["direction"]) for r in probes] == [
        (t, d) for t in (0, 1, 2, 4) for d in ("gradient", "random")
    ]
    for r in probes:
        assert list(r) == ["step", "lr", "direction", "loss", "gradient_norm", *LISTS,
                           "saturated", "at_floor", "at_ceiling"]  # fmt: skip
        assert r["step_sizes"] == [0.025, 0.1] and r["lr"] == 0.05
        assert all(len(r[key]) == 2 and None not in r[key] for key in LISTS)
        assert type(r["saturated"]) is type(r["at_ceiling"]) is bool
    assert [(r["step"], r["layer"]) for r in shifts] == [
        (t, layer) for t in (0, 1, 2, 5) for layer in range(1, LAYERS + 1)
    ]
    for r in shifts:
        expected = ["step", "layer", "l2", "relative", "cosine", "gradient_norm"]
        assert list(r) == expected + (list(UNIT) if r["layer"] < LAYERS else [])
        assert (r["l2"] == 0) == (r["layer"] == 1) and None not in r.values()


# -- what


def retrace(variant: str, data: Dataset, steps: int) -> list[tuple]:
    """(model, batch) before each step, and the model after all of them: the run without probes.
    Watched as in the run, since watching changes the rounding."""
    s = SETTINGS
    model = network(s, variant, 0)
    optimizer = sgd(s, model, 0.05)
    batches = Batches(data.train_images, data.train_labels, s.batch_size, 0, pad_crop_flip)
    watching = Distributions(shown_layers(s.model), s.record_every, units=3, seed=0)
    found = []
    for t in range(steps + 1):
        found.append((copy.deepcopy(model), batches.batch(t)))
        with watching.during(Step(Run(Path("unused")), model, optimizer, t, *batches.batch(t))):
            one_step(model, optimizer, *batches.batch(t))
    return found


def batch_of(images: np.ndarray, labels: np.ndarray) -> tuple:
    return Step(None, None, None, 0, images, labels).batch  # type: ignore[arg-type]  # unused


def test_a_probes_line_is_a_probe_of_the_steps_batch_before_its_update(
    whole: Path, data: Dataset
) -> None:
    (run,) = runs(whole)
    metrics = run.records("metrics")
    path = retrace("noisy-batchnorm", data, 4)
    for r in run.records("landscape"):
        if r["direction"] == "gradient":
            model, batch = path[r["step"]]
            decay = {"weight_decay": SETTINGS.weight_decay}
            seen = probe(model, batch_of(*batch), r["step_sizes"], **decay)
            assert (r["loss"], r["gradient_norm"]) == (
                json_number(seen.loss),
                json_number(seen.gradient_norm),
            )
            for key in LISTS:
                assert r[key] == json_numbers(getattr(seen, key)), key
            assert (r["saturated"], r["at_ceiling"]) == (seen.saturated, seen.at_ceiling)
            weights = [p.data for p in model.parameters() if p.ndim > 1]
            penalty = SETTINGS.weight_decay / 2 * sum(float((w**2).sum()) for w in weights)
            step_loss = metrics[r["step"]]["loss"]
            assert r["loss"] == pytest.approx(step_loss + penalty, rel=1e-6)


def gradient_in(model: nn.Sequential, batch: tuple, names: list[str]) -> np.ndarray:
    """The gradient of the loss with its penalty, of one layer, in training mode."""
    named = dict(model.train().named_parameters())
    of = [named[name] for name in names]
    g = grad(ops.softmax_cross_entropy(model(batch[0]), batch[1]), of)
    decay = [SETTINGS.weight_decay * (p.ndim > 1) * p.data for p in of]
    both = (to_numpy(a) + b for a, b in zip(g, decay, strict=True))
    return np.concatenate([a.ravel() for a in both]).astype(float)


@pytest.mark.parametrize("variant", ["noisy-batchnorm", "standard"])
def test_shifts_are_definition_2_1_of_the_steps_own_update(
    variant: str, whole_of_two: Path, data: Dataset
) -> None:
    """With a copy of the model for each layer, whose earlier layers are those of the next step."""
    run = next(r for r in runs(whole_of_two) if r.name.startswith(variant))
    path = retrace(variant, data, 5 + 1)
    for r in run.records("shift"):
        (model, images), (after, _) = path[r["step"]], path[r["step"] + 1]
        model, batch, layers = copy.deepcopy(model), batch_of(*images), layers_of(model)
        names = layers[r["layer"] - 1]
        G = gradient_in(copy.deepcopy(model), batch, names)
        new, named = dict(after.named_parameters()), dict(model.named_parameters())
        for earlier in layers[: r["layer"] - 1]:
            for name in earlier:
                named[name].assign(new[name].data)
        other = gradient_in(model, batch, names)
        length = np.linalg.norm(G)
        assert r["gradient_norm"] == pytest.approx(length, rel=1e-5)
        assert r["l2"] == pytest.approx(np.linalg.norm(G - other), rel=1e-4, abs=1e-6 * length)
        assert r["relative"] == pytest.approx(r["l2"] / length, rel=1e-4)
        cosine = G @ other / length / np.linalg.norm(other)
        assert r["cosine"] == pytest.approx(cosine, rel=1e-4, abs=1e-5)


def test_the_drift_is_of_what_enters_the_layers_own_relu(whole: Path, data: Dataset) -> None:
    (run,) = runs(whole)
    path = retrace("noisy-batchnorm", data, 3)
    for t in (0, 2):
        (model, images), (after, _) = path[t], path[t + 1]
        places = [f"relu{k}" for k in range(1, LAYERS)]
        updated = {name: p.data for name, p in after.named_parameters()}
        units = distribution_shift(model, batch_of(*images), snapshot(model), updated, places)
        lines = [r for r in run.records("shift") if r["step"] == t]
        for unit, r in zip(units, lines, strict=False):
            assert [r[key] for key in UNIT] == json_numbers(getattr(unit, key) for key in UNIT)


def linear_step(run: Run, number: int = 0) -> Step:
    """A task with nothing but a loss, in float64, as the deep linear network's."""
    model = nn.Sequential(a=nn.Linear(3, 4), b=nn.Linear(4, 2)).initialize(0, dtype=np.float64)
    rng = np.random.default_rng(0)
    task = Task(prepare=lambda x, y: (x, y), loss=lambda y, t: ((y - t) ** 2).sum())
    optimizer = optim.SGD(model.parameters(), 1e-3)
    x, targets = rng.standard_normal((6, 3)), rng.standard_normal((6, 2))
    return Step(run, model, optimizer, number, x, targets, task)


def recorded(recorder, step: Step, name: str) -> list[dict]:
    with recorder.during(step):
        one_step(step.model, step.optimizer, step.inputs, step.targets, step.task)
    step.run.stream(name).flush()
    return step.run.records(name)


def test_any_task_can_be_probed_in_its_own_loss_and_dtype(tmp_path: Path) -> None:
    step = linear_step(Run(tmp_path))
    seen = probe(step.model, step.batch, [1e-5, 3e-2], loss=step.task.loss)
    (line,) = recorded(Landscape(1, (0.01, 30)), step, "landscape")
    assert line["losses"] == json_numbers(seen.losses) and line["beta"] == json_numbers(seen.beta)
    first, second = recorded(CovariateShift(1, ["", "b"]), linear_step(Run(tmp_path)), "shift")
    assert "std" not in first and second["std"] > 0 and second["l2"] > 0 == first["l2"]


def test_random_directions_differ_between_steps_and_seeds(tmp_path: Path) -> None:
    seen = set()
    for seed in (0, 1):
        for t in (0, 1):
            run = Run(tmp_path / f"{seed}-{t}")
            run.folder.mkdir()
            recorder = Landscape(1, (30,), directions=["random"], seed=seed)
            (line,) = recorded(recorder, linear_step(run, t), "landscape")
            seen.add(line["losses"][0])
    assert len(seen) == 4


# -- without effect on the training


@pytest.mark.parametrize("kernels", ["reference", "fast"])
def test_a_run_takes_the_same_path_bit_for_bit_with_probes_and_without(
    kernels: str, tmp_path: Path
) -> None:
    """With noise, momentum and decay; where distributions are watched and where they are not."""
    common = [*TWO, "--steps", 6, "--kernels", kernels]
    without = ["--probe-every", 0, "--shift-every", 0]
    assert main(*common, "--out", tmp_path / "with") == 0
    assert main(*common, *without, "--out", tmp_path / "without") == 0
    assert [r.name for r in runs(tmp_path / "without")] == [r.name for r in runs(tmp_path / "with")]
    for probed in runs(tmp_path / "with"):
        assert probed.records("landscape") and probed.records("shift")
        for name in ("landscape", "shift"):
            (probed.folder / f"{name}.jsonl").unlink()
    assert_same_study(tmp_path / "with", tmp_path / "without")


def test_a_step_that_fails_leaves_no_line_and_no_trace(tmp_path: Path) -> None:
    step = linear_step(Run(tmp_path))
    before = snapshot(step.model)
    with pytest.raises(ZeroDivisionError), CovariateShift(1, []).during(step):
        raise ZeroDivisionError
    step.run.stream("shift").flush()
    assert step.run.records("shift") == []
    assert all((array == before[name]).all() for name, array in snapshot(step.model).items())


@pytest.mark.parametrize(
    "moment",
    [
        "amid 2nd landscape",
        "amid shift",
        "after flush of shift.jsonl",
        "before cut of shift.jsonl",
    ],
)
def test_a_run_killed_while_it_writes_its_probes_continues_bit_for_bit(
    moment: str, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    if "cut" in moment:  # lines are cut when a run is resumed
        assert killed("amid 2nd shift", *ONE, "--steps", STEPS, "--out", folder).returncode < 0
        assert killed(moment, "--resume", folder).returncode < 0
    else:
        assert killed(moment, *ONE, "--steps", STEPS, "--out", folder).returncode < 0
    assert main("--resume", folder) == 0
    assert_same_study(folder, whole)


def test_a_run_that_diverges_has_no_line_from_then_on_and_null_for_what_is_not_finite(
    tmp_path: Path,
) -> None:
    arguments = [*SMALL, "--probe-every", 1, "--shift-every", 1, "--variants", "standard"]
    assert main(*arguments, "--lr", "1e9", "--steps", STEPS, "--out", tmp_path / "study") == 0
    (run,) = runs(tmp_path / "study")
    assert run.result["status"] == "diverged"
    last = run.result["step"] - 1
    for name in ("metrics", "landscape", "shift"):
        assert max(r["step"] for r in run.records(name)) == last, name
    probes = run.records("landscape")
    assert all(r["loss"] is not None for r in probes), "where a step starts, all was finite"
    assert any(None in r["losses"] for r in probes)
    assert "NaN" not in (run.folder / "shift.jsonl").read_text()
    assert any(r["l2"] is None or r["wasserstein"] is None for r in run.records("shift")
               if r["layer"] in range(2, LAYERS))  # fmt: skip


def test_the_strict_backend_records_the_same(tmp_path: Path) -> None:
    arguments = [*ONE, "--steps", 1, "--kernels", "reference"]
    for backend in ("numpy", "strict"):
        assert main(*arguments, "--backend", backend, "--out", tmp_path / backend) == 0
    (ours,), (theirs,) = runs(tmp_path / "strict"), runs(tmp_path / "numpy")
    for name in ("landscape", "shift"):
        records = list(zip(ours.records(name), theirs.records(name), strict=True))
        assert records
        for a, b in records:
            assert list(a) == list(b)
            for key in a:
                if key not in ("direction", "saturated", "at_ceiling", "cosine"):
                    np.testing.assert_allclose(a[key], b[key], rtol=1e-3, atol=1e-5, err_msg=key)
