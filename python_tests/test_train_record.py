"""What runs read: a run that goes on notices changed photos and rows, and nothing held out is ever trained with."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from focus.data import SyntheticFaces, write_image
from focus.errors import FocusError
from focus.nets import EncoderSettings, NetworkSettings, SegmentationSettings
from focus.train import Settings, Trainer, Turn, load_checkpoint, save_checkpoint, train
from focus.train.config import DataSettings, FaceSettings, LogSettings, StageSettings
from focus.train.record import Photo, PhotoRecord, _sides_of_before, changed_settings, differences, split

PHOTOS = 7
SETTINGS = replace(
    Settings.preset("small"),
    image_size=32,
    batch_size=2,
    face=FaceSettings(detail="small", identity=3, expression=2, albedo=2),
    network=NetworkSettings(
        EncoderSettings(
            block="basic",
            blocks=(1,),
            widths=(4,),
            strides=(2,),
            stem_width=4,
            normalisation="group",
            output_width=None,
        ),
        SegmentationSettings(filters=(4, 4), dropout=0.0, normalisation="group"),
    ),
    stages=StageSettings(initialise=2, segmentation=1, joint=0, adapt=0, cycle=4, segmentation_in_cycle=2),
    log=LogSettings(every=1, checkpoint_every=1, validate_every=100, tensorboard="off", pictures=0),
    device="cpu",
    threads=1,
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    batch = SyntheticFaces(SETTINGS.face.build(), 64, seed=3).batch(0, PHOTOS)
    lines = []
    for i in range(PHOTOS):
        write_image(folder / f"{i}.png", batch.image[i].permute(1, 2, 0).numpy())
        lines.append(",".join([f"{i}.png", *(f"{value:.2f}" for value in batch.landmarks[i].flatten().tolist())]))
    (folder / "landmarks.csv").write_text("\n".join(lines) + "\n")
    return folder


def settings_for(photos: Path) -> Settings:
    return replace(SETTINGS, data=DataSettings(photos=photos, landmarks=photos / "landmarks.csv", validation=2))


def begin(photos: Path, folder: Path) -> None:
    """A run that ends after its first stage."""

    def stop(trainer: Trainer, turn: Turn) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings_for(photos), folder, after_turn=stop)


@pytest.fixture(scope="module")
def begun(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("begun") / "run"
    begin(photos, folder)
    return folder


@pytest.fixture
def world(photos: Path, begun: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Copies of photos and run: (photos, run). Both lie elsewhere than when the run began."""
    shutil.copytree(photos, tmp_path / "moved" / "photos")
    shutil.copytree(begun, tmp_path / "run")
    return tmp_path / "moved" / "photos", tmp_path / "run"


def lines_of(photos: Path) -> list[str]:
    return (photos / "landmarks.csv").read_text().splitlines()


def write_lines(photos: Path, lines: Sequence[str]) -> None:
    (photos / "landmarks.csv").write_text("\n".join(lines) + "\n")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "last.safetensors").tensors


def record_of(folder: Path) -> PhotoRecord:
    data = load_checkpoint(folder / "last.safetensors").header.data
    assert data is not None
    record = PhotoRecord.load(folder, data["photos"])
    assert record is not None
    return record


def test_moved_photos_in_another_order_change_no_bit(photos: Path, world: tuple[Path, Path], tmp_path: Path) -> None:
    moved, run = world
    lines = lines_of(moved)
    write_lines(moved, lines[::-1])
    (moved / "0.png").rename(moved / "renamed.png")
    write_lines(
        moved,
        [line.replace("0.png", "renamed.png", 1) if line.startswith("0.png") else line for line in lines_of(moved)],
    )
    assert train(settings_for(moved), run, resume=True)
    assert train(settings_for(photos), tmp_path / "whole")
    whole, resumed = weights(tmp_path / "whole"), weights(run)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def edited(photos: Path) -> None:
    (photos / "2.png").write_bytes((photos / "2.png").read_bytes() + b"\0")


def swapped(photos: Path) -> None:
    one, two = (photos / "1.png").read_bytes(), (photos / "3.png").read_bytes()
    (photos / "1.png").write_bytes(two)
    (photos / "3.png").write_bytes(one)


def deleted(photos: Path) -> None:
    (photos / "4.png").unlink()
    (photos / "5.png").unlink()


def row_deleted(photos: Path) -> None:
    write_lines(photos, lines_of(photos)[1:])


def row_changed(photos: Path) -> None:
    lines = lines_of(photos)
    name, x, rest = lines[6].split(",", 2)
    write_lines(photos, [*lines[:6], f"{name},{float(x) + 0.25},{rest}"])


def added(photos: Path) -> None:
    edited_copy = (photos / "2.png").read_bytes() + b"\0"
    (photos / "new.png").write_bytes(edited_copy)
    lines = lines_of(photos)
    write_lines(photos, [*lines, lines[2].replace("2.png", "new.png", 1)])


CHANGES: list[tuple[Callable[[Path], None], str]] = [
    (edited, r"1 photos edited \(2\.png\)"),
    (swapped, r"2 photos swapped \(1\.png, 3\.png\)"),
    (deleted, r"2 photos deleted or unusable \(4\.png, 5\.png\)"),
    (row_deleted, r"1 landmark rows deleted \(0\.png\)"),
    (row_changed, r"1 landmark rows changed \(6\.png\)"),
    (added, r"1 photos added \(new\.png\)"),
]


@pytest.mark.parametrize(("change", "told"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_changed_data_are_named_and_refused_unless_accepted(
    world: tuple[Path, Path], change: Callable[[Path], None], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, run = world
    before = record_of(run)
    change(photos)
    kept = {path.name: path.read_bytes() for path in run.iterdir() if path.suffix == ".safetensors"}
    with pytest.raises(FocusError, match=rf"data of this run have changed: {told}.*--accept-changed-data") as caught:
        train(settings_for(photos), run, resume=True)
    assert str(run) in str(caught.value)
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.suffix == ".safetensors"} == kept
    assert train(settings_for(photos), run, resume=True, accept_changed_data=True)
    assert "going on with changed data" in capsys.readouterr().err
    after = record_of(run)
    held_out = {photo.content for photo in before.photos if photo.held_out}
    trained = {photo.content for photo in before.photos if not photo.held_out}
    assert held_out.isdisjoint(photo.content for photo in after.photos if not photo.held_out)
    assert trained.isdisjoint(photo.content for photo in after.photos if photo.held_out)
    assert train(settings_for(photos), run, resume=True)  # what was accepted is now what the run reads


def test_a_lost_record_is_made_again_where_nothing_changed(
    world: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    photos, run = world
    (record,) = run.glob("photos-*.json")
    good = record.read_bytes()
    record.unlink()
    assert train(settings_for(photos), run, resume=True)
    assert f"{record} was missing and is made again" in capsys.readouterr().err
    assert record.read_bytes() == good


def removed(record: Path) -> None:
    record.unlink()


def flipped(record: Path) -> None:
    record.write_bytes(record.read_bytes().replace(b'"held_out": true', b'"held_out": trUe', 1))


def of_others(record: Path) -> None:
    """Whole, and not the one that the checkpoint names."""
    other = PhotoRecord(tuple(_photos(range(3)))).save(record.parent)
    other.rename(record)


def a_fifo(record: Path) -> None:
    record.unlink()
    os.mkfifo(record)


def a_folder(record: Path) -> None:
    record.unlink()
    record.mkdir()


def a_broken_link(record: Path) -> None:
    record.unlink()
    record.symlink_to("nowhere")


@pytest.mark.parametrize("accept", [False, True])
@pytest.mark.parametrize("change", [edited, swapped, deleted, row_changed, added, None])
@pytest.mark.parametrize("harm", [removed, flipped, of_others, a_fifo, a_folder, a_broken_link])
def test_a_run_without_its_record_does_not_go_on(
    world: tuple[Path, Path], harm: Callable[[Path], None], change: Callable[[Path], None] | None, accept: bool
) -> None:
    """Its checkpoint alone does not say what was held out, so that nothing may be accepted."""
    photos, run = world
    (record,) = run.glob("photos-*.json")
    harm(record)
    if change is not None:
        change(photos)
    elif harm is removed:
        return  # made again, see above
    before = {path.name: path.read_bytes() for path in run.glob("*.safetensors")}
    with pytest.raises(FocusError, match=r"nobody knows which photos were held out.*Put the file back") as caught:
        train(settings_for(photos), run, resume=True, accept_changed_data=accept)
    assert str(record) in str(caught.value)
    assert {path.name: path.read_bytes() for path in run.glob("*.safetensors")} == before
    assert list(run.glob("photos-*.json")) == ([] if harm is removed else [record])


def test_runs_of_before_go_on_and_say_what_nobody_can_compare(
    world: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    photos, run = world
    checkpoint = load_checkpoint(run / "last.safetensors")
    save_checkpoint(run / "last.safetensors", replace(checkpoint.header, data=None, machine={}), checkpoint.tensors)
    edited(photos)
    assert train(settings_for(photos), run, resume=True)
    assert "nothing could be compared" in " ".join(capsys.readouterr().err.split())
    assert len(record_of(run).photos) == PHOTOS


def test_other_threads_and_torch_are_told_in_one_line(
    world: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    photos, run = world
    checkpoint = load_checkpoint(run / "last.safetensors")
    machine = {**checkpoint.header.machine, "threads": "7", "torch": "2.6.0"}
    assert machine["device"] == "cpu"
    save_checkpoint(run / "last.safetensors", replace(checkpoint.header, machine=machine), checkpoint.tensors)
    assert train(settings_for(photos), run, resume=True)
    told = [line for line in capsys.readouterr().err.splitlines() if "threads 7 before, 1 now" in line]
    assert len(told) == 1
    assert "torch 2.6.0 before" in told[0]


def test_other_weights_of_the_features_are_refused(tmp_path: Path) -> None:
    from focus.train.record import Inputs

    path = tmp_path / "arcface.safetensors"
    path.write_bytes(b"one")
    first = Inputs()
    first.file("arcface", path)
    checkpoint = load_checkpoint(_saved(tmp_path / "last.safetensors", first.digests))
    path.rename(tmp_path / "moved")
    Inputs(checkpoint).file("arcface", tmp_path / "moved")
    (tmp_path / "moved").write_bytes(b"two")
    with pytest.raises(FocusError, match=r"arcface.* is another file"):
        Inputs(checkpoint).file("arcface", tmp_path / "moved")
    accepting = Inputs(checkpoint, accept_changes=True)
    accepting.file("arcface", tmp_path / "moved")
    assert "another file" in accepting.notes[0]


def _saved(path: Path, data: dict[str, str]) -> Path:
    from focus.train import Header

    return save_checkpoint(path, Header({}, "a", "0", data=data), {"reconstruction.weight": torch.ones(1)})


def test_paths_are_no_settings() -> None:
    there = replace(SETTINGS, data=DataSettings(photos=Path("a"), landmarks=Path("b")), arcface=Path("c"))
    here = replace(there, data=DataSettings(photos=Path("/x/a"), landmarks=Path("/x/b")), arcface=Path("/x/c"))
    assert changed_settings(there, here) == []
    assert changed_settings(there, replace(here, arcface=None)) == ["arcface"]
    data = replace(there.data, photos=None, landmarks=None)
    assert changed_settings(there, replace(here, data=data)) == ["data.landmarks", "data.photos"]
    assert changed_settings(there, replace(here, image_size=48, batch_size=3)) == ["batch_size", "image_size"]


def _photos(contents: Sequence[int]) -> list[Photo]:
    return [Photo(f"{i}.png", f"{content:064x}", f"{i:064x}") for i, content in enumerate(contents)]


@given(st.lists(st.integers(0, 400), min_size=1, max_size=60), st.integers(0, 40), st.integers(0, 3), st.randoms())
def test_the_split_follows_from_the_photos(contents: list[int], validation: int, seed: int, rng: random.Random) -> None:
    photos = _photos(contents)
    sides = split(photos, validation, seed)
    assert sum(sides) <= min(validation, len(photos) // 5)
    if len(set(contents)) == len(contents):
        assert sum(sides) == min(validation, len(photos) // 5)
    by_content = dict(zip(contents, sides, strict=True))
    assert all(by_content[content] == side for content, side in zip(contents, sides, strict=True))  # copies together
    shuffled = rng.sample(contents, len(contents))
    assert split(_photos(shuffled), validation, seed) == [by_content[content] for content in shuffled]


@given(st.lists(st.integers(0, 60), min_size=5, max_size=30, unique=True), st.data())
def test_nothing_held_out_is_ever_trained_with(contents: list[int], data: st.DataObject) -> None:
    """Whatever mixture of deleted, swapped, edited, copied and reordered photos there is afterwards."""
    photos = _photos(contents)
    before = [replace(photo, held_out=side) for photo, side in zip(photos, split(photos, 6, 0), strict=True)]
    names = data.draw(
        st.lists(st.sampled_from([photo.name for photo in before] + ["new.png"]), unique=True, min_size=1)
    )
    after = [Photo(name, f"{data.draw(st.integers(0, 80)):064x}", "0") for name in names]
    sides = dict(zip(after, _sides_of_before(before, after), strict=True))
    known = {photo.content: photo.held_out for photo in before}
    held_out_names = {photo.name for photo in before if photo.held_out}
    for photo, side in sides.items():
        if photo.content in known:
            assert side == known[photo.content]
        elif photo.name in held_out_names:
            assert side  # the photo was edited
    assert len({(photo.content, side) for photo, side in sides.items()}) == len({photo.content for photo in after})


def test_seeds_hold_out_other_photos() -> None:
    photos = _photos(range(100))
    assert split(photos, 32, 0) != split(photos, 32, 1)
    assert split(photos, 32, 0) == split(photos, 32, 0)


def test_differences_in_words() -> None:
    photos = _photos(range(20))
    assert differences(photos, photos[:10], {"12.png"}) == (
        "1 photos deleted or unusable (12.png); "
        "9 landmark rows deleted (10.png, 11.png, 13.png, 14.png, 15.png and 4 more)"
    )
    assert differences(photos, [*photos, photos[3]], frozenset()) == "copies of photos came or went"
