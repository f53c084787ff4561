{{/* Parts of the container, each as YAML of its own. */}}

{{- define "nodecache.args" -}}
{{- $args := list "-localip" (include "nodecache.addresses" . | fromJsonArray | join ",") "-conf" "/etc/Corefile" "-upstreamsvc" (include "nodecache.upstreamServiceName" .) "-rundir" "/run/nodecache" }}
{{- with .Values.config }}
{{- if eq $.Values.mode "cilium" }}
{{- $args = concat $args (list "-setupinterface=false" "-setupiptables=false") }}
{{- else }}
{{- if not .setupInterface }}{{ $args = append $args "-setupinterface=false" }}{{ end }}
{{- if .setupIptables }}
{{- $args = concat $args (list "-rules" .rules) }}
{{- else }}
{{- $args = append $args "-setupiptables=false" }}
{{- end }}
{{- if .skipTeardown }}{{ $args = append $args "-skipteardown=true" }}{{ end }}
{{- if ne (int .healthPort) 8080 }}{{ $args = concat $args (list "-health-port" (toString .healthPort)) }}{{ end }}
{{- end }}
{{- if ne (int .port.number) 53 }}{{ $args = concat $args (list "-dns.port" (toString .port.number)) }}{{ end }}
{{- end }}
{{- concat $args (list "-cluster-domain" (include "nodecache.dnsDomain" .) "-metrics-listen-address" "") .Values.extraArgs | toJson }}
{{- end }}

{{- define "nodecache.ports" -}}
{{- if include "nodecache.declaresPorts" . }}
{{- with .Values.config.port }}
ports:
- containerPort: {{ .number }}
  name: {{ .udp }}
  protocol: UDP
- containerPort: {{ .number }}
  name: {{ .tcp }}
  protocol: TCP
{{- end }}
- containerPort: {{ .Values.metrics.port }}
  name: metrics
  protocol: TCP
{{- else if .Values.daemonset.clearPorts }}
# Declared ports of a pod on the host's network are ports of the node: the next pod would
# wait for them for ever. null, so that "kubectl apply" removes those of node-cache.
ports: null
{{- end }}
{{- end }}

{{/* Each is ours, with what values of the same name say instead. */}}
{{- define "nodecache.probes" -}}
{{- $host := include "nodecache.probeHost" . }}
{{- $get := dict }}
{{- if $host }}{{ $get = dict "host" $host }}{{ end }}
{{- $health := merge (dict "path" "/health" "port" .Values.config.healthPort) $get }}
{{- $ready := merge (dict "path" "/ready" "port" .Values.config.readyPort) $get }}
# While two pods run, the local address is answered by either: this asks about this one.
startupProbe:
  {{- toYaml (mergeOverwrite (dict "exec" (dict "command" (list "nodecache" "probe"))) .Values.startupProbe) | nindent 2 }}
# A worker that hangs is the keeper's to find, in 3 s; this finds both of them within 15 s.
# Meanwhile the kernel leads queries to the cluster's DNS. What hangs would not use its grace.
livenessProbe:
  {{- toYaml (mergeOverwrite (dict "httpGet" $health) .Values.livenessProbe) | nindent 2 }}
readinessProbe:
  {{- toYaml (mergeOverwrite (dict "httpGet" $ready) .Values.readinessProbe) | nindent 2 }}
{{- end }}
