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

{{/* The number in a quantity of Kubernetes, such as 0.5 in 500m and 1024 in 1Ki. */}}
{{- define "longembed.quantity" -}}
{{- if kindIs "string" . -}}
{{- $units := dict "" 1.0 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 -}}
{{- $unit := regexFind "[A-Za-z]*$" . -}}
{{- mulf (trimSuffix $unit . | float64) (get $units $unit) -}}
{{- else -}}
{{- float64 . -}}
{{- end -}}
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
