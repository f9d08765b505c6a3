"""Optimizers, gradient clipping, and schedules.

An optimizer updates parameters in place from their `.grad`. Its learning rate is the attribute
`lr` (or `param_groups[i]["lr"]`, of one group); a schedule is a pure function of the step:

    for step in range(steps):
        ...
        optimizer.lr = schedule(step)
        optimizer.step()

Weight decay of SGD and Adam adds λw to the gradient (an l2 penalty of λ/2 ‖w‖²); AdamW shrinks the
weights directly (Loshchilov & Hutter 2019).
"""

from minibn.errors import missing_attribute
from minibn.optim.adam import Adam, AdamW
from minibn.optim.clipping import clip_grad_norm
from minibn.optim.optimizer import Group, Optimizer, Row, check_setting, decay_groups
from minibn.optim.schedules import Schedule, constant, cosine, step_decay, warm_up
from minibn.optim.sgd import SGD

__all__ = [
    "SGD", "Adam", "AdamW", "Group", "Optimizer", "Row", "Schedule", "check_setting",
    "clip_grad_norm",
    "constant", "cosine", "decay_groups", "step_decay", "warm_up",
]  # fmt: skip

# What to use in the place of names of PyTorch's.
__getattr__ = missing_attribute(
    __name__,
    __all__,
    {
        "clip_grad_norm_": "optim.clip_grad_norm",
        "lr_scheduler": "a schedule, such as optim.cosine(lr, steps), and optimizer.lr = "
        "schedule(step)",
    },
)  # fmt: skip
