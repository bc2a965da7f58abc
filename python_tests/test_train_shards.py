"""Shards in training: in which order faces come, from near and far, and by the command line."""

from __future__ import annotations

import functools
import http.server
import json
import pickle
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from focus.data import FaceBatch
from focus.data.fetching import Fetched
from focus.data.shards import MANIFEST, ShardFolder, write_shards
from focus.errors import FocusError

sys.path.insert(0, str(Path(__file__).resolve().parent))
from shard_jobs import COUNT, SIZE, make_photos, run_command

from focus.train.streamed import ShardSource


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


TINY = ["--preset", "small", "--scale", "0.0005", "--batch-size", "4", "--image-size", SIZE, "--teacher", "none"]
TINY += ["--face.detail", "small", "--log.every", "1"]


def test_prepared_and_trained(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, run = tmp_path / "s", tmp_path / "run"
    prepare = ["prepare", photos, "--landmarks", photos / "landmarks.csv", "--out", out, "--image-size", SIZE]
    code, text = run_command([*prepare, "--shards", "5", "--json"], capsys)
    assert code == 0, text
    answer = json.loads(text.splitlines()[0])
    assert answer["faces"] == COUNT
    assert [Path(path).name for path in answer["written"]][:2] == [MANIFEST, "000000.tar"]
    code, text = run_command(["train", "--out", run, *TINY, "--data.shards", out], capsys)
    assert code == 0, text
    assert "3 shards: 9 faces to train with and 2 for validation" in text
    code, text = run_command(["train", "--out", run, *TINY, "--data.shards", out, "--resume"], capsys)
    assert code == 0, text
    other = tmp_path / "other"
    run_command([*prepare[:-3], other, *prepare[-2:], "--shards", "3"], capsys)
    code, text = run_command(["train", "--out", run, *TINY, "--data.shards", other, "--resume"], capsys)
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
        code, text = run_command([*base, *options], capsys)
        assert code == 2, text
        assert message in " ".join(text.split()), text
    code, text = run_command(
        ["prepare", photos, "--out", tmp_path / "x", "--landmarks", photos / "landmarks.csv", "--lossless"], capsys
    )
    assert code == 2
    assert "--lossless is of shards" in text
