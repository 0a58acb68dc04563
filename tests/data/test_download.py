from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

from attnlab.data import VOCSegmentationDataModule, download
from attnlab.data.download import Archive, download_voc, fetch, unpack
from attnlab.errors import AttnlabError
from tests.data.conftest import CONTENT

MD5 = hashlib.md5(CONTENT).hexdigest()


def test_a_file_is_fetched_once(server, tmp_path):
    path = tmp_path / "file.tar"
    assert fetch(server.url, path, MD5).read_bytes() == CONTENT
    fetch(server.url, path, MD5)
    assert len(server.requests) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ranges", [True, False])
def test_it_goes_on_where_it_stopped(server, tmp_path, ranges):
    server.ranges = ranges
    (tmp_path / "file.tar.part").write_bytes(CONTENT[:300_000])
    assert fetch(server.url, tmp_path / "file.tar", MD5).read_bytes() == CONTENT
    assert server.requests == [("/file.tar", "bytes=300000-")]


def test_a_part_that_is_complete_is_not_fetched_again(server, tmp_path):
    (tmp_path / "file.tar.part").write_bytes(CONTENT)
    assert fetch(server.url, tmp_path / "file.tar", MD5).read_bytes() == CONTENT


def test_cut_connections_are_taken_up_again(server, tmp_path):
    server.cuts = [400_000, 300_000]
    assert fetch(server.url, tmp_path / "file.tar", MD5).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=400000-", "bytes=700000-"]


def test_a_transfer_that_gets_nowhere_keeps_what_it_has(server, tmp_path):
    server.cuts = [400_000, 0]
    with pytest.raises(AttnlabError, match=r"Could not download .*file\.tar.*--data\.mirror"):
        fetch(server.url, tmp_path / "file.tar", MD5)
    assert [path.name for path in tmp_path.iterdir()] == ["file.tar.part"]
    assert fetch(server.url, tmp_path / "file.tar", MD5).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(AttnlabError, match="checksum"):
        fetch(server.url, tmp_path / "file.tar", "0" * 32)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_put_there_by_hand_is_not_removed(server, tmp_path):
    (tmp_path / "file.tar").write_bytes(b"mine")
    with pytest.raises(AttnlabError, match="checksum"):
        fetch(server.url, tmp_path / "file.tar", MD5)
    assert (tmp_path / "file.tar").read_bytes() == b"mine"


def test_refusals_name_address_and_reason(server, tmp_path):
    with pytest.raises(AttnlabError, match=r"missing\.tar: Not Found"):
        fetch(server.url.replace("file", "missing"), tmp_path / "a", MD5)
    with pytest.raises(AttnlabError, match=r"Could not download http://127\.0\.0\.1:1/"):
        fetch("http://127.0.0.1:1/file.tar", tmp_path / "a", MD5)


def make_tar(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo("VOCdevkit/odd")
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "members",
    [
        {"../evil": b"x"},
        {"VOCdevkit/../../evil": b"x"},
        {"/tmp/evil": b"x"},
        {"odd": special(tarfile.SYMTYPE, "/etc/passwd")},
        {"odd": special(tarfile.LNKTYPE, "../evil")},
        {"odd": special(tarfile.CHRTYPE)},
        {"odd": special(tarfile.FIFOTYPE)},
    ],
)
def test_unsafe_archives_are_refused(tmp_path, members):
    (tmp_path / "a.tar").write_bytes(make_tar({"VOCdevkit/fine": b"x", **members}))
    with pytest.raises(AttnlabError, match="not unpacked"):
        unpack(tmp_path / "a.tar", tmp_path / "out" / "deep")
    assert not list(tmp_path.rglob("evil"))


@pytest.fixture
def release(server, monkeypatch):
    """A made VOC 2012 release, on the server."""
    folders = ("JPEGImages/a.jpg", "SegmentationClass/a.png", "ImageSets/Segmentation/train.txt")
    server.content = make_tar({f"VOCdevkit/VOC2012/{name}": b"a" for name in folders})
    archive = Archive("VOC.tar", "voc2012/", hashlib.md5(server.content).hexdigest())
    monkeypatch.setitem(download.ARCHIVES, "2012", [archive])
    return server.url.rsplit("/", 1)[0]


def test_a_release_is_fetched_from_a_mirror_and_unpacked(release, server, tmp_path):
    # The release that is served is made, and not by VOC's rules for names.
    names = ["ground", "leaf"]
    data = VOCSegmentationDataModule(str(tmp_path), download=True, mirror=release, class_names=names)
    data.prepare_data()
    data.prepare_data()
    assert len(server.requests) == 1
    assert [item.name for item in data.items("train")] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["VOCdevkit"]


def test_interrupted_unpacking_never_looks_complete(release, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "unpack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        download_voc(tmp_path, "2012", release)
    assert [path.name for path in tmp_path.iterdir()] == ["VOC.tar"]
    monkeypatch.undo()


def test_a_folder_that_is_there_is_not_touched(release, tmp_path):
    (tmp_path / "VOCdevkit/VOC2012").mkdir(parents=True)
    with pytest.raises(AttnlabError, match="is incomplete"):
        download_voc(tmp_path, "2012", release)
