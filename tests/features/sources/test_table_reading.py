"""Files as batches: line numbers, quotation marks, encodings, and what is wrong with a file."""

import gzip
import zipfile

import polars as pl
import pytest

from features.errors import WeibingError
from features.sources.table import reading
from features.sources.table.mapping import Table
from features.sources.table.reading import sources


def table(**settings):
    return Table.model_validate(
        {"file": "*", "resident": "id", "time": "2000-01-01", "event": [{"code": "fall"}]} | settings
    )


def read(path, columns, **settings):
    """Read a file as a whole; return its cells, and where each row is."""
    frames, places = [], []
    for source in sources(path, table(**settings)):
        for batch in source.batches(columns):
            frames.append(batch.cells)
            places += [batch.place(row) for row in range(len(batch.cells))]
    return pl.concat(frames).rows(), places


@pytest.fixture
def written(tmp_path):
    def written(content, name="a.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


def test_cells_are_text_as_they_stand(written):
    assert read(written('id,x,y\n1, 2 ,"a ""b"", c"\n007,NA,\n'), ["y", "id"])[0] == [('a "b", c', "1"), ("", "007")]


@pytest.mark.parametrize("block", [1, 7, 16, 64, 1 << 20])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_blocks_of_any_size_give_the_same_rows_and_lines(written, monkeypatch, block, newline):
    monkeypatch.setattr(reading, "BLOCK_BYTES", block)
    text = 'id,note\n1,plain\n2,"more\nthan\ntwo\nlines"\n\n3,"quoted, ""twice"""\n4,5" nail\n5,6" nail\n6,last'
    rows, places = read(written(text.replace("\n", newline)), ["id", "note"])
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert rows[1][1] == newline.join(["more", "than", "two", "lines"])
    assert rows[3:] == [("4", '5" nail'), ("5", '6" nail'), ("6", "last")]
    assert places == [f"line {line}" for line in (2, 3, 8, 9, 10, 11)]


def test_a_quotation_mark_that_nobody_closes_does_not_fill_the_memory(written, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK_BYTES", 64)
    monkeypatch.setattr(reading, "RECORD_BYTES", 256)
    text = "id,x\n" + "1,2\n" * 20 + '1,"2\n' + "1,2\n" * 500
    with pytest.raises(WeibingError, match=r"a.csv, line 22 or soon after it: a quotation mark is opened and never"):
        read(written(text), ["id"])


def test_a_quotation_mark_left_open_swallows_no_rows(written):
    with pytest.raises(WeibingError, match=r"a.csv, line 3 or soon after it: a quotation mark is opened and never"):
        read(written('id,x\n1,2\n3,"4\n5,6\n'), ["id"])


@pytest.mark.parametrize(("record", "cells"), [("3", 1), ("3,4,5", 3)])
def test_a_line_with_other_cells_than_the_header_is_named(written, record, cells):
    with pytest.raises(WeibingError) as error:
        read(written(f'id,x\n1,"a\nb"\n{record}\n5,6\n'), ["id"])
    assert str(error.value) == (
        f"a.csv, line 4: there are {cells} cells where the header has 2. "
        "Is a delimiter or a quotation mark missing or left over?"
    )


def test_a_header_loses_its_byte_order_mark_and_blanks(written):
    source = sources(written(b"\xef\xbb\xbfid , \xe6\x94\xb6\xe7\xbc\xa9\xe5\x8e\x8b\n1,2\n"), table())[0]
    assert source.header() == ["id", "收缩压"]


def test_a_header_may_span_lines(written):
    rows, places = read(written('id,"systolic\npressure"\n1,2\n'), ["systolic\npressure"])
    assert (rows, places) == ([("2",)], ["line 3"])


@pytest.mark.parametrize("encoding", ["gb18030", "GBK", "gb2312"])
def test_gb18030_is_read_in_blocks_too(written, monkeypatch, encoding):
    monkeypatch.setattr(reading, "BLOCK_BYTES", 5)
    assert read(written("编号,性别\n1,女\n2,男\n".encode("gb18030")), ["性别"], encoding=encoding)[0] == [
        ("女",),
        ("男",),
    ]


@pytest.mark.parametrize(("actual", "told", "other"), [("gb18030", "utf-8", "gb18030"), ("utf-8", "gb18030", "utf-8")])
def test_another_encoding_is_told_with_its_line(written, actual, told, other):
    path = written("id,性别\n1,女\n".encode(actual) if told == "utf-8" else "id,x\n1,a\n2,€女子\n".encode(actual))
    with pytest.raises(WeibingError, match=rf'a.csv, line \d: this is not .*Try encoding = "{other}"'):
        read(path, ["id"], encoding=told)


def test_lines_above_the_header_are_left_out(written):
    assert read(written("a title\n\nid,x\n1,2\n"), ["x"], skip=2) == ([("2",)], ["line 4"])


@pytest.mark.parametrize(("text", "line"), [("", 1), ("\n1,2\n", 1), ("id,x\n1,2\n", 3)])
def test_a_file_without_a_header_is_refused(written, text, line):
    with pytest.raises(WeibingError, match=f"a.csv: there is no header in line {line}"):
        sources(written(text), table(skip=line - 1))[0].header()


def test_a_header_alone_has_no_rows(written):
    assert read(written("id,x\n"), ["id"]) == ([], [])


@pytest.mark.parametrize(("name", "text"), [("a.tsv", "id\tx\n1\t2\n"), ("a.TSV.gz", "id\tx\n1\t2\n")])
def test_the_name_says_that_tabs_stand_between(written, name, text):
    path = written(gzip.compress(text.encode()) if name.endswith("gz") else text, name)
    assert read(path, ["x"])[0] == [("2",)]


def test_a_column_that_nobody_wants_may_be_there_twice(written):
    assert read(written("id,x,x\n1,2,3\n"), ["id"])[0] == [("1",)]


def test_a_packed_file_that_is_cut_off_is_refused(written):
    packed = gzip.compress(b"id,x\n" + b"1,2\n" * 1000)
    with pytest.raises(WeibingError, match=r"a.csv.gz cannot be read to its end"):
        read(written(packed[: len(packed) // 2], "a.csv.gz"), ["id"])


def test_a_zip_that_is_none_is_refused(written):
    with pytest.raises(WeibingError, match=r"a.zip cannot be read: File is not a zip file"):
        read(written("id,x\n", "a.zip"), ["id"])


def test_a_member_that_a_zip_does_not_have_is_told_with_those_it_has(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("deep/b.csv", "id,x\n1,2\n")
    assert read(tmp_path / "a.zip", ["x"], member="b*")[0] == [("2",)]
    with pytest.raises(WeibingError, match=r'no member "c.csv" in a.zip. The members are: deep/b.csv'):
        read(tmp_path / "a.zip", ["x"], member="c.csv")


def test_a_locked_zip_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("b.csv", "id,x\n1,2\n")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(WeibingError, match=r"a.zip/b.csv is locked with a password. Unpack it first."):
        read(path, ["x"])


@pytest.fixture
def workbook(tmp_path):
    path = tmp_path / "a.xlsx"
    book = {
        "说明": pl.DataFrame({"x": ["read me"]}),
        "体检表2024": pl.DataFrame({"id": [1, None, 2], "x": ["a", None, "b"]}),
    }
    import xlsxwriter  # noqa: PLC0415

    with xlsxwriter.Workbook(path) as file:
        for name, frame in book.items():
            frame.write_excel(file, name)
    return path


def test_a_sheet_is_read_by_name_without_its_blank_rows(workbook):
    assert read(workbook, ["id", "x"], sheet="体检表2024") == ([("1", "a"), ("2", "b")], ["row 2", "row 4"])


def test_without_a_name_it_is_the_first_sheet(workbook):
    assert read(workbook, ["x"])[0] == [("read me",)]


def test_a_sheet_that_is_not_there_is_told_with_those_that_are(workbook):
    with pytest.raises(
        WeibingError, match=r'no sheet "体检表" in a.xlsx. The sheets are: 说明, 体检表2024. Did you mean "体检表2024"'
    ):
        read(workbook, ["x"], sheet="体检表")


@pytest.mark.parametrize(("name", "message"), [("a.xlsx", "cannot be read"), ("a.parquet", "is not a Parquet file")])
def test_a_file_that_is_not_what_its_name_says_is_refused(written, name, message):
    with pytest.raises(WeibingError, match=f"{name} {message}"):
        read(written("id,x\n", name), ["id"])


def test_parquet_is_read_as_text(tmp_path):
    frame = pl.DataFrame({"id": [1, 2], "x": [1.5, None]}).with_columns(day=pl.date(2024, 3, 5), flag=True)
    frame.write_parquet(tmp_path / "a.parquet")
    rows, places = read(tmp_path / "a.parquet", ["x", "day", "id", "flag"])
    assert rows == [("1.5", "2024-03-05", "1", "true"), (None, "2024-03-05", "2", "true")]
    assert places == ["row 1", "row 2"]


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path):
    with pytest.raises(WeibingError, match="There is no file"):
        sources(tmp_path / "none.csv", table())
    with pytest.raises(WeibingError, match=r"is a folder. Name the files in it"):
        sources(tmp_path, table())
