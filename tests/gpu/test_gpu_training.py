"""Twenty training steps of a narrow VGG-11: on a GPU as on NumPy, twice, in two sittings.

How far two trainings may part. At equal weights losses differ by rounding alone, since the network
is continuous. Its gradient is not: where rounding turns a ReLU, or gives a maximum to the other of
two pixels that almost tie, it jumps, and from there on the trainings part for good. In float64 no
number is so close to a kink: NumPy's own weights, shaken by 1e-12 before each step, move the same
way to 1e-7 or better, and the losses by 3e-12 at most (measured; kernels err by less than that
shake). In float32, shaken by 2e-7, three trainings of six met a jump within twenty steps: it
changes a step's gradient by up to 0.2 of its size and, at this rate, the losses by up to 2e-3. So:

    float64    all twenty steps freely: the losses to 1e-10, the way the weights go to 1e-6
    float32    step by step from NumPy's weights: each loss to 1e-5, and the update to 2e-2 of its
               size in all steps but a few; and freely: the losses to 1e-2
"""

from dataclasses import replace

import numpy as np
import pytest
from support.cuda import on, orders
from support.waiting import nothing_waits

from experiments.training.loop import train
from experiments.training.step import CLASSIFY, one_step
from experiments.training.study import Run
from experiments.vgg.runs import network, sgd
from experiments.vgg.settings import Settings
from minibn import kernels, nn, to_numpy, use
from minibn.backend import get_backend
from minibn.data import Batches, normalize, shapes

VARIANTS = ("standard", "batchnorm", "noisy-batchnorm")
LR = {np.float64: 0.01, np.float32: 0.001}
STEPS = {"emulated": 2, "cupy": 20}  # the emulator is slow, and gets a network of two layers
FREE = {np.float64: (1e-10, 1e-6), np.float32: (1e-2, 0.5)}  # of the losses, of the way
KERNELS = {"emulated": "always", "cupy": "fast"}

on_gpus = pytest.mark.parametrize("name", ["emulated", pytest.param("cupy", marks=pytest.mark.gpu)])
each_variant = pytest.mark.parametrize("variant", VARIANTS)
each_dtype = pytest.mark.parametrize("dtype", FREE)


@pytest.fixture(scope="module")
def images():
    return shapes.make_shapes(64, seed=0)


def tiny(variant, dtype):
    """A convolution with what the variant puts behind it, and a classifier, for 4×4 pixels."""
    norms = {
        "standard": [],
        "batchnorm": [nn.BatchNorm(4)],
        "noisy-batchnorm": [nn.NoisyBatchNorm(4)],
    }
    layers = [nn.Conv2d(3, 4, 3, padding=1), *norms[variant], nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 10)).initialize(0, dtype)


class Training:
    """A network with its optimizer and batches, on the backend in use."""

    def __init__(self, images, variant, dtype, name):
        x, labels = images
        self.settings = Settings(model="vgg11", width=1 / 16, momentum=0.9)
        if name == "emulated":
            self.batches, self.model = (
                Batches(x[:, :4, :4], labels, 4, seed=0),
                tiny(variant, dtype),
            )
        else:
            self.batches = Batches(x, labels, 16, seed=0)
            self.model = network(self.settings, variant, 0, dtype=dtype)
        self.model.train()
        self.optimizer = sgd(self.settings, self.model, LR[dtype])
        self.task = replace(
            CLASSIFY,
            prepare=lambda x, labels: (normalize(get_backend().asarray(x), dtype), labels),
        )
        self.start = self.weights()

    def step(self, number):
        """The loss before update `number`."""
        batch = self.batches.batch(number)
        return one_step(self.model, self.optimizer, *batch, self.task)[0]

    def weights(self):
        return np.concatenate([to_numpy(p.data).reshape(-1) for p in self.model.parameters()])

    def follow(self, other):
        """Take the other's weights, statistics, counters and velocities."""
        self.model.load_state_dict(other.model.state_dict())
        self.optimizer.load_state_dict(other.optimizer.state_dict())

    def losses(self, steps):
        found = [self.step(i) for i in range(steps)]
        return [float(loss.item()) for loss in found]


def on_numpy(images, variant, dtype, name):
    with use("numpy"):
        return Training(images, variant, dtype, name)


@on_gpus
@each_variant
@each_dtype
def test_a_training_goes_the_way_it_goes_on_numpy(name, variant, dtype, images):
    with on(name), kernels(KERNELS[name]):
        ours = Training(images, variant, dtype, name)
        losses = ours.losses(STEPS[name])
    with use("numpy"), kernels("reference"):
        theirs = Training(images, variant, dtype, name)
        expected = theirs.losses(STEPS[name])
    np.testing.assert_array_equal(ours.start, theirs.start)
    assert len(set(expected)) == STEPS[name]
    of_losses, of_way = FREE[dtype]
    np.testing.assert_allclose(losses, expected, rtol=of_losses)
    way = theirs.weights() - theirs.start
    assert np.linalg.norm(ours.weights() - theirs.weights()) <= of_way * np.linalg.norm(way)


@on_gpus
@each_variant
def test_each_step_from_equal_weights_is_the_same_in_float32(name, variant, images):
    """A jump of the gradient (see above) may show in a step of four, not in most."""
    theirs = on_numpy(images, variant, np.float32, name)
    jumps = 0
    with on(name), kernels(KERNELS[name]):
        ours = Training(images, variant, np.float32, name)
        for i in range(STEPS[name]):
            ours.follow(theirs)
            before = theirs.weights()
            with use("numpy"), kernels("reference"):
                expected = float(theirs.step(i).item())
            assert float(ours.step(i).item()) == pytest.approx(expected, rel=1e-5)
            update = theirs.weights() - before
            parted = np.linalg.norm(ours.weights() - theirs.weights()) / np.linalg.norm(update)
            assert parted < 0.5
            jumps += parted > 2e-2
    assert jumps <= STEPS[name] // 4


@on_gpus
@each_variant
def test_the_same_training_twice_has_the_same_bits(name, variant, images):
    def trained():
        training = Training(images, variant, np.float32, name)
        losses = training.losses(STEPS[name])
        return losses, training.weights()

    with on(name) as backend, kernels(KERNELS[name]):
        (losses, weights), *others = orders(backend, trained)
    for again, same in others:
        assert again == losses
        np.testing.assert_array_equal(same, weights)


@on_gpus
@pytest.mark.parametrize("there_first", [True, False])
@each_dtype
def test_a_training_goes_on_from_a_checkpoint_of_the_other_backend(
    name, there_first, dtype, images, tmp_path
):
    steps = STEPS[name]

    def part(folder, to):
        training = Training(images, "noisy-batchnorm", dtype, name)
        train(
            Run(tmp_path / folder), training.model, training.optimizer, training.batches,
            steps=to, task=training.task,
        )  # fmt: skip

    def there(to):
        with on(name), kernels(KERNELS[name]):
            part("two", to)

    def here(to, folder="two"):
        with use("numpy"), kernels("reference"):
            part(folder, to)

    for folder in ("one", "two"):
        Run(tmp_path / folder).begin({})
    here(steps, "one")
    first, second = (there, here) if there_first else (here, there)
    first(steps // 2)
    second(steps)
    one, two = (Run(tmp_path / folder).records("metrics") for folder in ("one", "two"))
    assert [line["step"] for line in two] == list(range(steps))
    for ours, theirs in zip(two, one, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=FREE[dtype][0])


@on_gpus
@each_variant
def test_a_step_waits_for_the_device_only_when_its_loss_is_asked_for(name, variant, images):
    with on(name) as backend, kernels(KERNELS[name]):
        training = Training(images, variant, np.float32, name)
        for i in range(3):  # programs are compiled, memory is taken
            training.step(i)
        with nothing_waits(backend) as waited:
            loss = training.step(3)
        assert waited == []
        with nothing_waits(backend) as waited:
            loss.item()
        assert len(waited) > 0, "it would have been seen"
