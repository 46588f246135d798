"""YAML as people write it: text, numbers, switches, lists and maps; nothing in it can cost more than its own length."""

from typing import Any

import yaml

DEPTH, DIGITS = 20, 30


class _PlainLoader(yaml.SafeLoader):
    """No aliases, by which a small file can stand for an endless one, no dates, no long numbers, no deep levels."""

    level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name), which is not allowed; write the value out")
        self.level += 1
        if self.level > DEPTH:
            raise yaml.YAMLError(f"it has more than {DEPTH} levels; write it flat")
        node = super().compose_node(parent, index)
        self.level -= 1
        return node


def _number(loader: Any, node: Any) -> Any:
    if len(node.value) > DIGITS:
        raise yaml.YAMLError(f"it has a number of {len(node.value):,} digits; quote it if it is text")
    return loader.construct_yaml_int(node)


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _number)
_PlainLoader.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: node.value)


def load_yaml(text: str) -> Any:
    """The value of a YAML text; dates are text. Raises yaml.YAMLError with the reason in words."""
    try:
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506
    except (ValueError, TypeError, RecursionError) as error:  # 0x, 99:99, ? [list]
        raise yaml.YAMLError(str(error)) from None
