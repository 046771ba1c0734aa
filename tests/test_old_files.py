"""Files of format version 1, of gradatim 0.1: they are read, answer the same, and are rewritten in the present one.

`tests/data/format_1` holds them and what they answered, written at commit c0f988c; the large ones are compressed.
"""

import json
import lzma
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from gradatim import (
    LinearRegression,
    RefinedClassifier,
    RefinedRegressor,
    build,
    load_state,
    rebuild,
    save_state,
)
from gradatim.commands.info import info_lines
from gradatim.files.checkpoint import read, write

HERE = Path(__file__).parent / "data" / "format_1"
ANSWERS = json.loads((HERE / "answers.json").read_text())
TABLES = {
    "table_classifier": (RefinedClassifier, "predict_proba"),
    "table_regressor": (RefinedRegressor, "predict"),
    "table_early": (RefinedClassifier, "predict_proba"),
    "table_early_regressor": (RefinedRegressor, "predict"),
}


def copied(name, folder):
    path = folder / f"{name}.safetensors"
    packed = HERE / f"{path.name}.xz"
    path.write_bytes(
        lzma.decompress(packed.read_bytes()) if packed.exists() else (HERE / path.name).read_bytes()
    )
    return path


def rows():
    frame = pd.DataFrame(
        {
            "size": (np.arange(12) % 4).astype(float),
            "colour": np.array(["red", "blue", "green"])[np.arange(12) // 4 % 3],
        }
    )
    frame.loc[5, "size"] = np.nan
    return frame


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_version_1_answers_the_same_and_is_written_in_version_2(name, tmp_path):
    kind, answer = TABLES[name]
    path = copied(name, tmp_path)
    model = kind.load(path)
    # heads are solved anew, by this version's ridges; of rows that are held the whole fit is this version's
    tolerance = 0.1 if "early" in name else 0.01
    np.testing.assert_allclose(
        getattr(model, answer)(rows()), ANSWERS[name], rtol=5e-3 if "regressor" in name else 0, atol=tolerance
    )
    assert read(path)[1]["gradatim_format"] == 1
    again = kind.load(model.save(path))
    assert read(path)[1]["gradatim_format"] == 2
    np.testing.assert_allclose(
        getattr(again, answer)(rows()), getattr(model, answer)(rows()), rtol=1e-4, atol=1e-4
    )


def test_a_state_of_a_learner_of_version_1_answers_the_same(tmp_path):
    path, family = copied("learner_state", tmp_path), LinearRegression(3)
    learner, task = build("ridge", family), family.sample(2, torch.Generator().manual_seed(0))
    state = load_state(path, learner)
    wanted = torch.tensor(ANSWERS["learner_state"])
    torch.testing.assert_close(learner.predict(task.query.x, state), wanted)
    again = load_state(save_state(path, state, learner), learner)
    assert torch.equal(learner.predict(task.query.x, again), learner.predict(task.query.x, state))
    assert read(path)[1]["gradatim_format"] == 2


def test_a_checkpoint_of_version_1_answers_the_same(tmp_path):
    path = copied("checkpoint", tmp_path)
    learner, recipe, header = rebuild(path)
    task = recipe.family.sample(2, torch.Generator().manual_seed(0))
    answers = learner.predict(task.query.x, learner.adapt(task.support, batch_size=8))
    torch.testing.assert_close(answers, torch.tensor(ANSWERS["checkpoint"]))
    assert header["gradatim_format"] == 1
    assert read(write(path, *read(path)))[1]["gradatim_format"] == 2


@pytest.mark.parametrize("name", ["table_classifier", "table_regressor"])
def test_rows_that_are_landmarks_are_said_for_as_long_as_they_are_stored(name, tmp_path):
    def stored(path):
        return next(text for label, text in info_lines(path) if label == "stored rows")

    path, (kind, _) = copied(name, tmp_path), TABLES[name]
    assert "as landmarks" in stored(path)
    model = kind.load(path)
    y = np.resize(getattr(model, "classes_", [0.5, 1.5, 2.5]), 12)
    for changed in (model, kind.load(model.save(path)).partial_fit(rows(), y), model.fork()):
        assert stored(changed.save(path)) == stored(path) and "as landmarks" in stored(path)
    many = pd.concat([rows()] * 3, ignore_index=True)
    assert "none as they came" in stored(kind.load(path).remap(many, np.tile(y, 3)).save(path))
    assert "none as they came" in stored(kind().fit(rows(), y).save(path))


@pytest.mark.parametrize("features", [1, 2, None])
def test_states_of_other_features_are_to_be_learnt_again(features, tmp_path):
    path = copied("table_early", tmp_path)
    tensors, header = read(path)
    header.pop("features")
    write(path, tensors, header if features is None else header | {"features": features})
    with pytest.raises(ValueError, match="moments of another gradatim's features: learn its table once more"):
        RefinedClassifier.load(path)


def test_a_path_of_a_model_in_an_old_state_is_never_opened(tmp_path):
    path, pipe = copied("table_classifier", tmp_path), tmp_path / "pipe"
    tensors, header = read(path)
    os.mkfifo(pipe)
    header["params"]["model"] = str(pipe)
    for learners, said in (
        ([], "learners must be one for a learner that was given"),
        (["0" * 64], r"give it, load\(path, model=learner\)"),
    ):
        metadata = {"gradatim": json.dumps({**header, "learners": learners})}
        parts = {name: part for name, part in tensors.items() if "landmarks" not in name}
        path.write_bytes(safetensors.torch.save(parts, metadata=metadata))
        with pytest.raises(ValueError, match=said):
            RefinedClassifier.load(path)
