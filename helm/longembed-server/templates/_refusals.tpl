{{/* Rejects combinations that a JSON schema cannot reject, because that takes a comparison of values. */}}
{{- define "longembed.refuse" -}}
{{- include "longembed.refuseName" . -}}
{{- include "longembed.refuseShortDrain" . -}}
{{- include "longembed.refuseShortDeadline" . -}}
{{- include "longembed.refuseResources" . -}}
{{- include "longembed.refuseReplicas" . -}}
{{- include "longembed.refuseModels" . -}}
{{- include "longembed.refuseCertificate" . -}}
{{- include "longembed.refuseKeyNames" . -}}
{{- include "longembed.refuseService" . -}}
{{- include "longembed.refuseUnreachable" . -}}
{{- include "longembed.refuseAddresses" . -}}
{{- include "longembed.refuseBlind" . -}}
{{- include "longembed.refuseHttp" . -}}
{{- include "longembed.refuseExtras" . -}}
{{- end -}}

{{/* The names of services come from this one. Releases may begin with a digit, as services may since Kubernetes 1.36, and contain dots. A Deployment keeps its selector. */}}
{{- define "longembed.refuseName" -}}
{{- $name := include "longembed.fullname" . -}}
{{- $rule := "has only a-z, 0-9 and -" -}}
{{- $pattern := "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" -}}
{{- if semverCompare "<1.36.0-0" .Capabilities.KubeVersion.Version -}}
{{- $rule = printf "begins with a letter (before Kubernetes 1.36; here %s) and %s" .Capabilities.KubeVersion.Version $rule -}}
{{- $pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$" -}}
{{- end -}}
{{- if not (regexMatch $pattern $name) -}}
{{- fail (printf "%s, from the release's name, nameOverride or fullnameOverride, cannot name a service, which %s; set fullnameOverride" $name $rule) -}}
{{- end -}}
{{- $deployment := default dict (lookup "apps/v1" "Deployment" .Release.Namespace $name) -}}
{{- $selected := dig "spec" "selector" "matchLabels" "app.kubernetes.io/name" "" $deployment -}}
{{- if and $selected (ne $selected (include "longembed.name" .)) -}}
{{- fail (printf "nameOverride: the Deployment %s selects its pods by the name %s, which cannot change to %s; set nameOverride to %s, or install another release" $name $selected (include "longembed.name" .) $selected) -}}
{{- end -}}
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
{{- if ge (int .Values.minReadySeconds) $deadline -}}
{{- fail (printf "progressDeadlineSeconds %d must be more than minReadySeconds %d: Kubernetes would refuse the Deployment" $deadline (int .Values.minReadySeconds)) -}}
{{- end -}}
{{- end -}}

{{- define "longembed.refuseResources" -}}
{{- $resources := .Values.resources -}}
{{- range $name, $request := $resources.requests -}}
{{- with get $resources.limits $name -}}
{{- if gt (include "longembed.quantity" $request | float64) (include "longembed.quantity" . | float64) -}}
{{- fail (printf "resources.requests.%s %v is more than resources.limits.%s %v: Kubernetes would refuse the pods; set both" $name $request $name .) -}}
{{- end -}}
{{- end -}}
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
{{- fail (printf "models[%d].name %s appears twice" $index $model.name) -}}
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
{{- /* NAME:PROFILE also names a model. */ -}}
{{- if and $tei.model (not (hasKey $names (splitList ":" $tei.model | first))) -}}
{{- fail (printf "config.tei.model %s is not one of models: %s" $tei.model (keys $names | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}

{{/* Rejects what cert-manager's webhook refuses. */}}
{{- define "longembed.refuseCertificate" -}}
{{- with .Values.tls.certManager -}}
{{- $duration := include "longembed.seconds" .duration | int -}}
{{- $before := include "longembed.seconds" .renewBefore | int -}}
{{- if and .enabled (lt $duration 3600) -}}
{{- fail (printf "tls.certManager.duration %s is less than 1h, the least that cert-manager takes" .duration) -}}
{{- end -}}
{{- if and .enabled (lt $before 300) -}}
{{- fail (printf "tls.certManager.renewBefore %s is less than 5m, the least that cert-manager takes" .renewBefore) -}}
{{- end -}}
{{- if and .enabled (ge $before $duration) -}}
{{- fail (printf "tls.certManager.renewBefore %s must be less than tls.certManager.duration %s: cert-manager would refuse the Certificate; lower it, too" .renewBefore .duration) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "longembed.refuseKeyNames" -}}
{{- $names := dict -}}
{{- range $index, $key := .Values.apiKeys.keys -}}
{{- if hasKey $names $key.name -}}
{{- fail (printf "apiKeys.keys[%d].name %s appears twice" $index $key.name) -}}
{{- end -}}
{{- $_ := set $names $key.name true -}}
{{- end -}}
{{- end -}}

{{- define "longembed.refuseService" -}}
{{- $service := .Values.service -}}
{{- if eq $service.type "ClusterIP" -}}
{{- range $field := list "nodePort" "externalTrafficPolicy" -}}
{{- with get $service $field -}}
{{- fail (printf "service.%s %v has no meaning for service.type ClusterIP; set service.type to NodePort or LoadBalancer" $field .) -}}
{{- end -}}
{{- end -}}
{{- else if not (or $.Values.tls.enabled $service.allowPlaintext) -}}
{{- fail (printf "service.type %s leads out of the cluster in plaintext; set tls.enabled, or service.allowPlaintext where something in front of the pods terminates TLS" $service.type) -}}
{{- end -}}
{{- $dual := hasSuffix "DualStack" (default "" $service.ipFamilyPolicy) -}}
{{- if and (eq .Values.bindAddress "0.0.0.0") (or $dual (has "IPv6" (default list $service.ipFamilies))) -}}
{{- fail (printf "service.%s: the pods would not answer by IPv6, because bindAddress is 0.0.0.0; set it to \"[::]\"" (ternary (printf "ipFamilyPolicy %s" $service.ipFamilyPolicy) "ipFamilies IPv6" $dual)) -}}
{{- end -}}
{{- if and (eq (len (default list $service.ipFamilies)) 2) (not $dual) -}}
{{- fail (printf "service.ipFamilies has two families, which need service.ipFamilyPolicy PreferDualStack or RequireDualStack (here %q)" (default "" $service.ipFamilyPolicy)) -}}
{{- end -}}
{{- if ne $service.type "LoadBalancer" -}}
{{- range $field := list "loadBalancerClass" "loadBalancerIP" "loadBalancerSourceRanges" -}}
{{- with get $service $field -}}
{{- fail (printf "service.%s has no meaning for service.type %s; set service.type to LoadBalancer" $field $service.type) -}}
{{- end -}}
{{- end -}}
{{- if not $service.allocateLoadBalancerNodePorts -}}
{{- fail (printf "service.allocateLoadBalancerNodePorts false has no meaning for service.type %s; set service.type to LoadBalancer" $service.type) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Rejects callers from other namespaces, or from outside, that the network policy would block. */}}
{{- define "longembed.refuseUnreachable" -}}
{{- $policy := .Values.networkPolicy -}}
{{- if $policy.enabled -}}
{{- if and .Values.serviceMonitor.enabled (not $policy.metrics.from) -}}
{{- fail "serviceMonitor.enabled: the network policy keeps Prometheus out, because networkPolicy.metrics.from is empty; name its namespace there, such as [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}], or set networkPolicy.enabled to false" -}}
{{- end -}}
{{- $tracing := include "longembed.tracingEndpoint" . | fromYaml -}}
{{- /* A collector in the pod, as a sidecar, is not subject to the policy. */ -}}
{{- $inside := regexMatch "^(https?://)?(localhost|127\\.[0-9.]+|\\[::1\\])(:[0-9]+)?/?$" $tracing.endpoint -}}
{{- if and $tracing.endpoint (not $inside) (not $policy.egress) -}}
{{- fail (printf "%s %s: the network policy blocks the export of spans, because networkPolicy.egress is empty; name the collector and DNS there, such as [{to: [{namespaceSelector: {}}], ports: [{port: 4317}, {port: 53, protocol: UDP}]}], or set networkPolicy.enabled to false" $tracing.from $tracing.endpoint) -}}
{{- end -}}
{{- if not $policy.grpc.from -}}
{{- $cure := "name the callers there, such as [{ipBlock: {cidr: 10.0.0.0/8}}] or [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: gateways}}}], or set networkPolicy.enabled to false" -}}
{{- if ne .Values.service.type "ClusterIP" -}}
{{- fail (printf "service.type %s: the network policy keeps callers from outside of the namespace out, because networkPolicy.grpc.from is empty; %s" .Values.service.type $cure) -}}
{{- end -}}
{{- if .Values.ingress.enabled -}}
{{- fail (printf "ingress.enabled: the network policy keeps the ingress controller out, because networkPolicy.grpc.from is empty; %s" $cure) -}}
{{- end -}}
{{- if .Values.gateway.enabled -}}
{{- fail (printf "gateway.enabled: the network policy keeps the gateway out, because networkPolicy.grpc.from is empty; %s" $cure) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Where the server sends spans, and which value says so. OpenTelemetry's variables are read only where the key is empty. */}}
{{- define "longembed.tracingEndpoint" -}}
{{- $found := dict "from" "config.tracing.endpoint" "endpoint" (dig "tracing" "endpoint" "" .Values.config) -}}
{{- range $name := list "LONGEMBED__TRACING__ENDPOINT" "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" "OTEL_EXPORTER_OTLP_ENDPOINT" -}}
{{- range $index, $variable := $.Values.env -}}
{{- if and (eq $variable.name $name) (or (hasPrefix "LONGEMBED" $name) (not $found.endpoint)) -}}
{{- $found = dict "from" (printf "env[%d], %s" $index $name) "endpoint" (ternary "(valueFrom)" (default "" $variable.value) (hasKey $variable "valueFrom")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}

{{- define "longembed.refuseAddresses" -}}
{{- $policy := .Values.networkPolicy -}}
{{- range $index, $range := .Values.service.loadBalancerSourceRanges -}}
{{- include "longembed.refuseCidr" (list (printf "service.loadBalancerSourceRanges[%d]" $index) $range) -}}
{{- end -}}
{{- include "longembed.refusePeers" (list "networkPolicy.grpc.from" $policy.grpc.from) -}}
{{- include "longembed.refusePeers" (list "networkPolicy.metrics.from" $policy.metrics.from) -}}
{{- range $direction, $peers := dict "ingress" "from" "egress" "to" -}}
{{- range $index, $rule := default list (get $policy $direction) -}}
{{- $path := printf "networkPolicy.%s[%d]" $direction $index -}}
{{- include "longembed.refusePeers" (list (printf "%s.%s" $path $peers) (default list (get $rule $peers))) -}}
{{- range $number, $port := $rule.ports -}}
{{- if and (hasKey $port "endPort") (lt (int $port.endPort) (int $port.port)) -}}
{{- fail (printf "%s.ports[%d].endPort %d is less than port %d" $path $number (int $port.endPort) (int $port.port)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Rejects peers, of the path that is given first. */}}
{{- define "longembed.refusePeers" -}}
{{- $path := first . -}}
{{- range $index, $peer := last . -}}
{{- with $peer.ipBlock -}}
{{- include "longembed.refuseCidr" (list (printf "%s[%d].ipBlock.cidr" $path $index) .cidr) -}}
{{- range $number, $range := .except -}}
{{- include "longembed.refuseCidr" (list (printf "%s[%d].ipBlock.except[%d]" $path $index $number) $range) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Rejects an IPv4 range, of the path that is given first, whose address has bits beyond the prefix. Those of IPv6 are left to Kubernetes. */}}
{{- define "longembed.refuseCidr" -}}
{{- $parts := splitList "/" (last .) -}}
{{- if not (contains ":" (first $parts)) -}}
{{- $address := 0 -}}
{{- range splitList "." (first $parts) -}}{{- $address = add (mul $address 256) (atoi .) -}}{{- end -}}
{{- $hosts := 1 -}}
{{- range until (sub 32 (last $parts | atoi) | int) -}}{{- $hosts = mul $hosts 2 -}}{{- end -}}
{{- if mod $address $hosts -}}
{{- fail (printf "%s %s has bits beyond its prefix; clear them" (first .) (last .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Rejects what would leave the release unwatched: the operator skips such a ServiceMonitor, rates have no two samples, or an alert is not the one that was meant. */}}
{{- define "longembed.refuseBlind" -}}
{{- $monitor := .Values.serviceMonitor -}}
{{- if $monitor.enabled -}}
{{- $interval := include "longembed.seconds" $monitor.interval | int -}}
{{- if gt (include "longembed.seconds" $monitor.scrapeTimeout | int) $interval -}}
{{- fail (printf "serviceMonitor.scrapeTimeout %s is more than serviceMonitor.interval %s: Prometheus' operator would skip the ServiceMonitor; lower scrapeTimeout, too" $monitor.scrapeTimeout $monitor.interval) -}}
{{- end -}}
{{- if gt $interval 120 -}}
{{- fail (printf "serviceMonitor.interval %s is more than 2m: the rules take rates over 5m, which need two samples" $monitor.interval) -}}
{{- end -}}
{{- range $list := list "relabelings" "metricRelabelings" -}}
{{- range $index, $rule := get $monitor $list -}}
{{- include "longembed.refuseRelabeling" (list (printf "serviceMonitor.%s[%d]" $list $index) $rule) -}}
{{- end -}}
{{- end -}}
{{- $keda := .Values.autoscaling.keda -}}
{{- if and $keda.enabled (gt (float64 $keda.runningBatches) 0.0) (gt $interval 60) -}}
{{- fail (printf "serviceMonitor.interval %s is more than 1m: autoscaling.keda.runningBatches takes a rate over 2m, which needs two samples" $monitor.interval) -}}
{{- end -}}
{{- end -}}
{{- $alerts := list "LongembedReleaseAbsent" -}}
{{- range (.Files.Get "files/alerts.yaml" | fromYaml).groups -}}
{{- range .rules -}}{{- with .alert -}}{{- $alerts = append $alerts . -}}{{- end -}}{{- end -}}
{{- end -}}
{{- range $index, $name := .Values.prometheusRule.disabled -}}
{{- if not (has $name $alerts) -}}
{{- fail (printf "prometheusRule.disabled[%d] %s is not one of the alerts: %s" $index $name (sortAlpha $alerts | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Rejects a rule, of the path that is given first, that the operator would skip the ServiceMonitor for, or that changes or drops a label that queries go by. */}}
{{- define "longembed.refuseRelabeling" -}}
{{- $path := first . -}}
{{- $rule := last . -}}
{{- $action := default "replace" $rule.action | lower -}}
{{- $writes := has $action (list "replace" "hashmod" "lowercase" "uppercase") -}}
{{- if and (or $writes (has $action (list "keepequal" "dropequal"))) (not $rule.targetLabel) -}}
{{- fail (printf "%s needs targetLabel for the action %s: Prometheus' operator would skip the ServiceMonitor" $path $action) -}}
{{- end -}}
{{- if and (eq $action "hashmod") (not $rule.modulus) -}}
{{- fail (printf "%s needs modulus for the action hashmod: Prometheus' operator would skip the ServiceMonitor" $path) -}}
{{- end -}}
{{- $why := "the chart's alert, its dashboard and its queries for KEDA go by this label" -}}
{{- range $label := list "job" "namespace" "pod" "service" -}}
{{- if and $writes (eq $rule.targetLabel $label) -}}
{{- fail (printf "%s.targetLabel %s: %s; choose another" $path $label $why) -}}
{{- end -}}
{{- $matches := regexMatch (printf "^(?s:%s)$" (default "(.*)" $rule.regex)) $label -}}
{{- if or (and (eq $action "labeldrop") $matches) (and (eq $action "labelkeep") (not $matches)) -}}
{{- fail (printf "%s.regex %s with the action %s takes %s away: %s; keep it" $path (default "(.*)" $rule.regex) $action $label $why) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "longembed.refuseHttp" -}}
{{- $http := .Values.http -}}
{{- if $http.enabled -}}
{{- if has (int $http.port) (list 50051 50052 9464) -}}
{{- fail (printf "http.port %d is the pods' port of gRPC, health or metrics; choose another" (int $http.port)) -}}
{{- end -}}
{{- if eq (int $http.port) (int .Values.service.port) -}}
{{- fail (printf "http.port %d is service.port, where gRPC is; choose another" (int $http.port)) -}}
{{- end -}}
{{- if and $http.nodePort (eq .Values.service.type "ClusterIP") -}}
{{- fail (printf "http.nodePort %d has no meaning for service.type ClusterIP; set service.type to NodePort or LoadBalancer" (int $http.nodePort)) -}}
{{- end -}}
{{- if and $http.nodePort (eq (int $http.nodePort) (int .Values.service.nodePort)) -}}
{{- fail (printf "http.nodePort %d is service.nodePort, too; choose another" (int $http.nodePort)) -}}
{{- end -}}
{{- else if and .Values.ingress.enabled (eq .Values.ingress.port "http") -}}
{{- fail "ingress.enabled: there is no HTTP port to pass calls to; set http.enabled, or ingress.port to grpc" -}}
{{- else if .Values.gateway.httpHostnames -}}
{{- fail "gateway.httpHostnames: there is no HTTP port to pass calls to; set http.enabled" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.hosts is empty: no call would pass; name hosts, such as [{host: embeddings.example.com}]" -}}
{{- end -}}
{{- range $http := .Values.gateway.httpHostnames -}}
{{- range $grpc := default (list "*") $.Values.gateway.hostnames -}}
{{- if or (eq $http $grpc) (include "longembed.covers" (list $http $grpc)) (include "longembed.covers" (list $grpc $http)) -}}
{{- fail (printf "gateway.httpHostnames: %s is a name of the GRPCRoute, too (gateway.hostnames: %s; empty: every name); a listener takes one kind of route for a name" $http $grpc) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Not empty if the first host name is a wildcard for the second, which may be one for fewer names. A wildcard stands for one label or more. */}}
{{- define "longembed.covers" -}}
{{- $wildcard := first . -}}
{{- if and (hasPrefix "*" $wildcard) (hasSuffix (trimPrefix "*" $wildcard) (last .)) -}}yes{{- end -}}
{{- end -}}

{{/* Rejects additions to the pod that conflict with each other or with the chart's own parts. */}}
{{- define "longembed.refuseExtras" -}}
{{- $names := dict -}}
{{- /* A variable overrides the config, and with it what was checked. Probes and services call the addresses that the chart sets. */ -}}
{{- $set := "(HTTP_|HEALTH_|METRICS_)?LISTEN|TLS__.*|API_KEYS" -}}
{{- $compared := "DRAIN__.*|LIMITS__MAX_BULK_QUEUE_WAIT|CONNECTIONS__MAX_AGE|COMPUTE_THREADS|REFLECTION|CHANNELZ|TEI__MODEL" -}}
{{- $checked := printf "^LONGEMBED__(%s|%s)$" $set $compared -}}
{{- range $index, $variable := .Values.env -}}
{{- if regexMatch $checked $variable.name -}}
{{- fail (printf "env[%d].name %s would override what the chart sets or checks; set bindAddress, http, tls, apiKeys or the key below config instead" $index $variable.name) -}}
{{- end -}}
{{- if hasKey $names $variable.name -}}
{{- fail (printf "env[%d].name %s appears twice" $index $variable.name) -}}
{{- end -}}
{{- $_ := set $names $variable.name true -}}
{{- if eq (hasKey $variable "value") (hasKey $variable "valueFrom") -}}
{{- fail (printf "env[%d], %s, needs one of value and valueFrom" $index $variable.name) -}}
{{- end -}}
{{- end -}}
{{- if and (eq (default "" .Values.dnsPolicy) "None") (not (dig "nameservers" list .Values.dnsConfig)) -}}
{{- fail "dnsPolicy None: Kubernetes would refuse the pods, because dnsConfig.nameservers is empty; name one" -}}
{{- end -}}
{{- include "longembed.refuseContainers" . -}}
{{- include "longembed.refuseVolumes" . -}}
{{- end -}}

{{- define "longembed.refuseContainers" -}}
{{- $names := dict "server" true -}}
{{- range $list := list "initContainers" "extraContainers" -}}
{{- range $index, $container := get $.Values $list -}}
{{- if or (hasKey $names $container.name) (hasPrefix "copy-model-" $container.name) -}}
{{- fail (printf "%s[%d].name %s is the name of another container of the pod; choose another" $list $index $container.name) -}}
{{- end -}}
{{- $_ := set $names $container.name true -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "longembed.refuseVolumes" -}}
{{- $own := "^(config|tmp|tls|client-ca|api-keys|model-[0-9a-f]{10})$" -}}
{{- $names := dict -}}
{{- range $index, $volume := .Values.extraVolumes -}}
{{- if or (hasKey $names $volume.name) (regexMatch $own $volume.name) -}}
{{- fail (printf "extraVolumes[%d].name %s is the name of another volume of the pod; choose another" $index $volume.name) -}}
{{- end -}}
{{- $_ := set $names $volume.name true -}}
{{- end -}}
{{- $paths := dict "/etc/longembed" true "/tmp" true "/run/secrets/longembed/tls" true "/run/secrets/longembed/client-ca" true "/run/secrets/longembed/api-keys" true -}}
{{- range .Values.models -}}
{{- if not (hasKey .source "baked") -}}{{- $_ := set $paths (printf "/models/%s" .name) true -}}{{- end -}}
{{- end -}}
{{- range $index, $mount := .Values.extraVolumeMounts -}}
{{- if not (or (hasKey $names $mount.name) (regexMatch $own $mount.name)) -}}
{{- fail (printf "extraVolumeMounts[%d].name %s is not one of extraVolumes: %s" $index $mount.name (keys $names | sortAlpha | join ", ")) -}}
{{- end -}}
{{- $path := clean $mount.mountPath -}}
{{- if hasKey $paths $path -}}
{{- fail (printf "extraVolumeMounts[%d].mountPath %s is mounted already; choose another" $index $mount.mountPath) -}}
{{- end -}}
{{- $_ := set $paths $path true -}}
{{- end -}}
{{- end -}}
