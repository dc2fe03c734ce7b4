// Copyright: (c) 2026, confidential.gpu contributors
// SPDX-License-Identifier: Apache-2.0

// Helm, which lints, renders and installs the chart.
module confidential.gpu/tests/cluster/helm

go 1.26.0

require helm.sh/helm/v4 v4.3.1

tool helm.sh/helm/v4/cmd/helm
