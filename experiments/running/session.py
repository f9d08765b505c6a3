"""From a command line to a finished study: opening it, continuing it, and every way to stop.

What every experiment shares. Its settings are a frozen dataclass with at least `backend`,
`steps`, `threads`, `kernels`, `data_dir`, `out`, `resume` and `force`.
"""

from __future__ import annotations

import dataclasses
import errno
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.running.command_line import (
    UsageError,
    at_least,
    flag_name,
    one_of,
    parse,
    report,
    restored,
)
from experiments.running.study import Run, Study, default_folder
from experiments.running.training import Interrupted, cores
from minibn import kernels, use
from minibn.backend import get_backend
from minibn.backend.cpu import threads
from minibn.errors import BackendUnavailable, DataError

BACKENDS = ("numpy", "cupy", "strict")
KERNELS = ("fast", "lean", "reference")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Settings that say where and how, not what: they may differ when a study is continued.
FREE = ("resume", "out", "force", "data_dir")
# These change the rounding, so that a run does not go on bit for bit: only --force accepts that.
ROUNDING = ("threads", "kernels")
# How studies ran that were made before there were kernels, and do not name any.
BEFORE_KERNELS = "reference"


@dataclass(frozen=True)
class Experiment:
    """What tells one experiment's session from another's.

    settings: its dataclass; quick: the values that --quick stands for. `check` raises UsageError
    for settings that can't work; `work(settings, study)` does everything else and returns the exit
    code.
    """

    name: str
    settings: Any
    quick: dict[str, Any]
    check: Callable[[Any], None]
    work: Callable[[Any, Study], int]
    kind: str = ""  # of its studies, where several experiments share one; else its name

    @property
    def program(self) -> str:
        return f"python -m experiments.{self.name}"


def preset(settings: Any, quick: dict[str, Any], given: dict[str, Any]) -> Any:
    """Settings: the defaults, then with --quick its preset, then what was given."""
    return settings(**{**(quick if given.get("quick") else {}), **given})


def attend(
    experiment: Experiment, *, description: str | None, arguments: Sequence[str] | None
) -> int:
    """Parse, open the study, do its work. Every failure ends in one line; returns the exit code.

    description: the experiment's docstring, whose first paragraph --help shows.
    """
    program, description = experiment.program, str(description).partition("\n\n")[0]
    try:
        words = sys.argv[1:] if arguments is None else arguments
        given = parse(experiment.settings, words, program=program, description=description)
        if "backend" in given:  # first of all: nothing is written if it can't run
            one_of("--backend", given["backend"], BACKENDS)
            get_backend(given["backend"])
        s, study = open_study(experiment, given)
    except (UsageError, DataError, BackendUnavailable, OSError) as error:
        return report(program, error)
    exhausted: tuple[type[Exception], ...] = (MemoryError,)
    go_on = f" Continue: {program} --resume {study.folder}"
    try:
        with (
            study.or_nothing(),
            use(s.backend) as backend,
            threads.limited(s.threads),
            kernels(s.kernels),
        ):
            exhausted = backend.memory_exhausted
            return experiment.work(s, study)
    except (UsageError, DataError, BackendUnavailable) as error:
        return report(program, error)
    except (Interrupted, KeyboardInterrupt) as error:
        lost = "" if isinstance(error, Interrupted) else ", up to the last checkpoint"
        saved = f"everything is saved{lost}.{go_on}" if study.exists else "nothing was begun."
        print(f"\nStopped; {saved}", flush=True)
        return 130
    except exhausted:
        remedy = " Take a smaller --batch-size, --width or --train-size"
        remedy += ", or --kernels lean." if s.kernels == "fast" else "."
        return report(program, MemoryError("Memory is exhausted." + remedy))
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        remedy = "Free space." if error.errno in NO_SPACE else "Mend that."
        what = f"{error.strerror or error}{where}. {remedy}{go_on if study.exists else ''}"
        return report(program, OSError(what))


def open_study(experiment: Experiment, given: dict[str, Any]) -> tuple[Any, Study]:
    """(settings, study): a new one, or the one that --resume names, with its settings."""
    if "resume" not in given:
        s = with_threads(preset(experiment.settings, experiment.quick, given))
        experiment.check(s)
        folder = default_folder(experiment.name) if s.out is None else Path(s.out)
        return s, Study.create(folder, experiment.kind or experiment.name, stored(s))
    if "out" in given:
        raise UsageError("--out and --resume exclude each other: a study continues where it is.")
    study = Study.open(Path(given["resume"]), experiment.kind or experiment.name)
    try:
        content = restored(experiment.settings, study.settings)
        settings = experiment.settings(**{"kernels": BEFORE_KERNELS, **content})
    except DataError as error:
        raise DataError(f"{study.folder / 'study.json'} can't be used: {error}") from None
    if "kernels" not in {**content, **given}:
        print(
            f"{study.folder} was begun before there were kernels, and goes on without. Faster, in "
            "another rounding: --kernels fast --force."
        )
    kept = dataclasses.asdict(settings)
    may_change = {*FREE, *(ROUNDING if given.get("force") else ())}
    differ = [
        f"{flag_name(k)} {shown(v)} (the study: {shown(kept[k])})"
        for k, v in given.items()
        if k not in may_change and v != kept[k] and not (k == "steps" and v > kept[k])
    ]
    if differ:
        raise UsageError(
            f"--resume reads its settings from the study, and these differ: {'; '.join(differ)}. "
            "Leave them out; only --steps may be raised (and --threads and --kernels changed, with "
            "--force)."
        )
    s = with_threads(dataclasses.replace(settings, **given))
    experiment.check(s)
    return s, study


def check_shared(s: Any, plans: Sequence[Any], may_repeat: Sequence[str] = ()) -> None:
    """Raise UsageError for settings with which no experiment can work. plans: its runs, which must
    have different names; may_repeat: the lists that may name something twice."""
    one_of("--backend", s.backend, BACKENDS)
    one_of("--kernels", s.kernels, KERNELS)
    at_least("--steps", s.steps, 1)
    at_least("--checkpoint-every", s.checkpoint_every, 1)
    if s.threads is not None:
        at_least("--threads", s.threads, 1)
    for seed in s.seed:
        at_least("--seed", seed, 0)
    for name, values in vars(s).items():
        if isinstance(values, tuple) and name not in may_repeat and len(set(values)) < len(values):
            raise UsageError(f"{flag_name(name)} names something twice: {shown(values)}.")
    if len({plan.name for plan in plans}) < len(plans):
        raise UsageError(f"--lr {shown(s.lr)}: rates of a study must differ in six digits.")


def with_threads(s: Any) -> Any:
    """The settings with a number of threads, which a study is to keep: all cores may be others
    tomorrow."""
    return s if s.threads is not None else dataclasses.replace(s, threads=cores())


def stored(s: Any) -> dict[str, Any]:
    """The settings that belong to a study."""
    kept = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(s).items()}
    return {k: v for k, v in kept.items() if k not in ("resume", "out", "force")}


def unchanged(run: Run, now: dict[str, Any], force: bool) -> None:
    """Raise UsageError unless the run's config has the data, threads and kernels of the config
    `now`: only then does it go on bit for bit. `force` accepts it all the same."""
    before, differ = run.config, []
    if before["data_fingerprint"] != now["data_fingerprint"]:
        differ.append("the data (another --data-dir?)")
    was, is_ = before["environment"]["threads"], now["environment"]["threads"]
    if was != is_:
        differ.append(f"threads ({was} then, {is_} now)")
    was, is_ = (c["settings"].get("kernels", BEFORE_KERNELS) for c in (before, now))
    if was != is_:
        differ.append(f"kernels ({was} then, {is_} now)")
    for key in ("numpy", "device", "commit"):
        was, is_ = (str(c["environment"].get(key)) for c in (before, now))
        if was != is_:
            print(f"{run.name}: {key} was {was}, is {is_}: it goes on, perhaps not bit for bit.")
    if differ and not force:
        raise UsageError(
            f"--resume: {' and '.join(differ)} changed since {run.name} began, so it would not go "
            "on bit for bit. Restore that, or accept it with --force."
        )


def shown(value: Any) -> str:
    """A setting as it stands on a command line."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
