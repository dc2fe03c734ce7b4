// Copyright: (c) 2026, confidential.gpu contributors
// SPDX-License-Identifier: Apache-2.0

// kwok, which plays the kubelets of a thousand nodes.
module confidential.gpu/tests/cluster/kwok

go 1.26.0

require sigs.k8s.io/kwok v0.8.0

tool sigs.k8s.io/kwok/cmd/kwok
