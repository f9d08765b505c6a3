"""Networks of which a part is trained: what is frozen keeps its bits, and the counts are equal."""

import numpy as np
import pytest

from experiments.training.step import one_step
from minibn import kernels, nn, optim, use
from minibn.backend import to_numpy
from reference_models.partly_trained import PARTS, PartlyTrainedConv2d, train_only
from reference_models.resnet import resnet
from reference_models.vgg import vgg

IMAGES = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)
LABELS = np.arange(16) % 10


def network(part, seed=0, norm="batch"):
    return train_only(vgg("vgg11", width=1 / 16, norm=norm), part).initialize(seed)


def filters_of(model):
    """name -> the filters or matrix of every layer, trained and frozen values together."""
    found = {}
    for name, layer in model.named_modules():
        if isinstance(layer, PartlyTrainedConv2d):
            found[name] = to_numpy(layer.filters()).copy()
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            found[name] = to_numpy(layer.weight.data).copy()
    return found


def vectors_of(model):
    """name -> gamma, beta and biases."""
    return {
        name: array
        for name, array in model.state_dict().items()
        if name.endswith(("gamma", "beta", "bias"))
    }


def trained(model, steps=3):
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(steps):
        one_step(model, optimizer, IMAGES, LABELS)
    return model


@pytest.mark.parametrize("part", PARTS)
def test_all_parts_start_from_the_same_network(part):
    whole, of_part = network("all", seed=3), network(part, seed=3)
    theirs, ours = filters_of(whole), filters_of(of_part)
    assert theirs.keys() == ours.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(array, ours[name], name)
    assert vectors_of(whole).keys() == vectors_of(of_part).keys()


@pytest.mark.parametrize("part", PARTS[1:])
@pytest.mark.parametrize("kernel", ["fast", "reference"])
def test_a_frozen_number_keeps_its_bits_and_every_trained_one_moves(part, kernel):
    with kernels(kernel):
        before, after = network(part), trained(network(part))
        old, new = filters_of(before), filters_of(after)
        vectors = vectors_of(before), vectors_of(after)
    for name in old:
        moved = (old[name].view(np.uint32) != new[name].view(np.uint32)).reshape(-1, 1)
        if part == "random-weights" and name.startswith("conv"):
            places = to_numpy(dict(after.named_modules())[name].places)
            is_chosen = np.zeros(moved.shape, bool)
            is_chosen[places.ravel()] = True
            assert not (moved & ~is_chosen).any(), name
            assert (moved & is_chosen).sum() > 0.5 * is_chosen.sum(), name  # dead units stay
        else:
            assert moved.any() == (part == "output" and name.startswith("linear")), name
    for name in vectors[0]:
        moves = not np.array_equal(vectors[0][name], vectors[1][name])
        free = {"batch-norm": ("gamma", "beta"), "output": ("bias",)}.get(part, ())
        assert moves == name.endswith(free) if free else not moves, name


@pytest.mark.parametrize("make", [vgg, resnet], ids=["vgg", "resnet"])
def test_as_many_random_weights_are_trained_as_gammas_and_betas(make):
    counts = {
        part: sum(p.size for p in train_only(make(norm="batch"), part).parameters())
        for part in PARTS
    }
    norms = [m for _, m in make(norm="batch").named_modules() if isinstance(m, nn.BatchNorm)]
    assert counts["batch-norm"] == counts["random-weights"] == 2 * sum(m.gamma.size for m in norms)
    assert counts["all"] == sum(p.size for p in make(norm="batch").parameters())


def test_the_random_weights_are_two_of_each_filter_another_pair_for_each_seed():
    layers = [network("random-weights", seed).conv4 for seed in (0, 1, 0)]
    F = layers[0].weight.shape[-1]
    drawn = [to_numpy(layer.places) for layer in layers]
    for places in drawn:
        assert places.shape == (2, F)
        np.testing.assert_array_equal(places % F, np.broadcast_to(np.arange(F), (2, F)))
        assert (places[0] != places[1]).all()
    assert (drawn[0] != drawn[1]).any()
    np.testing.assert_array_equal(drawn[0], drawn[2])
    rows = np.concatenate([to_numpy(network("random-weights", s).conv8.places) // 32
                           for s in range(20)])  # fmt: skip
    counts = np.histogram(rows, bins=8, range=(0, 288))[0]
    assert abs(counts / counts.mean() - 1).max() < 0.3, "each weight has the same chance"


def test_a_trained_random_weight_has_the_gradient_that_it_has_among_all():
    with kernels("reference"):
        gradients = {}
        for part in ("all", "random-weights"):
            model = network(part)
            one_step(model, optim.SGD(model.parameters(), 0.0), IMAGES, LABELS)
            gradients[part] = model
    whole, of_part = gradients["all"].conv3, gradients["random-weights"].conv3
    everywhere = to_numpy(whole.weight.grad).reshape(-1)
    np.testing.assert_allclose(
        everywhere[to_numpy(of_part.places)], to_numpy(of_part.trained.grad), rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("part", PARTS)
def test_a_state_dict_brings_a_part_back_whatever_the_seed(part):
    model = trained(network(part))
    again = network(part, seed=9)
    again.load_state_dict(model.state_dict())
    x = IMAGES.astype(np.float32)
    with model.mode(training=False), again.mode(training=False):
        np.testing.assert_array_equal(to_numpy(model(x)), to_numpy(again(x)))


def test_a_part_is_trained_on_the_strict_backend_as_on_numpy():
    with kernels("reference"):
        ours = filters_of(trained(network("random-weights"), steps=1))
        with use("strict"):
            theirs = filters_of(trained(network("random-weights"), steps=1))
    for name, array in ours.items():
        np.testing.assert_allclose(array, theirs[name], rtol=1e-5, atol=1e-7)


def test_what_makes_no_fair_comparison_is_refused():
    with pytest.raises(ValueError, match="gammas and betas"):
        train_only(vgg("vgg11", norm="layer"), "random-weights")
    with pytest.raises(ValueError, match="batch-norm"):
        train_only(vgg("vgg11", norm="batch"), "batchnorm")
    with pytest.raises(ValueError, match="bias=True"):
        PartlyTrainedConv2d(nn.Conv2d(3, 4, 3))
