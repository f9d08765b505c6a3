"""The whole paper, in order: every training, every figure, the table of claims.

    python -m experiments.reproduce --scale quick      the findings on drawn shapes, in minutes
    python -m experiments.reproduce --scale cpu        CIFAR-10 and a narrow VGG-16, in ten hours
    python -m experiments.reproduce --scale paper --backend cupy --seed 0

Each training belongs to a study in the folder OUT/SCALE, one a rate and seed, so that several can
run at once (--jobs) and one after another in any number of sittings: what is done is skipped, what
was stopped or killed goes on where it was. A variant at a rate and a seed is trained once, with
every measurement on, and serves all figures. These are plotted at the end, from the files.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.training.command_line import (
    UsageError,
    at_least,
    flag_name,
    flag_value,
    one_of,
    parse,
    setting,
)
from experiments.training.entry_point import program
from experiments.training.json_files import read_json, write_json
from experiments.training.loop import clock, cores
from experiments.training.session import WHERE, preset, study_settings
from experiments.training.settings import BACKENDS, PRECISIONS
from experiments.training.signals import interrupts
from experiments.training.study import Study

PROGRAM = "python -m experiments.reproduce"
SEEDS = {"quick": (0,), "cpu": tuple(range(10, 18)), "paper": (10, 11, 12)}


@dataclass(frozen=True)
class Settings:
    """Which scale, where, and how much at once."""

    scale: str = setting("quick", "how much", choices=SEEDS)
    backend: str = setting("numpy", "where the VGG networks train", choices=BACKENDS)
    precision: str = setting(
        "fp32", "what the VGG networks' products are rounded to", choices=PRECISIONS
    )
    data_dir: str | None = setting(None, "folder with CIFAR-10 (else the cache, else a download)",
                                   kind=str, path=True)  # fmt: skip
    seed: tuple[int, ...] = setting(
        (),
        "root seeds (default: 0; 10 to 17 at scale cpu, fewer of costly studies; 10 to 12 at scale "
        "paper)",
        kind=int,
    )
    groups: tuple[str, ...] = setting((), "only these studies (default: all)", kind=str)
    out: str = setting(
        "runs/reproduce",
        "folder of all studies, figures and the table",
        path=True,
    )
    # Narrow networks gain less from a second thread than from a second process.
    jobs: int | None = setting(
        None, "studies at once (default: 1 at scale paper, else MINIBN_NUM_THREADS or all cores)",
        kind=int,
    )  # fmt: skip


TWO = ("standard", "batchnorm")
NOISY = ("noisy-batchnorm", "noisy-standard")
LP = ("l1", "l2", "linf")
NOTHING = ("--probe-every", "0", "--shift-every", "0", "--record-every", "0")
PROBES = ("0.01", "0.1", "0.5", "1", "2", "4")  # multiples of the rate: the paper's, and shorter


SAME: dict[str, tuple[str, ...]] = {"quick": ("--quick",), "cpu": (), "paper": ()}


@dataclass(frozen=True)
class Group:
    """Studies that differ in the seed alone. seeds: how many, unless --seed names them; flags: of
    every scale; of: each scale's own, without those that the group is not for."""

    name: str
    module: str
    seeds: int
    flags: tuple[str, ...] = ()
    of: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: SAME)

    @property
    def has_images(self) -> bool:
        return self.module in ("vgg_cifar", "learning_rates")


def vgg(name: str, seeds: int, lr: str, variants: tuple[str, ...], *flags: str) -> Group:
    """VGG trainings: these variants at a rate. flags: of the scales with VGG-16."""
    quick = ("--quick", "--probe-every", "25", "--shift-every", "50")
    narrow = (
        *("--model", "vgg16", "--width", "0.25", "--steps", "2000", "--threads", "1"),
        *("--eval-every", "500", "--checkpoint-every", "250"),
    )
    which = ("--lr", lr, "--variants", *variants)
    init = flags[flags.index("--init") :][:2] if "--init" in flags else ()
    return Group(name, "vgg_cifar", seeds, which, {
        "quick": (*quick, *init),
        "cpu": (*narrow, *flags),
        "paper": ("--eval-every", "1000", *flags),
    })  # fmt: skip


APART = ("he", "full")  # groups whose settings differ: their figures are drawn apart
PROBED = ("--probe-every", "50", "--probe-sizes", *PROBES, "--record-every", "100")
SHIFT = ("--shift-every", "250")
# Seed by seed, and of each seed what decides the most claims first.
GROUPS = (
    vgg("glorot", 8, "0.1", TWO, *PROBED, *SHIFT, "--probe-directions", "gradient", "filter"),
    vgg("he", 8, "0.1", TWO, *PROBED, *SHIFT, "--init", "he"),
    vgg("noise", 8, "0.1", NOISY, *NOTHING[:4], "--record-every", "100"),
    vgg("lp", 5, "0.1", LP, *PROBED),
    vgg("lr0.5", 5, "0.5", TWO, *NOTHING),
    # Fig. 3a's second row: a figure, and no claim
    vgg("lr0.01", 1, "0.01", TWO, *NOTHING[:2], *SHIFT, "--record-every", "0"),
    # As wide as the paper's: says whether width is why effects differ.
    Group("full", "vgg_cifar", 3, ("--lr", "0.1", "--variants", *TWO), {
        "cpu": ("--model", "vgg16", "--steps", "2000", "--threads", "1", "--eval-every", "1000",
                "--checkpoint-every", "50", "--probe-every", "100", "--probe-sizes", *PROBES,
                "--shift-every", "0", "--record-every", "0"),
    }),
    Group("linear-1e-6", "deep_linear", 3, ("--lr", "1e-6", "--variants", *TWO, *LP)),
    Group("linear-1e-7", "deep_linear", 3, ("--lr", "1e-7", "--variants", *TWO)),
    Group("theorems", "theorems", 3),
    # Shallower, for VGG-16 without a norm stays on its first plateau for longer than this.
    Group("rates", "learning_rates", 3, (), {
        **SAME,
        "cpu": ("--model", "vgg11", "--width", "0.25", "--steps", "200", "--threads", "1",
                "--test-size", "2000", "--variants", *TWO, *LP,
                "--lr", "0.05", "0.1", "0.2", "0.4", "0.8", "1.6", "3.2", "6.4"),
    }),
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One study: its folder's name, and the module and flags that make it. data: the flags that say
    where CIFAR-10 lies, which may be elsewhere the next time; group: the name of its Group."""

    name: str
    module: str
    flags: tuple[str, ...]
    data: tuple[str, ...] = ()
    group: str = ""

    def command(self, folder: Path) -> list[str]:
        """A new study, or the one that is there."""
        begin = [*self.flags, "--out", str(folder)]
        flags = ["--resume", str(folder)] if (folder / "study.json").exists() else begin
        return [sys.executable, "-m", f"experiments.{self.module}", *flags, *self.data]

    def differences(self, folder: Path) -> str:
        """How the study that is there differs from the one that the flags ask for; "" if not."""
        if not (folder / "study.json").exists():
            return ""
        module: Any = importlib.import_module(f"experiments.{self.module}")
        given = parse(module.Settings, self.flags, program=PROGRAM, description="")
        asked = study_settings(preset(module.Settings, module.QUICK, given))
        study = Study.open(folder, self.module, str(folder)).settings
        differ = [
            f"{flag_name(key)} {study.get(key)}, not {value}"
            for key, value in asked.items()
            if key not in WHERE and not (key == "threads" and value is None)
            and study.get(key, value) != value
        ]  # fmt: skip
        return "; ".join(differ)


def jobs(s: Settings) -> list[Job]:
    """All studies, seed by seed, so that first results of each experiment come early."""
    where = ["--backend", s.backend]
    if s.precision != Settings.precision:
        where += ["--precision", s.precision]
    data = () if s.data_dir is None else ("--data-dir", s.data_dir)
    everything = []
    for i, seed in enumerate(s.seed or SEEDS[s.scale]):
        for group in GROUPS:
            wanted = group.name in (s.groups or [g.name for g in GROUPS]) and s.scale in group.of
            if wanted and (s.seed or i < group.seeds):
                images = tuple(where) if group.has_images else ()
                flags = (*group.flags, *group.of[s.scale], *images, "--seed", str(seed))
                needs = data if group.has_images else ()
                everything.append(
                    Job(f"{group.name}-seed{seed}", group.module, flags, needs, group.name)
                )
    return everything


class DoneJobs:
    """done.json: which jobs are done, with the flags they were done with."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "done.json"

    def done(self) -> dict[str, list[str]]:
        return read_json(self.path) if self.path.exists() else {}

    def has(self, job: Job) -> bool:
        return self.done().get(job.name) == [job.module, *job.flags]

    def note(self, job: Job) -> None:
        write_json(self.path, {**self.done(), job.name: [job.module, *job.flags]})


@interrupts()
def work(todo: Sequence[Job], folder: Path, at_once: int) -> list[str]:
    """Run the jobs, `at_once` at a time, each with a log. Returns the names of those that failed.

    On Ctrl-C, SIGTERM or SIGHUP those that run are asked to save and stop: KeyboardInterrupt
    follows.
    """
    for job in todo:
        if differ := job.differences(folder / job.name):
            raise UsageError(f"{folder / job.name} was begun with {differ}. Choose another --out.")
    waiting, failed = list(todo), []
    started: dict[subprocess.Popen, tuple[Job, float]] = {}
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "MINIBN_NUM_THREADS": "1"} if at_once > 1 else dict(os.environ)
    try:
        while waiting or started:
            while waiting and len(started) < at_once:
                job = waiting.pop(0)
                with (logs / f"{job.name}.log").open("ab") as log:
                    process = subprocess.Popen(
                        job.command(folder / job.name),
                        stdout=log, stderr=subprocess.STDOUT, env=environment,
                        start_new_session=True,  # Ctrl-C comes to us, and we pass it on once
                    )  # fmt: skip
                started[process] = (job, time.monotonic())
                print(f"{job.name}: begun, see {logs / job.name}.log", flush=True)
            time.sleep(0.2)
            for process in [p for p in started if p.poll() is not None]:
                job, began = started.pop(process)
                took = clock(time.monotonic() - began)
                if process.returncode == 0:
                    DoneJobs(folder).note(job)
                    print(f"{job.name}: done in {took}", flush=True)
                else:
                    failed.append(job.name)
                    print(f"{job.name}: FAILED after {took}: {_last(logs, job)}", flush=True)
    except KeyboardInterrupt:
        for process in started:
            process.send_signal(signal.SIGINT)
        for process in started:
            process.wait()
        raise
    return failed


def _last(logs: Path, job: Job) -> str:
    lines = (logs / f"{job.name}.log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"


def views(s: Settings, folder: Path, done: Sequence[Job]) -> list[Job]:
    """The jobs that plot and judge when the trainings are done. Studies of another initialisation
    or width have figures of their own."""
    found = []
    for apart in ("", *APART):
        own = [job for job in done if (job.group if job.group in APART else "") == apart]
        if own:
            name = f"figures-{apart}" if apart else "figures"
            found.append(Job(name, "plot", tuple(str(folder / job.name) for job in own)))
    if done:
        flags = ("--scale", "paper") if s.scale == "paper" else ()
        found.append(Job("claims", "claims", (*(str(folder / job.name) for job in done), *flags)))
    return found


def time_report(folder: Path, done: Sequence[Job]) -> str:
    """The training time of each study, summed over its runs up to their last checkpoints."""
    seconds = {
        job.name: sum(
            record["seconds"]
            for run in Study(folder / job.name).runs()
            for record in run.records("timings")
        )
        for job in done
    }
    lines = [f"{name}: {clock(taken)}" for name, taken in seconds.items()]
    return "\n".join([*lines, f"All: {clock(sum(seconds.values()))} of the studies' own time."])


def check(s: Settings) -> None:
    """Raise UsageError for settings that can't work."""
    one_of("--scale", s.scale, tuple(SEEDS))
    for name in s.groups:
        one_of("--groups", name, [group.name for group in GROUPS])
    one_of("--backend", s.backend, BACKENDS)
    one_of("--precision", s.precision, PRECISIONS)
    for seed in s.seed:
        at_least("--seed", seed, 0)
    if len(set(s.seed)) < len(s.seed):
        raise UsageError(f"--seed names something twice: {flag_value(s.seed)}.")
    if s.jobs is not None:
        at_least("--jobs", s.jobs, 1)


@program(PROGRAM, stopped="Stopped; everything is saved. The same command goes on.")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the studies that are not done, then plot and judge. Returns the exit code."""
    s = Settings(**parse(Settings, arguments, program=PROGRAM, description=__doc__))
    check(s)
    folder = Path(s.out) / s.scale
    everything = jobs(s)
    todo = [job for job in everything if not DoneJobs(folder).has(job)]
    at_once = s.jobs or (1 if s.scale == "paper" else cores())
    print(f"{folder}: {len(todo)} of {len(everything)} studies to do, {at_once} at once.")
    failed = work(todo, folder, at_once)
    done = [job for job in everything if DoneJobs(folder).has(job)]
    if done:
        print(time_report(folder, done), flush=True)
    for view in views(s, folder, done):
        out = ["--out", str(folder / view.name)]
        command = [sys.executable, "-m", f"experiments.{view.module}", *view.flags, *out]
        if subprocess.run(command, check=False).returncode:
            failed.append(view.name)
    if failed:
        print(f"Not done: {', '.join(failed)}. The same command tries again.", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
