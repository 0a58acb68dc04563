from __future__ import annotations

import time
from contextlib import suppress

import numpy as np
import pytest

from attnlab.data.voc_xml import parse, read_annotation
from attnlab.errors import AttnlabError
from tests.data.conftest import voc_xml


@pytest.fixture
def read(tmp_path):
    def read(text: str | bytes):
        path = tmp_path / "a.xml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_annotation(path)

    return read


AN_OBJECT = voc_xml((40, 60), [("dog", 5, 6, 20.5, 30, 0)])


def test_coordinates_count_from_1_and_maxima_are_inclusive(read):
    # The whole image is 1, 1, width, height in VOC's count.
    annotation = read(voc_xml((40, 60), [("dog", 1, 1, 60, 40, 0), ("cat", 45.7, 3.25, 50, 4, 1)]))
    assert annotation.size == (40, 60)
    whole, part = annotation.objects
    assert (whole.name, whole.box, whole.difficult) == ("dog", (0, 0, 60, 40), False)
    assert (part.name, part.difficult) == ("cat", True)
    assert part.box == pytest.approx((44.7, 2.25, 50, 4))


def test_parts_are_passed_over(read):
    corners = "<xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>"
    head = f"<part><name>head</name><bndbox>{corners}</bndbox></part>"
    for text in (
        AN_OBJECT.replace("</object>", f"{head}</object>"),
        AN_OBJECT.replace("<bndbox>", f"{head}<bndbox>", 1),
    ):
        (found,) = read(text).objects
        assert (found.name, found.box) == ("dog", (4, 5, 20.5, 30))


def test_what_else_real_files_have(read):
    text = AN_OBJECT.replace("<difficult>0</difficult>", "<pose>Left</pose><point><x>1</x></point>")
    text = text.replace("<name>dog", "<name> dog\n")
    (found,) = read(f'<?xml version="1.0" encoding="latin-1"?><!-- é -->{text}'.encode("latin-1")).objects
    assert (found.name, found.difficult) == ("dog", False)
    assert read(text.encode("utf-16")).size == (40, 60)


def laughs(levels: int) -> str:
    entities = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, levels))
    return f'<!DOCTYPE a [<!ENTITY l0 "lol">{entities}]><annotation>&l{levels - 1};</annotation>'


@pytest.mark.parametrize(
    "text",
    [
        laughs(30),
        f'<!DOCTYPE a [<!ENTITY big "{"x" * 100_000}">]><annotation>{"&big;" * 1000}</annotation>',
        '<!DOCTYPE a [<!ENTITY secret SYSTEM "file:///etc/passwd">]><annotation>&secret;</annotation>',
        '<!DOCTYPE a [<!ENTITY % dtd SYSTEM "http://127.0.0.1:1/x.dtd"> %dtd;]><annotation/>',
        '<!DOCTYPE a SYSTEM "http://127.0.0.1:1/x.dtd"><annotation/>',
        "<!DOCTYPE annotation><annotation/>",
    ],
    ids=["laughs", "quadratic", "external", "parameter", "dtd", "empty"],
)
def test_hostile_files_are_refused_at_once(read, text):
    start = time.perf_counter()
    with pytest.raises(AttnlabError, match=r"a\.xml': it declares a document type"):
        read(text)
    assert time.perf_counter() - start < 1


def test_deep_nesting_is_refused(read):
    with pytest.raises(AttnlabError, match="nested more than 32 deep"):
        read("<a>" * 100_000)


BAD = {
    "": "no element found",
    "not xml": "syntax error",
    AN_OBJECT[:-20]: "no element found|unclosed",
    AN_OBJECT + "<more/>": "junk",
    AN_OBJECT.replace("dog", "&dog;"): "undefined entity",
    AN_OBJECT.replace("<size>", "<sized>").replace("</size>", "</sized>"): "does not state the image's size",
    AN_OBJECT.replace("<width>60</width>", ""): "size has no width",
    AN_OBJECT.replace("<width>60", "<width>0"): "0 x 40 pixels",
    AN_OBJECT.replace("<height>40", "<height>40.5"): r"60 x 40\.5 pixels",
    AN_OBJECT.replace("<height>40", "<height>tall"): "height 'tall', which is not a number",
    AN_OBJECT.replace("<name>dog</name>", ""): "an object has no name",
    AN_OBJECT.replace("<name>dog", "<name> "): "an object has no name",
    AN_OBJECT.replace("bndbox", "box"): "the object 'dog' has no bndbox",
    AN_OBJECT.replace("<xmin>5</xmin>", ""): "bndbox has no xmin",
    AN_OBJECT.replace("<ymax>30", "<ymax>nan"): "ymax 'nan', which is not a number",
    AN_OBJECT.replace("<ymax>30", "<ymax>1e999"): "ymax '1e999', which is not a number",
    AN_OBJECT.replace("<ymax>30", "<ymax>"): "ymax '', which is not a number",
    '<?xml version="1.0" encoding="klingon"?><annotation/>': "klingon",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_files_are_named(read, text):
    with pytest.raises(AttnlabError, match=BAD[text]) as caught:
        read(text)
    assert "a.xml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AttnlabError, match=r"Cannot open the annotation .*b\.xml"):
        read_annotation(tmp_path / "b.xml")


def test_bytes_that_are_no_text_raise_nothing_else(tmp_path):
    rng = np.random.default_rng(0)
    whole = AN_OBJECT.encode()
    for k in range(300):
        data = bytearray(whole)
        for position in rng.integers(0, len(whole), 1 + k % 5):
            data[position] = rng.integers(0, 256)
        (tmp_path / "a.xml").write_bytes(bytes(data))
        # Whatever else it raises fails the test.
        with suppress(AttnlabError):
            read_annotation(tmp_path / "a.xml")


def test_text_and_tails_do_not_matter():
    root = parse(b"<a> x <b>1</b> y <b>2</b></a>")
    assert [entry.text for entry in root.findall("b")] == ["1", "2"]
