# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Inventory from the bare-metal manager's API: what is Ansible's stands here, the rest in module_utils/_bmm."""

from __future__ import annotations

DOCUMENTATION = r"""
---
name: bmm
short_description: Instances of NVIDIA's bare-metal manager as hosts
version_added: 0.2.0
description:
  - Lists a tenant's instances from the REST API of NVIDIA's bare-metal manager (also called NICo and carbide).
  - The source is a file whose name ends in V(bmm.yml) or V(bmm.yaml).
  - Terminated instances are left out. Hosts come in the order of their names.
  - User data and other fields that may hold secrets are neither variables of hosts nor in the cache; nor is the token.
  - What the API answers is never taken for a template.
author:
  - confidential.gpu contributors (@confidential-gpu)
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
notes:
  - Ansible only warns of a source that fails and goes on without its hosts. To make it a failure, set
    E(ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED) to V(true).
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [confidential.gpu.bmm]
  endpoint:
    description: Address of the API without the path that begins with C(/v2), such as V(https://bmm.example.com).
    type: str
    env: [{name: NVIDIA_BMM_ENDPOINT}]
  org:
    description: Name of the organisation, as the API's address has it.
    type: str
    env: [{name: NVIDIA_BMM_ORG_NAME}]
  api:
    description:
      - What follows the organisation in the API's address.
      - V(carbide) up to version 1.4 of the API, V(nico) from 1.5, V(forge) behind a proxy that takes no queries.
    type: str
    choices: [nico, carbide, forge]
    default: nico
    env: [{name: NVIDIA_BMM_API_NAME}]
  ca_file:
    description: File of the certificates (PEM) of the authority that signed the API's, if the system does not know it.
    type: path
    env: [{name: NVIDIA_BMM_CA_FILE}]
  plain_http:
    description: Whether C(http://) may be used to another machine, which shows the token to the network.
    type: bool
    default: false
  token:
    description: The token itself. Give one of O(token), O(token_file), O(client_secret), O(ngc_key).
    type: str
    env: [{name: NVIDIA_BMM_TOKEN}]
  token_file:
    description: File that holds the token; it is read at each request.
    type: path
    env: [{name: NVIDIA_BMM_TOKEN_FILE}]
  token_url:
    description: Where a token is had for O(client_secret) (OAuth 2.0 client credentials) or for O(ngc_key).
    type: str
    env: [{name: NVIDIA_BMM_TOKEN_URL}]
  client_id:
    description: The client's name at O(token_url).
    type: str
    env: [{name: NVIDIA_BMM_CLIENT_ID}]
  client_secret:
    description: The client's secret at O(token_url).
    type: str
    env: [{name: NVIDIA_BMM_CLIENT_SECRET}]
  scope:
    description: The scope to ask for at O(token_url).
    type: str
    env: [{name: NVIDIA_BMM_SCOPE}]
  username:
    description: A user's name, where O(token_url) gives tokens for a user's password only.
    type: str
    env: [{name: NVIDIA_BMM_USERNAME}]
  password:
    description: The password that belongs to O(username).
    type: str
    env: [{name: NVIDIA_BMM_PASSWORD}]
  ngc_key:
    description: An NGC key. One that begins with C(nvapi-) is used as it is, another is exchanged at O(token_url).
    type: str
    env: [{name: NVIDIA_BMM_NGC_KEY}]
  timeout:
    description: Seconds that one request may take.
    type: float
    default: 60
  deadline:
    description: Seconds that the list may take, with all its pages and retries.
    type: float
    default: 120
  hostnames:
    description:
      - What names a host, in order of preference - V(name), V(id), V(machine_id), V(address), V(ipv4), V(ipv6) or
        C(label:KEY). What cannot be a host's name is passed over; the id comes last.
      - Instances that would share a name are listed by their ids, and a warning says so.
    type: list
    elements: str
    default: [name]
  group_by:
    description:
      - Groups that cost nothing, named after what they hold - V(site), V(status), V(instance_type), V(vpc), or
        C(label:KEY), such as C(site_sjc4), C(status_ready) and C(KEY_value).
      - For each O(keyed_groups), O(groups) and O(compose) Ansible compiles a template for each host, which takes a few
        seconds for a thousand hosts.
    type: list
    elements: str
    default: []
  hostvars_prefix:
    description: What the names of the hosts' variables begin with.
    type: str
    default: bmm_
  hostvars_suffix:
    description: What the names of the hosts' variables end with.
    type: str
    default: ""
  include_filters:
    description:
      - An instance is listed if it passes any of these, or if there are none.
      - Keys are V(id), V(name), V(status), V(site) (name or id), V(site_id), V(vpc_id), V(instance_type_id),
        V(machine_id) and V(labels). All keys of one filter have to match; a list means any of its values.
    type: list
    elements: dict
    default: []
  exclude_filters:
    description: An instance that passes any of these is not listed. Keys as in O(include_filters).
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
# fleet.bmm.yml, with the token in the environment: NVIDIA_BMM_TOKEN
plugin: confidential.gpu.bmm
endpoint: https://bmm.example.com
org: acme
include_filters:
  - status: Ready
    site: sjc4
    labels: {env: [staging, production]}
keyed_groups:
  - {key: bmm_site, prefix: site}
  - {key: bmm_labels.env, prefix: env}
groups:
  h100: "'H100' in bmm_machine.product_name"
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/ansible
cache_timeout: 600
"""

from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

from ansible_collections.confidential.gpu.plugins.module_utils._bmm import credentials, hosts
from ansible_collections.confidential.gpu.plugins.module_utils._bmm.client import Client
from ansible_collections.confidential.gpu.plugins.module_utils._bmm.errors import NotAllowed
from ansible_collections.confidential.gpu.plugins.module_utils._bmm.settings import Settings
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import (
    ExplainedError,
    InvalidRequest,
)

SUFFIXES = ("bmm.yml", "bmm.yaml")
OPTIONS = (
    "include_filters", "exclude_filters", "hostnames", "group_by", "hostvars_prefix", "hostvars_suffix", "strict",
    "compose", "groups", "keyed_groups",
)  # fmt: skip
# Raised when what is kept in the cache changes its form.
SCHEMA = 1


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):  # type: ignore[misc]
    """The plugin as Ansible loads it."""

    NAME = "confidential.gpu.bmm"

    def verify_file(self, path: str) -> bool:
        """Whether a source is for this plugin."""
        return bool(super().verify_file(path)) and path.endswith(SUFFIXES)

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Fill the inventory. Raises AnsibleParserError, which says cause and remedy."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        try:
            self._fill(self.get_cache_key(path), cache)
        except ExplainedError as error:
            raise AnsibleParserError(str(error)) from None

    def _fill(self, key: str, cache: bool) -> None:
        # Asking for an option costs more than a host's variables do.
        option = {name: self.get_option(name) for name in OPTIONS}
        include, exclude = option["include_filters"], option["exclude_filters"]
        hosts.check_filters("include_filters", include)
        hosts.check_filters("exclude_filters", exclude)
        hosts.check_names(option["hostnames"])
        hosts.check_groups(option["group_by"])
        known = self._known(key, cache)
        fit = [one for one in known if hosts.wanted(one, include, exclude)]
        found = hosts.named(fit, option["hostnames"])
        for warning in found.warnings:
            self.display.warning(warning)
        prefix, suffix, strict = option["hostvars_prefix"], option["hostvars_suffix"], option["strict"]
        groups: dict[str, str] = {}  # as they are to be called, to as they are called
        for name, facts in found.hosts.items():
            self.inventory.add_host(name)
            variables = {prefix + fact + suffix: value for fact, value in facts.items()}
            if facts["addresses"]:
                variables["ansible_host"] = facts["addresses"][0]
            # Not through the inventory, which would mark each text with this file as its origin: eight seconds for ten
            # thousand hosts. Texts stay untrusted either way.
            host = self.inventory.get_host(name)
            for variable, value in variables.items():
                host.set_variable(variable, value)
            for group in hosts.groups(facts, option["group_by"]):
                if group not in groups:
                    groups[group] = self.inventory.add_group(self._sanitize_group_name(group))
                self.inventory.add_host(name, groups[group])
            self._set_composite_vars(option["compose"], variables, name, strict=strict)
            self._add_host_to_composed_groups(option["groups"], variables, name, strict=strict)
            self._add_host_to_keyed_groups(option["keyed_groups"], variables, name, strict=strict)

    def _known(self, key: str, cache: bool) -> list[dict[str, Any]]:
        """Facts of the instances, from the cache where they are of the same question."""
        settings = self._settings()
        query = hosts.query_of(self.get_option("include_filters"))
        question = [SCHEMA, settings.endpoint, settings.org, settings.api, [list(pair) for pair in query]]
        keeps = self.get_option("cache")
        if keeps and cache:
            entry = self._cache.get(key)
            if isinstance(entry, dict) and entry.get("question") == question:
                return list(entry["instances"])
        found = self._asked(settings, query)
        if keeps:
            self._cache[key] = {"question": question, "instances": found}
        return found

    def _asked(self, settings: Settings, query: list[tuple[str, str]]) -> list[dict[str, Any]]:
        given = {name: self._option(name) for name in credentials.ENVIRONMENT}
        tokens = credentials.token_source(given, settings.ca_file, settings.plain_http)
        client = Client(settings, tokens)
        try:
            instances = client.instances(query, hosts.RELATIONS)
            try:
                sites = {site["id"]: site for site in client.sites()}
            except NotAllowed as error:
                self.display.warning("Hosts have no location: %s" % error)
                sites = {}
        finally:
            client.close()
        return [hosts.facts(instance, sites, settings.org) for instance in instances]

    def _settings(self) -> Settings:
        for name in ("endpoint", "org"):
            if not self._option(name):
                raise InvalidRequest(
                    "The option %s is missing." % name,
                    "Write it into the file, or set %s." % credentials.ENVIRONMENT[name],
                )
        return Settings(
            endpoint=self._option(name="endpoint").rstrip("/"),
            org=self._option("org"),
            api=self._option("api"),
            ca_file=self._option("ca_file"),
            plain_http=self.get_option("plain_http"),
            timeout_s=self.get_option("timeout"),
            deadline_s=self.get_option("deadline"),
        ).checked()

    def _option(self, name: str) -> str:
        """An option as text; a template in the user's file, such as a lookup, is carried out."""
        value = self.get_option(name)
        if not isinstance(value, str):
            return ""
        templar = self.templar
        return str(templar.template(value)) if templar.is_template(value) else value
