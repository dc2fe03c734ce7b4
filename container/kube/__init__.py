# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What every program in a container needs: a small client of the Kubernetes API, and the base of a process.

It knows neither GPUs nor what the programs write to a node.
"""
