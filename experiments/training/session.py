"""From a command line to a finished study: opening, continuing and stopping it.

Each experiment is an `Experiment`, whose `main` is its command.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.training.command_line import (
    UsageError,
    flag_name,
    flag_value,
    one_of,
    parse,
    report,
    settings_from_json,
)
from experiments.training.device_steps import graphs
from experiments.training.loop import Interrupted, cores
from experiments.training.settings import BACKENDS
from experiments.training.signals import interrupts, say_last
from experiments.training.study import Run, Study
from minibn import kernels, precision, use
from minibn.backend import get_backend
from minibn.console import prints_anywhere
from minibn.errors import BackendUnavailable, DataError
from minibn.fast.cpu import threads
from minibn.fast.selection import WITHOUT

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Settings to reduce if memory is exhausted, where an experiment has them.
SIZES = ("batch_size", "width", "train_size", "samples", "hidden")

# Settings that say where and how, not what: they may differ when a study is continued.
WHERE = ("resume", "out", "force", "data_dir", "graph")
# These change the rounding, so that a run does not go on bit for bit: only --force accepts that.
ROUNDING = ("threads", "kernels", "backend")
# So do these of the machine. OPENBLAS_CORETYPE and NPY_DISABLE_CPU_FEATURES choose them.
MACHINE = {"blas": "BLAS", "simd": "the instruction sets that NumPy uses"}


@dataclass(frozen=True)
class Experiment:
    """An experiment: its settings, their check, and its work.

    settings: its dataclass, of SharedSettings; quick: the values that --quick stands for. `check`
    raises UsageError for settings that can't work; `work(settings, study)` does everything else and
    returns the exit code. description: its docstring, whose first paragraph --help shows.
    """

    name: str
    settings: Any
    quick: dict[str, Any]
    check: Callable[[Any], None]
    work: Callable[[Any, Study], int]
    description: str | None
    kind: str = ""  # of its studies, where several experiments share one; else its name

    @property
    def program(self) -> str:
        return f"python -m experiments.{self.name}"

    @prints_anywhere
    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run the study, or go on with it; plot its figures, print its tables.

        An error is printed as one line. Returns the exit code.
        """
        try:
            s, study = self._open(arguments)
        except (UsageError, DataError, BackendUnavailable, OSError) as error:
            return report(self.program, error)
        go_on = f" Continue: {self.program} --resume {study.folder}"
        try:
            with interrupts():  # while it trains, the loop saves first
                return self._work(s, study)
        except (UsageError, DataError, BackendUnavailable) as error:
            return report(self.program, error)
        except MemoryError as error:
            sizes = [flag_name(name) for name in SIZES if hasattr(s, name)]
            remedy = f" Take a smaller {' or '.join(sizes)}"
            remedy += {"numpy": ", or --kernels lean." if s.kernels == "fast" else "."}.get(
                s.backend, ", or --graph off." if s.graph != "off" else "."
            )
            asked = f": {error}." if str(error) else "."
            return report(self.program, MemoryError("Memory is exhausted" + asked + remedy))
        except (Interrupted, KeyboardInterrupt) as error:
            lost = "" if isinstance(error, Interrupted) else ", up to the last checkpoint"
            saved = f"everything is saved{lost}.{go_on}" if study.exists else "nothing was begun."
            say_last(f"\nStopped; {saved}")
            return 130
        except BrokenPipeError:  # as in `entry_point.program`
            raise
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            remedy = "Free space." if error.errno in NO_SPACE else "Fix that."
            what = f"{error.strerror or error}{where}. {remedy}{go_on if study.exists else ''}"
            return report(self.program, OSError(what))

    def _open(self, words: Sequence[str] | None) -> tuple[Any, Study]:
        """(settings, study) of a command line."""
        given = parse(self.settings, words, program=self.program, description=self.description)
        if "backend" in given:  # first of all: nothing is written if it can't run
            one_of("--backend", given["backend"], BACKENDS)
            get_backend(given["backend"])
        return open_study(self, given)

    def _work(self, s: Any, study: Study) -> int:
        """The work, on its backend. Raises MemoryError also when a GPU's memory is exhausted."""
        with (
            study.remove_on_failure(),
            study.lock(),
            use(s.backend) as backend,
            threads.limit_threads(s.threads),
            kernels(s.kernels),
            graphs(s.graph),
            precision(s.precision),
        ):
            try:
                return self.work(s, study)
            except backend.out_of_memory_errors as error:
                raise MemoryError(backend.shortage(error)) from error


def preset(settings: Any, quick: dict[str, Any], given: dict[str, Any]) -> Any:
    """Settings: the defaults, then with --quick its preset, then what was given."""
    return settings(**{**(quick if given.get("quick") else {}), **given})


def open_study(experiment: Experiment, given: dict[str, Any]) -> tuple[Any, Study]:
    """(settings, study): a new one, or the one that --resume names, with its settings."""
    if "resume" not in given:
        s = with_threads(preset(experiment.settings, experiment.quick, given))
        experiment.check(s)
        kind, settings = experiment.kind or experiment.name, study_settings(s)
        if s.out is None:
            return s, Study.create_by_time(experiment.name, kind, settings)
        return s, Study.create(Path(s.out), kind, settings)
    if "out" in given:
        raise UsageError("--out and --resume exclude each other: a study continues where it is.")
    study = Study.open(Path(given["resume"]), experiment.kind or experiment.name)
    try:
        content = settings_from_json(experiment.settings, study.settings)
        settings = experiment.settings(**content)
    except DataError as error:
        raise DataError(
            f"{study.folder / 'study.json'} can't be used: {error} Restore it, or start a new "
            "--out."
        ) from None
    if lacking := [k for k in study_settings(settings) if k not in content]:
        raise DataError(
            f"{study.folder / 'study.json'} lacks {', '.join(lacking)}. Restore it, or start a new "
            "--out."
        )
    stored = dataclasses.asdict(settings)
    may_change = {*WHERE, *(ROUNDING if given.get("force") else ())}
    differ = [
        f"{flag_name(k)} {flag_value(v)} (the study: {flag_value(stored[k])})"
        for k, v in given.items()
        if k not in may_change and v != stored[k] and not (k == "steps" and v > stored[k])
    ]
    if differ:
        raise UsageError(
            f"--resume reads its settings from the study, and these differ: {'; '.join(differ)}. "
            "Leave them out; only --steps may be raised (and --threads, --kernels and "
            "--backend changed, with --force)."
        )
    s = with_threads(dataclasses.replace(settings, **given))
    experiment.check(s)
    return s, study


def with_threads(s: Any) -> Any:
    """The settings with an explicit number of threads, for the study: the default may differ when
    it is continued."""
    return s if s.threads is not None else dataclasses.replace(s, threads=cores())


def study_settings(s: Any) -> dict[str, Any]:
    """The settings that study.json stores."""
    content = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(s).items()}
    return {k: v for k, v in content.items() if k not in ("resume", "out", "force", "graph")}


def require_planned(study: Study, names: Collection[str]) -> None:
    """Raise DataError if a run has begun that the study's settings do not ask for."""
    for run in study.runs():
        if run.name not in names:
            raise DataError(
                f"{study.folder / 'study.json'} asks for no run {run.name}, which is there: was it "
                f"changed? Restore it, or move {run.folder} away."
            )


def require_unchanged(
    run: Run, now: dict[str, Any], force: bool, *, has_ended: bool = False
) -> None:
    """Raise UsageError unless the run's config has the data, threads, kernels and BLAS of the
    config `now`: only then does it go on bit for bit. `force` accepts all but another precision.
    Of a run that has ended, these may differ.

    Raises DataError if another setting differs, which only damage can do.
    """
    before = run.config
    if not has_ended:
        _require_same_rounding(run.name, before, now, force)
    free = {"environment", *(("data_fingerprint",) if force else ())}
    pairs = {key: (before.get(key), now.get(key)) for key in {*before, *now} - free - {"settings"}}
    settings = before["settings"], now["settings"]
    for key in {*settings[0], *settings[1]} - {*WHERE, *ROUNDING}:
        was, is_ = (content.get(key) for content in settings)
        if not (key == "steps" and type(was) is int and was <= is_):  # which may be raised
            pairs[key] = was, is_
    for key, (was, is_) in sorted(pairs.items()):
        if was != is_:
            raise DataError(
                f"{run.folder / 'config.json'} says {key} {was!s:.60}; by study.json and the data "
                f"it is {is_!s:.60}. Restore what was changed, or delete {run.folder} and train "
                "that run again."
            )


def _require_same_rounding(
    name: str, before: dict[str, Any], now: dict[str, Any], force: bool
) -> None:
    differ = []
    if before["data_fingerprint"] != now["data_fingerprint"]:
        differ.append("the data (another --data-dir?)")
    was, is_ = before["environment"]["threads"], now["environment"]["threads"]
    if was != is_:
        differ.append(f"threads ({was} then, {is_} now)")
    was, is_ = (c["settings"]["kernels"] for c in (before, now))
    if was != is_:
        differ.append(f"kernels ({was} then, {is_} now)")
    was, is_ = (c["environment"].get("without_kernels") or "unset" for c in (before, now))
    if was != is_:
        differ.append(f"${WITHOUT} ({was} then, {is_} now)")
    was, is_ = (c["settings"]["precision"] for c in (before, now))
    if was != is_:
        raise UsageError(
            f"--resume: {name} began in precision {was}, its study says {is_}. Restore its "
            "study.json, or begin a new --out."
        )
    on_host = now["environment"].get("backend") != "cupy"
    for key in ("blas", "simd", "numpy", "device", "commit"):
        was, is_ = (str(c["environment"].get(key)) for c in (before, now))
        if was != is_ and key in MACHINE and on_host:
            differ.append(f"{MACHINE[key]} ({was} then, {is_} now)")
        elif was != is_:
            print(f"{name}: {key} was {was}, is {is_}: it goes on, perhaps not bit for bit.")
    if differ and not force:
        raise UsageError(
            f"--resume: {' and '.join(differ)} changed since {name} began, so it would not go "
            "on bit for bit. Restore that, or accept it with --force."
        )
