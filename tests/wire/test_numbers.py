from __future__ import annotations

import dns.rdataclass
import dns.rdatatype
import pytest

from nodecache.wire.text import class_text, question_texts, rcode_text, type_text

NAMED = [int(rtype) for rtype in dns.rdatatype.RdataType if rtype not in (0, 66, 67, 68, 103)]


@pytest.mark.parametrize("rtype", NAMED)
def test_types_are_called_as_dnspython_calls_them(rtype: int) -> None:
    assert type_text(rtype) == dns.rdatatype.to_text(dns.rdatatype.RdataType.make(rtype))


def test_what_has_no_name_is_written_as_rfc_3597_says() -> None:
    assert (type_text(65280), class_text(42), rcode_text(12)) == ("TYPE65280", "CLASS42", "12")


@pytest.mark.parametrize("rclass", [1, 3, 4, 254, 255])
def test_classes_are_called_as_dnspython_calls_them(rclass: int) -> None:
    assert class_text(rclass) == dns.rdataclass.to_text(dns.rdataclass.RdataClass.make(rclass))


@pytest.mark.parametrize(
    ("question", "texts"),
    [
        (b"\3www\7example\0\0\1\0\1", ("www.example.", "A", "IN")),
        (b"\0\0\2\0\1", (".", "NS", "IN")),
        (b"\3a.b\0\0\x1c\0\3", ("a\\.b.", "AAAA", "CH")),
        (b"\4\n\xff\\ \0\xfe\x00\0\1", ("\\010\\255\\\\\\032.", "TYPE65024", "IN")),
    ],
)
def test_names_are_escaped_so_that_no_stub_writes_our_log(
    question: bytes, texts: tuple[str, str, str]
) -> None:
    assert question_texts(question) == texts
