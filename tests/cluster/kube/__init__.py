# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""A real Kubernetes of one node in namespaces of its own, from Go modules and Debian packages.

programs  -- Kubernetes, etcd, Helm and kwok, built once into the cache
space     -- the namespaces, and processes in them
settings  -- the files and arguments of each part
images    -- container images, and how they get into the cluster
api       -- requests to the API server
cluster   -- all of it started, looked at and ended
audit     -- who asked the API server for what
workloads -- what the GPU Operator runs on a node: components and the manager's DaemonSet
bed       -- one node: devices, components, manager
release   -- the chart, installed
plugin    -- the device plugin's chart, installed, and what the kubelet has of it
account   -- requests with the token of a pod
show      -- a change as kubectl shows it
weather   -- what makes a manager blind, or argues with it: stripped keys, lost and silent connections

Each file imports only those above it.
"""
