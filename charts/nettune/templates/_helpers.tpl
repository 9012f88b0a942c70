{{- define "nettune.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "nettune.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "nettune.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "nettune.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "nettune.operator" -}}{{ include "nettune.fullname" . }}-operator{{- end -}}
{{- define "nettune.agent" -}}{{ include "nettune.fullname" . }}-agent{{- end -}}

{{- define "nettune.operatorUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "nettune.operator" . }}
{{- end -}}
{{- define "nettune.agentUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "nettune.agent" . }}
{{- end -}}

{{- define "nettune.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "nettune.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Labels that select the pods of a component: (list $ "operator"). They never change. */ -}}
{{- define "nettune.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "nettune.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* An image reference: (list $ .Values.operator.image). */ -}}
{{- define "nettune.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := default $image.registry $root.Values.global.imageRegistry | trimSuffix "/" -}}
{{- with $registry }}{{ . }}/{{ end -}}
{{- $image.repository -}}
:{{ default $root.Chart.AppVersion $image.tag }}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{- define "nettune.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
