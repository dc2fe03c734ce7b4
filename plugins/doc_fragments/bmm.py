# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""How modules reach the bare-metal manager's API: the options that they share."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of every module of the bare-metal manager."""

    DOCUMENTATION = r"""
options:
  endpoint:
    description:
      - Address of the API without the path that begins with C(/v2), such as V(https://bmm.example.com).
      - Where it is not given, E(NVIDIA_BMM_ENDPOINT) in the environment of the module.
    type: str
    required: true
  org:
    description:
      - Name of the organisation, as the API's address has it.
      - Where it is not given, E(NVIDIA_BMM_ORG_NAME).
    type: str
    required: true
  api:
    description:
      - What follows the organisation in the API's address.
      - V(carbide) up to version 1.4 of the API, V(nico) from 1.5, V(forge) behind a proxy that takes no queries.
      - Where it is not given, E(NVIDIA_BMM_API_NAME).
    type: str
    choices: [nico, carbide, forge]
    default: nico
  ca_file:
    description:
      - File of the certificates (PEM) of the authority that signed the API's, if the system does not know it.
      - Where it is not given, E(NVIDIA_BMM_CA_FILE).
    type: path
  plain_http:
    description: Whether C(http://) may be used to another machine, which shows the token to the network.
    type: bool
    default: false
  token:
    description:
      - The token itself. Give one of O(token), O(token_file), O(client_secret), O(ngc_key).
      - Where it is not given, E(NVIDIA_BMM_TOKEN).
    type: str
  token_file:
    description: File that holds the token, or E(NVIDIA_BMM_TOKEN_FILE).
    type: path
  token_url:
    description:
      - Where a token is had for O(client_secret) (OAuth 2.0 client credentials) or for O(ngc_key).
      - Where it is not given, E(NVIDIA_BMM_TOKEN_URL).
    type: str
  client_id:
    description: The client's name at O(token_url), or E(NVIDIA_BMM_CLIENT_ID).
    type: str
  client_secret:
    description: The client's secret at O(token_url), or E(NVIDIA_BMM_CLIENT_SECRET).
    type: str
  scope:
    description: The scope to ask for at O(token_url), or E(NVIDIA_BMM_SCOPE).
    type: str
  username:
    description: A user's name, where O(token_url) gives tokens for a user's password only, or E(NVIDIA_BMM_USERNAME).
    type: str
  password:
    description: The password that belongs to O(username), or E(NVIDIA_BMM_PASSWORD).
    type: str
  ngc_key:
    description:
      - An NGC key, or E(NVIDIA_BMM_NGC_KEY). One that begins with C(nvapi-) is used as it is, another is exchanged at
        O(token_url).
    type: str
  timeout:
    description: Seconds that one request may take.
    type: float
    default: 60
  deadline:
    description: Seconds that a request may take with its retries, and a list with all its pages.
    type: float
    default: 120
"""
