"""Shards: the faces of a folder in tar files, read by others and by us, near and far, whole or not at all."""

from __future__ import annotations

import functools
import http.server
import io
import json
import pickle
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import focus.data.shards
from focus.cli import main
from focus.data import FaceBatch, PhotoFolder, write_image
from focus.data.fetching import Fetched
from focus.data.photos import margin_size
from focus.data.shards import MANIFEST, ShardFolder, write_shards
from focus.errors import FocusError
from focus.lock import only_one
from focus.sealed import open_json, seal_json
from focus.train.streamed import ShardSource

SIZE = 32
COUNT = 11


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven photos with five or 68 points, and a row without a photo."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(1)
    rows = ["missing.png," + ",".join(["1"] * 10)]
    for number in range(COUNT):
        name = f"p{number}.png"
        coarse = rng.integers(0, 256, (12, 13, 3), dtype=np.uint8)
        write_image(folder / name, np.kron(coarse, np.ones((20, 20, 1), dtype=np.uint8)))
        points = rng.uniform((90, 80), (170, 160), (68, 2))
        points[[36, 39, 42, 45]] = [[98, 90], [112, 90], [148, 90], [162, 90]]
        points[[30, 48, 54]] = [[130, 118], [108, 142], [152, 142]]
        if number % 3 == 0:
            points = np.stack([points[[36, 39]].mean(0), points[[42, 45]].mean(0), *points[[30, 48, 54]]])
        rows.append(",".join([name, *(f"{value:.3f}" for value in points.reshape(-1))]))
    (folder / "landmarks.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "s"
    write_shards(photos, photos / "landmarks.csv", out, SIZE, faces=4, lossless=True)
    return out


def test_faces_are_those_of_the_folder(photos: Path, shards: Path) -> None:
    made, skipped = write_shards(photos, photos / "landmarks.csv", shards, SIZE, faces=4, lossless=True)
    assert [shard.faces for shard in made] == [4, 4, 3]
    assert [skip.name for skip in skipped] == ["missing.png"]
    folder, whole = ShardFolder(str(shards)), PhotoFolder(photos, photos / "landmarks.csv", SIZE)
    assert folder.count == len(whole) == COUNT
    assert folder.image_size == SIZE
    index = {item.name: number for number, item in enumerate(whole.items)}
    for shard, entry in enumerate(folder.shards):
        for number in range(entry.faces):
            face = folder.face(shard, number)
            item = whole.items[index.pop(face.name)]
            assert face.digest == item.digest
            assert np.array_equal(face.crop, whole._crop(whole.items.index(item)))
            assert np.allclose(face.landmarks, item.alignment.to_crop(item.landmarks), atol=1e-9)
            assert np.array_equal(face.landmark_weights, item.landmark_weights)
    assert index == {}


READ_BY_WEBDATASET = """
import json, pathlib, sys
import webdataset
files = sorted(map(str, pathlib.Path(sys.argv[1]).glob("*.tar")))
samples = list(webdataset.WebDataset(files, shardshuffle=False).decode("rgb8"))
print(json.dumps([[sample["png"].tolist(), sample["json"]] for sample in samples]))
"""
"""In a process of its own: it leaves files open."""


def test_webdataset_reads_them(shards: Path) -> None:
    pytest.importorskip("webdataset")
    command = [sys.executable, "-W", "ignore", "-c", READ_BY_WEBDATASET, str(shards)]
    samples = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert len(samples) == COUNT
    face, (picture, values) = ShardFolder(str(shards)).face(0, 0), samples[0]
    assert np.array_equal(picture, face.crop)
    points = np.array(values["landmarks"]) - (margin_size(SIZE) - SIZE) / 2
    known = face.landmarks if len(points) == 68 else face.landmarks[[36, 42, 30, 48, 54]]
    assert np.allclose(points, known)
    assert values["name"] == face.name


def test_jpeg_is_smaller_and_nearly_the_same(photos: Path, shards: Path, tmp_path: Path) -> None:
    write_shards(photos, photos / "landmarks.csv", tmp_path / "s", SIZE, faces=4)
    small, exact = ShardFolder(str(tmp_path / "s")), ShardFolder(str(shards))
    for number in range(4):
        pair = [folder.face(0, number).crop.astype(float) for folder in (small, exact)]
        assert 0 < np.abs(pair[0] - pair[1]).mean() < 4


def test_two_processes_make_the_same(photos: Path, shards: Path, tmp_path: Path) -> None:
    write_shards(photos, photos / "landmarks.csv", tmp_path / "s", SIZE, faces=4, lossless=True, workers=2)
    for path in shards.glob("*.tar"):
        assert (tmp_path / "s" / path.name).read_bytes() == path.read_bytes()
    assert ShardFolder(str(tmp_path / "s")).count == COUNT


def test_a_stopped_run_goes_on(photos: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, decoded = focus.data.shards.read_image, []

    def counted(path: Path) -> np.ndarray:
        decoded.append(path)
        if len(decoded) == 7:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(focus.data.shards, "read_image", counted)
    out = tmp_path / "s"

    def make() -> None:
        write_shards(photos, photos / "landmarks.csv", out, SIZE, faces=4, lossless=True)

    with pytest.raises(KeyboardInterrupt):
        make()
    assert sorted(path.name for path in out.iterdir()) == [".lock", "000000.tar", MANIFEST]
    with pytest.raises(FocusError, match="got 1 of 3"):
        ShardFolder(str(out))
    with open(out / MANIFEST, "ab") as file:
        file.write(b'{"shard": 1, "na')  # of a kill
    make()
    assert len(decoded) == 7 + COUNT - 4
    for name in ("000000.tar", "000001.tar", "000002.tar", MANIFEST):
        assert (out / name).read_bytes() == (shards / name).read_bytes()


def test_shards_of_others_are_not_mixed(photos: Path, shards: Path) -> None:
    for size, faces, lossless in ((SIZE + 2, 4, True), (SIZE, 5, True), (SIZE, 4, False)):
        with pytest.raises(FocusError, match="other photos, landmarks or settings"):
            write_shards(photos, photos / "landmarks.csv", shards, size, faces=faces, lossless=lossless)
    with pytest.raises(FocusError, match="at least 8 pixels and 1 face"):
        write_shards(photos, photos / "landmarks.csv", shards, SIZE, faces=0)


def test_a_full_disk_keeps_what_is_whole(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, count = focus.data.shards.os.replace, []

    def full(source: Path, target: Path) -> None:
        if Path(target).suffix == ".tar":
            count.append(target)
        if len(count) == 2:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(focus.data.shards.os, "replace", full)
    with pytest.raises(FocusError, match=r"No space left.*What is whole is kept; make room"):
        write_shards(photos, photos / "landmarks.csv", tmp_path / "s", SIZE, faces=4)
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == [".lock", "000000.tar", MANIFEST]


def test_photos_that_have_changed_are_read_again(photos: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "s"
    shutil.copytree(photos, folder)
    good = (folder / "p3.png").read_bytes()
    (folder / "p3.png").write_bytes(good[:300])

    def make() -> tuple[int, list[str]]:
        made, skipped = write_shards(folder, folder / "landmarks.csv", out, SIZE, faces=4)
        return sum(shard.faces for shard in made), sorted(skip.name for skip in skipped)

    assert make() == (COUNT - 1, ["missing.png", "p3.png"])
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert make() == (COUNT - 1, ["missing.png", "p3.png"])
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.tar")} == kept
    (folder / "p3.png").write_bytes(good)
    assert make() == (COUNT, ["missing.png"])
    anew = [path for path in out.glob("*.tar") if path.stat().st_mtime_ns != kept[path]]
    assert len(anew) == 1


def test_files_of_others_are_not_replaced(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "000007.tar").write_text("mine")
    with pytest.raises(FocusError, match=r"000007\.tar is no shard of this folder, and would be replaced"):
        write_shards(photos, photos / "landmarks.csv", tmp_path, SIZE)
    (tmp_path / "000007.tar").unlink()
    (tmp_path / "overview.png").write_text("mine")
    command = ["prepare", photos, "--landmarks", photos / "landmarks.csv", "--out", tmp_path, "--shards", "4"]
    code, text = _run(command, capsys)
    assert code == 2
    assert "overview.png would be replaced" in " ".join(text.split())
    with only_one(tmp_path / "s", "making shards"), pytest.raises(FocusError, match="is at work here"):
        write_shards(photos, photos / "landmarks.csv", tmp_path / "s", SIZE)


def _read_all(folder: Path) -> list[bytes]:
    made = ShardFolder(str(folder))
    faces = [made.face(shard, n) for shard, entry in enumerate(made.shards) for n in range(entry.faces)]
    return [
        face.crop.tobytes() + face.landmarks.tobytes() + face.name.encode() + bytes.fromhex(face.digest)
        for face in faces
    ]


@pytest.fixture
def copied(shards: Path, tmp_path: Path) -> Path:
    out = tmp_path / "copy"
    out.mkdir()
    for path in shards.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    return out


def test_no_flipped_bit_goes_unnoticed(copied: Path) -> None:
    """In what is read: the rest of a tar file is padding, and fields that nobody asks for."""
    before, rng = _read_all(copied), np.random.default_rng(0)
    path = copied / "000001.tar"
    data = path.read_bytes()
    noticed = 0
    for place in [*range(0, 512, 7), *rng.integers(0, len(data), 150)]:
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            found = _read_all(copied)
        except FocusError as error:
            found, text = before, str(error)
            noticed += "000001.tar" in text
        assert found == before
    assert noticed > 100
    path.write_bytes(data)
    text = (copied / MANIFEST).read_bytes()
    for place in range(0, len(text) - 1, 5):
        flipped = bytearray(text)
        flipped[place] ^= 1
        (copied / MANIFEST).write_bytes(flipped)
        with pytest.raises(FocusError):
            ShardFolder(str(copied))


def _tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("kind", ["link", "folder", "alone", "other", "huge", "negative", "cut", "missing", "pipe"])
def test_hostile_tar_files_are_refused(copied: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copied / "000000.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar.getmembers()]  # type: ignore[union-attr]
    if kind == "link":
        members[0][0].type, members[0][0].linkname = tarfile.SYMTYPE, "/etc/passwd"
        members[0] = (members[0][0], b"")
    elif kind == "folder":
        members[0][0].type = tarfile.DIRTYPE
        members[0] = (members[0][0], b"")
    elif kind == "alone":
        del members[1]
    elif kind == "other":
        members[0][0].name = "../../000000.exe"
    if kind in ("link", "folder", "alone", "other"):
        _tar(path, members)
    if kind == "huge":
        header = bytearray(whole[:512])
        header[124:136] = b"77777777777\0"
        total = sum(header[:148]) + sum(header[156:]) + 8 * 32
        header[148:156] = f"{total:06o}\0 ".encode()
        path.write_bytes(bytes(header) + whole[512:])
    elif kind == "negative":
        header = bytearray(whole[:512])
        header[124:136] = (-512).to_bytes(12, "big", signed=True)
        total = sum(header[:148]) + sum(header[156:]) + 8 * 32
        header[148:156] = f"{total:06o}\0 ".encode()
        path.write_bytes(bytes(header) + whole[512:])
    elif kind == "cut":
        path.write_bytes(whole[:3000])
    elif kind in ("missing", "pipe"):
        path.unlink()
    if kind == "pipe":
        focus.data.shards.os.mkfifo(path)
    if path.is_file():
        _resealed(copied, 1, bytes=path.stat().st_size if kind != "cut" else len(whole))
    with pytest.raises(FocusError, match=r"000000\.tar"):
        ShardFolder(str(copied)).face(0, 0)


def _resealed(folder: Path, line: int, **values: Any) -> None:
    """Changes fields of a line of the list of shards, and seals it again."""
    lines = (folder / MANIFEST).read_text().splitlines()
    lines[line] = seal_json({**open_json(lines[line]), **values})
    (folder / MANIFEST).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        *((0, "image_size", value) for value in ("32", 32.0, True, None, 10**30, 4)),
        *((0, "shards", value) for value in ("3", 0, -1, 10**24)),
        *((0, "format", value) for value in (2, "1")),
        *((1, "faces", value) for value in (-1, 3.9, 10**15, "4")),
        *((1, "bytes", value) for value in (-1, 10**15, "9")),
        *((1, "shard", value) for value in (-1, 3, "0", 0.0)),
        *((1, "skipped", value) for value in (3, [[1, 2]], [["a"]], "ab")),
        (1, "sha256", 5),
    ],
)
def test_odd_fields_that_are_well_sealed_are_refused(copied: Path, line: int, field: str, value: Any) -> None:
    _resealed(copied, line, **{field: value})
    with pytest.raises(FocusError, match=r"shards\.jsonl"):
        ShardFolder(str(copied))


FAR = [[1e300, 0]] * 5
HUGE = [[10**400, 0]] * 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("landmarks", value) for value in ([], "x", [[1, 2]] * 4, [["1", "2"]] * 5, FAR, HUGE)),
        *(("photo_sha256", value) for value in ("-11", 5, "g" * 64, "")),
        ("name", 5),
        ("sha256", None),
    ],
)
def test_odd_faces_that_are_well_sealed_are_refused(copied: Path, field: str, value: Any) -> None:
    path = copied / "000000.tar"
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar.getmembers()]  # type: ignore[union-attr]
    member, text = members[1]
    members[1] = (member, seal_json({**open_json(text), field: value}).encode())
    _tar(path, members)
    _resealed(copied, 1, bytes=path.stat().st_size)
    with pytest.raises(FocusError, match=r"000000\.tar, face 0: damaged .* run focus prepare --shards again"):
        ShardFolder(str(copied)).face(0, 0)


def test_no_shards_are_an_error(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(FocusError, match=r"shards\.jsonl: no such file; expected a folder that focus prepare"):
        ShardFolder(str(tmp_path))
    (tmp_path / "l.csv").write_text("missing.png," + ",".join(["1"] * 10))
    with pytest.raises(FocusError, match="none of the 1 rows"):
        write_shards(photos, tmp_path / "l.csv", tmp_path / "s", SIZE)
    (tmp_path / "l.csv").write_text("p0.png," + ",".join(["1"] * 10))
    with pytest.raises(FocusError, match=r"gives a usable photo; the first: p0\.png"):
        write_shards(photos, tmp_path / "l.csv", tmp_path / "s", SIZE)


# The order of training


def _source(shards: Path, batch_size: int, **options: object) -> ShardSource:
    return ShardSource([ShardFolder(str(shards))], batch_size, seed=3, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 11])
def test_an_epoch_has_each_face_once(shards: Path, batch_size: int) -> None:
    source = _source(shards, batch_size, augment=False)
    steps = COUNT // batch_size
    orders = []
    for epoch in range(4):
        names = [name for step in range(steps) for name in source.batch(epoch * steps + step).names]
        assert len(set(names)) == steps * batch_size
        orders.append(tuple(names))
    assert len(set(orders)) == 4
    assert set().union(*orders) == {f"p{number}.png" for number in range(COUNT)}


def test_batches_follow_from_their_number(shards: Path) -> None:
    source = _source(shards, 4)
    several = [source.batch(step) for step in range(6)]
    again = pickle.loads(pickle.dumps(source))
    for step in (5, 0, 3, (1 << 40) + 1):  # stages number theirs from there
        batch = again.batch(step)
        expected = several[step] if step < 6 else _source(shards, 4).batch(step)
        assert batch.names == expected.names
        assert torch.equal(batch.image, expected.image)
        parts = [_source(shards, 4, part=(number, 2)).batch(step) for number in range(2)]
        assert torch.equal(FaceBatch.cat(parts).image, batch.image)
    assert several[0].image.shape == (4, 3, SIZE, SIZE)
    later = _source(shards, 4, later=True).batch(0).changed()
    assert float((later.image - several[0].image).abs().max()) < 2.01 / 255


def test_a_process_reads_few_shards_at_a_time(photos: Path, tmp_path: Path) -> None:
    write_shards(photos, photos / "landmarks.csv", tmp_path / "s", SIZE, faces=1)
    folder = ShardFolder(str(tmp_path / "s"), open_files=3)
    expected: list[int] = []
    folder.expect = expected.append  # type: ignore[method-assign]
    source = ShardSource([folder], 2, seed=0)
    for step in range(5):
        source.batch(step)
        assert len(folder._open) <= 3
    assert len(expected) == len(set(expected)), "each is asked for once"


def test_faces_that_are_held_out_are_not_learnt_from(shards: Path) -> None:
    source = _source(shards, 3, validation=2)
    held_out = source.validation()
    assert held_out is not None
    assert len(held_out) == source.held_out == 2
    assert source.count == COUNT - 2
    names = {name for step in range(6) for name in source.batch(step).names}
    assert len(names) == COUNT - 2
    assert not names & set(held_out.names)
    assert _source(shards, 3, validation=100).held_out == 2  # a fifth
    assert _source(shards, 3).validation() is None


def test_faces_are_held_out_of_several_shards(photos: Path, tmp_path: Path) -> None:
    """Of which the first has none; and all faces of one photo are on one side."""
    folder, out = tmp_path / "photos", tmp_path / "s"
    shutil.copytree(photos, folder)
    rows = (folder / "landmarks.csv").read_text().splitlines()[1:]
    name, *numbers = rows[0].split(",")
    twice = ",".join([name, *(f"{float(number) + 3:.3f}" for number in numbers)])
    (folder / "landmarks.csv").write_text("\n".join([*rows, twice]))
    write_shards(folder, folder / "landmarks.csv", out, SIZE, faces=1)
    order = [ShardFolder(str(out)).face(number, 0).name for number in range(COUNT + 1)]
    (folder / order[0].split(",")[0]).write_bytes(b"damaged")
    write_shards(folder, folder / "landmarks.csv", out, SIZE, faces=1)
    for wanted in range(1, 3):
        source = _source(out, 1, validation=wanted)
        held_out = source.validation()
        assert held_out is not None
        assert len(held_out) >= wanted
        learnt = {source.batch(step).names[0] for step in range(source.count)}
        assert len(learnt) == source.count
        assert not {n.split(",")[0] for n in learnt} & {n.split(",")[0] for n in held_out.names}


def test_several_folders_are_one(shards: Path) -> None:
    folders = [ShardFolder(str(shards)), ShardFolder(str(shards))]
    source = ShardSource(folders, 2, seed=0)
    assert source.count == 2 * COUNT
    names = [name for step in range(COUNT) for name in source.batch(step).names]
    assert sorted(names) == sorted([*{*names}, *{*names}])


def test_what_cannot_be_a_batch_is_refused(shards: Path) -> None:
    with pytest.raises(FocusError, match="batch_size: expected at most the 11 faces"):
        _source(shards, 12)
    with pytest.raises(FocusError, match="multiple of the 2 processes"):
        _source(shards, 3, part=(0, 2))


# Far away


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def address(shards: Path) -> Iterator[str]:
    pytest.importorskip("aiohttp")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(shards)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_shards_are_fetched_once_and_make_room(shards: Path, address: str, tmp_path: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in shards.glob("*.tar")}
    room = sum(sizes.values()) - 1
    folder = ShardFolder(address, cache=tmp_path, cache_bytes=room)
    near = ShardFolder(str(shards))
    for shard in (0, 1, 2, 0):
        assert np.array_equal(folder.face(shard, 1).crop, near.face(shard, 1).crop)
        there = list(tmp_path.glob("*/*.tar"))
        assert sum(path.stat().st_size for path in there) <= room
    assert len(there) == 2
    assert not list(tmp_path.glob("*/.*.part"))
    source = ShardSource([ShardFolder(address, cache=tmp_path, cache_bytes=room)], 2, seed=3)
    assert torch.equal(source.batch(4).image, _source(shards, 2).batch(4).image)


def test_what_is_kept_is_not_fetched_again(shards: Path, address: str, tmp_path: Path) -> None:
    first = Fetched(address, tmp_path, 1 << 30)
    name, size = "000000.tar", (shards / "000000.tar").stat().st_size

    def content(fetched: Fetched) -> bytes:
        with open(fetched.open(name, size), "rb") as file:
            return file.read()

    assert content(first) == (shards / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(bytes(size))  # seen if it were fetched again
    assert content(Fetched(address, tmp_path, 1 << 30)) == bytes(size)
    path.write_bytes(b"short")
    assert content(first) == (shards / name).read_bytes()
    first.expect("000001.tar", (shards / "000001.tar").stat().st_size)
    for thread in threading.enumerate():
        if thread.name == "focus fetching":
            thread.join(20)
    assert (tmp_path / "000001.tar").read_bytes() == (shards / "000001.tar").read_bytes()


def test_who_makes_room_takes_nothing_from_others(shards: Path, address: str, tmp_path: Path) -> None:
    """With room for one file, which threads take from each other."""
    sizes = {path.name: path.stat().st_size for path in shards.glob("*.tar")}
    failed: list[BaseException] = []

    def fetch(name: str) -> None:
        fetched = Fetched(address, tmp_path, max(sizes.values()))
        try:
            for _ in range(10):
                with open(fetched.open(name, sizes[name]), "rb") as file:
                    assert file.read() == (shards / name).read_bytes()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=fetch, args=[name]) for name in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with pytest.raises(FocusError, match=r"kept at most \(data.crops_gigabytes\)"):
        Fetched(address, tmp_path, 100).open("000000.tar", sizes["000000.tar"])


def test_other_shards_at_the_address_are_not_those_that_are_kept(photos: Path, copied: Path, tmp_path: Path) -> None:
    address, cache = f"file://{copied}", tmp_path / "cache"
    one = ShardFolder(address, cache=cache).face(0, 0).crop
    for path in (*copied.glob("*.tar"), copied / MANIFEST):
        path.unlink()
    write_shards(photos, photos / "landmarks.csv", copied, SIZE, faces=4)  # JPEG now
    assert not np.array_equal(ShardFolder(address, cache=cache).face(0, 0).crop, one)


def test_what_cannot_be_fetched_is_told(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("focus.data.fetching.time.sleep", lambda seconds: None)
    fetched = Fetched(address, tmp_path, 1 << 30)
    with pytest.raises(FocusError, match=r"nothing\.tar: cannot be fetched \(FileNotFoundError"):
        fetched.open("nothing.tar", 10)
    with pytest.raises(FocusError, match=r"000000\.tar: expected 10 bytes, got more"):
        fetched.open("000000.tar", 10)
    with pytest.raises(FocusError, match=r"expected 100000000 bytes, got \d+"):
        fetched.open("000000.tar", 100_000_000)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]
    with pytest.raises(FocusError, match="at most 5 bytes"):
        fetched.read(MANIFEST, 5)
    with pytest.raises(FocusError, match="expected a folder of this machine"):
        Fetched(address, None, 1).open("000000.tar", 10)
    with pytest.raises(FocusError, match=r"Protocol not known|cannot be fetched"):
        ShardFolder("nowhere://there", cache=tmp_path)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(*_: object) -> None:
        raise ImportError("HTTPFileSystem requires aiohttp")

    monkeypatch.setattr(fsspec, "open", missing)
    with pytest.raises(FocusError, match=r"requires aiohttp.*pip install 'focus-face\[shards\]'"):
        ShardFolder("https://example.org/faces", cache=tmp_path)


# By the command line


def _run(arguments: list[object], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


TINY = ["--preset", "small", "--scale", "0.0005", "--batch-size", "4", "--image-size", SIZE, "--teacher", "none"]
TINY += ["--face.detail", "small", "--log.every", "1"]


def test_prepared_and_trained(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, run = tmp_path / "s", tmp_path / "run"
    prepare = ["prepare", photos, "--landmarks", photos / "landmarks.csv", "--out", out, "--image-size", SIZE]
    code, text = _run([*prepare, "--shards", "5", "--json"], capsys)
    assert code == 0, text
    answer = json.loads(text.splitlines()[0])
    assert answer["faces"] == COUNT
    assert [Path(path).name for path in answer["written"]][:2] == [MANIFEST, "000000.tar"]
    code, text = _run(["train", "--out", run, *TINY, "--data.shards", out], capsys)
    assert code == 0, text
    assert "3 shards: 9 faces to train with and 2 for validation" in text
    code, text = _run(["train", "--out", run, *TINY, "--data.shards", out, "--resume"], capsys)
    assert code == 0, text
    other = tmp_path / "other"
    _run([*prepare[:-3], other, *prepare[-2:], "--shards", "3"], capsys)
    code, text = _run(["train", "--out", run, *TINY, "--data.shards", other, "--resume"], capsys)
    assert code == 2
    assert "other shards (setting data.shards)" in text


def test_settings_that_do_not_fit_are_named(
    photos: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["train", "--out", tmp_path / "run", "--data.shards", shards, "--scale", "0.001"]
    expected = {
        "has faces of 32 pixels, and the run has 64": ["--teacher", "none"],
        "fits photos of a folder, not those of shards": ["--teacher", "fit"],
        "known of synthetic faces, not of photos": ["--teacher", "truth"],
        "stands in place of data.photos": ["--photos", photos, "--landmarks", photos / "landmarks.csv"],
    }
    for message, options in expected.items():
        code, text = _run([*base, *options], capsys)
        assert code == 2, text
        assert message in " ".join(text.split()), text
    code, text = _run(
        ["prepare", photos, "--out", tmp_path / "x", "--landmarks", photos / "landmarks.csv", "--lossless"], capsys
    )
    assert code == 2
    assert "--lossless is of shards" in text
