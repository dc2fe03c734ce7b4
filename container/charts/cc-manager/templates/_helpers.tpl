{{- /*
Copyright: (c) 2026, confidential.gpu contributors
SPDX-License-Identifier: Apache-2.0
*/ -}}

{{- define "cc-manager.name" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride }}
{{- else if eq .Release.Name .Chart.Name }}{{ .Chart.Name }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "cc-manager.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "cc-manager.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "cc-manager.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "cc-manager.serviceAccount" . }}
{{- end }}

{{- /* The GPU Operator gives its DaemonSet and the service account one name. */ -}}
{{- define "cc-manager.daemonSet" -}}
{{- if .Values.daemonSet.enabled }}{{ include "cc-manager.name" . }}{{ else }}{{ include "cc-manager.serviceAccount" . }}{{ end }}
{{- end }}

{{- define "cc-manager.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cc-manager.labels" -}}
{{ include "cc-manager.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "cc-manager.image" -}}
{{- with .Values.image }}{{ if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end }}{{ end }}
{{- end }}

{{- define "cc-manager.capabilities" -}}
{{ .Values.security.hostProcesses | ternary (list "SYS_ADMIN" "SYS_PTRACE" "DAC_READ_SEARCH") (list "SYS_ADMIN") | toJson }}
{{- end }}

{{- /* OpenShift enforces SELinux, whose ordinary type for containers may not write below /sys. */ -}}
{{- define "cc-manager.seLinuxOptions" -}}
{{- with .Values.security.seLinuxOptions | default (.Values.openshift.enabled | ternary (dict "type" "spc_t") dict) }}{{ toYaml . }}{{ end }}
{{- end }}

{{- define "cc-manager.componentsNamespace" -}}
{{ .Values.settings.componentsNamespace | default .Release.Namespace }}
{{- end }}

{{- /* A number as it was written: Helm reads numbers as floats. */ -}}
{{- define "cc-manager.environment" -}}
# No driver container of NVIDIA's is to put devices into this pod.
NVIDIA_VISIBLE_DEVICES: void
HOME: /tmp
OPERATOR_NAMESPACE: {{ include "cc-manager.componentsNamespace" . | quote }}
{{- with .Values.settings }}
DEFAULT_CC_MODE: {{ .defaultMode | quote }}
EVICT_OPERATOR_COMPONENTS: {{ .pauseComponents | quote }}
CC_READINESS_FILE: {{ .readinessFile | quote }}
CC_MANAGER_BUSY: {{ .busy | quote }}
CC_MANAGER_BUSY_TIMEOUT: {{ .busyTimeoutSeconds | int | quote }}
CC_MANAGER_EVICTION_TIMEOUT: {{ .evictionTimeoutSeconds | int | quote }}
CC_MANAGER_BOOT_TIMEOUT: {{ .bootTimeoutSeconds | int | quote }}
CC_MANAGER_DRIFT_INTERVAL: {{ .driftIntervalSeconds | int | quote }}
CC_MANAGER_DRIFT_REPAIR: {{ .driftRepair | quote }}
CC_MANAGER_RETRY_LIMIT: {{ .retryLimit | int | quote }}
CC_MANAGER_RETRY_DELAY: {{ .retryDelaySeconds | int | quote }}
CC_MANAGER_BUS: {{ .bus | quote }}
CC_MANAGER_STATE_FOLDER: {{ .stateFolder | quote }}
CC_MANAGER_AUDIT_FOLDER: {{ .auditFolder | quote }}
CC_MANAGER_LOG_FORMAT: {{ .logFormat | quote }}
CC_MANAGER_METRICS_PORT: {{ .metricsPort | int | quote }}
{{- end }}
{{- end }}

{{- /* What cannot be meant, and a schema does not see. */ -}}
{{- define "cc-manager.check" -}}
{{- $ours := concat (keys (include "cc-manager.environment" . | fromYaml)) (list "NODE_NAME" "POD_NAME") }}
{{- range $name, $value := .Values.extraEnv }}
{{- if has $name $ours }}
{{- fail (printf "extraEnv.%s: the chart sets it. Use the value for it below settings (README.md)." $name) }}
{{- end }}
{{- end }}
{{- if and (ne .Values.settings.busy "refuse") (not .Values.rbac.podsOfAllNamespaces) .Values.rbac.create }}
{{- fail (printf "settings.busy=%s needs rbac.podsOfAllNamespaces: it waits for pods that hold GPUs, wherever they are." .Values.settings.busy) }}
{{- end }}
{{- end }}
