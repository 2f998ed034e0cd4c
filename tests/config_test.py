import dataclasses
import json
from pathlib import Path

import pytest
from absl import flags

from dqa_keras import DQAConfig, layers
from dqa_keras.cli import shared_flags
from dqa_keras.config import CHOICES


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("bits", 0, "bits must be in 1..8"),
        ("bits", 9, "bits must be in 1..8"),
        ("bits", 4.0, "bits must be an integer"),
        ("bits", True, "bits must be an integer"),
        ("bits", "4", "bits must be an integer"),
        ("extra_bits", -1, "extra_bits must be in 0..4"),
        ("extra_bits", 5, "extra_bits must be in 0..4"),
        ("extra_bits", None, "extra_bits must be an integer"),
        ("seed", -1, "seed must be in 0..2147483647"),
        ("seed", 1.5, "seed must be an integer"),
        ("important_fraction", -0.1, "important_fraction must be a number in 0..1"),
        ("important_fraction", 1.1, "important_fraction must be a number in 0..1"),
        ("important_fraction", "1", "important_fraction must be a number in 0..1"),
        ("important_fraction", True, "important_fraction must be a number in 0..1"),
        ("important_fraction", float("nan"), "important_fraction must be a number"),
        ("percentile", 49.9, "percentile must be a number in 50..100"),
        ("percentile", 100.1, "percentile must be a number in 50..100"),
        ("method", "quant", "method must be one of 'dqa', 'direct', 'noisyquant'"),
        ("granularity", "row", "granularity must be one of 'channel', 'tensor'"),
        ("clipping", "min", "clipping must be one of 'mse', 'max', 'percentile'"),
        ("ranking", "best", "ranking must be one of 'mse', 'greedy'"),
        ("signed", "yes", "signed must be one of 'auto', True, False"),
        ("entropy", "base", "entropy must be one of 'residual', 'all'"),
        ("budget_bits", 0.5, "budget_bits must be a number in 1..8"),
        ("budget_bits", "3", "budget_bits must be a number in 1..8"),
        ("budget_kib", -1.0, "budget_kib must be a number in 0.."),
        ("quantize_merges", "no", "quantize_merges must be one of True, False"),
        ("quantize_linear", "no", "quantize_linear must be one of True, False"),
    ],
)
def test_a_bad_value_is_named_with_its_rule(field, value, rule):
    with pytest.raises(ValueError, match="Received") as error:
        DQAConfig(**{field: value})
    assert str(error.value).startswith(rule)
    assert str(error.value).endswith(f"Received: {field}={value!r}")


def test_bits_and_extra_bits_share_eight_bits():
    with pytest.raises(
        ValueError, match=r"bits \+ extra_bits .* at most 8.*bits=6, extra_bits=3"
    ):
        DQAConfig(bits=6, extra_bits=3)


def test_eight_bits_in_all_are_allowed():
    assert DQAConfig(bits=6, extra_bits=2).extra_bits == 2


@pytest.mark.parametrize("method", ["direct", "noisyquant"])
def test_baselines_have_no_extra_bits_to_count(method):
    assert DQAConfig(bits=8, extra_bits=2, method=method).bits == 8


def test_defaults_are_valid_and_quantize_to_four_bits():
    assert DQAConfig().bits == 4
    assert DQAConfig().method == "dqa"


def test_dict_round_trip_through_json_keeps_every_field():
    config = DQAConfig(
        bits=3,
        extra_bits=1,
        important_fraction=0.5,
        method="noisyquant",
        signed=False,
        granularity="tensor",
        clipping="percentile",
        percentile=99.0,
        ranking="greedy",
        entropy="all",
        quantize_merges=True,
        quantize_linear=True,
        seed=7,
    )
    fields = json.loads(json.dumps(config.to_dict()))
    assert DQAConfig.from_dict(fields) == config
    assert set(fields) == {f.name for f in dataclasses.fields(DQAConfig)}


def test_from_dict_names_an_unknown_field():
    with pytest.raises(ValueError, match=r"no field 'bit'.*Known:.*'bits'"):
        DQAConfig.from_dict({"bit": 4})


def test_from_dict_checks_values():
    with pytest.raises(ValueError, match="bits must be in"):
        DQAConfig.from_dict({"bits": 12})


def test_replace_changes_one_field_and_checks_it():
    config = DQAConfig(bits=4, seed=3)
    assert config.replace(bits=5) == DQAConfig(bits=5, seed=3)
    assert config.bits == 4
    with pytest.raises(ValueError, match="bits=0"):
        config.replace(bits=0)


def test_a_config_is_frozen_and_hashable():
    config = DQAConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.bits = 3
    assert len({config, DQAConfig()}) == 1


def test_paper_preset_is_the_papers_setting():
    paper = DQAConfig.paper(bits=3)
    assert paper.bits == 3
    assert paper.signed is True
    assert paper.granularity == "tensor"
    assert paper.clipping == "max"
    assert paper.ranking == "greedy"
    assert paper.method == "dqa"


def test_paper_preset_takes_changes():
    assert DQAConfig.paper(bits=5, extra_bits=3, method="direct").extra_bits == 3
    assert DQAConfig.paper(ranking="mse").ranking == "mse"
    with pytest.raises(ValueError, match="at most 8"):
        DQAConfig.paper(bits=8)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"budget_kib": 3.0}, r"in bits or in KiB, not in both.*budget_kib=3\.0"),
        ({"method": "direct"}, "needs method='dqa'.*Received: method='direct'"),
        ({"granularity": "tensor"}, "needs granularity='channel'"),
        ({"clipping": "max"}, "needs clipping='mse'"),
        ({"ranking": "greedy"}, "compares channels of all layers"),
    ],
)
def test_what_does_not_go_with_a_budget(fields, rule):
    with pytest.raises(ValueError, match=rule):
        DQAConfig(budget_bits=3.25, **fields)


def test_the_ranking_follows_the_budget():
    assert DQAConfig().ranked_by == "mse"
    assert DQAConfig(budget_bits=3.25).ranked_by == "output"
    assert DQAConfig(budget_bits=3.25, ranking="fisher").ranked_by == "fisher"
    assert DQAConfig(budget_kib=10).has_budget
    assert not DQAConfig().has_budget


METHOD_PAGE = Path(__file__).parents[1] / "docs" / "method.md"


def test_command_layers_and_docs_know_every_choice():
    values = flags.FlagValues()
    shared_flags.define_config_flags(values)
    text = METHOD_PAGE.read_text()
    for name in ("method", "ranking", "entropy"):
        assert set(values[name].parser.enum_values) == set(CHOICES[name])
    assert set(layers._METHODS) == set(CHOICES["method"])
    for name in ("clipping", "ranking"):
        for choice in set(CHOICES[name]) - {"auto"}:
            assert f'"{choice}"' in text, (name, choice)
    for method in set(CHOICES["method"]) - {"dqa"}:
        assert f"`{method}`" in text
