"""Recorders write what a direct computation gives, and do not change the training."""

from pathlib import Path

import numpy as np
import pytest
from studies import SMALL, runs, settings

from experiments.paper import shown_layers
from experiments.training.recorders import BINS, QUANTILES, Distributions, TestAccuracy, predictions
from experiments.training.step import Step
from experiments.training.study import Run
from experiments.vgg.runs import load_data, network, sgd
from experiments.vgg.settings import FOUR, VARIANTS
from minibn import kernels, nn, no_grad
from minibn.backend import get_backend, to_numpy, use
from minibn.data import Dataset, normalize

SETTINGS = settings(*SMALL)
LAYERS = shown_layers("vgg11")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data(SETTINGS)


def inputs_of(model: nn.Sequential, images: np.ndarray) -> dict[str, np.ndarray]:
    """The input of each part of the model, by its name."""
    x, found = normalize(get_backend().asarray(images)), {}
    with no_grad():
        for name, part in model.children():
            found[name] = to_numpy(x)
            x = part(x)
    return found


def step_of(run: Run, model: nn.Sequential, number: int, images: np.ndarray) -> Step:
    return Step(run, model, sgd(SETTINGS, model, 0.1), number, images, np.zeros(len(images), int))


def records_of(model: nn.Sequential, images: np.ndarray, folder: Path, step: int) -> list[dict]:
    """The records of one forward pass at `step`."""
    run = Run(folder)
    recorder = Distributions(LAYERS, every=4, units=3, seed=0)
    with recorder.during(step_of(run, model, step, images)):
        model(normalize(get_backend().asarray(images)))
    run.stream("distributions").flush()
    return run.records("distributions")


@pytest.mark.parametrize("backend", ["numpy", "strict"])
@pytest.mark.parametrize("variant", FOUR)
def test_distributions_are_those_of_what_enters_the_relu_and_the_norm(
    variant: str, backend: str, data: Dataset, tmp_path: Path
) -> None:
    images = data.train_images[:16]
    with use(backend):
        records = records_of(network(SETTINGS, variant, 0), images, tmp_path, step=4)
        # The same noise: its step is the same.
        entered = inputs_of(network(SETTINGS, variant, 0), images)
    places = {"activation"} | ({"norm_input"} if VARIANTS[variant][0] == "batch" else set())
    assert {(r["layer"], r["place"]) for r in records} == {(k, p) for k in LAYERS for p in places}
    for record in records:
        part = {"activation": "relu", "norm_input": "norm"}[record["place"]] + str(record["layer"])
        values = entered[part][..., record["unit"]].astype(float).ravel()
        assert record["step"] == 4
        assert record["mean"] == pytest.approx(values.sum() / values.size, rel=1e-5, abs=1e-7)
        mean = values.sum() / values.size
        var = ((values - mean) ** 2).sum() / values.size
        assert record["var"] == pytest.approx(var, rel=1e-4)
        assert record["var"] > 0
        assert record["quantiles"] == sorted(record["quantiles"])
        for q, value in zip(QUANTILES, record["quantiles"], strict=True):
            below = (values < value - 1e-3).mean(), (values <= value + 1e-3).mean()
            assert below[0] <= q + 1 / values.size and below[1] >= q - 1 / values.size
        assert len(record["histogram"]) == BINS
        assert sum(record["histogram"]) == values.size
        assert record["range"] == pytest.approx([values.min(), values.max()], rel=1e-4)


def test_a_few_units_of_each_layer_are_drawn_once(data: Dataset, tmp_path: Path) -> None:
    model = network(SETTINGS, "batchnorm", 0)
    for step in (0, 4, 8):
        records = records_of(model, data.train_images[:16], tmp_path, step)
    for layer in LAYERS:
        units = {tuple(sorted(r["unit"] for r in records if r["layer"] == layer and r["step"] == t
                              and r["place"] == place))
                 for t in (0, 4, 8) for place in ("activation", "norm_input")}  # fmt: skip
        (chosen,) = units
        channels = model.state_dict()[f"conv{layer}.weight"].shape[-1]
        assert len(set(chosen)) == min(3, channels)
        assert max(chosen) < channels


def test_the_step_after_a_record_has_moments_alone_and_others_nothing(
    data: Dataset, tmp_path: Path
) -> None:
    model = network(SETTINGS, "standard", 0)
    for step in range(10):
        records = records_of(model, data.train_images[:16], tmp_path, step)
    assert sorted({r["step"] for r in records}) == [0, 1, 4, 5, 8, 9]
    assert {r["step"] for r in records if "histogram" in r} == {0, 4, 8}
    assert all(np.isfinite([r["mean"], r["var"]]).all() for r in records)


@pytest.mark.parametrize("mode", ["reference", "fast"])
def test_watching_does_not_change_what_the_network_computes(
    mode: str, data: Dataset, tmp_path: Path
) -> None:
    """Bit for bit with the definitions. A fused kernel rounds differently from its layers."""
    images = data.train_images[:16]
    watched, alone = (network(SETTINGS, "noisy-batchnorm", 0) for _ in range(2))
    run, recorder = Run(tmp_path), Distributions(LAYERS, 4, 3, 0)
    with kernels(mode):
        with recorder.during(step_of(run, watched, 0, images)):
            y = watched(normalize(images)).numpy()
        expected = alone(normalize(images)).numpy()
    if mode == "reference":
        assert y.tobytes() == expected.tobytes()
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("step", [0, 1, 2])
def test_watchers_are_removed_afterwards_even_when_the_step_fails(
    step: int, data: Dataset, tmp_path: Path
) -> None:
    model, run = network(SETTINGS, "batchnorm", 0), Run(tmp_path)
    recorder = Distributions(LAYERS, 4, 3, 0)
    images = data.train_images[:16]
    with pytest.raises(ZeroDivisionError), recorder.during(step_of(run, model, step, images)):
        raise ZeroDivisionError
    records_of(model, data.train_images[:16], tmp_path, step)
    before = len(run.records("distributions"))
    model(normalize(data.train_images[:16]))
    run.stream("distributions").flush()
    assert len(run.records("distributions")) == before
    assert not any(vars(part).get("_watchers") for _, part in model.named_modules())


def test_activations_that_are_not_finite_are_recorded_without_a_histogram(
    data: Dataset, tmp_path: Path
) -> None:
    model = network(SETTINGS, "standard", 0)
    model.conv1.bias.data[...] = np.inf
    with np.errstate(all="ignore"):
        records = records_of(model, data.train_images[:16], tmp_path, step=0)
    assert records
    assert not any("histogram" in r for r in records if not np.isfinite(r["mean"]))


@pytest.mark.parametrize("variant", FOUR)
def test_test_accuracy_is_that_of_a_direct_evaluation_and_leaves_the_model_as_it_was(
    variant: str, data: Dataset, tmp_path: Path
) -> None:
    model = network(SETTINGS, variant, 0).train()
    for start in (0, 16):
        model(normalize(data.train_images[start : start + 16]))  # moves the running statistics
    model.conv1.training = False  # a part's own mode is kept, too
    before = model.state_dict()
    run = Run(tmp_path)
    TestAccuracy(data, every=5).after(step_of(run, model, 4, data.train_images))
    run.stream("test").flush()
    assert model.training and model.relu1.training and not model.conv1.training
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(after[name].tobytes() == before[name].tobytes() for name in before)

    model.eval()
    right = 0
    with no_grad():
        for image, label in zip(data.test_images, data.test_labels, strict=True):  # one by one
            logits = model(normalize(image[None])).numpy()[0]
            right += int(np.argmax(logits) == label)
    (record,) = run.records("test")
    assert record == {"step": 4, "updates": 5, "accuracy": right / len(data.test_labels)}


def test_test_accuracy_is_measured_on_schedule_and_at_the_end(
    data: Dataset, tmp_path: Path
) -> None:
    model, run = network(SETTINGS, "standard", 0), Run(tmp_path)
    recorder = TestAccuracy(data, every=3)
    for step in range(8):
        recorder.after(step_of(run, model, step, data.train_images))
    recorder.at_end(run, model, 8)
    run.stream("test").flush()
    assert [r["updates"] for r in run.records("test")] == [3, 6, 8]


def test_predictions_do_not_depend_on_the_batch_size(data: Dataset) -> None:
    model = network(SETTINGS, "noisy-batchnorm", 0)
    found = [predictions(model, data.test_images, size).tolist() for size in (1, 7, 250)]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == len(data.test_images)


def test_a_trained_run_has_the_records_of_its_schedule(whole: Path) -> None:
    (run,) = runs(whole)
    records = run.records("distributions")
    assert sorted({r["step"] for r in records}) == [0, 1, 3, 4, 6, 7]
    assert {r["layer"] for r in records} == set(LAYERS)
    assert [r["updates"] for r in run.records("test")] == [3, 6, 8]
