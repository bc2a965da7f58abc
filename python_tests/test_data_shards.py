"""Shards: the faces of a folder in tar files, read by others and by us, near and far, whole or not at all."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import focus.data.photos
import focus.data.shards
from focus.data import PhotoFolder
from focus.data.photos import margin_size
from focus.data.shards import MANIFEST, ShardFolder, write_shards
from focus.errors import FocusError
from focus.lock import only_one
from focus.sealed import open_json, seal_json

sys.path.insert(0, str(Path(__file__).resolve().parent))
from shard_jobs import COUNT, SIZE, make_photos, run_command


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "s"
    write_shards(photos, photos / "landmarks.csv", out, SIZE, faces=4, lossless=True)
    return out


@pytest.fixture
def copied(shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shards, tmp_path / "copy"))


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
    read, decoded = focus.data.photos.read_image, []

    def counted(path: Path) -> np.ndarray:
        decoded.append(path)
        if len(decoded) == 7:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(focus.data.photos, "read_image", counted)
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
    code, text = run_command(command, capsys)
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
