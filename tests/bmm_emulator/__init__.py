# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""An emulator of the REST API of NVIDIA's bare-metal manager: python -m bmm_emulator DATA.yml

It knows nothing of the code that is tested against it. What it answers is described in docs/bare-metal.md.
"""
