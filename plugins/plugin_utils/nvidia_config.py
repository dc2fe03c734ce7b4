# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The configuration file of NVIDIA's device plugin, held against a schema before the plugin sees it.

NVIDIA's plugin takes no notice of a key that it does not know, or knows and does not honour: a typing error leaves GPUs
unshared without a word. Here both are refused.

Facts: the fields and checks of k8s-device-plugin 0.20.0 (api/config/v1, and its start in cmd/nvidia-device-plugin).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

try:
    import jsonschema
except ImportError:  # a library of the control node, which only this needs
    jsonschema = None

Schema = Mapping[str, Any]


class BadNvidiaConfig(ValueError):
    """The configuration is refused: where, what is wrong, and the remedy, a line for each finding."""


class NoJsonschema(RuntimeError):
    """The library is not there."""


def _object(properties: Mapping[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": list(required)}


def _ignored(remedy: str) -> dict[str, Any]:
    """A key that the plugin reads and does not honour: it logs a warning at most."""
    return {"not": {}, "description": "NVIDIA's plugin takes no notice of it. %s" % remedy}


_FLAG = {"type": "boolean"}
_TEXT = {"type": "string", "minLength": 1}
_PATH = {"type": "string", "pattern": "^/"}
_STRATEGY = {"enum": ["envvar", "volume-mounts", "cdi-annotations", "cdi-cri"]}

_REPLICATED = _object(
    {
        "renameByDefault": _FLAG,
        "failRequestsGreaterThanOne": _FLAG,
        "resources": {
            "type": "array",
            "minItems": 1,
            "items": _object(
                {
                    # A name that no GPU has is of no effect.
                    "name": {"type": "string", "pattern": "^(nvidia[.]com/)?(gpu|mig-[a-z0-9][a-z0-9.-]*)$"},
                    "rename": _ignored("Remove it; renameByDefault: true adds .shared to the name."),
                    "devices": {
                        "enum": ["all"],
                        "description": "NVIDIA's plugin shares all GPUs alike. Remove it; this collection's own plugin "
                        "(device_plugin_implementation: own) shares them differently.",
                    },
                    "replicas": {"type": "integer", "minimum": 2},
                },
                ["name", "replicas"],
            ),
        },
    },
    ["resources"],
)

SCHEMA: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Configuration v1 of NVIDIA's device plugin",
    **_object(
        {
            "version": {"enum": ["v1"]},
            "flags": _object(
                {
                    "migStrategy": {"enum": ["none", "single", "mixed"]},
                    "failOnInitError": _FLAG,
                    "mpsRoot": _PATH,
                    "nvidiaDriverRoot": _PATH,
                    "nvidiaDevRoot": _PATH,
                    "gdrcopyEnabled": _FLAG,
                    "gdsEnabled": _FLAG,
                    "mofedEnabled": _FLAG,
                    "useNodeFeatureAPI": _FLAG,
                    "deviceDiscoveryStrategy": {"enum": ["auto", "nvml", "tegra"]},
                    "plugin": _object(
                        {
                            "passDeviceSpecs": _FLAG,
                            "deviceListStrategy": {
                                "anyOf": [_STRATEGY, {"type": "array", "minItems": 1, "items": _STRATEGY}],
                                "description": "Give one of %s, or a list of them." % ", ".join(_STRATEGY["enum"]),
                            },
                            "deviceIDStrategy": {"enum": ["uuid", "index"]},
                            "cdiAnnotationPrefix": _TEXT,
                            "nvidiaCTKPath": _PATH,
                            "containerDriverRoot": _PATH,
                            "sharedDevicesAllocationPolicy": {"enum": ["distributed", "packed"]},
                        }
                    ),
                    "gfd": _object(
                        {
                            "oneshot": _FLAG,
                            "noTimestamp": _FLAG,
                            "sleepInterval": _TEXT,
                            "outputFile": _TEXT,
                            "machineTypeFile": _TEXT,
                        }
                    ),
                }
            ),
            "resources": _ignored("Remove it; the names of resources are fixed."),
            "sharing": _object({"mps": _REPLICATED, "timeSlicing": _REPLICATED}),
            "imex": _object(
                {
                    "channelIDs": {
                        "enum": [[], [0]],
                        "description": "Give [0], or an empty list.",
                    },
                    "required": _FLAG,
                }
            ),
        },
        ["version"],
    ),
}


def check(config: Any) -> None:
    """Raises BadNvidiaConfig with everything that is wrong, and NoJsonschema."""
    if jsonschema is None:
        raise NoJsonschema(
            "the library jsonschema is not there. Install it beside ansible-core: pip install jsonschema."
        )
    errors = jsonschema.Draft202012Validator(SCHEMA).iter_errors(config)
    found = [
        line for one in sorted(errors, key=lambda error: [str(word) for word in error.path]) for line in _said(one)
    ]
    found = found or list(_contradictions(config))
    if found:
        raise BadNvidiaConfig("\n".join(found))


def _contradictions(config: Mapping[str, Any]) -> Iterator[str]:
    """What a schema does not see, of a configuration that it takes."""
    sharing = config.get("sharing", {})
    if len(sharing) > 1:
        yield "sharing: has timeSlicing and mps, of which NVIDIA's plugin takes mps. Give one of them."
    for kind, shared in sharing.items():
        names = [one["name"].rpartition("/")[2] for one in shared["resources"]]
        for name in sorted({one for one in names if names.count(one) > 1}):
            yield "sharing.%s.resources: nvidia.com/%s is there twice. Give it once." % (kind, name)


def _said(error: Any) -> Iterator[str]:
    """A line or several for one of jsonschema's errors: key, what is wrong, remedy."""
    where = _where(error.absolute_path)
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])
        for key in sorted(str(one) for one in error.instance if one not in known):
            yield "%s: there is no such key, and NVIDIA's plugin would take no notice of it.%s" % (
                ".".join(filter(None, (where, key))),
                _nearest(key, known),
            )
        return
    remedy = error.schema.get("description")
    if error.validator == "not":
        yield "%s: %s" % (where, remedy)
    elif error.validator == "required":
        missing = [one for one in error.validator_value if one not in error.instance]
        yield "%s: %s is not there. Give it." % (where or "the configuration", missing[0])
    elif error.validator == "enum":
        choices = ", ".join(map(str, error.validator_value))
        yield "%s: is %r. %s" % (where, error.instance, remedy or "Give one of %s." % choices)
    else:
        yield "%s: %s.%s" % (where or "the configuration", error.message, " %s" % remedy if remedy else "")


def _where(path: Sequence[Any]) -> str:
    text = ""
    for one in path:
        text += "[%d]" % one if isinstance(one, int) else "%s%s" % ("." if text else "", one)
    return text


def _nearest(key: str, known: Sequence[str]) -> str:
    """The nearest key of this place, or the place in which such a key is."""
    places = dict(_every(SCHEMA, ""))
    if key in places and key not in known:
        return " It is a key of %s." % (places[key] or "the whole")
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return " Did you mean %s?" % near[0]
    far = difflib.get_close_matches(key, list(places), n=1)
    if far:
        return " Did you mean %s, a key of %s?" % (far[0], places[far[0]] or "the whole")
    return " There are: %s." % ", ".join(known)


def _every(schema: Schema, where: str) -> Iterator[tuple[str, str]]:
    """Each key that there is, with the place that it belongs to; outer ones last, which so win."""
    properties = schema.get("properties", {})
    for key, one in properties.items():
        inner = one.get("items", one)
        yield from _every(inner, ".".join(filter(None, (where, key))) + ("[]" if "items" in one else ""))
    for key in properties:
        yield key, where
