"""The work of a study: all its runs, each from its last checkpoint, then the figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.training import session
from experiments.training.command_line import UsageError
from experiments.training.lease import require_free
from experiments.training.loop import clock, cores
from experiments.training.provenance import environment
from experiments.training.run import Place
from experiments.training.settings import in_precision
from experiments.training.study import Run, Study
from minibn.backend import get_backend
from minibn.data import Dataset

Result = dict[str, Any]
LONG = 600  # seconds; of a longer training the estimated time is printed


@dataclass(frozen=True)
class Plan:
    """One run of a study."""

    variant: str
    lr: float
    seed: int

    @property
    def name(self) -> str:
        """Of its folder, without the colon of `module:Class`, which file names may not have."""
        return f"{self.variant.replace(':', '.')}-lr{self.lr:g}-seed{self.seed}"

    @property
    def label(self) -> str:
        return f"{self.variant} lr {self.lr:g} seed {self.seed}"


@dataclass(frozen=True)
class Work:
    """What `run_study` needs from an experiment.

    configuration(plan): what config.json holds beside the plan. run(folder, plan): train from the
    last checkpoint, in a folder that has begun. about: a description of the runs, which is printed.
    plot(): the figures. seconds(left): an estimate for {plan: steps that are left}; None: none is
    printed. wanted(plan, results): whether to run it at all, given the results so far.
    keeps_checkpoints: whether a run that ended keeps its checkpoint.
    """

    plans: Sequence[Plan]
    configuration: Callable[[Plan], dict[str, Any]]
    run: Callable[[Run, Plan], Result]
    about: str
    plot: Callable[[], object]
    seconds: Callable[[Mapping[Plan, int]], float] | None = None
    wanted: Callable[[Plan, Mapping[Plan, Result]], bool] = lambda plan, results: True
    keeps_checkpoints: bool = True


def run_study(s: Any, study: Study, work: Work) -> int:
    """Do what is not done yet, and plot. Returns the exit code.

    Raises, before anything is written, DataError for files that are not as they were written, and
    UsageError if a run that has begun would not go on bit for bit (and --force is not given), or
    another process trains it.
    """
    folders = {plan: study.run(plan.name) for plan in work.plans}
    results = {p: r for p, f in folders.items() if (r := f.final_result(s.steps)) is not None}
    session.require_planned(study, [plan.name for plan in work.plans])
    left = {}
    for plan, folder in folders.items():
        require_free(folder.folder, locked=study.is_locked)
        if folder.has_begun:
            now = configuration(s, plan, work)
            session.require_unchanged(folder, now, s.force, has_ended=plan in results)
        if plan in results:
            folder.check()
            steps = results[plan].get("steps")  # None of a run that diverged
            if work.keeps_checkpoints and steps and (notice := folder.checkpoint_notice(steps)):
                print(f"{plan.name}: {notice}", flush=True)
        else:
            left[plan] = s.steps - folder.steps_done()
    study.clean()
    study.change(**session.study_settings(s))
    print(
        f"{study.folder}: {len(left)} of {len(folders)} runs to do, {sum(left.values()):,} steps "
        f"{work.about}, {s.backend}, threads {s.threads}, kernels {s.kernels}"
        f"{in_precision(dataclasses.asdict(s))}",
        flush=True,
    )
    if work.keeps_checkpoints:
        for folder in (folders[plan] for plan in left):
            if not folder.checkpoints and folder.has_streams:
                print(f"{folder.name}: its checkpoint is missing, so it begins again from step 0")
    if left and work.seconds is not None and s.backend != "cupy" and not s.quick:
        seconds = work.seconds(left)
        if seconds > LONG:
            print(
                f"Training will take about {clock(seconds)} here, and what is measured on the way "
                "some more. It can be stopped and continued at any time; --quick is over in two "
                "minutes.",
                flush=True,
            )
    waiting = sum(left.values())  # steps of the runs that come later
    for number, (plan, folder) in enumerate(folders.items(), start=1):
        waiting -= left.get(plan, 0)
        folder.place = Place(number, len(folders), waiting)
        if plan in left and work.wanted(plan, results):
            try:
                folder.begin(configuration(s, plan, work), locked=study.is_locked)
                results[plan] = work.run(folder, plan)
            finally:
                folder.end()
            if results[plan]["status"] == "diverged":
                print(f"{plan.name}: diverged at step {results[plan]['step']}", flush=True)
    work.plot()
    return 0


def configuration(s: Any, plan: Plan, work: Work) -> dict[str, Any]:
    """The content of a run's config.json."""
    return {
        **dataclasses.asdict(plan),
        **work.configuration(plan),
        "settings": session.study_settings(s),
        "environment": environment(get_backend(), s.threads or cores()),
    }


def check_batch_size(batch_size: int, data: Dataset) -> None:
    """Raise UsageError if a batch is larger than the training set."""
    if batch_size > len(data.train_images):
        raise UsageError(
            f"--batch-size {batch_size} is more than the {len(data.train_images):,} training "
            "images. Use a smaller batch."
        )
