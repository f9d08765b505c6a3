"""The drawn data set tells a convolutional network from a linear model, in seconds."""

import numpy as np
import pytest

from minibn import nn, no_grad, ops, optim
from minibn.data import Batches, normalize
from minibn.data.shapes import make_shapes
from minibn.fast.cpu.threads import one_blas_thread
from reference_models.vgg import vgg


@pytest.fixture(scope="module")
def drawn():
    return make_shapes(3000, seed=0), make_shapes(500, seed=0, split="test")


def accuracy_after_training(model, drawn, steps, lr):
    """On the test images, after SGD with momentum and a cosine on batches of 50."""
    train, (images, labels) = drawn
    batches, schedule = Batches(*train, 50, seed=0), optim.cosine(lr, steps)
    optimizer = optim.SGD(model.parameters(), lr, momentum=0.9)
    with one_blas_thread():  # the products are small: waiting for threads costs more
        for step in range(steps):
            x, y = batches.batch(step)
            loss = ops.softmax_cross_entropy(model(normalize(x)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.lr = schedule(step)
            optimizer.step()
        with model.mode(training=False), no_grad():
            logits = model(normalize(images)).numpy()
    return (logits.argmax(axis=1) == labels).mean()


def test_a_small_vgg_learns_the_shapes(drawn):
    net = vgg("vgg11", width=0.125, norm="batch").initialize(seed=0)
    assert accuracy_after_training(net, drawn, steps=150, lr=0.02) > 0.5


def test_a_linear_model_stays_near_chance_on_the_shapes(drawn):
    net = nn.Sequential(flatten=nn.Flatten(), linear=nn.Linear(3072, 10)).initialize(seed=0)
    before = net.state_dict()["linear.weight"]
    assert accuracy_after_training(net, drawn, steps=600, lr=0.01) < 0.25
    moved = np.linalg.norm(net.state_dict()["linear.weight"] - before)
    assert moved > 0.2 * np.linalg.norm(before)  # it was trained all the same
