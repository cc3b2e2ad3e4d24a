"""YAML as most people expect it, which is version 1.2: ``1e-3`` is a number, ``no`` and ``2024-01-01`` are words.

PyYAML implements 1.1, where all three are something else. Only plain values are built, and a key may stand once.
Source: the core schema of YAML 1.2.2, section 10.3; integers stay as PyYAML reads them.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_REPLACED = {f"tag:yaml.org,2002:{name}" for name in ("bool", "float", "timestamp")}
_BREAKS = re.compile("[\x85\u2028\u2029]")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: list[Any] = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice", key_node.start_mark)
            seen.append(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # Unicode's own line breaks would be folded away, unless they are escaped between double quotes.
        style = '"' if _BREAKS.search(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] not in _REPLACED]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _class.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def load(text: str) -> Any:
    """The plain value that ``text`` spells; raises ``yaml.YAMLError``.

    >>> load("{lr: 1e-3, mixing: no, seed: 7}")
    {'lr': 0.001, 'mixing': 'no', 'seed': 7}
    """
    return yaml.load(text, Loader=_Loader)


def dump(data: Any) -> str:
    """Plain data as text that :func:`load` reads back, keys in the order given.

    >>> dump({"word": "1e-3", "number": 1e-3})
    "word: '1e-3'\\nnumber: 0.001\\n"
    """
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
