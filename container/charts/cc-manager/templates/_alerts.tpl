{{- /*
Copyright: (c) 2026, confidential.gpu contributors
SPDX-License-Identifier: Apache-2.0

What is wrong, and what to do about it. Without readings by the clock their age says nothing.
*/ -}}
{{- define "cc-manager.alerts" -}}
{{- $node := "{{ $labels.node }}" }}
{{- $own := printf "namespace=%q, daemonset=%q" .Release.Namespace (include "cc-manager.daemonSet" .) }}
{{- $interval := .Values.settings.driftIntervalSeconds | int }}
- name: cc-manager
  rules:
    - alert: ConfidentialComputingFailed
      expr: max by (node) (cc_manager_state{state="failed"}) == 1
      for: 5m
      labels: {severity: warning}
      annotations:
        summary: The GPUs of {{ $node }} are not in the mode that is wanted
        description: >-
          kubectl describe node {{ $node }} shows the reason in the annotation nvidia.com/cc.mode.reason and in Events.
    - alert: ConfidentialComputingGaveUp
      expr: max by (node) (cc_manager_gave_up) == 1
      labels: {severity: critical}
      annotations:
        summary: The manager on {{ $node }} tries no longer to set the mode
        description: >-
          Mend what the annotation nvidia.com/cc.mode.reason names, and then let it try again:
          kubectl annotate node {{ $node }} --overwrite nvidia.com/cc.mode.retry=$(date +%s)
    - alert: ConfidentialComputingChangeHangs
      expr: max by (node) (cc_manager_changing) == 1
      for: 15m
      labels: {severity: warning}
      annotations:
        summary: A change of the mode on {{ $node }} has been under way for 15 minutes
        description: Components of the GPU Operator are paused meanwhile. See the log of the manager's pod.
    - alert: ConfidentialComputingDrift
      expr: increase(cc_manager_drift_total[15m]) > 0
      labels: {severity: critical}
      annotations:
        summary: A GPU of {{ $node }} left the mode that it was set to
        description: Somebody else changed or reset it. Confidential virtual machines on this node are to be looked at.
    {{- if .Values.settings.auditFolder }}
    - alert: ConfidentialComputingAuditLost
      # The first one is no increase: its series was not there before.
      expr: >-
        increase(cc_manager_audit_lost_total[1h]) > 0
        or (cc_manager_audit_lost_total unless cc_manager_audit_lost_total offset 1h) > 0
      labels: {severity: warning}
      annotations:
        summary: The manager on {{ $node }} could not write an audit record
        description: >-
          Modes are changed all the same. See the log of the manager's pod, and whether {{ .Values.settings.auditFolder }}
          on the node can be written to.
    {{- end }}
    {{- if $interval }}
    - alert: ConfidentialComputingNotRead
      # Six readings in a row, and never less than half an hour.
      expr: >-
        time() - cc_manager_last_reading_timestamp_seconds > {{ max 1800 (mul 6 $interval) }}
        and cc_manager_last_reading_timestamp_seconds > 0
      labels: {severity: warning}
      annotations:
        summary: The modes on {{ $node }} have not been read for {{ "{{ $value | humanizeDuration }}" }}
        description: What the node's labels say may be old. See the log of the manager's pod.
    {{- end }}
    - alert: ConfidentialComputingManagerNotReady
      # Of kube-state-metrics: a pod that does not run has no metrics of its own.
      expr: >-
        kube_daemonset_status_desired_number_scheduled{ {{- $own -}} }
        - kube_daemonset_status_number_ready{ {{- $own -}} } > 0
      for: 15m
      labels: {severity: critical}
      annotations:
        summary: On {{ "{{ $value }}" }} nodes no manager is ready
        description: >-
          What these nodes' labels say is looked after by nobody.
          See kubectl describe daemonset -n {{ .Release.Namespace }} {{ include "cc-manager.daemonSet" . }}, and the pods' logs.
    - alert: ConfidentialComputingManagerAbsent
      # Unless it is known that no node is to have one.
      expr: >-
        absent(cc_manager_state)
        unless on () kube_daemonset_status_desired_number_scheduled{ {{- $own -}} } == 0
      for: 15m
      labels: {severity: critical}
      annotations:
        summary: No manager tells of any node
        description: >-
          No pod runs, or Prometheus does not reach its port.
          See kubectl get daemonset -n {{ .Release.Namespace }} {{ include "cc-manager.daemonSet" . }}, and Prometheus' targets.
    - alert: ConfidentialComputingManagerIsBlind
      # The API server says something to each watch every minute.
      expr: max by (node, watch) (cc_manager_watch_silence_seconds) > 600
      for: 5m
      labels: {severity: critical}
      annotations:
        summary: The manager on {{ $node }} has heard nothing of its {{ "{{ $labels.watch }}" }} for {{ "{{ $value | humanizeDuration }}" }}
        description: >-
          A wish for another mode is not followed, and pods that hold GPUs may not be seen. See the log of the manager's pod:
          the API server is not reached, or a right is missing.
    - alert: ConfidentialComputingFight
      # The first fight about a key is no increase: its series was not there before.
      expr: >-
        sum by (node, key) (increase(cc_manager_fights_total[1h])) > 0
        or sum by (node, key) (cc_manager_fights_total unless cc_manager_fights_total offset 1h) > 0
      labels: {severity: warning}
      annotations:
        summary: Something keeps changing {{ "{{ $labels.key }}" }} of {{ $node }} against the manager
        description: >-
          The manager writes it seldom, so that it does not go on for ever. kubectl get node {{ $node }} -o yaml --show-managed-fields
          tells who else writes it; mutating webhooks are not named there. Then let it try again:
          kubectl annotate node {{ $node }} --overwrite nvidia.com/cc.mode.retry=$(date +%s)
    - alert: ConfidentialComputingApiErrors
      # Requests that fail come every 30 s. Conflicts (409) are told apart: they are no fault, and tried again at once.
      expr: sum by (node, status) (increase(cc_manager_api_errors_total{status!="409"}[15m])) > 15
      for: 15m
      labels: {severity: warning}
      annotations:
        summary: The API server does not do what the manager on {{ $node }} asks (HTTP status {{ "{{ $labels.status }}" }})
        description: >-
          Status 0 is no answer; 403 is a right that is missing, or the admission policy.
          The log of the manager's pod shows what was asked.
{{- end }}
