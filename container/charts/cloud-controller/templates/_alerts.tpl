{{- /*
Copyright: (c) 2026, confidential.gpu contributors
SPDX-License-Identifier: Apache-2.0

What is wrong, and what to do about it.
*/ -}}
{{- define "ccm.alerts" -}}
{{- $about := "{{ $labels.about }}" }}
{{- $reason := "{{ $labels.reason }}" }}
{{- $lease := printf "kubectl -n %s events --for lease/%s" .Values.leaderElection.namespace .Values.leaderElection.name }}
{{- $own := printf "namespace=%q, deployment=%q" .Release.Namespace (include "ccm.name" .) }}
- name: cloud-controller
  rules:
    - alert: CloudControllerNobodyLeads
      expr: (max(leader_election_master_status{name={{ .Values.leaderElection.name | quote }}}) or vector(0)) < 1
      for: 5m
      labels: {severity: critical}
      annotations:
        summary: No cloud controller manager has the Lease {{ .Values.leaderElection.name }}
        description: >-
          New nodes keep their taint. See the pods ({{ printf "kubectl -n %s get pods" .Release.Namespace }}), their /readyz, and the
          Events: {{ $lease }}
    - alert: CloudControllerProblem
      expr: sum by (about, reason) (increase(bmm_problems_total[10m])) > 0
      for: 15m
      labels: {severity: warning}
      annotations:
        summary: The cloud controller manager cannot do its work ({{ $about }}, {{ $reason }})
        description: >-
          It deletes nothing and changes no address meanwhile. /readyz and the Events name the cause and the remedy: {{ $lease }}
    - alert: CloudControllerApiFails
      expr: >-
        sum(rate(bmm_requests_total{status!~"2..|404"}[10m])) / sum(rate(bmm_requests_total[10m])) > 0.5
      for: 10m
      labels: {severity: warning}
      annotations:
        summary: The bare-metal manager refuses most requests, or does not answer
        description: Is the token good, the endpoint right, and the API up? New nodes keep their taint until it answers.
    - alert: CloudControllerNodesWait
      expr: max(workqueue_depth{name="nodes"}) > 0
      for: 15m
      labels: {severity: warning}
      annotations:
        summary: Nodes wait to be initialised
        description: No pod is scheduled on them. The Events of such a node name what is missing (kubectl events --for node/NAME).
    - alert: CloudControllerSlowToInitialise
      expr: >-
        histogram_quantile(0.9,
        sum by (le) (rate(node_controller_cloud_provider_taint_removal_delay_seconds_bucket[30m]))) > 60
      labels: {severity: warning}
      annotations:
        summary: New nodes keep their taint for longer than a minute
        description: From the node's creation on. Does the bare-metal manager know the instance late, or answer slowly?
    - alert: CloudControllerDeletionsHeld
      expr: increase(bmm_node_deletions_total{result="held"}[15m]) > 0
      labels: {severity: critical}
      annotations:
        summary: More nodes are gone than may be deleted at once
        description: >-
          They stay. If those machines were given back, wait, or raise settings.deletionLimit; otherwise look at what the bare-metal
          manager says of this tenant and site.
    - alert: CloudControllerDeletionsFail
      expr: increase(bmm_node_deletions_total{result="failed"}[15m]) > 0
      for: 15m
      labels: {severity: warning}
      annotations:
        summary: Nodes whose machines are gone cannot be deleted
        description: The Event DeletingNodeFailed of the node says why; the right to delete nodes may be missing.
    - alert: CloudControllerConfigRefused
      expr: max(bmm_config_refused) == 1
      for: 5m
      labels: {severity: warning}
      annotations:
        summary: The cloud config of the Secret is refused, and the one before stays in force
        description: /readyz names the key and the remedy. A pod that starts now does not come up.
    - alert: CloudControllerPodsUnavailable
      expr: max(kube_deployment_status_replicas_unavailable{ {{- $own -}} }) > 0
      for: 15m
      labels: {severity: warning}
      annotations:
        summary: Pods of the cloud controller manager are not ready
        description: "kubectl -n {{ .Release.Namespace }} get pods -o wide; their /readyz and logs say why."
{{- end }}
