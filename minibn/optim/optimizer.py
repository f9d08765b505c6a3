"""Optimizer, the base class of all update rules, and its groups of parameters.

A subclass defines `slots` and `update`. A group shares settings, such as its weight decay.
"""

from __future__ import annotations

import math
from collections import UserDict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minibn.autograd.dispatch import find_kernel
from minibn.autograd.tensor import Tensor
from minibn.backend import array_module, backend_of, to_numpy
from minibn.errors import did_you_mean
from minibn.nn.module import Module


def as_number(setting: Any) -> Any:
    """A NumPy scalar as Python's number, which adopts the dtype of the arrays."""
    return setting.item() if isinstance(setting, np.generic) else setting


class Group(UserDict[str, Any]):
    """Parameters that share settings: {"params": ..., "lr_scale": ..., ...}. Its rate is the
    optimizer's `lr` times `lr_scale`; as in PyTorch it can be read and set as group["lr"].

    Setting "lr" of the only group sets the optimizer's; of one of several, this group's `lr_scale`.
    Raises KeyError for an unknown setting, or new params; ValueError for a rate that is negative or
    not finite, or that no `lr_scale` gives, since the optimizer's rate is 0.
    """

    def __init__(self, settings: Mapping[str, Any], shared: dict[str, Any]) -> None:
        self.data = {key: as_number(setting) for key, setting in settings.items()}
        self.shared = shared  # "lr", and how many "groups"

    def __getitem__(self, key: str) -> Any:
        return self.shared["lr"] * self.data["lr_scale"] if key == "lr" else self.data[key]

    def __setitem__(self, key: str, setting: Any) -> None:
        setting = as_number(setting)
        if key == "params":
            raise KeyError("a group's params can't be exchanged. Make another optimizer.")
        if key not in self.data and key != "lr":
            raise KeyError(f"a group has no {key!r}. {did_you_mean(key, ['lr', *self.data])}")
        if key != "lr":
            self.data[key] = setting
            return
        if not (setting >= 0 and math.isfinite(setting)):
            raise ValueError(f"lr={setting} must be finite and not negative.")
        if self.shared["groups"] == 1:
            self.shared["lr"], self.data["lr_scale"] = setting, 1.0
        elif self.shared["lr"] > 0:
            self.data["lr_scale"] = setting / self.shared["lr"]
        elif setting > 0:
            raise ValueError(
                "the optimizer's lr is 0: set optimizer.lr, and each group's lr_scale."
            )


Row = tuple[list[Any], Group]  # the arrays w, g and those of `slots`, with their group


def decay_groups(model: Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: weights with decay; gammas, betas and biases (one axis) without."""
    parameters = model.parameters()
    return [
        {"params": [p for p in parameters if len(p.shape) > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if len(p.shape) <= 1], "weight_decay": 0.0},
    ]


class Optimizer:
    """Base class: parameter groups, `zero_grad`, and the state for checkpoints.

    params: a list of Tensors, or of groups {"params": [...], "weight_decay": ..., "lr_scale": ...}
    that differ from the defaults. `lr_scale` multiplies `lr` within the group; in its place a group
    may have an `lr` of its own. See `Group`.
    """

    slots: tuple[str, ...] = ()  # names of the state arrays of each parameter

    def __init__(
        self, params: Iterable[Any], lr: float, weight_decay: float, **settings: Any
    ) -> None:
        if not (lr >= 0 and math.isfinite(lr)):
            raise ValueError(f"{type(self).__name__}: lr={lr} must be finite and not negative.")
        if not weight_decay >= 0:
            raise ValueError(f"{type(self).__name__}: weight_decay={weight_decay} is negative.")
        given = list(params)
        groups = given if given and isinstance(given[0], Mapping) else [{"params": given}]
        self._shared: dict[str, Any] = {"lr": as_number(lr), "groups": len(groups)}
        defaults = {"weight_decay": weight_decay, "lr_scale": 1.0, **settings}
        self.groups: list[Group] = []
        for group in groups:
            if unknown := set(group) - {"params", "lr", *defaults}:
                raise ValueError(
                    f"{type(self).__name__}: a group has {', '.join(sorted(unknown))}; known are "
                    f"params, lr, {', '.join(defaults)}."
                )
            if "lr" in group and "lr_scale" in group:
                raise ValueError(f"{type(self).__name__}: a group has lr and lr_scale. Give one.")
            own = {**defaults, **group, "params": tuple(group["params"])}
            rate = own.pop("lr", None)
            self.groups.append(Group(own, self._shared))
            if rate is not None:
                self.groups[-1]["lr"] = rate
        self.params: list[Tensor] = [p for group in self.groups for p in group["params"]]
        if not self.params or not all(isinstance(p, Tensor) and p.is_leaf for p in self.params):
            raise ValueError(f"{type(self).__name__}: params must be leaf Tensors, at least one.")
        if len({id(p) for p in self.params}) < len(self.params):
            raise ValueError(f"{type(self).__name__}: a parameter stands in two places.")
        self.steps = 0
        self.updates: list[int] = []  # of each parameter, where the rule counts them
        self.state: list[dict[str, Any]] = [{} for _ in self.params]

    @property
    def lr(self) -> float:
        """The learning rate, which each group's `lr_scale` multiplies."""
        return self._shared["lr"]

    @lr.setter
    def lr(self, rate: float) -> None:
        self._shared["lr"] = as_number(rate)

    @property
    def param_groups(self) -> list[Group]:
        """The same as `groups`: PyTorch's name."""
        return self.groups

    def zero_grad(self) -> None:
        for p in self.params:
            p.grad = None

    @np.errstate(under="ignore")  # host: the square of a small gradient is 0
    def step(self) -> None:
        """Update every parameter that has a gradient, in place."""
        self.steps += 1
        groups = [group for group in self.groups for _ in group["params"]]
        rows, updated = [], []
        for i, (p, state, group) in enumerate(zip(self.params, self.state, groups, strict=True)):
            if p.grad is not None:
                arrays = [p.data, p.grad.data, *self.state_arrays(p.data, state, group)]
                rows.append((arrays, self.settings_of(i, group)))
                updated.append(p)
        kernel = find_kernel(self, [x for arrays, _ in rows for x in arrays]) if rows else None
        (kernel or self).update_all(rows)
        for p in updated:
            p.bump_version()

    def settings_of(self, i: int, group: Group) -> Group:
        """The settings for this update of parameter i, which is in this group."""
        return group

    def update_all(self, rows: list[Row]) -> None:
        """Update all parameters that have gradients."""
        for arrays, group in rows:
            self.update(group, *arrays)

    def update(self, group: Group, w: Any, g: Any, *state: Any) -> None:
        """Update one parameter in place, elementwise. w, g: its values and its gradient; state: its
        state arrays, in the order of `slots`."""
        raise NotImplementedError

    def state_arrays(self, w: Any, state: dict[str, Any], group: Group) -> list[Any]:
        """The state arrays of a parameter, in the order of `slots`: zeros at first."""
        if not state:
            state |= {slot: array_module(w).zeros_like(w) for slot in self.slots}
        return [state[slot] for slot in self.slots]

    def state_dict(self) -> dict[str, np.ndarray]:
        """The step count and the state arrays, by parameter number, as NumPy arrays."""
        arrays = {
            f"{i}.{key}": to_numpy(array).copy()
            for i, state in enumerate(self.state)
            for key, array in state.items()
        }
        return {"steps": np.array(self.steps), **arrays}  # host: what a checkpoint holds

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from `state_dict()`. Raises KeyError, and changes nothing, if it belongs to
        other parameters or lacks a part."""
        if "steps" not in state:
            raise KeyError(f"{type(self).__name__}: steps is missing. Is it an optimizer's state?")
        fresh: list[dict[str, Any]] = [{} for _ in self.params]
        for name, array in state.items():
            if name == "steps":
                continue
            i, _, key = name.partition(".")
            if not i.isdecimal() or int(i) >= len(self.params) or key not in self.slots:
                raise KeyError(f"{type(self).__name__}: {name} belongs to another optimizer.")
            p = self.params[int(i)]
            if array.shape != p.shape:
                raise KeyError(f"{type(self).__name__}: {name} is {array.shape}, not {p.shape}.")
            if not np.can_cast(array.dtype, p.dtype, "same_kind"):
                raise KeyError(f"{type(self).__name__}: {name} is {array.dtype}, not {p.dtype}.")
            fresh[int(i)][key] = backend_of(p.data).asarray(array.copy(), dtype=p.dtype)
        for number, arrays in enumerate(fresh):
            if arrays and (missing := set(self.slots) - set(arrays)):
                raise KeyError(f"{type(self).__name__}: {number}.{missing.pop()} is missing.")
        self.steps, self.state = self._count(state["steps"], "steps"), fresh

    def _count(self, number: Any, name: str) -> int:
        """A number of steps. Raises KeyError for what is none."""
        array = np.asarray(number)  # host: from a checkpoint
        if array.shape != () or array.dtype.kind not in "iu" or array < 0:
            raise KeyError(f"{type(self).__name__}: {name} is {array!r}, not a number of steps.")
        return int(array)
