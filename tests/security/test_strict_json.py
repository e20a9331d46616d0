from collections.abc import Callable

import pytest

from messaging.errors import ConfigurationError
from messaging.security.strict_json import Fields, dump_json, load_json


def fields(text: str) -> Fields:
    return load_json(text.encode(), "the file")


def test_fields_are_taken_with_their_types() -> None:
    found = fields('{"t":"x","i":7,"b":true,"l":[1],"o":{"k":"v"},"h":"0aff","s":["a","b"],"m":[{}],"d":{"x":1}}')

    assert found.text("t") == "x"
    assert found.integer("i") == 7
    assert found.boolean("b") is True
    assert found.items("l") == [1]
    assert found.object("o").text("k") == "v"
    assert found.octets("h", 2) == b"\x0a\xff"
    assert found.texts("s") == ("a", "b")
    assert [inner.where for inner in found.objects("m")] == ["the file, m[0]"]
    assert found.names() == ("d",)
    assert found.mapping("d") == {"x": 1}
    found.end()


def test_null_is_none_where_it_may_be() -> None:
    found = fields('{"a":null,"b":null,"c":null,"d":5,"e":{},"f":["x"]}')

    assert found.optional_integer("a") is None
    assert found.optional_object("b") is None
    assert found.optional_texts("c") is None
    assert found.optional_integer("d") == 5
    assert found.optional_object("e") is not None
    assert found.optional_texts("f") == ("x",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        "{",
        '{"a":1,"a":2}',
        '{"a":{"b":1,"b":2}}',
        '{"a":NaN}',
        '{"a":Infinity}',
        '{"a":1.0}',
        '{"a":1e3}',
        "[" * 100_000,
    ],
)
def test_json_that_parsers_read_differently_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="the file"):
        fields(text)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="valid JSON"):
        load_json(b'{"a":"\xff"}', "the file")


@pytest.mark.parametrize(
    ("text", "take"),
    [
        ("{}", lambda found: found.text("a")),
        ('{"a":1}', lambda found: found.text("a")),
        ('{"a":true}', lambda found: found.integer("a")),
        ('{"a":"1"}', lambda found: found.integer("a")),
        ('{"a":-1}', lambda found: found.integer("a")),
        ('{"a":9007199254740992}', lambda found: found.integer("a")),
        ('{"a":null}', lambda found: found.integer("a")),
        ('{"a":1}', lambda found: found.boolean("a")),
        ('{"a":"AB"}', lambda found: found.octets("a", 1)),
        ('{"a":"ab "}', lambda found: found.octets("a", 1)),
        ('{"a":"zz"}', lambda found: found.octets("a", 1)),
        ('{"a":"abab"}', lambda found: found.octets("a", 1)),
        ('{"a":["x","x"]}', lambda found: found.texts("a")),
        ('{"a":[1]}', lambda found: found.texts("a")),
        ('{"a":[1]}', lambda found: found.objects("a")),
        ('{"a":[]}', lambda found: found.object("a")),
        ('{"a":1}', lambda found: found.end()),
        ('{"a":1}', lambda found: found.as_octets(1, 1)),
    ],
)
def test_what_has_another_type_is_refused(text: str, take: Callable[[Fields], object]) -> None:
    with pytest.raises(ConfigurationError, match="the file"):
        take(fields(text))


def test_the_same_value_has_the_same_bytes() -> None:
    assert (
        dump_json({"b": 1, "a": [True, None]}) == b'{"a":[true,null],"b":1}' == dump_json({"a": [True, None], "b": 1})
    )


def test_optional_bytes_are_bytes_or_null() -> None:
    fields = load_json(b'{"a": null, "b": "00ff"}', "the file")

    assert fields.optional_octets("a", 2) is None
    assert fields.optional_octets("b", 2) == b"\x00\xff"


def test_what_was_not_taken_can_be_had_as_it_is() -> None:
    fields = load_json(b'{"a": 1, "b": {"c": [true]}}', "the file")
    fields.integer("a")

    assert fields.left() == {"b": {"c": [True]}}
    with pytest.raises(ConfigurationError, match="unknown field 'b'"):
        fields.end()
