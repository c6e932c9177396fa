{{/* Combinations that a JSON schema cannot refuse, because they compare values with each other. */}}
{{- define "longembed.refuse" -}}
{{- include "longembed.refuseShortDrain" . -}}
{{- include "longembed.refuseShortDeadline" . -}}
{{- include "longembed.refuseReplicas" . -}}
{{- include "longembed.refuseModels" . -}}
{{- include "longembed.refuseKeyNames" . -}}
{{- end -}}

{{- define "longembed.refuseShortDrain" -}}
{{- $drain := .Values.config.drain -}}
{{- $timeout := include "longembed.seconds" $drain.timeout | int -}}
{{- $wait := dig "limits" "max_bulk_queue_wait" "60s" .Values.config -}}
{{- if lt $timeout (include "longembed.seconds" $wait | int) -}}
{{- fail (printf "config.drain.timeout %s is shorter than config.limits.max_bulk_queue_wait %s: calls that a pod has admitted would be cut off when it ends" $drain.timeout $wait) -}}
{{- end -}}
{{- $needed := add (include "longembed.seconds" $drain.delay | int) $timeout -}}
{{- $grace := .Values.terminationGracePeriodSeconds | int -}}
{{- if ge $needed $grace -}}
{{- fail (printf "terminationGracePeriodSeconds %d must be more than config.drain.delay + config.drain.timeout = %d: the kubelet would kill pods with calls in flight" $grace $needed) -}}
{{- end -}}
{{- end -}}

{{- define "longembed.refuseShortDeadline" -}}
{{- $startup := mul (int .Values.probes.startup.periodSeconds) (int .Values.probes.startup.failureThreshold) -}}
{{- $deadline := .Values.progressDeadlineSeconds | int -}}
{{- if ge $startup $deadline -}}
{{- fail (printf "progressDeadlineSeconds %d must be more than what probes.startup allows for loading models, %d: a rollout would count as failed while it still loads" $deadline $startup) -}}
{{- end -}}
{{- end -}}

{{- define "longembed.refuseReplicas" -}}
{{- $auto := .Values.autoscaling -}}
{{- if gt (int $auto.minReplicas) (int $auto.maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas %d is more than autoscaling.maxReplicas %d" (int $auto.minReplicas) (int $auto.maxReplicas)) -}}
{{- end -}}
{{- $budget := .Values.podDisruptionBudget -}}
{{- if and $budget.enabled (hasKey $budget "minAvailable") -}}
{{- $fewest := include "longembed.fewestReplicas" . | int -}}
{{- $least := toString $budget.minAvailable -}}
{{- $pods := 0 -}}
{{- if hasSuffix "%" $least -}}
{{- $pods = div (add (mul (trimSuffix "%" $least | atoi) $fewest) 99) 100 -}}
{{- else -}}
{{- $pods = int $budget.minAvailable -}}
{{- end -}}
{{- if ge (int $pods) $fewest -}}
{{- fail (printf "podDisruptionBudget.minAvailable %s leaves none of %d replicas to evict: nodes could not be drained" $least $fewest) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "longembed.refuseModels" -}}
{{- $names := dict -}}
{{- range $index, $model := .Values.models -}}
{{- if hasKey $names $model.name -}}
{{- fail (printf "models[%d].name %s is there twice" $index $model.name) -}}
{{- end -}}
{{- $_ := set $names $model.name true -}}
{{- $device := default "cpu" $model.device -}}
{{- if and (hasPrefix "cuda:" $device) (ge (trimPrefix "cuda:" $device | atoi) (int $.Values.gpu.count)) -}}
{{- fail (printf "models[%d].device %s: the pod has gpu.count %d, numbered from 0" $index $device (int $.Values.gpu.count)) -}}
{{- end -}}
{{- if and (hasKey $model.source "imageVolume") (semverCompare "<1.33.0-0" $.Capabilities.KubeVersion.Version) -}}
{{- fail (printf "models[%d].source.imageVolume needs Kubernetes 1.33 (here %s); use initContainer" $index $.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end -}}
{{- $tei := default dict .Values.config.tei -}}
{{- if and $tei.model (not (hasKey $names $tei.model)) -}}
{{- fail (printf "config.tei.model %s is none of models: %s" $tei.model (keys $names | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}

{{- define "longembed.refuseKeyNames" -}}
{{- $names := dict -}}
{{- range $index, $key := .Values.apiKeys.keys -}}
{{- if hasKey $names $key.name -}}
{{- fail (printf "apiKeys.keys[%d].name %s is there twice" $index $key.name) -}}
{{- end -}}
{{- $_ := set $names $key.name true -}}
{{- end -}}
{{- end -}}
