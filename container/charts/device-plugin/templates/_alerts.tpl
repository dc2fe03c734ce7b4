{{- /*
Copyright: (c) 2026, confidential.gpu contributors
SPDX-License-Identifier: Apache-2.0

What is wrong, and what to do about it.
*/ -}}
{{- define "device-plugin.alerts" -}}
{{- $node := "{{ $labels.node }}" }}
{{- $resource := "{{ $labels.resource }}" }}
{{- $own := printf "namespace=%q, daemonset=%q" .Release.Namespace (include "device-plugin.name" .) }}
- name: device-plugin
  rules:
    - alert: DevicePluginNotRegistered
      expr: min by (node, resource) (device_plugin_registered) == 0
      for: 5m
      labels: {severity: warning}
      annotations:
        summary: The kubelet of {{ $node }} does not listen to the plugin of {{ $resource }}
        description: No new pod gets the device there. The log of the plugin's pod says why; /readyz too.
    - alert: DevicePluginDevicesUnhealthy
      expr: min by (node, resource) (device_plugin_healthy_devices - device_plugin_devices) < 0
      for: 5m
      labels: {severity: warning}
      annotations:
        summary: The device of {{ $resource }} on {{ $node }} is gone, or is another
        description: >-
          Pods that run keep what they have; no new one gets the device. The log of the plugin's pod says what was found.
          Is the module of the guest's device loaded? A GPU with a verdict has to be reset (docs/device-plugins.md).
    - alert: DevicePluginAllocationsFail
      expr: sum by (node, resource, reason) (increase(device_plugin_allocation_errors_total[15m])) > 0
      labels: {severity: warning}
      annotations:
        summary: Pods on {{ $node }} did not get {{ $resource }} ({{ "{{ $labels.reason }}" }})
        description: Such a pod has failed for good (UnexpectedAdmissionError). The log of the plugin's pod names the cause.
    - alert: DevicePluginConfigRefused
      expr: max by (node) (device_plugin_config_refused) == 1
      for: 5m
      labels: {severity: warning}
      annotations:
        summary: The plugin on {{ $node }} refuses its configuration, and goes on with the one before
        description: The log of its pod names the key and the remedy. A pod that starts now does not come up.
    - alert: DevicePluginWithholdsGpus
      expr: max by (node) (device_plugin_withheld) == 1
      for: 15m
      labels: {severity: warning}
      annotations:
        summary: The plugin on {{ $node }} gives no GPU to anybody
        description: >-
          The mode of confidential computing is being changed, or is not known, or nothing is heard of the node. The log of
          its pod says which; the annotation nvidia.com/cc.mode.reason of the node says why a change does not end.
    - alert: DevicePluginStreamsBreak
      expr: sum by (node, resource) (increase(device_plugin_stream_breaks_total[15m])) > 5
      labels: {severity: warning}
      annotations:
        summary: The kubelet of {{ $node }} ends the stream of {{ $resource }} again and again
        description: A kubelet that restarts, or two plugins with one resource. See the kubelet's log.
    - alert: DevicePluginPodsUnavailable
      expr: max(kube_daemonset_status_number_unavailable{ {{- $own -}} }) > 0
      for: 15m
      labels: {severity: warning}
      annotations:
        summary: Pods of the device plugin are not ready
        description: "kubectl get pods -n {{ .Release.Namespace }} -o wide; their /readyz and logs say why."
{{- end }}
