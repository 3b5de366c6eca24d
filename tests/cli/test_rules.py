"""`jaxnn train --optimizer NAME --optimizer-options ...`: every rule, checked against its signature."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import losses, models, optim, train
from jaxnn.cli import rules, runs
from jaxnn.cli.config import TrainConfig, build_network, build_optimizer, build_schedule, unused_options
from jaxnn.cli.main import main
from jaxnn.compare import entries
from tests.helpers import assert_close

QUICK = ["train", "--hidden", "4", "--epochs", "1", "--batch-size", "300"]


def test_every_rule_of_a_race_is_known_or_told_why_not() -> None:
    known = rules.rules()
    assert len(known) >= 50
    assert set(entries.rules("ours")) - set(known) == set(rules.UNFIT) & set(entries.rules("ours"))
    for name in optim.__all__:
        each = getattr(optim, name)
        if name not in known and inspect.isfunction(each) and "Optimizer" in str(inspect.signature(each)):
            with pytest.raises(ValueError, match=name):
                TrainConfig(optimizer=name)


@pytest.mark.slow
def test_every_rule_makes_a_step_of_training() -> None:
    """With what `make_step` gives it, which needs no more than to trace the program."""
    net = models.linear(3)
    x, y = np.ones((8, 4), np.float32), np.zeros(8, np.int32)
    vg = jax.value_and_grad(train.mean_loss(net, losses.softmax_cross_entropy), has_aux=True)
    for name in rules.rules():
        opt = build_optimizer(TrainConfig(optimizer=name), 5)
        ts = jax.eval_shape(lambda key, opt=opt: train.init(net, opt, key, (4,)), jax.random.key(0))
        after, _ = jax.eval_shape(train.make_step(vg, opt), ts, x, y)
        assert after == ts, name


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("adam", ["b1=0.8", "nesterov=true"], {"b1": 0.8, "nesterov": True}),
        ("adam", ["mu_dtype=bfloat16", " eps = 1e-5 "], {"mu_dtype": jnp.dtype("bfloat16"), "eps": 1e-5}),
        ("prodigy", ["betas=(0.9, 0.99)"], {"betas": (0.9, 0.99)}),
        ("dog", ["init_step=(distance,1e-3)"], {"init_step": ("distance", 1e-3)}),
        ("muon", ["preconditioning=aol", "ns_steps=3"], {"preconditioning": "aol", "ns_steps": 3}),
        ("shampoo", ["graft=none"], {"graft": None}),
        ("polyak_sgd", ["variant=sps+"], {"variant": "sps+"}),
        ("noisy_sgd", ["seed=3"], {"seed": 3}),
        ("sgd", [], {}),
    ],
)
def test_options_are_read_by_the_signature(name: str, words: list[str], expected: dict[str, Any]) -> None:
    assert rules.parse_options(name, words) == expected


@pytest.mark.parametrize(
    ("name", "words", "text"),
    [
        ("adma", [], "no optimizer 'adma' (did you mean 'adamax', 'adan' or 'adam'?); there are: acprop, adabelief"),
        ("scale_by_adam", [], "--optimizer scale_by_adam is a part of rules"),
        ("dpsgd", [], "dpsgd needs per-example gradients"),
        ("lookahead", [], "lookahead needs fast_optimizer, which only a script can pass"),
        ("muon_with_roles", [], "needs roles"),
        ("schedule_free", [], "schedule_free needs base_optimizer, which only a script can pass"),
        ("adam", ["nestrov=true"], "adam has no option 'nestrov' (did you mean 'nesterov'?); there are: b1, b2, eps"),
        ("adam", ["b1=x"], "adam's option b1 must be a number, got 'x'"),
        ("adam", ["b1=nan"], "must be a number, got 'nan'"),
        ("adam", ["nesterov=1"], "adam's option nesterov must be true or false, got '1'"),
        ("adam", ["mu_dtype=int8"], "must be a dtype, such as bfloat16 or none, got 'int8'"),
        ("adam", ["b1"], "expects name=value, such as b1=0.8, got 'b1'"),
        ("adam", ["b1=.9", "b1=.8"], "sets b1 twice"),
        ("adam", ["b1=1.5"], "adam: b1 must lie in [0, 1), got 1.5"),
        ("adam", ["learning_rate=1"], "set by --learning-rate"),
        ("adamw", ["mask=x"], "adamw's option mask can be set in a script only"),
        ("muon", ["ns_steps=1.5"], "ns_steps must be an integer, got '1.5'"),
        ("muon", ["preconditioning=x"], "frobenius or spectral or aol or schatten"),
        ("prodigy", ["betas=0.9"], "betas must be (a number, a number), got '0.9'"),
        ("sgd", ["momentum=.5", "--momentum", ".6"], "momentum is set by --momentum and by --optimizer-options"),
    ],
)
def test_wrong_options_are_told_in_one_line(
    name: str, words: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--optimizer-options", *words] if words else []
    assert main([*QUICK, "--optimizer", name, *given]) == 2
    said = capsys.readouterr().err
    assert text in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"optimizer": "adam"}, optim.adam(3e-3)),
        ({"optimizer": "sgd", "learning_rate": 0.1}, optim.sgd(0.1, momentum=0.9)),
        ({"optimizer": "sgd", "optimizer_options": ("momentum=0.5", "nesterov=true")}, optim.sgd(3e-3, 0.5, True)),
        ({"optimizer": "prodigy"}, optim.prodigy(1.0)),
        ({"optimizer": "lion", "optimizer_options": ("b1=0.8",), "learning_rate": 1e-4}, optim.lion(1e-4, 0.8)),
        ({"optimizer": "adadelta"}, optim.adadelta()),
    ],
    ids=lambda v: v["optimizer"] if isinstance(v, dict) else "",
)
def test_the_rule_is_what_a_script_would_make(options: dict[str, Any], rule: optim.Optimizer) -> None:
    made = build_optimizer(TrainConfig(schedule="constant", **options), 10)

    @jax.jit
    def updates(params: Any) -> Any:
        """Two of each."""
        found = []
        for opt in (made, rule):
            state, each = opt.init(params), []
            for _ in range(2):
                update, state = opt.update(params, state, params, value=1.0)
                each.append(update)
            found.append(each)
        return found

    got, expected = updates({"w": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)})
    assert_close(got, expected, rtol=0)


def test_schedules_go_where_they_can() -> None:
    assert callable(build_schedule(TrainConfig(optimizer="lion"), 10))
    assert build_schedule(TrainConfig(optimizer="rprop"), 10) == 3e-3
    assert build_schedule(TrainConfig(optimizer="polyak_sgd"), 10) is None
    assert build_schedule(TrainConfig(optimizer="lbfgs"), 10) is None
    told = unused_options(TrainConfig(optimizer="polyak_sgd", learning_rate=1.0, schedule="onecycle", momentum=0.5))
    assert told == [
        "--momentum (of sgd only)", "--learning-rate (polyak_sgd takes none)", "--schedule (polyak_sgd follows none)"
    ]  # fmt: skip


def test_a_run_by_another_rule_is_read_again(tmp_path: Path) -> None:
    config = TrainConfig(hidden=(4,), optimizer="adamw", optimizer_options=("b1=0.8", "nesterov=true"))
    net = build_network(config, (8, 8, 1), 10)
    runs.write_config(tmp_path, config, (8, 8, 1), tuple("0123456789"))
    runs.write_params(tmp_path, *net.init(jax.random.key(0), (8, 8, 1)))
    options = json.loads((tmp_path / "config.json").read_text())["options"]
    assert options["optimizer"] == "adamw"
    assert options["optimizer_options"] == ["b1=0.8", "nesterov=true"]
    again = runs.read_run(tmp_path).config
    assert again == config
    assert again.rule_options() == {"b1": 0.8, "nesterov": True}


def test_a_run_folder_of_before_is_read(tmp_path: Path) -> None:
    """The options that were then unknown have their defaults."""
    runs.write_config(tmp_path, TrainConfig(optimizer="sgd"), (8, 8, 1), ("a", "b"))
    told = json.loads((tmp_path / "config.json").read_text())
    told["options"] |= {"learning_rate": 0.003}
    del told["options"]["optimizer_options"]
    (tmp_path / "config.json").write_text(json.dumps(told))
    config, _, _ = runs.read_config(tmp_path / "config.json")
    assert config == TrainConfig(optimizer="sgd", learning_rate=0.003)
