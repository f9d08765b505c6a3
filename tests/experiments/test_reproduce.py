"""`reproduce`: the experiments accept its commands; a job that is done is not run again."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from experiments import reproduce, vgg_cifar
from experiments.claiming import registry
from experiments.reproduce import SEEDS, DoneJobs, Job, Settings, jobs, main
from experiments.training.command_line import parse
from experiments.training.session import preset, study_settings
from experiments.training.study import Run
from experiments.vgg import settings as vgg_settings

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("scale", SEEDS)
def test_every_job_has_flags_that_its_experiment_accepts(scale: str) -> None:
    for job in jobs(Settings(scale=scale, data_dir="DIR")):
        module: Any = importlib.import_module(f"experiments.{job.module}")
        given = parse(module.Settings, job.flags, program="test", description="")
        assert given, job


@pytest.mark.parametrize("scale", SEEDS)
def test_a_variant_at_a_rate_and_a_seed_is_trained_once(scale: str) -> None:
    found = jobs(Settings(scale=scale, seed=(0, 1)))
    assert len({job.name for job in found}) == len(found)
    runs = []
    for job in found:
        if job.module in ("vgg_cifar", "deep_linear"):
            module: Any = importlib.import_module(f"experiments.{job.module}")
            s = module.Settings(**parse(module.Settings, job.flags, program="test", description=""))
            runs += [(job.module, s.width, s.init, s.lr, s.seed, variant) for variant in s.variants]
    assert len(set(runs)) == len(runs) == 2 * (13 + 7 + 2 * (scale == "cpu"))


def test_data_that_was_moved_is_found_again_and_nothing_is_trained_twice(tmp_path: Path) -> None:
    here, there = (jobs(Settings(scale="cpu", data_dir=name)) for name in ("here", "there"))
    (tmp_path / "study.json").write_text("{}")
    assert here[0].command(tmp_path)[-4:] == ["--resume", str(tmp_path), "--data-dir", "here"]
    book = DoneJobs(tmp_path)
    book.note(here[0])
    assert book.has(there[0])


def test_a_precision_is_that_of_the_networks_on_images_and_fp32_is_not_named() -> None:
    for job in jobs(Settings(precision="tf32")):
        images = job.module in ("vgg_cifar", "learning_rates")
        assert ("tf32" in job.flags) == images
    assert not any("--precision" in job.flags for job in jobs(Settings()))


def test_a_seed_is_named_once(capsys: pytest.CaptureFixture) -> None:
    assert main(["--seed", "0", "0"]) == 2
    assert "--seed names something twice: 0 0." in capsys.readouterr().err


def test_one_seed_is_complete_before_the_next_begins() -> None:
    seeds = [int(job.name[-2:]) for job in jobs(Settings(scale="cpu"))]
    assert seeds == sorted(seeds)
    assert set(seeds) == set(SEEDS["cpu"])


def test_each_claim_gets_as_many_seeds_as_were_registered_for_it() -> None:
    claims = registry.load()
    seeds: dict[tuple[str, str, float | None], set[str]] = {}
    for job in jobs(Settings(scale="cpu")):
        module: Any = importlib.import_module(f"experiments.{job.module}")
        s = module.Settings(**parse(module.Settings, job.flags, program="test", description=""))
        content = study_settings(s)
        for name, wanted in claims.scales.items():
            own = {**content, "experiment": job.module}
            if all(own.get(k) == v for k, v in wanted.items()):
                for variant in s.variants:
                    for lr in (*s.lr, None):
                        seeds.setdefault((name, variant, lr), set()).update(map(str, s.seed))
    for claim in claims.claims:
        for scale, slot in zip(claim.scales, claim.runs, strict=True):
            for variant in [slot] if isinstance(slot, str) else slot:
                assert len(seeds[scale, variant, claim.lr]) >= claim.seeds, claim.id


def test_groups_can_be_chosen_and_named_wrongly(capsys: pytest.CaptureFixture) -> None:
    found = jobs(Settings(scale="cpu", groups=("full", "he")))
    assert {job.group for job in found} == {"full", "he"}
    assert main(["--groups", "hee"]) == 2
    assert "Did you mean 'he'?" in capsys.readouterr().err


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """reproduce with jobs that are scripts: {name: Python text}, run in the folder `tmp_path`."""

    def arrange(**texts: str) -> None:
        made = [Job(name, "script", (text,)) for name, text in texts.items()]
        monkeypatch.setattr(reproduce, "jobs", lambda s: made)
        monkeypatch.setattr(reproduce, "views", lambda s, folder, done: [])
        monkeypatch.setattr(Job, "command", lambda job, to: [sys.executable, "-c", job.flags[0]])

    monkeypatch.chdir(tmp_path)
    return arrange


ONCE = "open('times.txt', 'a').write('x')"


def test_what_is_done_is_skipped(scripts: Any, capsys: pytest.CaptureFixture) -> None:
    scripts(one=ONCE)
    assert main([]) == main([]) == 0
    assert Path("times.txt").read_text() == "x"
    assert "0 of 1 studies to do" in capsys.readouterr().out


def test_it_says_what_each_study_took_in_all_its_sittings(
    scripts: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = Run(tmp_path / "runs/reproduce/quick/one/runs/batchnorm")
    run.begin({})
    for step in (10, 20):
        run.stream("timings").append({"step": step, "seconds": 40.0})
    run.stream("timings").flush()
    scripts(one=ONCE)
    main([])
    assert "one: 80 s" in capsys.readouterr().out


def test_a_job_with_other_flags_than_those_it_was_done_with_is_done_again(scripts: Any) -> None:
    scripts(one=ONCE)
    main([])
    scripts(one=ONCE + "  # another rate")
    main([])
    assert Path("times.txt").read_text() == "xx"


def test_a_job_that_fails_is_named_with_its_last_line_and_tried_again_while_others_go_on(
    scripts: Any, capsys: pytest.CaptureFixture
) -> None:
    scripts(bad=f"{ONCE}; raise SystemExit('no room')", good="open('good.txt', 'w')")
    assert main([]) == 1
    out = capsys.readouterr().out
    assert "bad: FAILED" in out and "no room" in out
    assert "Not done: bad. The same command tries again." in out
    assert Path("good.txt").exists()
    assert list(DoneJobs(Path("runs/reproduce/quick")).done()) == ["good"]
    assert main([]) == 1
    assert Path("times.txt").read_text() == "xx"


def test_as_many_jobs_as_asked_for_run_at_once(scripts: Any) -> None:
    wait = "import time, os\nopen('NAME', 'w')\nend = time.time() + 30\n" + (
        "while not (os.path.exists('a') and os.path.exists('b')):\n"
        "    assert time.time() < end\n    time.sleep(0.01)"
    )
    scripts(a=wait.replace("NAME", "a"), b=wait.replace("NAME", "b"))
    assert main(["--jobs", "2"]) == 0  # each waits for the other


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_lets_running_jobs_save_and_says_how_to_go_on(
    stop: signal.Signals, tmp_path: Path
) -> None:
    child = (
        "import time\ntry:\n    open('begun', 'w')\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    open('saved', 'w')\n    raise SystemExit(130)"
    )
    driver = (
        "import signal, sys\nfrom experiments import reproduce\n"
        "from experiments.reproduce import Job\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        f"reproduce.jobs = lambda s: [Job('one', 'script', ({child!r},))]\n"
        "Job.command = lambda job, to: [sys.executable, '-c', job.flags[0]]\n"
        "sys.exit(reproduce.main([]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", driver], cwd=tmp_path, text=True, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(stop)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The same command goes on." in out
    assert (tmp_path / "saved").exists()


def test_an_existing_study_is_continued(tmp_path: Path) -> None:
    job = Job("one", "vgg_cifar", ("--quick",))
    new = job.command(tmp_path)
    (tmp_path / "study.json").write_text("{}")
    assert new[-3:] == ["--quick", "--out", str(tmp_path)]
    assert job.command(tmp_path)[-2:] == ["--resume", str(tmp_path)]


def test_a_study_that_was_begun_with_other_settings_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    begun, asked = (
        Job("one", "vgg_cifar", ("--quick", "--lr", "0.1", "--steps", steps))
        for steps in ("300", "400")
    )
    given = parse(vgg_settings.Settings, begun.flags, program="test", description="")
    settings = study_settings(preset(vgg_settings.Settings, vgg_cifar.QUICK, given))
    folder = tmp_path / "out" / "quick" / "one"
    folder.mkdir(parents=True)
    content = {"experiment": "vgg_cifar", "settings": settings}
    (folder / "study.json").write_text(json.dumps(content))
    assert begun.differences(folder) == ""
    monkeypatch.setattr(reproduce, "jobs", lambda s: [asked])
    assert main(["--out", str(tmp_path / "out")]) == 2
    assert "was begun with --steps 300, not 400. Choose another --out." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scale", "papr"], "Did you mean 'paper'"),
        (["--jobs", "0"], "--jobs"),
        (["--seed", "-1"], "--seed"),
        (["--backend", "torch"], "--backend"),
        (["--sacle", "cpu"], "Did you mean '--scale'"),
    ],
)
def test_bad_input_is_one_line_with_its_remedy(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


def test_a_damaged_book_is_one_line(scripts: Any, capsys: pytest.CaptureFixture) -> None:
    scripts(one=ONCE)
    main([])
    Path("runs/reproduce/quick/done.json").write_text("{")
    assert main([]) == 2
    assert "done.json" in capsys.readouterr().err


def test_the_list_of_experiments_names_modules_that_exist(capsys: pytest.CaptureFixture) -> None:
    from experiments.__main__ import main as show
    from experiments.catalogue import EXPERIMENTS, TOOLS

    assert show() == 0
    out = capsys.readouterr().out
    for entry in (*EXPERIMENTS, *TOOLS):
        assert entry.name in out
        assert (ROOT / "experiments" / f"{entry.name}.py").exists(), entry.name
