"""Files with a checksum over all of their bytes: whatever bit is changed, nobody takes them for what was written."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from focus.errors import FocusError
from focus.eval.misfit import MisfitPrior
from focus.report.results import read_sealed, write_sealed
from focus.sealed import DamagedError, open_json, open_tensors, seal_json, seal_tensors
from focus.train import Header, load_checkpoint, save_checkpoint
from focus.train.config import Settings

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    max_leaves=8,
)


def checkpoint(path: Path) -> Path:
    header = Header(
        {**Settings.preset("small").to_dict(), "seed": 31},
        "a face",
        "0" * 64,
        step=31,
        validation={"last": {"loss": 1.5}},
    )
    return save_checkpoint(path, header, {"reconstruction.weight": torch.arange(6.0).reshape(2, 3)})


def prior(path: Path) -> Path:
    return MisfitPrior(torch.arange(6.0).reshape(2, 3), "a face", "0" * 64, 7, 3, "test").save(path)


WRITERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "checkpoint": (checkpoint, load_checkpoint),
    "misfit prior": (prior, MisfitPrior.load),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_no_flipped_bit_is_accepted(tmp_path: Path, kind: str) -> None:
    write, read = WRITERS[kind]
    path = write(tmp_path / "a.safetensors")
    good = path.read_bytes()
    read(path)
    bits = range(8 * len(good))
    if kind == "checkpoint":  # 40,000 bits: the first and last ones, and many of those between
        bits = sorted({*bits[:512], *bits[-512:], *random.Random(0).sample(bits, 3000)})  # type: ignore[assignment]
    for bit in bits:
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(FocusError) as caught:
            read(path)
        assert str(path) in str(caught.value), bit


@pytest.mark.parametrize("kind", WRITERS)
def test_files_without_their_ends_and_with_more_are_refused(tmp_path: Path, kind: str) -> None:
    write, read = WRITERS[kind]
    path = write(tmp_path / "a.safetensors")
    good = path.read_bytes()
    for data in (*(good[:length] for length in range(0, len(good), 37)), good + b"\0", good + good):
        path.write_bytes(data)
        with pytest.raises(FocusError, match=r"cannot be read|not one that FOCUS wrote"):
            read(path)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text().filter(lambda name: name != "checksum"), JSON), st.none() | st.just(1))
def test_sealed_json_comes_back(values: dict[str, Any], indent: int | None) -> None:
    text = seal_json(values, indent=indent)
    assert open_json(text) == values
    assert open_json(text.encode()) == values
    assert json.loads(text) | {"checksum": ""} == values | {"checksum": ""}


def test_sealed_json_that_was_changed_is_refused() -> None:
    text = seal_json({"name": "a", "checksum_of": 'checksum": "' + "0" * 64 + '"', "values": [1, 2.5]})
    data = text.encode()
    assert open_json(data)["values"] == [1, 2.5]
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedError):
            open_json(bytes(changed))
    for wrong in ("", "[]", "1", "{}", '{"checksum": 3}', '{"a": NaN, "checksum": "' + "0" * 64 + '"}', "[" * 100_000):
        with pytest.raises(DamagedError):
            open_json(wrong)
    with pytest.raises(ValueError, match="JSON"):
        seal_json({"a": float("nan")})


def test_sealed_files_of_results(tmp_path: Path) -> None:
    path = write_sealed(tmp_path / "a.json", {"methods": {"a": 1.5}, "seed": 3})
    assert read_sealed(path) == {"methods": {"a": 1.5}, "seed": 3}
    good = path.read_bytes()
    for bit in range(8 * len(good)):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(FocusError, match="cannot be read as JSON"):
            read_sealed(path)
    path.write_text('{"seed": 3}\n')  # of before there were checksums
    assert read_sealed(path) == {"seed": 3}
    with pytest.raises(FocusError, match="no such file"):
        read_sealed(tmp_path / "none.json")


def test_tensors_that_nobody_writes_are_refused() -> None:
    sealed = seal_tensors({"a": torch.ones(2)}, "focus", {"x": 1})
    values, tensors = open_tensors(sealed, "focus")
    assert values["x"] == 1
    assert torch.equal(tensors["a"], torch.ones(2))
    with pytest.raises(KeyError):
        open_tensors(sealed, "other")
    odd = seal_tensors({"a": torch.ones(2).to(torch.float8_e5m2)}, "focus", {})
    with pytest.raises(DamagedError, match="a has the type 'F8_E5M2'"):
        open_tensors(odd, "focus")


def _resealed(path: Path, **changes: Any) -> None:
    """A header with other values and a checksum that is right."""
    values = {**asdict(load_checkpoint(path).header), **changes}
    values = {name: value for name, value in values.items() if value is not ...}
    path.write_bytes(seal_tensors({"reconstruction.weight": torch.ones(2, 3)}, "focus", values))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"step": "31"}, "step"),
        ({"step": -1}, "step"),
        ({"step": 3.0}, "step"),
        ({"step": True}, "step"),
        ({"step": None}, "step"),
        ({"step": 10**30}, "step"),
        ({"step": ...}, "step"),
        ({"format": "2"}, "format"),
        ({"format": True}, "format"),
        ({"format": 1}, "checksum"),
        ({"kind": "both"}, "kind"),
        ({"settings": []}, "settings"),
        ({"model_name": 3}, "model_name"),
        ({"model_fingerprint": None}, "model_fingerprint"),
        ({"optimiser": {"other": {}}}, "optimiser"),
        ({"optimiser": {"segmentation": {"step": 1}}}, "optimiser"),
        ({"optimiser": {"segmentation": {"step.0": "1"}}}, "optimiser"),
        ({"optimiser": {"segmentation": {"step.0": True}}}, "optimiser"),
        ({"validation": {"last": 3}}, "validation"),
        ({"validation": {"best": {"f1": 1.0}}}, "validation"),
        ({"validation": {"worst": {"loss": 1.0}}}, "validation"),
        ({"data": ["a"]}, "data"),
        ({"machine": {"threads": 2}}, "machine"),
        ({"version": 1}, "version"),
        ({"more": 1}, "more"),
    ],
)
def test_a_right_checksum_does_not_excuse_a_wrong_value(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    path = checkpoint(tmp_path / "a.safetensors")
    _resealed(path, **changes)
    with pytest.raises(FocusError, match=field) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


def test_a_setting_of_another_type_is_named(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.safetensors")
    _resealed(path, settings={"image_size": "32"})
    with pytest.raises(FocusError, match=r"a\.safetensors: settings\.image_size: expected int"):
        _ = load_checkpoint(path).settings


def test_checkpoints_of_before_are_read_as_far_as_they_were_protected(tmp_path: Path) -> None:
    """Format 1: CRC-32 over the tensors alone."""
    from focus.train.checkpoint import _crc32

    tensors = {"reconstruction.weight": torch.ones(2, 3)}
    values = asdict(Header({}, "a face", "0", step=7)) | {"format": 1, "checksum": _crc32(tensors)}
    del values["data"], values["machine"]
    path = tmp_path / "old.safetensors"
    path.write_bytes(safetensors.torch.save(tensors, {"focus": json.dumps(values)}))
    read = load_checkpoint(path)
    assert (read.header.step, read.header.data, read.header.machine) == (7, None, {})
    again = load_checkpoint(save_checkpoint(tmp_path / "new.safetensors", read.header, read.tensors))
    assert again.header.format == 2
    for wrong in (values | {"checksum": 3}, values | {"format": 2}, values | {"step": "7"}):
        path.write_bytes(safetensors.torch.save(tensors, {"focus": json.dumps(wrong)}))
        with pytest.raises(FocusError, match=r"checksum|step"):
            load_checkpoint(path)


def test_inputs_that_never_end_are_refused(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "fifo.safetensors")
    for path in (tmp_path / "fifo.safetensors", Path("/dev/zero"), tmp_path):
        for read in (load_checkpoint, MisfitPrior.load):
            with pytest.raises(FocusError, match="expected an ordinary file"):
                read(path)


@pytest.mark.parametrize(
    "change", [{"faces": 0}, {"faces": "7"}, {"seed": -1}, {"seed": True}, {"source": 1}, {"x": 1}]
)
def test_values_of_a_misfit_prior_are_looked_at(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "a.safetensors"
    values = {"model_name": "a", "model_fingerprint": "0", "faces": 7, "seed": 3, "source": "test"}
    values |= {"format": 2, "version": "0.1.0"}
    offsets = {"offsets": torch.ones(2, 3)}
    path.write_bytes(seal_tensors(offsets, "focus_misfit", values))
    assert MisfitPrior.load(path).faces == 7
    path.write_bytes(seal_tensors(offsets, "focus_misfit", values | change))
    with pytest.raises(FocusError, match=next(iter(change))):
        MisfitPrior.load(path)
    path.write_bytes(safetensors.torch.save(offsets, {"focus_misfit": json.dumps(values)}))
    with pytest.raises(FocusError, match="no checksum"):
        MisfitPrior.load(path)
    path.write_bytes(safetensors.torch.save(offsets, {"focus_misfit": json.dumps(values | {"format": 1})}))
    assert MisfitPrior.load(path).faces == 7
