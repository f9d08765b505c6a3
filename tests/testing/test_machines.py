"""The state machines find nothing in minibn, and find what is put there on purpose.

Each bug of the second half is one that some library has had. A machine that misses it would be
decoration: so each is planted, and the machine must stumble over it within a few programs.
"""

import re
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from suite.machines import GraphMachine, ModuleMachine, on, twin
from support.backends import on_backends

from minibn import Tensor, grad, ops, optim
from minibn.autograd import backward, tape, tensor
from minibn.errors import GraphError
from minibn.nn import module, noise, norm
from minibn.testing.commands.profiles import share

# -- the twin, by hand: what it says of gradients that everybody knows


def test_the_twin_knows_the_derivative_of_a_square():
    x = twin.leaf([3.0, 4.0])
    assert twin.gradient(twin.multiply(x, x), x, np.ones(2)).tolist() == [6, 8]


def test_the_twin_adds_over_broadcasting_without_being_told():
    x, y = twin.leaf([1.0, 2.0]), twin.leaf(3.0)
    assert twin.gradient(twin.multiply(x, y), y, np.ones(2)).tolist() == 3


def test_the_twin_replays_with_a_complex_step_and_gives_the_second_derivative():
    x = twin.leaf([0.5, 2.0])
    z = twin.exp(twin.multiply(x, x))
    moved = twin.replay(z, along={x.name: np.array([1.0, 0.0])})
    row = twin.gradient(moved, x, np.ones(2)).imag / twin.TINY
    np.testing.assert_allclose(row, [(2 + 4 * 0.5**2) * np.exp(0.25), 0], rtol=1e-14)


def test_the_twin_differentiates_by_an_inner_node():
    x = twin.leaf([0.5, 2.0])
    y = twin.multiply(x, x)
    again = twin.replay(twin.multiply(y, y), fresh=y)
    assert twin.gradient(again, y, np.ones(2)).tolist() == [0.5, 8]


# -- nothing is found in minibn


def drawn(examples: int, steps: int) -> settings:
    """As the profile says, with so many examples in one of 25 and others in proportion."""
    return settings(max_examples=share(examples), stateful_step_count=steps)


@on_backends
def test_every_program_on_the_graph_agrees_with_the_twin(backend):
    examples = 80 if backend.name == "numpy" else 20
    run_state_machine_as_test(on(GraphMachine, backend.name), settings=drawn(examples, 40))


@on_backends
def test_a_model_keeps_its_promises_in_any_order_of_use(backend):
    examples = 30 if backend.name == "numpy" else 5
    run_state_machine_as_test(on(ModuleMachine, backend.name), settings=drawn(examples, 25))


def test_a_gradient_through_a_released_part_raises_also_where_another_path_remains():
    """Found by GraphMachine: half of the gradient came back, without a word."""
    x = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    y = x * x
    y.sum().backward()
    with pytest.raises(GraphError):
        grad((y + x).sum(), x)


# -- everything that is planted is found


def found(machine: type) -> str:
    """What the machine says of a minibn with a bug. Nothing is shrunk: finding is enough."""
    quick = settings(
        max_examples=2000,  # it stops at the first; what is drawn depends on the modules loaded
        stateful_step_count=40,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    before = tape.grad_enabled.get()
    try:
        run_state_machine_as_test(machine, settings=quick)
    except Exception as error:  # what a bug ends in is its own affair
        return f"{type(error).__name__}: {error}"
    finally:
        tape.grad_enabled.set(before)
    return "nothing"


Plant = Callable[[pytest.MonkeyPatch], None]


def gradients_overwritten(patch: pytest.MonkeyPatch) -> None:
    walk = backward.backward

    def overwriting(output: Tensor, *args: Any, **kwargs: Any) -> None:
        for node in backward._ancestors(output.node) if output.node else ():
            for leaf in node.parents:
                if isinstance(leaf, Tensor):
                    leaf.grad = None
        walk(output, *args, **kwargs)

    patch.setattr(backward, "backward", overwriting)


def no_unbroadcast(patch: pytest.MonkeyPatch) -> None:
    """The first slice, where the sum over the repeats belongs."""

    def first(g: Any, shape: tuple[int, ...]) -> Any:
        g = g[(0,) * (g.ndim - len(shape))]
        return g[tuple(slice(0, n) for n in shape)]

    patch.setattr(backward, "unbroadcast", first)


def no_version_check(patch: pytest.MonkeyPatch) -> None:
    saved_tensors = tape.Node.saved_tensors

    def trusting(self: tape.Node, recorded: bool) -> Any:
        self.saved_versions = [seen and (seen[0], seen[0].count) for seen in self.saved_versions]
        return saved_tensors(self, recorded)

    patch.setattr(tape.Node, "saved_tensors", trusting)


def views_have_versions_of_their_own(patch: pytest.MonkeyPatch) -> None:
    for op in (ops.shape.Reshape, ops.shape.Transpose, ops.indexing.GetItem, ops.shape.BroadcastTo):
        patch.setattr(op, "view", False)


def detached_tensors_have_versions_of_their_own(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tensor, "detach", lambda self: Tensor.from_op(None, self.data))


def arguments_told_apart_by_identity(patch: pytest.MonkeyPatch) -> None:
    """x - x has gradient -2: the second gradient stands in for the first."""
    vjp = ops.arithmetic.Subtract.vjp

    def by_identity(self: Any, g: Any, out: Any, x: Any, y: Any) -> Any:
        first, second = vjp(self, g, out, x, y)
        return (
            (second, second)
            if all(self.needs_input_grad) and x.shape == y.shape
            else (first, second)
        )

    patch.setattr(ops.arithmetic.Subtract, "vjp", by_identity)


def no_grad_forgets_after_an_exception(patch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def careless(on: bool) -> Any:
        before = tape.grad_enabled.get()
        tape.grad_enabled.set(on)
        yield
        tape.grad_enabled.set(before)

    patch.setattr(tape.grad_enabled, "override", careless)


def nothing_is_released(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tape.Node, "release", lambda self: None)


def everything_is_released(patch: pytest.MonkeyPatch) -> None:
    backpropagate = backward._backpropagate
    patch.setattr(backward, "_backpropagate", lambda *args: backpropagate(*args[:4], False))


def gradients_on_inner_nodes(patch: pytest.MonkeyPatch) -> None:
    from_op = Tensor.from_op.__func__

    def marked(cls: type, node: Any, data: Any, version: Any = None) -> Tensor:
        out = from_op(cls, node, data, version)
        if node is not None:
            out.grad = out.detach()
        return out

    patch.setattr(Tensor, "from_op", classmethod(marked))


def gradients_shared_with_the_cotangent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(backward, "_own", lambda g, owned: g if isinstance(g, Tensor) else Tensor(g))


def a_vjp_that_takes_its_cotangent_for_a_constant(patch: pytest.MonkeyPatch) -> None:
    """Right at the first order, wrong at the second."""
    vjp = ops.arithmetic.Multiply.vjp

    def constant(self: Any, g: Any, *values: Any) -> Any:
        return vjp(self, tape.value(g), *values)

    patch.setattr(ops.arithmetic.Multiply, "vjp", constant)


def assign_does_not_tell(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tensor.Tensor, "bump_version", lambda self: None)


# Each bug with a part of what the machine should say of it.
IN_THE_GRAPH: dict[Plant, str] = {
    gradients_overwritten: r"\.grad of|lost its gradient",
    no_unbroadcast: "grad|slope|derivative",
    no_version_check: "changed in place",
    views_have_versions_of_their_own: "changed in place",
    detached_tensors_have_versions_of_their_own: "changed in place",
    assign_does_not_tell: "changed in place",
    arguments_told_apart_by_identity: "grad|slope",
    no_grad_forgets_after_an_exception: "recording",
    nothing_is_released: "which was released",
    everything_is_released: "complete raises|released",
    gradients_on_inner_nodes: "from no backward pass",
    gradients_shared_with_the_cotangent: r"\.grad of|read-only",
    a_vjp_that_takes_its_cotangent_for_a_constant: "second derivative",
}


@pytest.mark.parametrize("plant", IN_THE_GRAPH, ids=lambda plant: plant.__name__)
def test_the_graph_machine_finds_what_is_planted(plant, monkeypatch):
    plant(monkeypatch)
    said = found(GraphMachine)
    assert re.search(IN_THE_GRAPH[plant], said), said


def evaluation_moves_statistics(patch: pytest.MonkeyPatch) -> None:
    forward = norm.BatchNorm.forward

    def eager(self: Any, x: Any) -> Any:
        if not self.training:
            self.track(x.data.reshape(-1, x.shape[-1]).mean(axis=0), 1.0, 2)
        return forward(self, x)

    patch.setattr(norm.BatchNorm, "forward", eager)


def running_variance_is_biased(patch: pytest.MonkeyPatch) -> None:
    track = norm.BatchNorm.track
    patch.setattr(norm.BatchNorm, "track", lambda self, m, v, M: track(self, m, v * (M - 1) / M, M))


def momentum_weighs_the_old(patch: pytest.MonkeyPatch) -> None:
    track = norm.BatchNorm.track

    def other_way(self: Any, mean: Any, var: Any, M: int) -> None:
        patched, self.momentum = self.momentum, self.momentum and 1 - self.momentum
        track(self, mean, var, M)
        self.momentum = patched

    patch.setattr(norm.BatchNorm, "track", other_way)


def momentum_lost_on_load(patch: pytest.MonkeyPatch) -> None:
    load = optim.Optimizer.load_state_dict

    def forgetful(self: Any, state: Any) -> None:
        load(self, state)
        self.state = [{} for _ in self.params]

    patch.setattr(optim.Optimizer, "load_state_dict", forgetful)


def steps_lost_on_load(patch: pytest.MonkeyPatch) -> None:
    load = optim.Optimizer.load_state_dict
    patch.setattr(
        optim.Optimizer, "load_state_dict", lambda self, s: load(self, {**s, "steps": np.array(0)})
    )


def mode_stays_after_an_exception(patch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def careless(self: Any, training: bool) -> Any:
        before = [(m, m.training) for _, m in self.named_modules()]
        self.train(training)
        yield self
        for m, was in before:
            m.training = was

    patch.setattr(module.Module, "mode", careless)


def mode_forgets_frozen_layers(patch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def coarse(self: Any, training: bool) -> Any:
        before = self.training
        self.train(training)
        try:
            yield self
        finally:
            self.train(before)

    patch.setattr(module.Module, "mode", coarse)


def loading_replaces_the_parameters(patch: pytest.MonkeyPatch) -> None:
    def load(self: Any, state: Any, strict: bool = True) -> None:
        if missing := [n for n, _ in self._named(module.State) if n not in state]:
            raise KeyError(missing)
        for path, part in self.named_modules():
            for key, old in list(vars(part).items()):
                if isinstance(old, module.State):
                    new = type(old)() if isinstance(old, module.Counter) else type(old)(old.shape)
                    new.place(state[f"{path}.{key}" if path else key])
                    setattr(part, key, new)

    patch.setattr(module.Module, "load_state_dict", load)


def eval_turns_recording_off(patch: pytest.MonkeyPatch) -> None:
    train = module.Module.train

    def both(self: Any, mode: bool = True) -> Any:
        tape.grad_enabled.set(mode)
        return train(self, mode)

    patch.setattr(module.Module, "train", both)


def dropout_draws_in_evaluation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(noise.RandomLayer, "next_step", lambda self: self.step.advance())
    patch.setattr(noise.RandomLayer, "active", True)


def draws_are_not_saved(patch: pytest.MonkeyPatch) -> None:
    """The step of a layer that draws goes on after a load where it was before it."""
    place = module.State.place

    def keep(self: Any, values: Any) -> None:
        if self.name != "step" or not values:
            place(self, values)

    patch.setattr(module.State, "place", keep)


def a_load_that_fails_half_way(patch: pytest.MonkeyPatch) -> None:
    def load(self: Any, state: Any, strict: bool = True) -> None:
        for name, own in self._named(module.State):
            own.place(state[name])

    patch.setattr(module.Module, "load_state_dict", load)


IN_MODULES: dict[Plant, str] = {
    gradients_overwritten: "grad|weight",  # which differ after a step
    evaluation_moves_statistics: "evaluation wrote|(mean|variance) of norm",
    running_variance_is_biased: "variance of norm",
    momentum_weighs_the_old: "mean of norm",
    momentum_lost_on_load: "after loading",
    steps_lost_on_load: "after loading",
    mode_stays_after_an_exception: "modes",
    mode_forgets_frozen_layers: "modes",
    loading_replaces_the_parameters: "another object|does not depend",
    eval_turns_recording_off: "recording",
    dropout_draws_in_evaluation: "evaluation wrote|steps of",
    draws_are_not_saved: "after loading",
    a_load_that_fails_half_way: "refused state",
}


@pytest.mark.parametrize("plant", IN_MODULES, ids=lambda plant: plant.__name__)
def test_the_module_machine_finds_what_is_planted(plant, monkeypatch):
    plant(monkeypatch)
    said = found(ModuleMachine)
    assert re.search(IN_MODULES[plant], said), said
