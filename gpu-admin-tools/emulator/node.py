# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Node descriptions: YAML in, checked device descriptions out, before anything is created."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from .knobs import ALLOW_IN_BAND, NAMES, number_of
from .models import CLASS_SWITCH, MIB, MODELS, VF_OFFSET, VF_STRIDE
from .recording import Recording, RecordingError, load
from .recording.form import replayable
from .replay import first_knobs
from .spec import DURING_RESET, POWER_STATES, DeviceSpec, Timing

SHIPPED = Path(__file__).parent / "nodes"
ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
# Routing ids of a segment: 256 buses of 32 devices of 8 functions.
ROUTING_IDS = 1 << 16
NODE_KEYS = frozenset({"name", "timing", "devices"})
TIMING_KEYS = frozenset(item.name for item in fields(Timing))
FIRMWARES = ("current", "old")
# Keys whose value is a number, with the largest one.
NUMBERS = {"device_id": 0xFFFF, "subsystem_id": 0xFFFF, "boot_0": 0xFFFFFFFF, "module_id": 7, "pdi": (1 << 64) - 1}
FLAGS = {"flr": True, "memory_decode": True, "no_soft_reset": True, "recovery": False}
BARS = (0, 1)
MOST_VIRTUAL_FUNCTIONS = 32
DEVICE_KEYS = frozenset(
    {
        "address",
        "model",
        "recording",
        "firmware",
        "power",
        "during_reset",
        "knobs",
        "locked",
        "unknown_knobs",
        "unassigned_bars",
        "virtual_functions",
        "timing",
        "bar1_mib",
        *NUMBERS,
        *FLAGS,
    }
)
# What a device that was recorded can be told; the rest was recorded.
RECORDED_KEYS = frozenset(
    {
        "address",
        "recording",
        "power",
        "during_reset",
        "locked",
        "unknown_knobs",
        "unassigned_bars",
        "timing",
        "pdi",
        "memory_decode",
        "recovery",
    }
)
# What `state` calls its model.
RECORDED = "recorded"
# The first half of a made-up unique id; the second half is the device's place in the node.
PDI_BASE = 0x4C6F_7265_0000_0000


class NodeError(ValueError):
    """A description that cannot be used; the message names the key and the remedy."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine's devices."""

    name: str
    devices: tuple[DeviceSpec, ...]

    @classmethod
    def load(cls, source: str | Path, timing: Mapping[str, float] | None = None) -> Node:
        """A YAML file, or the name of a shipped node; `timing` wins over what the file says."""
        path = Path(source)
        if not path.is_file() and (SHIPPED / f"{source}.yaml").is_file():
            path = SHIPPED / f"{source}.yaml"
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            shipped = _list(entry.stem for entry in SHIPPED.glob("*.yaml"))
            raise NodeError(f"node {str(source)!r} cannot be read ({error}); give a file or one of {shipped}") from None
        try:
            raw = yaml.safe_load(text)
        except yaml.YAMLError as error:
            detail = " ".join(str(error).split())
            raise NodeError(f"node {str(source)!r} is not YAML: {detail}") from None
        return cls.parse(raw, timing, path.parent)

    @classmethod
    def parse(cls, raw: object, timing: Mapping[str, float] | None = None, folder: Path = Path()) -> Node:
        """A description that was read already; recordings are looked for from `folder`."""
        if not isinstance(raw, Mapping):
            raise NodeError("node: the file must hold a mapping with the keys name, timing and devices")
        _refuse_unknown(raw, NODE_KEYS, "node")
        entries = raw.get("devices")
        if not isinstance(entries, list) or not entries:
            raise NodeError("node: devices must be a list with at least one device")
        base = _timing(raw.get("timing"), Timing(), "node")
        forced = _timing(timing, Timing(), "node") if timing else None
        specs: list[DeviceSpec] = []
        for index, entry in enumerate(entries):
            spec = _device(entry, index, base, folder)
            if any(other.address == spec.address for other in specs):
                raise NodeError(f"devices[{index}]: address {spec.address} is used twice; give each device its own")
            if timing and forced is not None:
                chosen = {key: getattr(forced, key) for key in timing}
                spec = replace(spec, timing=replace(spec.timing, **chosen))
            specs.append(spec)
        complete = [*_number_modules(specs, entries), *_virtual_functions(specs)]
        return cls(str(raw.get("name", "node")), tuple(complete))

    @property
    def addresses(self) -> tuple[str, ...]:
        """In the order of the description."""
        return tuple(spec.address for spec in self.devices)


def _device(raw: object, index: int, base: Timing, folder: Path) -> DeviceSpec:
    where = f"devices[{index}]"
    if not isinstance(raw, Mapping):
        raise NodeError(f"{where}: must be a mapping with at least address and model")
    _refuse_unknown(raw, DEVICE_KEYS, where)
    address = raw.get("address")
    if not isinstance(address, str) or not ADDRESS.fullmatch(address):
        raise NodeError(f'{where}: address must be a full PCI address such as "0000:17:00.0", not {address!r}')
    if "recording" in raw:
        return _recorded(raw, _recording(raw, folder, where), index, base, where)
    model = raw.get("model")
    if not isinstance(model, str) or model not in MODELS:
        raise NodeError(f"{where}: model {model!r} is unknown; use one of {_list(MODELS)}")
    product = MODELS[model]
    numbers = {key: _number(raw, key, most, where) for key, most in NUMBERS.items()}
    bar1_mib = raw.get("bar1_mib", 256)
    if not _is_int(bar1_mib) or bar1_mib < 1 or bar1_mib & (bar1_mib - 1) or bar1_mib > 1 << 18:
        raise NodeError(f"{where}: bar1_mib must be a power of two from 1 to 262144, not {bar1_mib!r}")
    knobs = _knobs(raw.get("knobs"), where)
    knobs.update(_locked(raw.get("locked"), where))
    flags = {key: _flag(raw, key, default, where) for key, default in FLAGS.items()}
    return DeviceSpec(
        address=address,
        model=model,
        index=index,
        device_id=_or(numbers["device_id"], product.device_id),
        subsystem_id=_or(numbers["subsystem_id"], product.subsystem_id),
        boot_0=_or(numbers["boot_0"], product.boot_0),
        bar1_mib=bar1_mib,
        module_id=_or(numbers["module_id"], 0),
        pdi=_or(numbers["pdi"], PDI_BASE | product.device_id << 16 | index + 1),
        old_firmware=_choice(raw, "firmware", FIRMWARES, where) == "old",
        flr=flags["flr"],
        memory_decode=flags["memory_decode"],
        power=_choice(raw, "power", POWER_STATES, where),
        no_soft_reset=flags["no_soft_reset"],
        during_reset=_choice(raw, "during_reset", DURING_RESET, where),
        unassigned_bars=_bars(raw.get("unassigned_bars"), where),
        unknown_knobs=_unknown_knobs(raw.get("unknown_knobs"), where),
        recovery=flags["recovery"],
        virtual_functions=_count_of_functions(raw.get("virtual_functions", 0), product.class_code, where),
        knobs=knobs,
        timing=_timing(raw.get("timing"), base, where),
    )


def _recording(raw: Mapping[Any, Any], folder: Path, where: str) -> Recording:
    """The file that a device names, from the folder of the node's file."""
    if unknown := set(raw) - RECORDED_KEYS:
        raise NodeError(f"{where}: {_list(unknown)} cannot be told of a recording; use {_list(RECORDED_KEYS)}")
    name = raw["recording"]
    if not isinstance(name, str) or not name:
        raise NodeError(f"{where}: recording must be the path of a file, not {name!r}")
    try:
        recording = load(folder / name)
    except RecordingError as error:
        raise NodeError(f"{where}: {error}") from None
    if why := replayable(recording):
        raise NodeError(f"{where}: recording {folder / name} cannot be replayed: {why}; use a model")
    return recording


def _recorded(raw: Mapping[Any, Any], recording: Recording, index: int, base: Timing, where: str) -> DeviceSpec:
    product = recording.product
    return DeviceSpec(
        address=raw["address"],
        model=RECORDED,
        index=index,
        device_id=product.device_id,
        subsystem_id=product.subsystem_id,
        boot_0=product.boot_0,
        bar1_mib=recording.bars[1] // MIB,
        pdi=_or(_number(raw, "pdi", NUMBERS["pdi"], where), PDI_BASE | product.device_id << 16 | index + 1),
        memory_decode=_flag(raw, "memory_decode", True, where),
        power=_choice(raw, "power", POWER_STATES, where),
        during_reset=_choice(raw, "during_reset", DURING_RESET, where),
        unassigned_bars=_bars(raw.get("unassigned_bars"), where),
        unknown_knobs=_unknown_knobs(raw.get("unknown_knobs"), where) | recording.unknown_knobs,
        recovery=_flag(raw, "recovery", False, where),
        knobs={**first_knobs(recording), **_locked(raw.get("locked"), where)},
        timing=_timing(raw.get("timing"), base, where),
        recording=recording,
    )


def _number_modules(specs: list[DeviceSpec], entries: list[Any]) -> Iterable[DeviceSpec]:
    """SXM modules and switches count from 0 each, unless their place is given."""
    places = {"sxm": 0, "switch": 0}
    for spec, entry in zip(specs, entries, strict=True):
        kind = "switch" if not spec.is_gpu else "sxm" if spec.product.sxm else ""
        numbered = kind and "module_id" not in entry
        yield replace(spec, module_id=places[kind] % 8) if numbered else spec
        if kind:
            places[kind] += 1


def _virtual_functions(specs: list[DeviceSpec]) -> list[DeviceSpec]:
    """The functions that the devices' SR-IOV capabilities lead to; they need no boot."""
    found: list[DeviceSpec] = []
    taken = {spec.address for spec in specs}
    for spec in specs:
        for number in range(spec.virtual_functions):
            address = _routed(spec.address, VF_OFFSET + number * VF_STRIDE)
            if address in taken:
                raise NodeError(f"{spec.address}: the address of its virtual function {address} is used; move one")
            taken.add(address)
            virtual = DeviceSpec(
                address=address,
                model=spec.model,
                index=len(specs) + len(found),
                device_id=spec.device_id,
                subsystem_id=spec.subsystem_id,
                boot_0=spec.boot_0,
                physical_function=spec.address,
                timing=replace(spec.timing, boot_s=0.0, firewall_s=0.0),
            )
            found.append(virtual)
    return found


def _routed(address: str, distance: int) -> str:
    """The function whose routing id (bus, device and function as one number) is that much higher."""
    segment, bus, rest = address.split(":")
    device, function = rest.split(".")
    number = int(bus, 16) << 8 | int(device, 16) << 3 | int(function)
    if number + distance >= ROUTING_IDS:
        raise NodeError(f"{address}: its virtual functions go beyond bus ff; give it a lower address")
    number += distance
    return f"{segment}:{number >> 8:02x}:{number >> 3 & 0x1F:02x}.{number & 7}"


def _timing(raw: object, base: Timing, where: str) -> Timing:
    if raw is None:
        return base
    if not isinstance(raw, Mapping):
        raise NodeError(f"{where}: timing must be a mapping of {_list(TIMING_KEYS)} to seconds")
    _refuse_unknown(raw, TIMING_KEYS, f"{where}: timing")
    for key, value in raw.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 3600:
            raise NodeError(f"{where}: timing.{key} must be seconds from 0 to 3600, not {value!r}")
    return replace(base, **{key: float(value) for key, value in raw.items()})


def _knobs(raw: object, where: str) -> dict[int, int]:
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise NodeError(f"{where}: knobs must be a mapping such as {{CCM: 1, CCD: 0}}")
    found: dict[int, int] = {}
    for name, value in raw.items():
        number = number_of(name)
        if number is None:
            raise NodeError(f"{where}: knob {name!r} is unknown; use one of {_list(NAMES.values())}")
        if not _is_int(value) or not 0 <= value <= 0xFFFF:
            raise NodeError(f"{where}: knob {name} must be a whole number from 0 to 65535, not {value!r}")
        found[number] = value
    return found


def _locked(raw: object, where: str) -> dict[int, int]:
    """Knobs the host may not change: their allow-in-band partner is 0."""
    if raw is None:
        return {}
    if not isinstance(raw, list):
        raise NodeError(f"{where}: locked must be a list of knobs such as [CCM]")
    found: dict[int, int] = {}
    for name in raw:
        number = number_of(name)
        if number is None or number in ALLOW_IN_BAND:
            able = _list(name for knob, name in NAMES.items() if knob not in ALLOW_IN_BAND)
            raise NodeError(f"{where}: locked knob {name!r} cannot be locked; use one of {able}")
        found[number - 1] = 0
    return found


def _unknown_knobs(raw: object, where: str) -> frozenset[int]:
    """Knobs that the firmware has never heard of."""
    names = [] if raw is None else raw
    if not isinstance(names, list):
        raise NodeError(f"{where}: unknown_knobs must be a list of knobs such as [CCD]")
    found = [number_of(name) for name in names]
    if None in found:
        name = names[found.index(None)]
        raise NodeError(f"{where}: unknown_knobs: there is no knob {name!r}; use some of {_list(NAMES.values())}")
    return frozenset(number for number in found if number is not None)


def _bars(raw: object, where: str) -> frozenset[int]:
    """BARs that firmware found no room for."""
    numbers = [] if raw is None else raw
    if not isinstance(numbers, list) or not all(_is_int(number) and number in BARS for number in numbers):
        raise NodeError(f"{where}: unassigned_bars must be a list of BAR numbers, some of {_list(BARS)}, not {raw!r}")
    return frozenset(numbers)


def _count_of_functions(raw: object, class_code: int, where: str) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool) or not 0 <= raw <= MOST_VIRTUAL_FUNCTIONS:
        raise NodeError(
            f"{where}: virtual_functions must be a whole number from 0 to {MOST_VIRTUAL_FUNCTIONS}, not {raw!r}"
        )
    if raw and class_code == CLASS_SWITCH:
        raise NodeError(f"{where}: a switch has no virtual functions; leave virtual_functions out")
    return raw


def _number(raw: Mapping[Any, Any], key: str, most: int, where: str) -> int | None:
    value = raw.get(key)
    if value is not None and (not _is_int(value) or not 0 <= value <= most):
        raise NodeError(f"{where}: {key} must be a whole number from 0 to {most:#x}, not {value!r}")
    return None if value is None else int(value)


def _flag(raw: Mapping[Any, Any], key: str, default: bool, where: str) -> bool:
    value = raw.get(key, default)
    if not isinstance(value, bool):
        raise NodeError(f"{where}: {key} must be true or false, not {value!r}")
    return value


def _choice(raw: Mapping[Any, Any], key: str, choices: tuple[str, ...], where: str) -> str:
    value = raw.get(key, choices[0])
    if value not in choices:
        raise NodeError(f"{where}: {key} must be one of {_list(choices)}, not {value!r}")
    return str(value)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _refuse_unknown(raw: Mapping[Any, Any], known: Iterable[str], where: str) -> None:
    if unknown := set(raw) - set(known):
        raise NodeError(f"{where}: unknown key {_list(unknown)}; use {_list(known)}")


def _list(words: Iterable[object]) -> str:
    return ", ".join(sorted(str(word) for word in words))
