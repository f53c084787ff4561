"""The ``edns0`` rules of the ``rewrite`` directive: options of the query to an upstream.

Such a query is our own and begins without options, so a rule finds only what rules above it set.
"""

from __future__ import annotations

import re

from nodecache.config.lexer import Word
from nodecache.config.reading import Arguments, Scope, one_of
from nodecache.directives.rewrite.model import EdnsAction, EdnsVariable, Rewrite, RewriteEdns
from nodecache.printing import shown

# So that a query stays far below the 65,535 octets that a message may have.
_MAX_RULES = 16
_MAX_DATA_OCTETS = 255

_ACTIONS = {action.value: action for action in EdnsAction}
_VARIABLES = {variable.value: variable for variable in EdnsVariable}
_CODE_NSID, _CODE_SUBNET, _CODE_GIVEN = 3, 8, -1
_KINDS = {"local": _CODE_GIVEN, "nsid": _CODE_NSID, "subnet": _CODE_SUBNET}
_CODE = re.compile(r"0[xX][0-9a-fA-F]{1,4}|0|[1-9][0-9]{0,4}")
_VARIABLE = re.compile(r"\{.*\}", re.DOTALL)
_OF_THE_CLIENT = {
    "{client_ip}", "{client_port}", "{protocol}", "{server_ip}", "{server_port}",
}  # fmt: skip
_SHARED = "answers are kept and shared by all clients, so they cannot depend on one"


def read_option_rule(arguments: Arguments) -> Rewrite:
    """Returns the rule that stands behind ``edns0``."""
    code = arguments.take("local, nsid or subnet", _parse_kind, _CODE_NSID)
    action = arguments.take("set, append, replace or unset", _parse_action, EdnsAction.UNSET)
    if code == _CODE_SUBNET and action is not EdnsAction.UNSET:
        arguments.fault(arguments.name, f"no client's subnet is sent along: {_SHARED}")
        arguments.rest()
    if code == _CODE_GIVEN:
        code = arguments.take("a CODE such as 0xffee", _parse_code, 0)
        if action is not EdnsAction.UNSET:
            nothing: bytes | EdnsVariable = b""
            data = arguments.take("DATA", _parse_data, nothing)
            _take_revert(arguments)
            return RewriteEdns(action, code, data)
    if action is not EdnsAction.UNSET:
        _take_revert(arguments)
    return RewriteEdns(action, code)


def judge_option_rule(
    rule: RewriteEdns, place: Word, scope: Scope, before: tuple[Rewrite, ...]
) -> None:
    """Bounds the number of these rules, and warns of one that never finds an option."""
    others = [other for other in before if isinstance(other, RewriteEdns)]
    if len(others) >= _MAX_RULES:
        scope.report.fault(place, f"more than {_MAX_RULES} 'edns0' rules in one block")
    adding = (EdnsAction.SET, EdnsAction.APPEND)
    is_known = any(other.code == rule.code and other.action in adding for other in others)
    if rule.action not in adding and not is_known:
        text = (
            f"no rule above sets option {rule.code}, and options of clients never pass the cache:"
            f" '{rule.action.value}' has nothing to change"
        )
        scope.report.warn(place, text)


def _take_revert(arguments: Arguments) -> None:
    """Takes ``revert``, which holds anyway: no reply carries an option of an upstream."""
    if arguments.peek() == "revert":
        arguments.take_word("")


def _parse_kind(text: str) -> int:
    return one_of(_KINDS)(text.lower())


def _parse_action(text: str) -> EdnsAction:
    return one_of(_ACTIONS)(text.lower())


def _parse_code(text: str) -> int:
    number = int(text, 0) if _CODE.fullmatch(text) else -1
    if not 0 <= number <= 0xFFFF:
        raise ValueError(f"{shown(text)} is no option code: give 0 to 65535 or 0x0 to 0xffff")
    return number


def _parse_data(text: str) -> bytes | EdnsVariable:
    if _VARIABLE.fullmatch(text):
        return _parse_variable(text)
    try:
        data = bytes.fromhex(text[2:]) if text.startswith("0x") else text.encode()
    except ValueError:  # UnicodeEncodeError too
        raise ValueError(f"{shown(text)} needs two hexadecimal digits for each octet") from None
    if len(data) > _MAX_DATA_OCTETS:
        raise ValueError(f"the data of an option has at most {_MAX_DATA_OCTETS} octets here")
    return data


def _parse_variable(text: str) -> EdnsVariable:
    if text in _OF_THE_CLIENT:
        raise ValueError(f"{text} differs between clients: {_SHARED}")
    if "/" in text:
        raise ValueError(f"{shown(text)} is metadata, which node-cache does not have")
    return one_of(_VARIABLES)(text)
