"""Models against closed forms: train, eval, step, save and load in any order.

Hypothesis draws a model and calls of it. The expected state is computed in NumPy: a copy of each
parameter, moved by the optimizer's textbook formula; the moments of every training batch of each
BatchNorm, from which the running statistics follow in closed form; how often each layer drew; each
module's mode. After every step the model must agree with it, evaluation must have written nothing,
and the model must still hold the same Parameter objects that its optimizer moves.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
)

from minibn import checkpoint, ops
from minibn.autograd.backward import grad
from minibn.autograd.tape import no_grad
from minibn.autograd.tensor import Tensor
from minibn.backend import to_numpy
from minibn.errors import ShapeError
from minibn.nn.module import Module
from minibn.nn.noise import RandomLayer
from minibn.nn.norm import BatchNorm
from suite.machines.machine import Machine
from suite.machines.naive import (
    MODELS,
    NaiveAdam,
    NaiveSGD,
    States,
    Twin,
    same,
    same_bits,
)

seeds = st.integers(0, 2**16)
sizes = st.integers(2, 4)


class ModuleMachine(Machine):
    """A model trained, evaluated, saved and loaded in any order. See the module's docstring.

    backend: the name of the backend on which the model lives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.saved: dict[str, tuple[Any, States, States, Twin]] = {}

    @initialize(
        kind=st.sampled_from(sorted(MODELS)),
        momentum=st.sampled_from([0.1, 0.3, None]),
        rule=st.sampled_from([NaiveSGD, NaiveAdam]),
        seed=seeds,
    )
    def build(self, kind: str, momentum: float | None, rule: Any, seed: int) -> None:
        make, self.shape = MODELS[kind]
        self.model = make(momentum).initialize(seed, dtype=np.float64)
        self.twin = Twin(self.model, rule())
        self.optimizer = self.twin.rule.optimizer(self.model.parameters())
        self.parameters = dict(self.model.named_parameters())  # the objects themselves
        self.gradients: States = {}
        self.modes = {name: True for name, _ in self.model.named_modules()}
        for name, module in self.model.named_modules():
            if isinstance(module, (BatchNorm, RandomLayer)):
                self.stack.enter_context(module.watch(self.watcher(name)))

    def watcher(self, name: str) -> Callable[..., None]:
        """Update the expected state of this layer after a call, from its input alone."""

        def note(module: Module, inputs: tuple, output: Any) -> None:
            if not self.modes[name]:
                return
            if name in self.twin.statistics:
                self.twin.statistics[name].add_batch(to_numpy(inputs[0]))
            else:
                self.twin.drawn[name] += 1

        return note

    # -- shared by the rules

    def batch(self, size: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return rng.normal(rng.uniform(-2, 2), rng.uniform(0.5, 2), (size, *self.shape))

    def forward(self, size: int, seed: int) -> Any:
        """The model's output. In evaluation it must have written nothing."""
        before = self.states()
        y = self.model(Tensor(self.device.asarray(self.batch(size, seed))))
        assert y.shape == (size, 2)
        assert y.requires_grad == (not self.blocks), "recording follows no_grad, not the mode"
        if not any(self.modes.values()):
            same_bits(self.states(), before, "evaluation wrote")
        return y

    def states(self) -> States:
        return self.model.state_dict()

    def loss(self, size: int, seed: int) -> Any:
        target = np.random.default_rng(seed + 1).standard_normal((size, 2))
        return ops.mse(self.forward(size, seed), self.device.asarray(target))

    def train_on(self, size: int, seed: int) -> None:
        """One backward: `.grad` should be the sum of what each backward gave."""
        loss = self.loss(size, seed)
        gradients = grad(loss, list(self.parameters.values()), retain_graph=True)
        for name, g in zip(self.parameters, gradients, strict=True):
            self.gradients[name] = self.gradients.get(name, 0) + to_numpy(g)
        loss.backward()

    # -- rules: running and training

    @rule(size=sizes, seed=seeds)
    def run(self, size: int, seed: int) -> None:
        self.forward(size, seed)

    @rule(size=sizes, seed=seeds)
    def run_twice(self, size: int, seed: int) -> None:
        """In evaluation the same batch gives the same bits; in training draws move on."""
        first, second = (to_numpy(self.forward(size, seed)) for _ in range(2))
        if not any(self.modes.values()):
            assert first.tobytes() == second.tobytes()

    @precondition(lambda self: not self.blocks)
    @rule(size=sizes, seed=seeds)
    def backward(self, size: int, seed: int) -> None:
        self.train_on(size, seed)

    @precondition(lambda self: not self.blocks)
    @rule(size=sizes, seed=seeds)
    def train_step(self, size: int, seed: int) -> None:
        self.zero_grad()
        self.train_on(size, seed)
        self.step()

    @rule()
    def step(self) -> None:
        """With whatever `.grad` holds: sums of several backwards, or nothing."""
        self.optimizer.step()
        self.twin.step(self.gradients)

    @rule()
    def zero_grad(self) -> None:
        self.optimizer.zero_grad()
        self.gradients = {}

    # -- rules: modes and recording

    @rule(training=st.booleans())
    def set_mode(self, training: bool) -> None:
        self.model.train() if training else self.model.eval()
        self.modes = dict.fromkeys(self.modes, training)

    @rule(data=st.data())
    def freeze_one_layer(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([n for n in self.modes if n]), label="layer")
        getattr(self.model, name).eval()
        self.modes[name] = False

    @rule(training=st.booleans(), size=sizes, seed=seeds)
    def in_a_block(self, training: bool, size: int, seed: int) -> None:
        """`with model.mode(...)`: afterwards every module is in its own mode again."""
        before = dict(self.modes)
        with self.model.mode(training):
            self.modes = dict.fromkeys(self.modes, training)
            self.forward(size, seed)
        self.modes = before

    # -- rules: exceptions

    @rule(training=st.booleans(), size=sizes, seed=seeds)
    def forward_raises_half_way(self, training: bool, size: int, seed: int) -> None:
        """Modes and recording are as before; layers that were done have counted the batch."""
        before = dict(self.modes)
        self.model.trap.armed = True
        try:
            with no_grad(), self.model.mode(training):
                self.modes = dict.fromkeys(self.modes, training)
                self.forward(size, seed)
        except ArithmeticError:
            pass
        else:
            raise AssertionError("the trap was armed")
        finally:
            self.model.trap.armed = False
            self.modes = before

    @rule()
    def a_batch_of_another_width(self) -> None:
        wrong = self.device.asarray(np.ones((2, *self.shape[:-1], 7)))
        try:
            self.model(Tensor(wrong))
        except ShapeError:
            return
        raise AssertionError("seven channels should be refused")

    # -- rules: saving and loading

    @rule(slot=st.sampled_from(["a", "b"]))
    def save(self, slot: str) -> None:
        model, optimizer = self.states(), self.optimizer.state_dict()
        path = self.folder / f"{slot}.npz"
        checkpoint.save(path, {"slot": slot}, {"model": model, "optimizer": optimizer})
        self.saved[slot] = (path, model, optimizer, deepcopy(self.twin))

    @precondition(lambda self: self.saved)
    @rule(data=st.data(), through_file=st.booleans())
    def load(self, data: st.DataObject, through_file: bool) -> None:
        """Through a checkpoint or from dicts in memory: either way bit for bit."""
        slot = data.draw(st.sampled_from(sorted(self.saved)), label="slot")
        path, model, optimizer, known = self.saved[slot]
        if through_file:
            manifest, states = checkpoint.load(path)
            assert manifest == {"slot": slot}
            same_bits(states["model"], model, "the model's part of the checkpoint")
            same_bits(states["optimizer"], optimizer, "the optimizer's part")
            self.model.load_state_dict(states["model"])
            self.optimizer.load_state_dict(states["optimizer"])
        else:
            self.model.load_state_dict(model)
            self.optimizer.load_state_dict(optimizer)
        same_bits(self.states(), model, "the model after loading")
        same_bits(self.optimizer.state_dict(), optimizer, "the optimizer after loading")
        self.twin = deepcopy(known)

    @precondition(lambda self: not self.blocks)
    @rule(size=sizes, seed=seeds)
    def a_step_after_loading_is_the_step_that_was(self, size: int, seed: int) -> None:
        """Exact resume: the same draws, the same statistics, the same weights."""
        model, optimizer, known = self.states(), self.optimizer.state_dict(), deepcopy(self.twin)
        self.train_step(size, seed)
        first = self.states()
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)
        self.twin = known
        self.train_step(size, seed)
        same_bits(self.states(), first, "the step after loading")

    @rule()
    def load_what_does_not_fit(self) -> None:
        """A state that lacks one name is refused, and nothing of it is taken."""
        before = self.states()
        state = {name: array + 1 for name, array in before.items()}
        state.pop("last.bias")
        try:
            self.model.load_state_dict(state)
        except KeyError:
            same_bits(self.states(), before, "a refused state")
            return
        raise AssertionError("a state without last.bias should be refused")

    # -- invariants

    @invariant()
    def recording_is_as_the_blocks_say(self) -> None:
        probe = Tensor(self.device.asarray(np.ones(1)), requires_grad=True)
        assert (-probe).requires_grad == (not self.blocks), "recording is not as no_grad left it"

    @invariant()
    def modes_are_as_they_were_set(self) -> None:
        modes = {name: module.training for name, module in self.model.named_modules()}
        assert modes == self.modes, f"modes are {modes}, not {self.modes}"

    @invariant()
    def parameters_follow_the_formula(self) -> None:
        for name, p in self.model.named_parameters():
            assert p is self.parameters[name], f"{name} is another object than it was"
            same(to_numpy(p.data), self.twin.parameters[name], name)
            if name in self.gradients:
                assert p.grad is not None, f"{name} has lost its gradient"
                same(to_numpy(p.grad), self.gradients[name], f".grad of {name}")
            else:
                assert p.grad is None, f"{name} has a gradient that no backward gave it"
        assert list(map(id, self.optimizer.params)) == list(map(id, self.parameters.values()))

    @invariant()
    def statistics_are_the_closed_form(self) -> None:
        for name, known in self.twin.statistics.items():
            norm = getattr(self.model, name)
            same(to_numpy(norm.running_mean), known.running(0, known.means), f"mean of {name}")
            variance = known.running(1, known.variances)
            same(to_numpy(norm.running_var), variance, f"variance of {name}")
            assert int(norm.batches.data) == len(known.means), f"batches of {name}"
        for name, count in self.twin.drawn.items():
            assert int(getattr(self.model, name).step.data) == count, f"steps of {name}"
