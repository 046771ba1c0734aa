"""Recipes as JSON: what was written is read, and every value is held against its field's type."""

import json
from dataclasses import dataclass, replace
from typing import Optional

import pytest

from gradatim import config
from gradatim.recipes import RECIPES, from_json, recipe
from gradatim.registry import import_path


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name):
    run = recipe(name)
    assert from_json(json.loads(json.dumps(run.to_json()))) == run


def changed(path: str, value: object, name: str = "linear") -> dict:
    """Return a shipped recipe's JSON with one value changed."""
    whole = json.loads(json.dumps(recipe(name).to_json()))
    part = whole
    *outer, last = path.split(".")
    for key in outer:
        part = part[key]
    part[last] = value
    return whole


WHOLE, NUMBER, TRUTH = "a whole number", "a number", "true or false"


@pytest.mark.parametrize(
    ("path", "came", "wanted"),
    [
        ("train.lr", "fast", NUMBER),
        ("train.lr", True, NUMBER),
        ("train.lr", None, NUMBER),
        ("train.iterations", "10", WHOLE),
        ("train.iterations", True, WHOLE),
        ("train.tensorboard", 1, TRUTH),
        ("train.clip", "none", f"{NUMBER} or null"),
        ("train.threads", 1.0, f"{WHOLE} or null"),
        ("train.threads", False, f"{WHOLE} or null"),
        ("train.betas", 0.9, "a list of 2 numbers"),
        ("train.betas", [0.9], "a list of 2 numbers"),
        ("train.betas", [0.9, 0.95, 0.99], "a list of 2 numbers"),
        ("train.betas", [0.9, "x"], "a list of 2 numbers"),
        ("train.precision", 32, "text"),
        ("train.precision", ["32-true"], "text"),
        ("scheme.horizon", "10", WHOLE),
        ("scheme.batch_size", 2.5, WHOLE),
        ("scheme.relative", "no", TRUTH),
        ("method.prefixes", "no", TRUTH),
        ("method.tail", [1], f"{NUMBER} or null"),
        ("method.gain", 1.0, "an object, the fields of Gain"),
        ("method.gain.power", "one", NUMBER),
        ("family.dim", {"a": 1}, WHOLE),
        ("family", 3, "an object with a name"),
        ("family", {"dim": 3}, "an object with a name"),
        ("scheme", "Greedy", "an object with a name"),
        ("scheme.name", ["Greedy"], "an object with a name"),
        ("train", [], "an object, the fields of TrainConfig"),
        ("method", ["adam"], "an object with a name"),
        ("method", None, "an object with a name"),
    ],
)
def test_a_value_of_another_type_is_refused(path, came, wanted):
    with pytest.raises(ValueError) as refused:
        from_json(changed(path, came))
    said = str(refused.value)
    named = path.removesuffix(".name")
    assert said.startswith(f"{named} must be {wanted}; got "), said
    assert path.endswith(".name") or said.endswith(repr(came))


@pytest.mark.parametrize("value", [[], None, "linear", 3])
def test_what_is_no_object_is_no_recipe(value):
    with pytest.raises(ValueError, match="a recipe must be an object; got"):
        from_json(value)


@pytest.mark.parametrize(
    ("path", "came"),
    [("train.lr", 1), ("train.clip", None), ("train.clip", 2), ("method.tail", 1), ("method.tail", None)],
)
def test_whole_numbers_are_numbers_and_null_stays(path, came):
    part, field = path.split(".")
    got = getattr(getattr(from_json(changed(path, came)), part), field)
    assert got == came and type(got) is type(came)


def test_lists_become_tuples():
    assert from_json(changed("train.betas", [0.5, 0])).train.betas == (0.5, 0)


@dataclass
class Part:
    needed: int
    many: tuple[int, ...] = ()
    maybe: Optional[str] = None  # noqa: UP045


def test_a_field_without_a_default_is_asked_for():
    with pytest.raises(ValueError, match=r"part needs 'needed'; got \['many'\]"):
        config.from_json(Part, {"many": [1]}, "part")
    assert config.from_json(Part, {"needed": 1, "many": [1, 2, 3], "maybe": "a"}, "part") == Part(
        1, (1, 2, 3), "a"
    )
    with pytest.raises(ValueError, match=r"part.many must be a list of numbers; got \[1, 2.5\]"):
        config.from_json(Part, {"needed": 1, "many": [1, 2.5]}, "part")
    with pytest.raises(ValueError, match=r"part.maybe must be text or null; got 1"):
        config.from_json(Part, {"needed": 1, "maybe": 1}, "part")


def test_unknown_names_are_refused_with_the_nearest():
    value = recipe("linear").to_json()
    for part, field, near in (
        ("train", "lrr", "lr"),
        ("scheme", "horzon", "horizon"),
    ):
        with pytest.raises(ValueError, match=f"no field {field!r}: did you mean {near!r}"):
            from_json({**value, part: {**value[part], field: 1}})
    with pytest.raises(ValueError, match="method has no option 'widht'; it has width"):
        from_json(changed("method.widht", 1))
    with pytest.raises(ValueError, match="no field 'pwer': did you mean 'power'"):
        from_json(changed("method.gain", {"pwer": 1}))
    with pytest.raises(ValueError, match="no scheme is called 'Gredy': did you mean 'Greedy'"):
        from_json(changed("scheme.name", "Gredy"))


@dataclass(frozen=True)
class Last:
    weight: float

    def __call__(self, learner, task, losses):
        return self.weight * losses[-1].mean()


def test_penalties_survive_json():
    run = recipe("linear")
    run = replace(run, scheme=replace(run.scheme, penalties=(Last(0.1), Last(2.0))))
    value = json.loads(json.dumps(run.to_json()))
    assert from_json(value) == run
    value["scheme"]["penalties"] = [{"name": "gradatim.methods:Ridge"}]
    with pytest.raises(ValueError, match="Ridge must be a penalty"):
        from_json(value)
    value["scheme"]["penalties"] = [{"weight": 0.1}]
    with pytest.raises(ValueError, match="penalty must be an object with a name"):
        from_json(value)


def test_a_class_of_a_file_that_cannot_be_imported_is_refused(monkeypatch):
    monkeypatch.setattr(Last, "__module__", "my-script")
    with pytest.raises(ValueError, match=r"my-script\.py, a name that Python cannot import"):
        import_path(Last, "penalty")
