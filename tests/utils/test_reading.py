import io
import os
from pathlib import Path

import numpy as np
import pytest

from utils.errors import InputError
from utils.reading import open_array, read_bytes, read_lines, read_table, read_text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


def test_a_byte_order_mark_is_no_part_of_the_text(file: Path):
    file.write_bytes(b"\xef\xbb\xbfabc\r\n\r\n  d \n")
    assert list(read_lines(file)) == [(f"{file}, line 1", "abc"), (f"{file}, line 3", "d")]


def test_an_unusual_separator_of_lines_does_not_shift_their_numbers(file: Path):
    file.write_text("a\u2028b\nc")
    assert [where for where, _ in read_lines(file)] == [f"{file}, line 1", f"{file}, line 2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfeab", r"not UTF-8 text \(byte 0\)"), (b"ab\0c", "binary data"), (b"\x89PNG\r\n", "byte 0")],
)
def test_what_is_no_text_is_refused(content: bytes, message: str, file: Path):
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_text(file)


@pytest.mark.parametrize("read", [read_text, open_array])
def test_what_is_no_file_is_refused_and_not_waited_for(read, tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    for name, message in (("gone", "no such file"), ("fifo", "is not a file"), ("", "is not a file")):
        with pytest.raises(InputError, match=message):
            read(tmp_path / name)
    with pytest.raises(InputError, match=r"nnn: "):
        read(tmp_path / ("n" * 300))


def test_a_file_without_permission_is_named(file: Path, monkeypatch: pytest.MonkeyPatch):
    file.write_text("secret")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError, match=r"file: cannot be read \(Permission denied\)"):
        read_text(file)


def test_the_rows_of_a_table_say_where_they_stand(file: Path):
    file.write_text('name,value\na,1\n"b\nc",2\n')
    assert list(read_table(file, ["value"])) == [
        (f"{file}, line 2", {"name": "a", "value": "1"}),
        (f"{file}, line 4", {"name": "b\nc", "value": "2"}),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: no column value"),
        ("name\na\n", "line 1: no column value"),
        ("name,value\na\n", "line 2: has too few or too many values"),
        ("name,value,value\na,1,2\n", "line 1: column value is there twice"),
        ("name,value\na,1,2\n", "line 2: has too few or too many values"),
        ("name,value\na," + 200_000 * "1", "line 2: field larger than field limit"),
    ],
)
def test_a_table_of_another_form_is_refused(content: str, message: str, file: Path):
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        list(read_table(file, ["value"]))


def with_header(header: str) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f4", "fortran_order": False, "shape": (2, 2)})
    text = header.ljust(len(content.getvalue()) - 11).encode() + b"\n"
    return content.getvalue()[:10] + text + b"\0" * 16


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000, 4), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (10**30, 4), }",
        "{'descr': 'O', 'fortran_order': False, 'shape': (2, 2), }",
        "{'descr': '<U1', 'fortran_order': False, 'shape': (2, 2), }",
        "{'descr': '<c8', 'fortran_order': False, 'shape': (2, 1), }",
        "{'descr': ",
        "(",
        "\0",
    ],
)
def test_a_damaged_array_is_refused_before_anything_is_allocated(header: str, file: Path):
    file.write_bytes(with_header(header))
    with pytest.raises(InputError, match="file: "):
        open_array(file)


def test_an_array_comes_back(file: Path):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    with file.open("wb") as target:
        np.save(target, values)
    assert np.array_equal(open_array(file), values)


def test_an_array_with_more_bytes_than_its_header_says_is_refused(file: Path):
    with file.open("wb") as target:
        np.save(target, np.zeros((2, 4)))
        target.truncate(10_000)
    with pytest.raises(InputError, match="is longer than its header says"):
        open_array(file)


def test_a_file_of_gigabytes_is_refused_before_it_is_read(file: Path):
    with file.open("wb") as target:
        target.truncate(3_000_000_000)  # a hole, which takes no space
    with pytest.raises(InputError, match="3,000,000,000 bytes are more than 2,000,000,000"):
        read_bytes(file)
