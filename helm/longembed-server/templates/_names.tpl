{{- define "longembed.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{/* The release's full name, at most 53 characters, so that names with a suffix stay within Kubernetes' limit of 63. */}}
{{- define "longembed.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains (include "longembed.name" .) .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "longembed.name" .) | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The name of an object that may be in another namespace, where a release of the same name from elsewhere may have one, too. No full name has the dot. */}}
{{- define "longembed.nameIn" -}}
{{- include "longembed.fullname" .root -}}
{{- if and .namespace (ne .namespace .root.Release.Namespace) }}.{{ .root.Release.Namespace }}{{ end -}}
{{- end -}}

{{/* Labels that the pods of all components of this release share. */}}
{{- define "longembed.instanceLabels" -}}
app.kubernetes.io/name: {{ include "longembed.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* Labels that select the server's pods. A Deployment's selector cannot change, so nothing here may depend on a version. */}}
{{- define "longembed.selectorLabels" -}}
{{ include "longembed.instanceLabels" . }}
app.kubernetes.io/component: server
{{- end -}}

{{/* Metadata of an object. Only `root` is required. The name is the release's full name with `suffix`, unless `name` sets another. `labels` and `annotations` override those of all objects. */}}
{{- define "longembed.metadata" -}}
name: {{ default (printf "%s%s" (include "longembed.fullname" .root) (default "" .suffix)) .name | quote }}
namespace: {{ default .root.Release.Namespace .namespace | quote }}
labels:
  {{- include "longembed.mergedLabels" (dict "root" .root "extra" (default dict .labels) "component" .component) | nindent 2 }}
{{- with merge (deepCopy (default dict .annotations)) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Labels of an object: `extra` from the values, and a `component`. The chart's own labels take precedence, because selectors use them. */}}
{{- define "longembed.mergedLabels" -}}
{{- $labels := merge (deepCopy .extra) .root.Values.commonLabels -}}
{{- $labels = mergeOverwrite $labels (include "longembed.instanceLabels" .root | fromYaml) -}}
{{- $labels = mergeOverwrite $labels (dict
      "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
      "app.kubernetes.io/version" .root.Chart.AppVersion
      "app.kubernetes.io/managed-by" .root.Release.Service) -}}
{{- with .component -}}{{- $_ := set $labels "app.kubernetes.io/component" . -}}{{- end -}}
{{- toYaml $labels -}}
{{- end -}}

{{/* Labels of the server's pods. They omit the chart's version, so that a new chart version that changes nothing does not restart pods. */}}
{{- define "longembed.podLabels" -}}
{{- $labels := include "longembed.mergedLabels" (dict "root" . "extra" .Values.podLabels "component" "server") | fromYaml -}}
{{- toYaml (omit $labels "helm.sh/chart") -}}
{{- end -}}

{{- define "longembed.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "longembed.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "longembed.image" -}}
{{- $image := .Values.image -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{- define "longembed.address" -}}
{{ include "longembed.fullname" . }}.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* The name of the scrape job. The shipped alerts select targets with "longembed" in the name of their job. */}}
{{- define "longembed.job" -}}
{{- $name := include "longembed.fullname" . -}}
{{- if contains "longembed" $name }}{{ $name }}{{ else }}longembed-{{ $name }}{{ end -}}
{{- end -}}

{{- define "longembed.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled }}{{ include "longembed.fullname" . }}-tls{{ else }}{{ .Values.tls.existingSecret }}{{ end -}}
{{- end -}}

{{/* Name of the secret with the file of API keys; empty if no key is required. */}}
{{- define "longembed.apiKeysSecret" -}}
{{- if .Values.apiKeys.keys }}{{ include "longembed.fullname" . }}-api-keys{{ else }}{{ .Values.apiKeys.existingSecret }}{{ end -}}
{{- end -}}

{{/* A volume name derived from any other name, which may be too long for a volume or contain characters that are not allowed. */}}
{{- define "longembed.volumeName" -}}
model-{{ . | sha256sum | trunc 10 }}
{{- end -}}
