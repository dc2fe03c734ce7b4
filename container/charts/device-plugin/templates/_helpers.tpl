{{- /*
Copyright: (c) 2026, confidential.gpu contributors
SPDX-License-Identifier: Apache-2.0
*/ -}}

{{- define "device-plugin.name" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride }}
{{- else if eq .Release.Name .Chart.Name }}{{ .Chart.Name }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "device-plugin.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "device-plugin.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "device-plugin.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "device-plugin.labels" -}}
{{ include "device-plugin.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "device-plugin.image" -}}
{{- with .Values.image }}{{ if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end }}{{ end }}
{{- end }}

{{- define "device-plugin.environment" -}}
DEVICE_PLUGIN_SOURCE: {{ .Values.source }}
DEVICE_PLUGIN_REGISTER: {{ .Values.register | quote }}
DEVICE_PLUGIN_CONFIG: /etc/device-plugin/config.yaml
DEVICE_PLUGIN_HOST_ROOT: /host
# A user namespace lets no pod have the host's /dev.
DEVICE_PLUGIN_DEVICES: {{ .Values.security.hostUsers | ternary "nodes" "kernel" }}
DEVICE_PLUGIN_POD_RESOURCES: /pod-resources/kubelet.sock
DEVICE_PLUGIN_METRICS_PORT: {{ .Values.metricsPort | int | quote }}
DEVICE_PLUGIN_LOG_FORMAT: {{ .Values.logFormat }}
{{- if eq .Values.source "gpu" }}
# NVIDIA's runtime puts the devices and the driver's library into this container.
NVIDIA_VISIBLE_DEVICES: all
NVIDIA_DRIVER_CAPABILITIES: utility
{{- end }}
{{- if include "device-plugin.namedConfigs" . }}
DEVICE_PLUGIN_CONFIGS: /etc/device-plugin-configs
DEVICE_PLUGIN_DEFAULT_CONFIG: {{ .Values.gpuNode.defaultConfig | quote }}
{{- end }}
{{- end }}

{{- /* Not empty where the plugin reads its node. */ -}}
{{- define "device-plugin.readsNode" -}}
{{- if and (eq .Values.source "gpu") .Values.gpuNode.enabled }}yes{{ end }}
{{- end }}

{{- /* Not empty where the node's label chooses a configuration. */ -}}
{{- define "device-plugin.namedConfigs" -}}
{{- if and (include "device-plugin.readsNode" .) .Values.gpuNode.configs }}yes{{ end }}
{{- end }}

{{- /* All configurations that may hold for GPUs, by name. */ -}}
{{- define "device-plugin.gpuConfigs" -}}
{{- $every := dict "default" .Values.gpuConfig }}
{{- if include "device-plugin.namedConfigs" . }}{{ $every = merge (deepCopy .Values.gpuNode.configs) $every }}{{ end }}
{{- toYaml $every }}
{{- end }}

{{- define "device-plugin.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "device-plugin.serviceAccount" . }}
{{- end }}

{{- /* What cannot be meant, and a schema does not see. */ -}}
{{- define "device-plugin.check" -}}
{{- $reports := .Values.config.reports | default dict }}
{{- $ours := concat (keys (include "device-plugin.environment" . | fromYaml)) (list "POD_NAMESPACE" "POD_NAME" "DEVICE_PLUGIN_POD" "DEVICE_PLUGIN_NODE") }}
{{- range $name, $value := .Values.extraEnv }}
{{- if has $name $ours }}
{{- fail (printf "extraEnv.%s: the chart sets it. Use the value for it (README.md)." $name) }}
{{- end }}
{{- end }}
{{- if and (eq .Values.source "tee") (not .Values.register) }}
{{- fail "register: false needs source: gpu: it gives NVIDIA's device plugin metrics." }}
{{- end }}
{{- if .Values.gpuNode.configs }}
{{- if not (include "device-plugin.readsNode" .) }}
{{- fail "gpuNode.configs needs source: gpu and gpuNode.enabled: true: the node's label chooses one of them." }}
{{- end }}
{{- if not (hasKey (include "device-plugin.gpuConfigs" . | fromYaml) .Values.gpuNode.defaultConfig) }}
{{- fail (printf "gpuNode.defaultConfig is %q, and gpuNode.configs has no such configuration." .Values.gpuNode.defaultConfig) }}
{{- end }}
{{- end }}
{{- if and (eq .Values.source "gpu") (not .Values.security.hostUsers) }}
{{- fail "source: gpu needs security.hostUsers: true: the driver was not tried in a user namespace." }}
{{- end }}
{{- if and (eq .Values.source "tee") $reports.enabled (not .Values.security.hostUsers) }}
{{- fail "config.reports.enabled needs security.hostUsers: true: only the host's root can make folders in configfs." }}
{{- end }}
{{- end }}

{{- /* Folders of the host that the configuration names, as name, path, type, readOnly; all are mounted below /host. */ -}}
{{- define "device-plugin.folders" -}}
{{- if .Values.security.hostUsers }}
- {name: dev, path: /dev, type: Directory, readOnly: true}
{{- end }}
{{- if eq .Values.source "tee" }}
{{- with .Values.config.socketFolder }}{{ if .enabled }}
- {name: sockets, path: {{ dir (trimSuffix "/" .path) | quote }}, type: DirectoryOrCreate, readOnly: false}
{{- end }}{{ end }}
{{- with .Values.config.reports }}{{ if .enabled }}
- {name: reports, path: {{ .path | quote }}, type: Directory, readOnly: false}
{{- end }}{{ end }}
{{- with .Values.config.cdi }}{{ if .enabled }}
- {name: cdi, path: {{ .folder | quote }}, type: DirectoryOrCreate, readOnly: false}
{{- end }}{{ end }}
{{- else }}
- {name: verdicts, path: /run/device-plugin-gpu, type: DirectoryOrCreate, readOnly: false}
{{- $roots := list }}
{{- $cdi := false }}
{{- range $config := include "device-plugin.gpuConfigs" . | fromYaml }}
{{- $flags := $config.flags | default dict }}
{{- $plugin := $flags.plugin | default dict }}
{{- if contains "cdi-" (toJson ($plugin.deviceListStrategy | default "")) }}{{ $cdi = true }}{{ end }}
{{- $roots = append $roots ($flags.nvidiaDriverRoot | default "/") }}
{{- end }}
{{- if and .Values.register $cdi }}
- {name: cdi-etc, path: /etc/cdi, type: DirectoryOrCreate, readOnly: true}
- {name: cdi-run, path: /run/cdi, type: DirectoryOrCreate, readOnly: true}
{{- end }}
{{- range $number, $root := without (uniq $roots) "/" }}
- {name: driver{{ if $number }}-{{ $number }}{{ end }}, path: {{ $root | quote }}, type: DirectoryOrCreate, readOnly: true}
{{- end }}
{{- end }}
{{- end }}

{{- /* A number as it was written: Helm reads numbers as floats, and large ones would get an exponent. */ -}}
{{- define "device-plugin.gpuConfig" -}}
{{- $config := deepCopy . }}
{{- with ($config.sharing | default dict).timeSlicing }}
{{- range .resources }}{{ $_ := set . "replicas" (int .replicas) }}{{ end }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{- define "device-plugin.config" -}}
{{- $config := deepCopy .Values.config }}
{{- range $config.resources }}{{ if hasKey . "slots" }}{{ $_ := set . "slots" (int .slots) }}{{ end }}{{ end }}
{{- with $config.socketFolder }}
{{- range $key := list "uid" "gid" }}
{{- if hasKey $config.socketFolder $key }}{{ $_ := set $config.socketFolder $key (index $config.socketFolder $key | int64) }}{{ end }}
{{- end }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{- /* What shared GPUs are called, as container/device_plugin/gpu/config.py names them; each once. */ -}}
{{- define "device-plugin.sharedNames" -}}
{{- $slices := .Values.gpuConfig.sharing.timeSlicing }}
{{- $names := list }}
{{- range $slices.resources }}
{{- $name := contains "/" .name | ternary .name (printf "nvidia.com/%s" .name) }}
{{- $new := .rename | default ($slices.renameByDefault | default false | ternary (printf "%s.shared" $name) $name) }}
{{- $names = append $names (contains "/" $new | ternary $new (printf "nvidia.com/%s" $new)) }}
{{- end }}
{{- toYaml (uniq $names) }}
{{- end }}
