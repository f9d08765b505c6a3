"""Norms by the names of variants, of `norm=`, or one's own; choices in --help."""

import dataclasses
import json
import re

import pytest
from studies import SMALL, main, settings

from experiments import benchmark, deep_linear, learning_rates, vgg_cifar
from experiments.linear import settings as linear
from experiments.training.command_line import UsageError, parse
from experiments.training.variants import norm_text, variant_name
from experiments.vgg.settings import VARIANTS, Settings, check
from experiments.views import deep_linear as deep_linear_figures
from minibn import nn
from reference_models.deep_linear import deep_linear as deep_linear_network
from reference_models.norms import ALIASES, NORMS
from reference_models.vgg import vgg

OWN = """
from minibn import ops
from minibn.nn.module import Module
from minibn.nn.state import Parameter, ones


class Good(Module):
    def __init__(self, channels):
        self.gain = Parameter((channels,), ones)

    def forward(self, x):
        return x * self.gain / (1 + ops.norm(x, axis=-1, keepdims=True))


class Family:
    make = staticmethod(lambda channels: Good(channels))


class Raises(Module):
    def __init__(self, channels):
        raise ZeroDivisionError("no such thing")


class Misshapen(Good):
    def forward(self, x):
        return x.sum(axis=tuple(range(x.ndim - 1)))


class Hidden(Module):
    def __init__(self, channels):
        self.parts = [Parameter((channels,), ones)]

    def forward(self, x):
        return x * self.parts[0]


class Cut(Good):
    def forward(self, x):
        return x * self.gain.data


class NotFinite(Good):
    def forward(self, x):
        return x * self.gain / 0.0


number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_norms_of_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_norms_of_test"


# -- two vocabularies


def test_a_name_of_norm_means_the_variant_with_that_norm():
    for norm, variant in ((norm, variant) for variant, norm in ALIASES.items()):
        assert VARIANTS[variant] == (norm, False) and norm in NORMS
        for flag in ("--variants", "--norm"):
            assert settings(flag, norm, "noisy-batchnorm").variants == (variant, "noisy-batchnorm")
            assert settings(flag, variant).variants == (variant,)
    for kind in (linear.Settings, learning_rates.Settings, benchmark.Options):
        assert parse(kind, ["--norm", "layer"], program="", description="") == {
            "variants": ("layernorm",)
        }
    assert variant_name("l1") == "l1"
    with pytest.raises(UsageError, match="--variants names something twice: layernorm layernorm"):
        check(settings("--norm", "layer", "layernorm"))


def test_a_name_of_a_variant_means_its_norm_in_the_networks():
    for variant, norm in ALIASES.items():
        ours, theirs = (vgg("vgg11", width=0.125, norm=n) for n in (variant, norm))
        assert repr(ours) == repr(theirs)
        if norm != "instance":
            assert repr(deep_linear_network(3, norm=variant)) == repr(
                deep_linear_network(3, norm=norm)
            )


def test_both_flags_at_once_are_refused():
    with pytest.raises(UsageError, match="--norm and --variants are the same"):
        settings("--norm", "layer", "--variants", "l1")


# -- help


@pytest.mark.parametrize(
    "main", [vgg_cifar.main, deep_linear.main, learning_rates.main, benchmark.main]
)
def test_help_shows_choices(main, capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "{numpy,cupy,strict" in text and "--norm NAME" in text
    assert re.search(r"\bSTR\b", text) is None
    assert "frozen-batchnorm" in text and "{fp32,tf32,bf16}" in text


def test_every_text_setting_shows_its_choices_or_what_it_is():
    for kind in (Settings, linear.Settings, benchmark.Options):
        for field in dataclasses.fields(kind):
            if field.metadata["kind"] is str and field.metadata["flag"]:
                assert field.metadata["metavar"] != "STR", field.name


# -- norms of one's own


@pytest.mark.parametrize("name", ["Good", "Family.make"])
def test_an_own_norm_is_trained_and_stored_by_its_name(own, name, tmp_path):
    out = tmp_path / "study"
    own_variant = f"{own}:{name}"
    arguments = [*SMALL, "--variants", "standard", own_variant, "--steps", "2", "--out", out]
    assert main(*arguments) == 0
    folder = out / "runs" / f"{own}.{name}-lr0.05-seed0"
    config = json.loads((folder / "config.json").read_text())
    assert config["variant"] == own_variant and config["norm"].startswith(own)
    assert main("--resume", out, "--steps", "3") == 0
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3


def test_an_own_norm_is_trained_in_the_deep_linear_network(own, tmp_path, monkeypatch):
    monkeypatch.setattr(deep_linear_figures, "plot", lambda studies: None)
    out = tmp_path / "study"
    arguments = ["--quick", "--steps", "2", "--depth", "3", "--samples", "20", "--lr", "1e-6"]
    assert deep_linear.main([*arguments, "--norm", f"{own}:Good", "--out", str(out)]) == 0
    assert (out / "runs" / f"{own}.Good-lr1e-06-seed0" / "result.json").exists()


@pytest.mark.parametrize(
    "name, error",
    [
        ("Raises", "can't be trained: ZeroDivisionError: no such thing"),
        ("Misshapen", "can't be trained: ShapeError"),
        ("Hidden", "can't be trained: TypeError: norm1.parts is a plain container.*ModuleList"),
        ("Cut", "norm1.gain, .* get no gradient"),
        ("NotFinite", "not finite"),
        ("number", "is a int: it must be"),
        ("Nope", "can't be imported: AttributeError"),
        ("", "can't be imported"),
    ],
)
def test_an_own_norm_that_does_not_work_is_refused_before_anything_is_written(
    own, name, error, tmp_path, capsys
):
    out = tmp_path / "study"
    assert main(*SMALL, "--variants", "standard", f"{own}:{name}", "--out", out) == 2
    assert re.search(error, capsys.readouterr().err) and not out.exists()


@pytest.mark.parametrize("variant", ["no_such_module_here:Norm", ":Norm", "a b:c"])
def test_a_module_that_is_not_there_is_refused(variant, tmp_path, capsys):
    assert main(*SMALL, "--variants", variant, "--out", tmp_path / "study") == 2
    assert "can't be imported" in capsys.readouterr().err


def test_a_class_that_was_put_into_the_table_of_variants_is_tried_and_stored_by_its_name(
    monkeypatch, tmp_path
):
    monkeypatch.setitem(VARIANTS, "mine", (nn.RMSNorm, False))
    assert norm_text(nn.RMSNorm) == "minibn.nn.layer_norm:RMSNorm"
    out = tmp_path / "study"
    assert main(*SMALL, "--variants", "mine", "--steps", "1", "--out", out) == 0
    monkeypatch.setitem(VARIANTS, "mine", (nn.Linear, False))
    assert main(*SMALL, "--variants", "mine", "--out", tmp_path / "other") == 2
