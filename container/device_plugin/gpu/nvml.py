# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's management library: the only place that knows nvidia-ml-py. All of it in one thread.

nvidia-ml-py loads the library once for the life of a process. After an update of the driver that library is of the
old version and answers with a mismatch for ever: here it is unloaded when a session ends.
"""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
import threading
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pynvml

from .seen import NOTHING, RESET, Gpu, Seen

LIBRARY = "libnvidia-ml.so.1"
# Below the root of a driver: Debian's and Fedora's folders, and Talos' extension.
FOLDERS = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "lib64",
    "usr/local/glibc/usr/lib",
    "usr/local/glibc/lib",
)
# What a library, or a driver, without confidential computing says.
ABSENT = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
)
# NVML's "GPU recovery action", which a driver of 2025 and later tells: what brings a GPU back after an error.
RECOVERY = {
    pynvml.NVML_GPU_RECOVERY_ACTION_NONE: NOTHING,
    pynvml.NVML_GPU_RECOVERY_ACTION_GPU_RESET: RESET,
    pynvml.NVML_GPU_RECOVERY_ACTION_DRAIN_AND_RESET: RESET,
    pynvml.NVML_GPU_RECOVERY_ACTION_BUS_RESET: RESET,
    pynvml.NVML_GPU_RECOVERY_ACTION_NODE_REBOOT: "a boot of the host",
    pynvml.NVML_GPU_RECOVERY_ACTION_SYSTEM_REBOOT: "a boot of the host",
}
# There is one library in a process.
_ONE = threading.Lock()


class Lost(Exception):
    """The library, the driver, or all of its GPUs: the text has the cause. A new session may find them again."""


class Changed(Exception):
    """There are more or fewer GPUs: a new session sees which."""


class Xid(NamedTuple):
    """An error that the driver told. ``uuid``: empty where it did not tell of which GPU."""

    uuid: str
    number: int


class Session:
    """The library while it is open. Everything raises Lost, and ``again`` Changed."""

    def __init__(self, numa: Path) -> None:
        self._numa = numa
        self._events: Any = pynvml.nvmlEventSetCreate()
        self._handles: list[Any] = []
        self._by_uuid: dict[str, Any] = {}
        self.unwatched: list[str] = []

    def look(self) -> Seen:
        """All GPUs, of whose errors ``wait`` tells from now on."""
        with _told():
            gpus = [one for number in range(pynvml.nvmlDeviceGetCount()) if (one := self._gpu(number)) is not None]
            return Seen(tuple(gpus), *self._confidential(), self._recovery([one.uuid for one in gpus]))

    def again(self, seen: Seen, doubtful: Collection[str] = ()) -> Seen:
        """The same GPUs, and what may have changed. Their number is no longer the same: Changed.

        ``doubtful``: of these GPUs, and of those that need something, it is asked what they need.
        """
        with _told():
            count = pynvml.nvmlDeviceGetCount()
            if count != len(self._handles):
                raise Changed(f"the driver has {count} GPUs, where it had {len(self._handles)}")
            confidential, ready = self._confidential()
            asked = {*doubtful, *(one for one, action in seen.recovery.items() if action != NOTHING)}
            recovery = {**seen.recovery, **self._recovery(asked)} if asked else seen.recovery
            return seen._replace(confidential=confidential, ready=ready, recovery=recovery)

    def wait(self, wait_ms: int) -> Xid | None:
        """The next error, or None after a while."""
        try:
            event = pynvml.nvmlEventSetWait_v2(self._events, wait_ms)
        except pynvml.NVMLError as error:
            if error.value == pynvml.NVML_ERROR_TIMEOUT:
                return None
            raise Lost(_said(error)) from error
        if event.eventType != pynvml.nvmlEventTypeXidCriticalError:
            return None
        try:
            return Xid(_text(pynvml.nvmlDeviceGetUUID(event.device)), int(event.eventData))
        except pynvml.NVMLError:
            return Xid("", int(event.eventData))

    def close(self) -> None:
        """No events any more."""
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlEventSetFree(self._events)

    def _gpu(self, number: int) -> Gpu | None:
        """None: it fell off its bus, as the driver says."""
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(number)
            self._handles.append(handle)
            uuid = _text(pynvml.nvmlDeviceGetUUID(handle))
            bus = _text(pynvml.nvmlDeviceGetPciInfo(handle).busId)
            minor, name = int(pynvml.nvmlDeviceGetMinorNumber(handle)), _text(pynvml.nvmlDeviceGetName(handle))
            self._by_uuid[uuid] = handle
            self._watch(handle, uuid)
        except pynvml.NVMLError as error:
            if error.value != pynvml.NVML_ERROR_GPU_IS_LOST:
                raise
            if len(self._handles) == number:
                self._handles.append(None)
            return None
        return Gpu(uuid, number, minor, name, self._nodes_of_memory(bus))

    def _watch(self, handle: Any, uuid: str) -> None:
        try:
            pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, self._events)
        except pynvml.NVMLError as error:
            if error.value != pynvml.NVML_ERROR_NOT_SUPPORTED:
                raise
            self.unwatched.append(uuid)

    def _nodes_of_memory(self, bus: str) -> tuple[int, ...]:
        """NVML's bus ids have eight digits of a domain, the kernel's have four."""
        try:
            node = int((self._numa / bus.lower()[-12:] / "numa_node").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return ()
        return (node,) if node >= 0 else ()

    def _recovery(self, uuids: Collection[str]) -> dict[str, str]:
        """What they need, where the driver says it. An answer that is not known is something else than nothing."""
        found: dict[str, str] = {}
        for uuid in uuids:
            if uuid not in self._by_uuid:
                continue
            try:
                (told,) = pynvml.nvmlDeviceGetFieldValues(
                    self._by_uuid[uuid], [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION]
                )
            except pynvml.NVMLError as error:
                if error.value in ABSENT:
                    continue
                raise
            if told.nvmlReturn == pynvml.NVML_SUCCESS:
                action = int(told.value.uiVal)
                found[uuid] = RECOVERY.get(action, f"the recovery action {action}")
        return found

    @staticmethod
    def _confidential() -> tuple[bool, bool]:
        try:
            if not pynvml.nvmlSystemGetConfComputeState().ccFeature:
                return False, True
            return True, bool(pynvml.nvmlSystemGetConfComputeGpusReadyState())
        except pynvml.NVMLError as error:
            if error.value in ABSENT:
                return False, True
            raise


@contextlib.contextmanager
def session(root: Path, numa: Path) -> Iterator[Session]:
    """Load the driver's library and open it. ``root``: of the driver; ``numa``: the kernel's folder of PCI devices."""
    with _ONE, _loaded(root), _told():
        pynvml.nvmlInit()
        try:
            made = Session(numa)
            try:
                yield made
            finally:
                made.close()
        finally:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()


@contextlib.contextmanager
def _loaded(root: Path) -> Iterator[None]:
    places: Sequence[Path] = [path for one in FOLDERS if (path := root / one / LIBRARY).exists()]
    try:
        # Without a path the loader looks itself: NVIDIA's runtime puts the library into the container.
        library = ctypes.CDLL(str(places[0]) if places else LIBRARY)
    except OSError as error:
        raise Lost(f"there is no {LIBRARY} below {root}, nor in this container: {error}") from error
    pynvml.nvmlLib = library
    try:
        yield
    finally:
        pynvml.nvmlLib = None
        pynvml._nvmlGetFunctionPointer_cache.clear()  # what it knows is of the old library
        _ctypes.dlclose(library._handle)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except pynvml.NVMLError as error:
        raise Lost(_said(error)) from error


def _said(error: Any) -> str:
    return f"NVML says: {error}"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
