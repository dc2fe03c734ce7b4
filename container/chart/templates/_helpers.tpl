{{- /*
Copyright: (c) 2026, confidential.gpu contributors
SPDX-License-Identifier: Apache-2.0
*/ -}}

{{- define "cc-manager.name" -}}
{{- if eq .Release.Name .Chart.Name }}{{ .Chart.Name }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "cc-manager.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "cc-manager.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
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

{{- define "cc-manager.componentsNamespace" -}}
{{ .Values.settings.componentsNamespace | default .Release.Namespace }}
{{- end }}

{{- /* A number as it was written: Helm reads numbers as floats. */ -}}
{{- define "cc-manager.environment" -}}
DEFAULT_CC_MODE: {{ .defaultMode | quote }}
EVICT_OPERATOR_COMPONENTS: {{ .pauseComponents | quote }}
CC_MANAGER_BUSY: {{ .busy | quote }}
CC_MANAGER_BUSY_TIMEOUT: {{ .busyTimeoutSeconds | int | quote }}
CC_MANAGER_EVICTION_TIMEOUT: {{ .evictionTimeoutSeconds | int | quote }}
CC_MANAGER_BOOT_TIMEOUT: {{ .bootTimeoutSeconds | int | quote }}
CC_MANAGER_DRIFT_INTERVAL: {{ .driftIntervalSeconds | int | quote }}
CC_MANAGER_DRIFT_REPAIR: {{ .driftRepair | quote }}
CC_MANAGER_RETRY_LIMIT: {{ .retryLimit | int | quote }}
CC_MANAGER_RETRY_DELAY: {{ .retryDelaySeconds | int | quote }}
CC_MANAGER_BUS: {{ .bus | quote }}
CC_MANAGER_LOG_FORMAT: {{ .logFormat | quote }}
CC_MANAGER_METRICS_PORT: {{ .metricsPort | int | quote }}
{{- end }}
