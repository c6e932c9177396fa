{{/* Security context of the server's pods and of tests. */}}
{{- define "longembed.podSecurityContext" -}}
{{- toYaml .Values.podSecurityContext -}}
{{- end -}}

{{- define "longembed.containerSecurityContext" -}}
{{- toYaml .Values.securityContext -}}
{{- end -}}

{{/* Names of secrets. The values may be names or Kubernetes' objects. */}}
{{- define "longembed.imagePullSecrets" -}}
{{- range .Values.imagePullSecrets }}
- name: {{ ternary . (get (ternary dict . (kindIs "string" .)) "name") (kindIs "string" .) | quote }}
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

{{/* A gRPC probe. The kubelet's gRPC probes support neither TLS nor named ports. */}}
{{- define "longembed.probe" -}}
grpc:
  port: 50052
  service: {{ .service }}
{{ toYaml .probe }}
{{- end -}}

{{/* The volumes with models. Each appears once, even if several models are on the same claim. */}}
{{- define "longembed.modelVolumes" -}}
{{- $seen := dict -}}
{{- range .Values.models }}
{{- with .source.persistentVolumeClaim }}
{{- $volume := include "longembed.volumeName" (printf "claim/%s" .claimName) }}
{{- if not (hasKey $seen $volume) }}
{{- $_ := set $seen $volume true }}
- name: {{ $volume }}
  persistentVolumeClaim:
    claimName: {{ .claimName | quote }}
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
  mountPath: {{ printf "/models/%s" .name | quote }}
  {{- with coalesce $claim.subPath (default dict .source.imageVolume).subPath }}
  subPath: {{ . | quote }}
  {{- end }}
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{/* Containers that copy models out of their images. They copy the content of the path and follow links, because models in a hub's cache are links. They use -f, because a
container that runs again in the same pod finds the files that it has copied, which may be read-only. */}}
{{- define "longembed.modelContainers" -}}
{{- range $index, $model := .Values.models }}
{{- with $model.source.initContainer }}
- name: copy-model-{{ $index }}
  image: {{ .image | quote }}
  imagePullPolicy: {{ default "IfNotPresent" .pullPolicy }}
  command: [cp, -RLf, {{ printf "%s/." (default "/model" .path) | quote }}, "/models/{{ $model.name }}/"]
  # The same as the server's. They do not add up, because the server starts afterwards. So the pod stays Guaranteed.
  resources:
    {{- toYaml $.Values.resources | nindent 4 }}
  securityContext:
    {{- include "longembed.containerSecurityContext" $ | nindent 4 }}
  volumeMounts:
    - {name: {{ include "longembed.volumeName" (printf "model/%s" $model.name) }}, mountPath: {{ printf "/models/%s" $model.name | quote }}}
{{- end }}
{{- end }}
{{- end -}}
