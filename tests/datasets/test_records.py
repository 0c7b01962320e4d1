import pytest

from mmgpt.datasets.records import find_parser, parse_record, read_records, record_id, record_name


@pytest.fixture
def write(tmp_path):
    def make(text, name="file.json"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return make


def test_json_lines_with_blank_lines_and_unusual_line_separators(write):
    path = write('{"a": "x\u2028y\u0085z"}\r\n\r\n{"a": "2"}\n', "file.jsonl")
    assert read_records(path) == [{"a": "x\u2028y\u0085z"}, {"a": "2"}]


def test_lists_annotations_and_records_by_id(write):
    assert read_records(write('[{"a": 1}]')) == [{"a": 1}]
    assert read_records(write('{"annotations": [{"a": 1}], "info": {}}')) == [{"a": 1}]
    assert read_records(write('{"k": {"a": 1}}')) == [{"id": "k", "a": 1}]
    assert read_records(write('\ufeff[{"a": 1}]')) == [{"a": 1}]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "e.json", "holds no record"),
        ("[]", "e.json", "holds no record"),
        ("\n\n", "e.jsonl", "holds no record"),
        ('{"annotations": []}', "e.json", "holds no record"),
        ("[1, 2", "e.json", "not valid JSON"),
        ('{"a": 1}\n{"a":', "e.jsonl", "not valid JSON.*line 2"),
        ('{"info": 1}', "e.json", "annotations.*info"),
        ("3", "e.json", "expected a list of records, got int"),
    ],
)
def test_errors_name_the_file(write, text, name, message):
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        read_records(write(text, name))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no annotation file .*absent.json"):
        read_records(tmp_path / "absent.json")


def test_unknown_parser_names_the_choices():
    with pytest.raises(ValueError, match="unknown parser 'aokvq': choose among alpaca, aokvqa, baize"):
        find_parser("aokvq")


def test_record_name():
    assert record_name("f.json", 3, {"question_id": 7}) == "f.json, record 3 (question_id 7)"
    assert record_name("f.json", 3, "text") == "f.json, record 3"


def test_one_record():
    parse = find_parser("dolly")
    record = {"instruction": "a", "context": "", "response": "b"}
    assert parse_record(parse, 7, record) == {
        "id": "7",
        "record": 7,
        "images": [],
        "turns": [{"question": "a", "answer": "b"}],
    }
    assert parse_record(lambda record: None, 7, record) is None
    for wrong, words in (([], r"^a record must be an object, got \[\]$"), ({}, "^no key 'instruction'")):
        with pytest.raises(ValueError, match=words):
            parse_record(parse, 7, wrong)
    with pytest.raises(ValueError, match="^KeyError: 'x'$"):
        parse_record(lambda record: record["x"], 7, record)


def test_what_a_record_is_known_by():
    assert record_id({"image_id": 3, "question_id": "q"}) == ("question_id", "q")
    assert record_id({"text": "a"}) is None and record_id(["id"]) is None
