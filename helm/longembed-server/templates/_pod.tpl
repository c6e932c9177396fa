{{/* Of the server's pods and of tests. */}}
{{- define "longembed.podSecurityContext" -}}
{{- toYaml .Values.podSecurityContext -}}
{{- end -}}

{{- define "longembed.containerSecurityContext" -}}
{{- toYaml .Values.securityContext -}}
{{- end -}}

{{/* Names of secrets, written as names or as Kubernetes' objects. */}}
{{- define "longembed.imagePullSecrets" -}}
{{- range .Values.imagePullSecrets }}
- name: {{ ternary . (get (ternary dict . (kindIs "string" .)) "name") (kindIs "string" .) }}
{{- end }}
{{- end -}}

{{- define "longembed.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if .Values.gpu.enabled -}}
{{- $gpus := dict .Values.gpu.resourceName (.Values.gpu.count | int) -}}
{{- $resources = merge $resources (dict "limits" $gpus "requests" $gpus) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* The kubelet's gRPC probes know neither TLS nor named ports. */}}
{{- define "longembed.probe" -}}
grpc:
  port: 50052
  service: {{ .service }}
{{ toYaml .probe }}
{{- end -}}

{{/* Each volume once, also when several models are on the same claim. */}}
{{- define "longembed.modelVolumes" -}}
{{- $seen := dict -}}
{{- range .Values.models }}
{{- with .source.persistentVolumeClaim }}
{{- $volume := include "longembed.volumeName" (printf "claim/%s" .claimName) }}
{{- if not (hasKey $seen $volume) }}
{{- $_ := set $seen $volume true }}
- name: {{ $volume }}
  persistentVolumeClaim:
    claimName: {{ .claimName }}
    readOnly: true
{{- end }}
{{- end }}
{{- if hasKey .source "initContainer" }}
- name: {{ include "longembed.volumeName" (printf "model/%s" .name) }}
  emptyDir:
    sizeLimit: {{ default "8Gi" .source.initContainer.sizeLimit }}
{{- end }}
{{- if hasKey .source "imageVolume" }}
- name: {{ include "longembed.volumeName" (printf "model/%s" .name) }}
  image:
    reference: {{ .source.imageVolume.reference | quote }}
    pullPolicy: {{ default "IfNotPresent" .source.imageVolume.pullPolicy }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "longembed.modelMounts" -}}
{{- range .Values.models }}
{{- if not (hasKey .source "baked") }}
{{- $claim := default dict .source.persistentVolumeClaim }}
{{- $volume := ternary (printf "claim/%s" $claim.claimName) (printf "model/%s" .name) (hasKey .source "persistentVolumeClaim") }}
- name: {{ include "longembed.volumeName" $volume }}
  mountPath: /models/{{ .name }}
  {{- with coalesce $claim.subPath (default dict .source.imageVolume).subPath }}
  subPath: {{ . }}
  {{- end }}
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{/* Copies models out of their images. The path's own content is copied, and links are followed, as models from a hub's cache are links. With -f, because a container
that is run again in the same pod finds what it has copied, and files that may not be written. */}}
{{- define "longembed.modelContainers" -}}
{{- range $index, $model := .Values.models }}
{{- with $model.source.initContainer }}
- name: copy-model-{{ $index }}
  image: {{ .image | quote }}
  imagePullPolicy: {{ default "IfNotPresent" .pullPolicy }}
  command: [cp, -RLf, {{ printf "%s/." (default "/model" .path) | quote }}, "/models/{{ $model.name }}/"]
  # The server's: they do not add up, as it starts afterwards, and the pod stays Guaranteed.
  resources:
    {{- toYaml $.Values.resources | nindent 4 }}
  securityContext:
    {{- include "longembed.containerSecurityContext" $ | nindent 4 }}
  volumeMounts:
    - {name: {{ include "longembed.volumeName" (printf "model/%s" $model.name) }}, mountPath: {{ printf "/models/%s" $model.name | quote }}}
{{- end }}
{{- end }}
{{- end -}}
