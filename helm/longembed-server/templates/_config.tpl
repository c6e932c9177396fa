{{/* The server's config.yaml: the values of `config`, and the keys that the chart sets itself (ports, mounted files, paths of models). */}}
{{- define "longembed.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "listen" (printf "%s:50051" .Values.bindAddress) -}}
{{- $_ := set $config "health_listen" (printf "%s:50052" .Values.bindAddress) -}}
{{- $_ := set $config "metrics_listen" (printf "%s:9464" .Values.bindAddress) -}}
{{- if .Values.http.enabled -}}
{{- $_ := set $config "http_listen" (printf "%s:%d" .Values.bindAddress (int .Values.http.port)) -}}
{{- end -}}
{{- if .Values.tls.enabled -}}
{{- $tls := dict "certificate" "/run/secrets/longembed/tls/tls.crt" "key" "/run/secrets/longembed/tls/tls.key" -}}
{{- if .Values.tls.clientCA.existingSecret -}}
{{- $_ := set $tls "client_ca" (printf "/run/secrets/longembed/client-ca/%s" .Values.tls.clientCA.key) -}}
{{- end -}}
{{- $_ := set $config "tls" $tls -}}
{{- end -}}
{{- if include "longembed.apiKeysSecret" . -}}
{{- $_ := set $config "api_keys" (printf "/run/secrets/longembed/api-keys/%s" .Values.apiKeys.fileKey) -}}
{{- end -}}
{{- $models := list -}}
{{- range .Values.models -}}
{{- $path := printf "/models/%s" .name -}}
{{- if hasKey .source "baked" -}}{{- $path = default $path .source.baked.path -}}{{- end -}}
{{- $models = append $models (set (omit . "source") "path" $path) -}}
{{- end -}}
{{- $_ := set $config "models" $models -}}
{{- toYaml $config -}}
{{- end -}}

{{/* A checksum of all keys whose change needs a restart. The server reloads log.level by itself. */}}
{{- define "longembed.configChecksum" -}}
{{- $config := include "longembed.config" . | fromYaml -}}
{{- if $config.log -}}{{- $_ := unset $config.log "level" -}}{{- end -}}
{{- toYaml $config | sha256sum -}}
{{- end -}}

{{/* The number of whole seconds in a duration such as 1h2m30s. */}}
{{- define "longembed.seconds" -}}
{{- $total := 0 -}}
{{- range regexFindAll "[0-9]+[hms]" . -1 -}}
{{- $count := regexFind "[0-9]+" . | atoi -}}
{{- $unit := ternary 3600 (ternary 60 1 (hasSuffix "m" .)) (hasSuffix "h" .) -}}
{{- $total = add $total (mul $count $unit) -}}
{{- end -}}
{{- $total -}}
{{- end -}}

{{/* Not empty if an autoscaler is enabled. */}}
{{- define "longembed.autoscaled" -}}
{{- if or .Values.autoscaling.hpa.enabled .Values.autoscaling.keda.enabled }}yes{{ end -}}
{{- end -}}

{{/* The lowest number of pods that there will be. */}}
{{- define "longembed.fewestReplicas" -}}
{{- if include "longembed.autoscaled" . -}}
{{- .Values.autoscaling.minReplicas | int -}}
{{- else -}}
{{- include "longembed.replicas" . -}}
{{- end -}}
{{- end -}}

{{/* The replicas of the Deployment. With an autoscaler it is the current number; empty if there is no Deployment yet, or no cluster to query. The upgrade that enables the autoscaler,
and each later one, must set the current number: Helm would remove a field that the previous release had, and Kubernetes' default is 1 pod. */}}
{{- define "longembed.replicas" -}}
{{- if include "longembed.autoscaled" . -}}
{{- with lookup "apps/v1" "Deployment" .Release.Namespace (include "longembed.fullname" .) }}{{ int .spec.replicas }}{{ end -}}
{{- else -}}
{{- default 2 .Values.replicas | int -}}
{{- end -}}
{{- end -}}
