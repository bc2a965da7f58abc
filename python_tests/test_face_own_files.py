"""Face models in our own format: damage and edits are noticed, and a fingerprint follows the numbers."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from focus.errors import FocusError
from focus.face import MorphableModel
from focus.sealed import seal_tensors


@pytest.fixture(scope="module")
def small() -> MorphableModel:
    return MorphableModel.procedural("small", 2, 1, 1)


def test_any_changed_bit_of_an_own_file_is_noticed(small: MorphableModel, tmp_path: Path) -> None:
    path = tmp_path / "a.focusmodel"
    small.save(path)
    good, source = path.read_bytes(), random.Random(1)
    header = 8 + int.from_bytes(good[:8], "little")
    for number in range(300):
        data = bytearray(good)
        data[source.randrange(header if number % 2 else len(good))] ^= 1 << source.randrange(8)
        path.write_bytes(data)
        with pytest.raises(FocusError, match=r"a\.focusmodel: "):
            MorphableModel.load(path)


def _metadata(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def test_edited_own_files_are_not_what_they_were(small: MorphableModel, tmp_path: Path) -> None:
    path = tmp_path / "a.focusmodel"
    small.save(path)
    assert MorphableModel.load(path).fingerprint() == small.fingerprint()
    tensors, metadata = safetensors.torch.load_file(path), _metadata(path)
    tensors["mean_shape"] = tensors["mean_shape"] + 1
    safetensors.torch.save_file(tensors, path, metadata)
    with pytest.raises(FocusError, match="do not match their checksum"):
        MorphableModel.load(path)
    without = {"focus_model": metadata["focus_model"].replace('"checksum": "', '"checksun": "')}
    safetensors.torch.save_file(tensors, path, without)
    with pytest.raises(FocusError, match=r"a\.focusmodel: "):
        MorphableModel.load(path)


def test_files_of_before_load_and_are_known_by_their_numbers(small: MorphableModel, tmp_path: Path) -> None:
    path = tmp_path / "a.focusmodel"
    small.save(path)
    tensors = safetensors.torch.load_file(path)
    metadata = {"format": "focus-morphable-model-1", "name": "old", "recipe": str(small.recipe)}
    safetensors.torch.save_file(tensors, path, metadata)
    old = MorphableModel.load(path)
    assert (old.name, old.licence, old.recipe) == ("old", "unknown", None)
    assert torch.equal(old.mean_shape, small.mean_shape)
    assert old.fingerprint() != small.fingerprint()
    old.save(path)
    assert MorphableModel.load(path).fingerprint() == old.fingerprint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name: expected a text"),
        ({"licence": None}, "licence: expected a text"),
        ({"recipe": ["x"]}, "recipe: expected a text"),
        ({"expression_prior": "gamma"}, "expression_prior: expected one of"),
        ({"format": 3, "version": "9.9"}, "was written by focus 9.9; update"),
        ({"format": "2"}, "format 2, or no checksum"),
        ({"format": True}, "format True, or no checksum"),
        ({"more": 1}, "unknown: more"),
    ],
)
def test_values_of_another_type_are_refused(
    small: MorphableModel, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "a.focusmodel"
    small.save(path)
    values = {"format": 2, "version": "0", "name": "", "licence": "", "expression_prior": "normal", "recipe": None}
    path.write_bytes(seal_tensors(safetensors.torch.load_file(path), "focus_model", values | change))
    with pytest.raises(FocusError, match=rf"a\.focusmodel: .*{message}"):
        MorphableModel.load(path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.bool])
def test_arrays_of_another_type_are_refused(small: MorphableModel, tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "a.focusmodel"
    small.save(path)
    tensors = safetensors.torch.load_file(path)
    tensors["identity_basis"] = tensors["identity_basis"].to(dtype)
    values = {"format": 2, "version": "0", "name": "", "licence": "", "expression_prior": "normal", "recipe": None}
    path.write_bytes(seal_tensors(tensors, "focus_model", values))
    with pytest.raises(FocusError, match=r"identity_basis: expected numbers of the type torch\.float32"):
        MorphableModel.load(path)


def test_a_fingerprint_follows_the_numbers(small: MorphableModel, tmp_path: Path) -> None:
    """Also of a model that code built: its recipe stands for the numbers that the code made, and for no others."""

    def changed(change: Callable[[MorphableModel], object]) -> MorphableModel:
        model = MorphableModel.procedural("small", 2, 1, 1)
        assert model.fingerprint() == small.fingerprint()
        model.mean_shape = model.mean_shape.clone()
        assert model.fingerprint() == small.fingerprint()  # the same numbers elsewhere
        change(model)
        return model

    state = {**small.state_dict(), "uv": small.uv + 0.01} if small.uv is not None else {}
    models = [
        small,
        changed(lambda model: model.mean_shape.add_(1e-5)),
        changed(lambda model: model.mean_shape.numpy().__setitem__((0, 0), 5)),
        changed(lambda model: setattr(model, "identity_basis", model.identity_basis * 2)),
        changed(lambda model: model.load_state_dict(state)),
        changed(lambda model: model.half()),
        changed(lambda model: setattr(model, "faces", model.faces.flip(0))),
        small._replaced(mean_albedo=small.mean_albedo * 0.9),
    ]
    prints = [model.fingerprint() for model in models]
    assert len(set(prints)) == len(prints)
    # What was edited stays so when it is cut, painted, saved and loaded.
    edited = models[1]
    assert edited.truncated(1).fingerprint() != small.truncated(1).fingerprint()
    assert edited.with_gaussian_process_albedo(1).recipe != small.with_gaussian_process_albedo(1).recipe
    edited.save(tmp_path / "a.focusmodel")
    assert MorphableModel.load(tmp_path / "a.focusmodel").recipe is None
    assert MorphableModel.load(tmp_path / "a.focusmodel").fingerprint() == edited.fingerprint()
    assert small.double().float().fingerprint() == prints[0]
