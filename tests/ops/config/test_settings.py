"""One declaration a setting: what its bounds, words, search domain and JSON form promise holds for every setting."""

import math
from typing import Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from refusals import one_line

from ops.config.settings import (
    LaunchSettings,
    SearchSettings,
    allowed,
    build,
    docs_table,
    fields,
    flat,
    search_domain,
)
from ops.errors import SettingsError
from trainers import hsan

METHODS = [hsan.METHOD]
MODELS = [*(m.settings for m in METHODS), LaunchSettings, SearchSettings]
EVERY = [(model, key) for model in MODELS for key in fields(model)]
NUMBERS = [(m, k) for m, k in EVERY if {int, float} & set(get_args(fields(m)[k][0].annotation) or ())
           or fields(m)[k][0].annotation in (int, float)]  # fmt: skip


def names(pair):
    return f"{pair[0].__module__.split('.')[-1]}.{pair[0].__name__}.{pair[1]}"


def bounds(info):
    """(low, low is allowed, high, high is allowed) of a field."""
    low, high, at_low, at_high = -math.inf, math.inf, True, True
    for meta in info.metadata:
        for name, closed in (("ge", True), ("gt", False)):
            if getattr(meta, name, None) is not None:
                low, at_low = getattr(meta, name), closed
        for name, closed in (("le", True), ("lt", False)):
            if getattr(meta, name, None) is not None:
                high, at_high = getattr(meta, name), closed
    return low, at_low, high, at_high


def valid_values(info):
    """A strategy for the valid values of a field, from its declaration alone."""
    low, at_low, high, at_high = bounds(info)
    kinds = get_args(info.annotation) if get_origin(info.annotation) is not Literal else (info.annotation,)
    strategies = []
    for kind in kinds or (info.annotation,):
        if get_origin(kind) is Literal:
            strategies.append(st.sampled_from(get_args(kind)))
        elif kind is type(None):
            strategies.append(st.none())
        elif kind is bool:
            strategies.append(st.booleans())
        elif kind is int:
            strategies.append(
                st.integers(None if low == -math.inf else int(low), None if high == math.inf else int(high))
            )
        elif kind is float:
            limits = {"min_value": None if low == -math.inf else low, "max_value": None if high == math.inf else high}
            exclude = {"exclude_min": not at_low, "exclude_max": not at_high}
            strategies.append(st.floats(**limits, **exclude, allow_nan=False, allow_infinity=False))
        else:
            assert kind is str, f"a new type of setting: {kind}"
            strategies.append(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
    return st.one_of(strategies)


def any_valid(model):
    """A strategy for mappings of some keys of `model` to valid values."""
    each = {k: valid_values(info) for k, (info, _) in fields(model).items() if k != "protocol"}
    return st.fixed_dictionaries({}, optional=each).map(agreeing)


def agreeing(values):
    """`values` without those that contradict another by a rule between settings."""
    dropped = set()
    if values.get("weights") == "stale":
        dropped |= {"batch_nodes", "parts", "blocks"}
        if values.get("pair_storage") == "recompute":
            dropped.add("pair_storage")
    if isinstance(values.get("gradients"), float) and not 0 <= values["gradients"] <= 1:
        dropped.add("gradients")
    if isinstance(values.get("tile_rows"), int) and not 16 <= values["tile_rows"] <= 8192:
        dropped.add("tile_rows")
    k = values.get("n_clusters")
    if values.get("batch_nodes"):
        dropped |= {"parts", "blocks"}
        values = values | {"batch_nodes": max(values["batch_nodes"], 2, k if isinstance(k, int) else 0)}
    if values.get("blocks", 1) > max(values.get("parts", 0), 1):
        dropped.add("blocks")
    return {key: value for key, value in values.items() if key not in dropped}


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.__module__}.{m.__name__}")
@given(data=st.data())
def test_valid_settings_come_back_from_their_json_form(model, data):
    settings = build(model, data.draw(any_valid(model)), {})
    assert build(model, flat(settings), {}) == settings
    assert set(flat(settings)) == set(fields(model))


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.__module__}.{m.__name__}")
@given(data=st.data())
def test_settings_given_as_text_are_those_given_as_values(model, data):
    """Flags are text until they are validated; YAML values are not."""
    values = data.draw(any_valid(model))
    as_text = {k: v if isinstance(v, str) or v is None else str(v) for k, v in values.items()}
    assert build(model, as_text, {}) == build(model, values, {})


@pytest.mark.parametrize("pair", EVERY, ids=names)
def test_every_setting_has_a_meaning_and_a_valid_default(pair):
    model, key = pair
    info, owner = fields(model)[key]
    assert info.description
    assert not info.description.endswith(".")
    assert owner is model
    assert build(model, {key: info.default}, {}) == model()


@pytest.mark.parametrize("pair", [p for p in EVERY if search_domain(*p)], ids=names)
def test_a_search_domain_lies_within_the_bounds(pair):
    model, key = pair
    kind, values = next(iter(search_domain(*pair).items()))
    assert kind in ("uniform", "loguniform", "choice", "randint")
    assert len(search_domain(*pair)) == 1
    if kind == "choice":
        assert len(set(values)) == len(values) > 1
    else:
        low, high = values
        assert low < high
        assert kind != "loguniform" or low > 0
        values = [low, high - 1] if kind == "randint" else [low, high]
    for value in values:
        settings = build(model, {key: value}, {})
        assert flat(settings)[key] == value
        assert type(flat(settings)[key]) is type(fields(model)[key][0].default)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_what_a_search_varies_by_itself_has_a_domain(method):
    assert method.searched
    assert all(search_domain(method.settings, key) for key in method.searched)


@pytest.mark.parametrize("pair", NUMBERS, ids=names)
def test_numbers_that_are_none_are_refused(pair):
    model, key = pair
    low, at_low, high, at_high = bounds(fields(model)[key][0])
    wrong = ["nan", "inf", "-inf", math.nan, math.inf, -math.inf, "x", "", [1], {}, True, False]
    wrong += [low if not at_low else low - 1] * (low > -math.inf) + [high if not at_high else high + 1] * (
        high < math.inf
    )
    for value in wrong:
        text = one_line(SettingsError, build, model, {key: value}, {key: "flag"})
        assert text == f"--{key.replace('_', '-')}: got {value!r}; allowed: {allowed(fields(model)[key][0])}"


@pytest.mark.parametrize("pair", EVERY, ids=names)
def test_a_wrong_type_names_source_key_value_and_what_is_allowed(pair):
    model, key = pair
    text = one_line(SettingsError, build, model, {key: ["x"]}, {key: "my.yaml"})
    assert text == f"my.yaml: {key}: got ['x']; allowed: {allowed(fields(model)[key][0])}"


@pytest.mark.parametrize(("key", "words"), [
    ("epochs", "whole number in [1, 1e+06]"),
    ("lr", "number in (0, 1]"),
    ("n_clusters", "whole number or auto"),
    ("knn", "whole number in [0, inf)"),
    ("knn_metric", "euclidean or cosine or heat or dot"),
    ("workers", "auto or whole number"),
    ("quiet", "true or false"),
    ("out", "text"),
    ("name", "text"),
    ("weights", "paper or stale"),
])  # fmt: skip
def test_allowed_in_words(key, words):
    assert allowed(fields(*MODELS)[key][0]) == words


def test_settings_cannot_be_changed_and_take_no_unknown_key():
    with pytest.raises(ValidationError):
        hsan.Settings().epochs = 3
    with pytest.raises(ValidationError):
        hsan.Settings(epoch=3)


def test_published_sets_its_rules_and_contradicts_others():
    settings = build(hsan.Settings, {"protocol": "published"}, {})
    assert {k: getattr(settings, k) for k in hsan.PUBLISHED} == hsan.PUBLISHED
    for key, fixed in hsan.PUBLISHED.items():
        info = fields(hsan.Settings)[key][0]
        kinds = get_args(info.annotation)
        for value in (get_args(kinds[0]) or kinds) if kinds else ():  # of a name or a number the names
            values = {"protocol": "published", key: value}
            if value == fixed:
                assert build(hsan.Settings, values, {}) == settings
                continue
            with pytest.raises(SettingsError, match=f"^--protocol published sets {key}={fixed}: got {key}='{value}'"):
                build(hsan.Settings, values, {})


def test_the_docs_table_lists_every_setting_once():
    table = docs_table(*MODELS)
    rows = [line for line in table.splitlines() if line.startswith("| `--")]
    assert sorted(line.split("`")[1] for line in rows) == sorted("--" + k.replace("_", "-") for k in fields(*MODELS))
    columns = table.splitlines()[0].count("|")
    for line in rows:
        info, model = fields(*MODELS)[line.split("`")[1][2:].replace("-", "_")]
        assert line.count("|") == columns
        assert info.description in line
        assert allowed(info) in line
        assert (info.default is None) or f"| {info.default} |" in line
        domain = search_domain(model, line.split("`")[1][2:].replace("-", "_"))
        assert domain is None or next(iter(domain)) in line
