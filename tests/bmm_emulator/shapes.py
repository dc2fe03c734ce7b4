# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The API's records, complete: each property that its document declares is there, whatever the user's file says."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

Record = dict[str, Any]

# One moment for all that is there from the start, as after a batch: the API's own order, by creation, is then none.
CREATED = "2026-01-05T08:00:00Z"
MOST_HISTORY = 20


def made_id(*words: str) -> str:
    """The same UUID for the same words: runs can be compared."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(("bmm", *words))))


def history(status: str, message: str | None = None, created: str = CREATED) -> Record:
    """One entry of a statusHistory."""
    return {"status": status, "message": message, "created": created, "updated": created}


def _dates() -> Record:
    return {"created": CREATED, "updated": CREATED}


def tenant(org: str, targeted: bool) -> Record:
    """The tenant of an org."""
    return {
        "id": made_id("tenant", org),
        "org": org,
        "orgDisplayName": org,
        "capabilities": {"targetedInstanceCreation": targeted},
        "deprecations": [],
        **_dates(),
    }


def site(name: str, provider_id: str, location: Mapping[str, str] | None, online: bool) -> Record:
    """A site; without a location it has none, as old sites do."""
    found = {
        "id": made_id("site", name),
        "name": name,
        "description": None,
        "org": "provider",
        "infrastructureProviderId": provider_id,
        "siteControllerVersion": "2.0.0",
        "siteAgentVersion": "2.0.0",
        "registrationToken": None,
        "registrationTokenExpiration": None,
        "serialConsoleHostname": None,
        "isSerialConsoleEnabled": False,
        "serialConsoleIdleTimeout": None,
        "serialConsoleMaxSessionLength": None,
        "isSerialConsoleSSHKeysEnabled": False,
        "isOnline": online,
        "status": "Registered",
        "statusHistory": [history("Registered")],
        "contact": {"email": "operator@example.com"},
        "capabilities": {
            "nativeNetworking": True,
            "networkSecurityGroup": True,
            "nvLinkPartition": True,
            "flow": False,
            "imageBasedOperatingSystem": False,
        },
        **_dates(),
    }
    if location is not None:
        found["location"] = dict(location)
    return found


def instance_type(name: str, site_id: str, provider_id: str) -> Record:
    """An instance type."""
    return {
        "id": made_id("instance type", site_id, name),
        "name": name,
        "description": None,
        "controllerMachineType": "x86_64",
        "infrastructureProviderId": provider_id,
        "siteId": site_id,
        "labels": {},
        "machineCapabilities": [],
        "machineInstanceTypes": [],
        "status": "Ready",
        "statusHistory": [history("Ready")],
        "deprecations": [],
        **_dates(),
    }


def vpc(name: str, site_id: str, tenant_id: str, org: str) -> Record:
    """A VPC."""
    return {
        "id": made_id("vpc", site_id, name),
        "name": name,
        "description": None,
        "org": org,
        "tenantId": tenant_id,
        "siteId": site_id,
        "controllerVpcId": None,
        "networkVirtualizationType": "FNN",
        "routingProfile": None,
        "requestedVni": None,
        "vni": None,
        "networkSecurityGroupId": None,
        "nvLinkLogicalPartitionId": None,
        "labels": {},
        "status": "Ready",
        "statusHistory": [history("Ready")],
        **_dates(),
    }


def interface(instance_id: str, number: int, addresses: Sequence[str], given: Mapping[str, Any]) -> Record:
    """An Ethernet interface; ``given`` holds properties that differ."""
    return {
        "id": made_id("interface", instance_id, str(number)),
        "instanceId": instance_id,
        "subnetId": None,
        "vpcPrefixId": made_id("prefix"),
        "ipFamilies": sorted({"IPv6" if ":" in one else "IPv4" for one in addresses}) or ["IPv4"],
        "isPhysical": True,
        "device": None,
        "deviceInstance": number,
        "virtualFunctionId": None,
        "macAddress": "02:00:" + ":".join(instance_id[place : place + 2] for place in (0, 2, 4)) + f":{number:02x}",
        "ipAddresses": list(addresses),
        "requestedIpAddress": None,
        "inlineRoutingProfile": None,
        "status": "Ready",
        **_dates(),
        **given,
    }


def instance(name: str, ids: Mapping[str, Any], given: Mapping[str, Any]) -> Record:
    """An instance: ``ids`` of what it belongs to, ``given`` properties that differ."""
    status = given.get("status", "Ready")
    return {
        "name": name,
        "description": None,
        **ids,
        "secondaryVpcIds": [],
        "operatingSystemId": made_id("operating system"),
        "networkSecurityGroupId": None,
        "networkSecurityGroupInherited": False,
        "controllerInstanceId": None,
        "ipxeScript": None,
        "alwaysBootWithCustomIpxe": False,
        "phoneHomeEnabled": False,
        "userData": None,
        "labels": {},
        "isUpdatePending": False,
        "serialConsoleUrl": None,
        "autoNetwork": False,
        "interfaces": [],
        "infinibandInterfaces": [],
        "nvLinkInterfaces": [],
        "dpuExtensionServiceDeployments": [],
        "sshKeyGroupIds": [],
        "sshKeyGroups": [],
        "tpmEkCertificate": None,
        "status": status,
        "statusHistory": [history(status)],
        "deprecations": [],
        **_dates(),
        **given,
    }


def machine(machine_id: str, ids: Mapping[str, Any], given: Mapping[str, Any]) -> Record:
    """A machine."""
    status = given.get("status", "InUse" if ids.get("instanceId") else "Ready")
    return {
        "id": machine_id,
        **ids,
        "controllerMachineId": machine_id,
        "controllerMachineType": "x86_64",
        "hwSkuDeviceType": "gpu",
        "vendor": "NVIDIA",
        "productName": "DGXH100",
        "serialNumber": None,
        "machineCapabilities": [],
        "machineInterfaces": [],
        "associatedDpuMachineIds": [],
        "placementInRack": {"slotNumber": None, "trayIndex": None},
        "maintenanceMessage": None,
        "scoutVersion": None,
        "health": {"source": "aggregate", "observedAt": CREATED, "successes": [], "alerts": []},
        "labels": {},
        "status": status,
        "isUsableByTenant": True,
        "statusHistory": [history(status)],
        **_dates(),
        **given,
    }
