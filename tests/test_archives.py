"""Archives are read, and believed in nothing."""

from __future__ import annotations

import bz2
import io
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from crossfer.datasets.archives import is_archive, stem, unpack, unpack_all
from crossfer.errors import CrossferError
from tests.test_hostile import in_little_memory

FILES = {"set/happy/a b.png": b"first", "set/表情/ü.png": b"second" * 1000, "set/empty.txt": b""}


def zipped(file: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file


def tarred(file: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(file, f"w:{file.suffix[1:]}" if file.suffix != ".tar" else "w") as archive:  # pyrefly: ignore[no-matching-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def archive_of(file: Path, files: dict[str, bytes]) -> Path:
    return (zipped if file.suffix == ".zip" else tarred)(file, files)


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.xz", "x.tar.bz2"])
def test_every_file_comes_out_as_it_went_in(name: str, tmp_path: Path) -> None:
    file = archive_of(tmp_path / name, FILES)
    folder = tmp_path / "out"
    folder.mkdir()
    assert is_archive(file)
    assert stem(file) == "x"
    assert unpack(file, folder) == []
    found = {f.relative_to(folder).as_posix(): f for f in folder.rglob("*") if f.is_file()}
    assert {name: f.read_bytes() for name, f in found.items()} == FILES


@pytest.mark.parametrize("name", ["x.zip", "x.tar"])
@pytest.mark.parametrize("hostile", ["../out.txt", "/etc/out.txt", "a/../../out.txt", "C:/out.txt"])
def test_nothing_is_written_outside(hostile: str, name: str, tmp_path: Path) -> None:
    file = archive_of(tmp_path / name, {hostile: b"gotcha"})
    folder = tmp_path / "deep" / "out"
    folder.mkdir(parents=True)
    with pytest.raises(CrossferError, match="outside the archive"):
        unpack(file, folder)
    assert [f for f in tmp_path.rglob("*") if f.is_file()] == [file]


def test_links_and_devices_are_counted_and_not_made(tmp_path: Path) -> None:
    file = tmp_path / "x.tar"
    with tarfile.open(file, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"odd{kind.decode()}")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    linked = tmp_path / "x.zip"
    with zipfile.ZipFile(linked, "w") as archive_of_zip:
        info_of_zip = zipfile.ZipInfo("link")
        info_of_zip.external_attr = 0o120777 << 16
        archive_of_zip.writestr(info_of_zip, "/etc/passwd")
    for source, count in ((file, 4), (linked, 1)):
        folder = tmp_path / source.suffix[1:]
        folder.mkdir()
        assert [item.reason for item in unpack(source, folder)] == [
            "a link or a device in the archive"
        ] * count
        assert list(folder.iterdir()) == []


def test_a_bomb_is_stopped_before_it_fills_the_disk(tmp_path: Path) -> None:
    file = zipped(tmp_path / "bomb.zip", {"zeros": bytes(200 * 2**20)})
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(CrossferError, match=r"bomb\.zip: unpacks to more than 200 times"):
        unpack(file, folder)
    assert sum(f.stat().st_size for f in folder.rglob("*")) < 110 * 2**20


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.xz"])
def test_a_damaged_archive_says_so(name: str, tmp_path: Path) -> None:
    noise = random.Random(0).randbytes(50_000)
    whole = archive_of(tmp_path / name, {"a": noise}).read_bytes()
    for number, content in enumerate((b"", b"no archive", whole[: len(whole) // 2])):
        folder = tmp_path / str(number)
        folder.mkdir()
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CrossferError, match="not a readable archive"):
            unpack(tmp_path / name, folder)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("size", [2 * 2**20, 2**30])
def test_a_header_without_end_is_refused_in_little_memory(
    kind: bytes, size: int, tmp_path: Path
) -> None:
    info = tarfile.TarInfo("x")
    info.size, info.type = size, kind
    head = info.create_ustar_header(info.get_info(), "utf-8", "strict")
    (tmp_path / "x.tar.bz2").write_bytes(bz2.compress(head + bytes(8 * 2**20)))
    (tmp_path / "out").mkdir()
    with in_little_memory(), pytest.raises(CrossferError, match="a header of more than 1 MB"):
        unpack(tmp_path / "x.tar.bz2", tmp_path / "out")


@pytest.mark.parametrize("links", [True, False])
def test_archives_beside_a_folder_are_read_with_links_or_without(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, folder = tmp_path / "raw", tmp_path / "out"
    (raw / "beside").mkdir(parents=True)
    folder.mkdir()
    (raw / "beside" / "x.png").write_bytes(b"beside")
    (raw / "y.png").write_bytes(b"lone")
    zipped(raw / "packed.zip", {"z.png": b"packed"})
    if not links:  # as on Windows without the privilege

        def refused(*_: object, **__: object) -> None:
            raise OSError("a required privilege is not held by the client")

        monkeypatch.setattr(Path, "symlink_to", refused)
    assert unpack_all(raw, folder) == []
    found = {
        p.name: p.read_bytes()
        for f in folder.iterdir()
        for p in (f, *f.glob("*.png"))
        if p.is_file()
    }
    assert found == {"x.png": b"beside", "y.png": b"lone", "z.png": b"packed"}
