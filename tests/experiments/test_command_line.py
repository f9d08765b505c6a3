"""The command line follows from the settings: every flag, its help, its default."""

import dataclasses
import re
from typing import Any

import pytest
from studies import main, settings

from experiments.training.command_line import UsageError, parse, setting, settings_from_json
from experiments.vgg.settings import Settings, plans
from experiments.vgg_cifar import QUICK
from minibn.errors import DataError

FIELDS = list(dataclasses.fields(Settings))


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


@pytest.fixture(scope="module")
def text() -> str:
    """What --help prints."""
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as found, pytest.raises(SystemExit) as ended:
        main("--help")
    assert ended.value.code == 0
    return found.getvalue()


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_help_explains_every_setting(field: dataclasses.Field, text: str) -> None:
    assert len(field.metadata["help"]) > 10
    (entry,) = re.findall(rf"^  {flag(field.name)}(?![\w-]).*(?:\n    .*)*", text, re.MULTILINE)
    words = " ".join(entry.split())
    assert " ".join(field.metadata["help"].split()) in words
    if field.default not in (None, False):
        default = field.default
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        assert f"(default: {shown})" in words


def test_the_flags_that_readers_were_promised_are_there() -> None:
    promised = (
        "quick backend data data_dir model width head variants lr steps batch_size momentum "
        "weight_decay seed out resume eval_every"
    )
    assert set(promised.split()) <= {field.name for field in FIELDS}


def test_the_defaults_are_the_papers() -> None:
    s = settings()
    assert s == Settings()
    assert (s.steps, s.lr, s.batch_size, s.model, s.width) == (15_000, (0.1,), 128, "vgg16", 1.0)
    assert (s.momentum, s.weight_decay, s.augment, s.data) == (0.0, 0.0, False, "cifar10")
    assert s.variants == ("standard", "batchnorm", "noisy-batchnorm", "noisy-standard")
    assert (s.train_size, s.test_size, s.seed, s.quick) == (None, None, (0,), False)


def test_quick_is_a_preset_that_explicit_flags_override() -> None:
    quick = settings("--quick")
    assert {name: getattr(quick, name) for name in QUICK} == QUICK
    assert quick.data == "shapes"
    for arguments in (
        ["--quick", "--steps", "7", "--width", "0.5"],
        ["--steps=7", "--width=0.5", "--quick"],
    ):
        assert settings(*arguments) == dataclasses.replace(quick, steps=7, width=0.5)


def test_a_short_run_has_several_test_accuracies_and_a_long_one_one_each_500_steps() -> None:
    every = {n: settings("--steps", str(n)).eval_every for n in (1, 10, 300, 2000, 15_000)}
    assert every == {1: 1, 10: 2, 300: 75, 2000: 500, 15_000: 500}
    assert settings("--steps", "300", "--eval-every", "300").eval_every == 300
    assert settings("--quick").eval_every == 100


def test_the_interval_of_test_accuracy_stays_when_a_study_gets_more_steps() -> None:
    assert dataclasses.replace(settings("--steps", "300"), steps=6000).eval_every == 75


def test_what_the_preset_does_not_name_keeps_its_default() -> None:
    others = {field.name for field in FIELDS} - set(QUICK) - {"quick"}
    quick = settings("--quick")
    assert {n: getattr(quick, n) for n in others} == {n: getattr(Settings(), n) for n in others}


def test_several_rates_variants_and_seeds_make_a_run_of_each_combination() -> None:
    s = settings(
        "--lr", "0.1", "0.5", "--variants", "batchnorm", "standard", "--seed", "3", "1", "2"
    )
    assert (s.lr, s.variants, s.seed) == ((0.1, 0.5), ("batchnorm", "standard"), (3, 1, 2))
    found = [plan.name for plan in plans(s)]
    assert len(set(found)) == len(found) == 12
    assert found[:3] == ["batchnorm-lr0.1-seed3", "standard-lr0.1-seed3", "batchnorm-lr0.5-seed3"]
    assert found[-1] == "standard-lr0.5-seed2"


def test_a_flag_that_is_not_given_is_not_reported() -> None:
    assert parse(Settings, ["--steps", "5"], program="p", description="") == {"steps": 5}
    assert parse(Settings, [], program="p", description="") == {}


def test_an_unknown_flag_shows_the_near_miss_of_any_settings() -> None:
    @dataclasses.dataclass(frozen=True)
    class Mine:
        depth: int = setting(3, "how many layers there are")
        hidden: int = setting(3, "which can't be set from outside", flag=False)

    assert parse(Mine, ["--depth=4"], program="p", description="") == {"depth": 4}
    with pytest.raises(UsageError, match="Did you mean '--depth'"):
        parse(Mine, ["--dept=4"], program="p", description="")
    with pytest.raises(UsageError, match="'--hidden'"):
        parse(Mine, ["--hidden", "4"], program="p", description="")


def test_percent_signs_in_a_help_text_are_printed(capsys: pytest.CaptureFixture) -> None:
    @dataclasses.dataclass(frozen=True)
    class Mine:
        share: float = setting(0.5, "50 % of %s")
        flat: bool = setting(False, "100 % flat")

    with pytest.raises(SystemExit):
        parse(Mine, ["--help"], program="p", description="")
    assert "50 % of %s (default: 0.5)" in (shown := capsys.readouterr().out)
    assert "100 % flat" in shown


def test_settings_that_were_stored_come_back() -> None:
    s = settings("--quick", "--lr", "0.1", "1", "--data-dir", "x", "--threads", "2")
    kept = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(s).items()}
    assert Settings(**settings_from_json(Settings, kept)) == s


@pytest.mark.parametrize(
    "content",
    [
        [], None, {"nope": 1}, {"steps": "5"}, {"steps": 5.0}, {"steps": True}, {"steps": None},
        {"lr": 0.1}, {"lr": []}, {"lr": ["x"]}, {"quick": 1}, {"model": 3}, {"seed": [0.5]},
    ],
    ids=repr,
)  # fmt: skip
def test_stored_settings_of_the_wrong_kind_are_refused(content: Any) -> None:
    with pytest.raises(DataError):
        settings_from_json(Settings, content)


def test_the_help_shows_a_default_of_zero(capsys):
    with pytest.raises(SystemExit):
        parse(Settings, ["--help"], program="test", description="")
    assert "momentum of SGD (default: 0.0)" in capsys.readouterr().out
