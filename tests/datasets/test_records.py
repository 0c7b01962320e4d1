import json

import pytest

from mmgpt.datasets.records import expecting, find_parser, parse_record, read_records, record_id, record_location
from mmgpt.utils.errors import SampleLocation


@pytest.fixture
def write(tmp_path):
    def make(text, name="file.json"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return make


def test_json_lines_with_blank_lines_and_unusual_line_separators(write):
    path = write('{"a": "x\u2028y\u0085z"}\r\n\r\n{"a": "2"}\n', "file.jsonl")
    assert list(read_records(path)) == [{"a": "x\u2028y\u0085z"}, {"a": "2"}]


def test_lists_annotations_and_records_by_id(write):
    assert list(read_records(write('[{"a": 1}]'))) == [{"a": 1}]
    assert list(read_records(write('{"annotations": [{"a": 1}], "info": {}}'))) == [{"a": 1}]
    assert list(read_records(write('{"k": {"a": 1}}'))) == [{"id": "k", "a": 1}]
    assert list(read_records(write('\ufeff[{"a": 1}]'))) == [{"a": 1}]


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
        ('{"a": 1}\n{"a": [0, {"b": NaN}]}', "e.jsonl", "record 1: not valid JSON: NaN in key 'a.1.b'"),
        ('[{"a": 1, "b": -Infinity}]', "e.json", "record 0: not valid JSON: -Infinity in key 'b'"),
        ('{"data": [{"a": Infinity}]}', "e.json", "not valid JSON: Infinity in key 'data.0.a'"),
        ("NaN", "e.json", "not valid JSON: NaN in key ''"),
        ("[" * 100_000, "e.json", "not valid JSON"),
    ],
)
def test_errors_name_the_file(write, text, name, message):
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        list(read_records(write(text, name)))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no annotation file .*absent.json"):
        list(read_records(tmp_path / "absent.json"))


def test_unknown_parser_names_the_choices():
    with pytest.raises(ValueError, match="unknown parser 'aokvq': choose among alpaca, aokvqa, baize"):
        find_parser("aokvq")


def test_location_of_a_record():
    assert record_location("f.json", 3, {"question_id": 7}) == SampleLocation(None, "f.json", 3, "7")
    assert record_location("f.json", 3, "text") == SampleLocation(None, "f.json", 3)


def test_json_lines_under_the_name_of_json(write):
    assert list(read_records(write('{"a": 1}\n\n{"a": 2}\n'))) == [{"a": 1}, {"a": 2}]
    with pytest.raises(ValueError, match="not valid JSON: line 3: Expecting"):
        list(read_records(write('{"a": 1}\n{"a": 2}\n{"a":\n')))
    with pytest.raises(ValueError, match="not valid JSON: Extra data: line 4"):
        list(read_records(write('{\n "a": 1\n}\n{"a": 2}\n')))


@pytest.mark.parametrize("key", ["annotations", "questions", "data", "images"])
def test_lists_under_a_key(write, key):
    assert list(read_records(write(f'{{"info": {{}}, "{key}": [{{"a": 1}}]}}'))) == [{"a": 1}]


def test_strings_beside_the_list_are_added_to_each_record(write):
    text = '{"data_subtype": "val2014", "info": {}, "year": 2, "questions": [{"a": 1}, {"data_subtype": "own"}, 3]}'
    assert list(read_records(write(text))) == [{"data_subtype": "val2014", "a": 1}, {"data_subtype": "own"}, 3]


def test_annotations_are_joined_to_their_images(write):
    images, text = [{"id": 7, "a": 1}, {"id": 8}], '{"info": "x", "images": %s, "annotations": %s}'
    notes = [{"image_id": 8, "id": 0}, {"image_id": 7, "id": 1}, {"image_id": 8, "id": 2}]
    assert list(read_records(write(text % (json.dumps(images), json.dumps(notes))))) == [
        {"id": 7, "a": 1, "annotations": [notes[1]]},
        {"id": 8, "annotations": [notes[0], notes[2]]},
    ]


@pytest.mark.parametrize(
    ("images", "notes", "message"),
    [
        ('[{"a": 1}]', "[]", "image 0: no key 'id' .an integer."),
        ('["a.jpg"]', "[]", "image 0: no key 'id'"),
        ('[{"id": 1}]', '[{"image_id": 1}, {"id": 3}]', "annotation 1: no key 'image_id'"),
        ('[{"id": 1}]', '[{"image_id": 2}]', "annotation 0: no image has its image_id 2"),
        ("[]", "[]", "holds no record"),
    ],
)
def test_annotations_without_their_image_are_an_error(write, images, notes, message):
    path = write(f'{{"images": {images}, "annotations": {notes}}}')
    with pytest.raises(ValueError, match=f"file.json.*{message}"):
        list(read_records(path))


def test_records_of_another_split_are_refused():
    parse = expecting(find_parser("dolly"), {"split": "val", "number": r"\d+"})
    record = {"instruction": "a", "context": "", "response": "b", "split": "val", "number": 12}
    assert parse(record)["turns"] == [{"question": "a", "answer": "b"}]
    for change, words in (({"split": "val2"}, "split is 'val2', but 'val' is"), ({"number": None}, "number is None")):
        with pytest.raises(ValueError, match=f"{words}.*is this the file of another split"):
            parse(record | change)
    assert expecting(parse, {}) is parse


def test_questions_of_a_second_file_are_joined(write):
    asked = write('{"questions": [{"question_id": 2, "question": "b"}, {"question_id": 1, "question": "a"}]}', "q.json")
    answered = write(
        '{"annotations": [{"question_id": 1, "answer": "x"}, {"question_id": 2, "answer": "y"}]}', "a.json"
    )
    assert list(read_records(answered, asked)) == [
        {"question_id": 1, "question": "a", "answer": "x"},
        {"question_id": 2, "question": "b", "answer": "y"},
    ]


@pytest.mark.parametrize(
    ("asked", "answered", "message"),
    [
        (
            [{"question_id": 1}],
            [{"question_id": 2}],
            "a.json', record 0, id '2': no such question_id in .*q.json",
        ),
        ([{"question_id": 1}], [{"id": 7}], "a.json', record 0, id '7': no key 'question_id'"),
        ([{"question_id": 1}, {"id": 1}], [{"question_id": 1}], "q.json', record 1, id '1': no key 'question_id'"),
        ([{"question_id": 1}], ["text"], "a.json', record 0: no key 'question_id'"),
        ([{"question_id": [1]}], [{"question_id": 1}], "q.json', record 0, .*no key 'question_id'"),
    ],
)
def test_questions_that_do_not_fit_are_an_error(write, asked, answered, message):
    with pytest.raises(ValueError, match=message):
        list(read_records(write(json.dumps(answered), "a.json"), write(json.dumps(asked), "q.json")))


def test_parse_record_checks_and_numbers_a_sample():
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


def test_id_of_a_record():
    assert record_id({"image_id": 3, "question_id": "q"}) == "q"
    assert record_id({"text": "a"}) is None
    assert record_id(["id"]) is None
