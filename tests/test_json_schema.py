"""The published JSON Schema accepts what archdsl writes, and refuses what it refuses."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

import archdsl
from archdsl.lang.dialects.json import read_json, write_json
from archdsl.lang.source import SourceText
from archdsl.library import members

SCHEMA = jsonschema.Draft202012Validator(archdsl.json_schema())
FILES = sorted({member.file.removesuffix(".arch") for member in members()})


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA.schema)


def test_it_says_of_which_draft_it_is() -> None:
    assert archdsl.json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("name", FILES)
def test_published_architectures_fit_and_come_back(name: str) -> None:
    arch = archdsl.load(name)
    SCHEMA.validate(arch.to_json())
    text = read_json(SourceText("net.json", write_json(arch.spec)))
    assert archdsl.parse(text).spec == arch.spec


WRONG: dict[str, dict[str, Any]] = {
    "an unknown kind": {"stem": [{"kind": "cnv"}]},
    "an unknown field": {"stem": [{"kind": "conv", "kernal": 3}]},
    "a field of another kind": {"stem": [{"kind": "conv", "expansion": 6}]},
    "a missing field": {"stem": [{"kind": "mqa", "heads": 4}]},
    "a kernel of zero": {"stem": [{"kind": "conv", "kernel": 0}]},
    "a stride of three numbers": {"stem": [{"kind": "conv", "stride": [1, 2, 1]}]},
    "a width that is no width": {"stem": [{"kind": "conv", "out_channels": "80?"}]},
    "an unknown activation": {"stem": [{"kind": "conv", "act": "rellu"}]},
    "an image of two sides": {"attributes": {"input": [8, 8]}},
    "a name with a space": {"name": "my net"},
    "a key too many": {"colour": "red"},
}


@pytest.mark.parametrize("fault", WRONG)
def test_schema_and_reader_refuse_alike(fault: str) -> None:
    good = {"name": "net", "attributes": {"input": [8, 8, 3]}, "stem": [{"kind": "conv"}]}
    SCHEMA.validate(good)
    bad = {**good, **WRONG[fault]}
    assert not SCHEMA.is_valid(bad)
    with pytest.raises(archdsl.ArchError):
        read_json(SourceText("net.json", json.dumps(bad)))
