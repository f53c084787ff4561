{{/*
What values come to. Other charts' names for the same thing end here (env.* and nodelocaldns.* are
ACK's, config.localDnsIp and config.cilium.* lablabs'; ACK's controller.* ends in injection/), so no
other template knows of them. Lists are handed on as JSON, read by fromJsonArray.
*/}}

{{- define "nodecache.dnsDomain" -}}
{{- .Values.env.cluster_domain | default .Values.config.dnsDomain | trimSuffix "." }}
{{- end }}

{{- define "nodecache.enableLogging" -}}
{{- if or .Values.env.enable_log .Values.config.enableLogging }}true{{ end }}
{{- end }}

{{/* A list, or one text with commas or blanks: either becomes a list. */}}
{{- define "nodecache.list" -}}
{{- if kindIs "slice" . }}{{ toJson . }}{{ else }}{{ . | toString | replace "," " " | splitList " " | compact | toJson }}{{ end }}
{{- end }}

{{- define "nodecache.localAddresses" -}}
{{- include "nodecache.list" (.Values.config.localDnsIp | default .Values.config.localDns) }}
{{- end }}

{{- define "nodecache.clusterDNSService" -}}
{{- .Values.config.cilium.clusterDNSService | default .Values.config.clusterDNSService }}
{{- end }}

{{- define "nodecache.clusterDNSNamespace" -}}
{{- .Values.config.cilium.clusterDNSNamespace | default .Values.config.clusterDNSNamespace }}
{{- end }}

{{/* By value, or by asking the API server; empty where neither tells. */}}
{{- define "nodecache.clusterAddresses" -}}
{{- if .Values.config.dnsServer }}
{{- include "nodecache.list" .Values.config.dnsServer }}
{{- else }}
{{- $service := lookup "v1" "Service" (include "nodecache.clusterDNSNamespace" .) (include "nodecache.clusterDNSService" .) }}
{{- dig "spec" "clusterIPs" (list) $service | toJson }}
{{- end }}
{{- end }}

{{/* Whether packet filter rules lead the cluster DNS' own address here: not in IPVS mode, where
     it belongs to an interface of kube-proxy's, and not under Cilium. */}}
{{- define "nodecache.servesClusterAddress" -}}
{{- if and (has .Values.mode (list "iptables" "nftables")) .Values.config.setupIptables }}true{{ end }}
{{- end }}

{{- define "nodecache.onHostNetwork" -}}
{{- if ne .Values.mode "cilium" }}true{{ end }}
{{- end }}

{{/* All that -localip and bind name. */}}
{{- define "nodecache.addresses" -}}
{{- $all := include "nodecache.localAddresses" . | fromJsonArray }}
{{- if include "nodecache.servesClusterAddress" . }}
{{- $all = concat $all (include "nodecache.clusterAddresses" . | fromJsonArray) }}
{{- end }}
{{- $all | uniq | toJson }}
{{- end }}

{{/* Where /health and /ready answer, and kubelet asks: the first address, or the pod's. */}}
{{- define "nodecache.probeHost" -}}
{{- if include "nodecache.onHostNetwork" . }}{{ include "nodecache.localAddresses" . | fromJsonArray | first }}{{ end }}
{{- end }}

{{/* The same before a colon and a port. */}}
{{- define "nodecache.probeListen" -}}
{{- $host := include "nodecache.probeHost" . }}
{{- if contains ":" $host }}{{ printf "[%s]" $host }}{{ else }}{{ $host }}{{ end }}
{{- end }}

{{/* ACK's chart gives its Service for the cluster's DNS a fixed address and a name of its own;
     an upgrade from it keeps both, so that its pods go on forwarding meanwhile. */}}
{{- define "nodecache.upstreamServiceName" -}}
{{- .Values.config.customUpstreamsvc | default .Values.upstreamService.name | default (ternary "node-local-upstream" "kube-dns-upstream" (ne .Values.env.upstream_ip "")) }}
{{- end }}

{{- define "nodecache.upstreamServiceIP" -}}
{{- .Values.env.upstream_ip | default .Values.upstreamService.clusterIP }}
{{- end }}

{{- define "nodecache.annotated" -}}
{{- if and .Values.prometheusScraping.enabled (ne (toString .Values.metrics.prometheusScrape) "false") (not .Values.serviceMonitor.enabled) (not .Values.podmonitor.enabled) }}true{{ end }}
{{- end }}

{{/* Annotations by which Prometheus finds what to scrape, if wanted, and further ones. */}}
{{- define "nodecache.scrapeAnnotations" -}}
{{- $annotations := dict }}
{{- if include "nodecache.annotated" (first .) }}
{{- $annotations = dict "prometheus.io/port" (toString (first .).Values.metrics.port) "prometheus.io/scrape" "true" }}
{{- end }}
{{- with merge (deepCopy (last .)) $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "nodecache.declaresPorts" -}}
{{- if or (eq .Values.mode "cilium") .Values.daemonset.declarePorts }}true{{ end }}
{{- end }}

{{/* Values that say maxUnavailable, as other charts' do, mean it: the API server takes no surge
     beside it. */}}
{{- define "nodecache.updateStrategy" -}}
{{- $strategy := deepCopy .Values.updateStrategy }}
{{- if ne $strategy.type "RollingUpdate" }}
{{- $strategy = omit $strategy "rollingUpdate" }}
{{- else if not (has (toString $strategy.rollingUpdate.maxUnavailable) (list "0" "0%")) }}
{{- $_ := set $strategy "rollingUpdate" (omit $strategy.rollingUpdate "maxSurge") }}
{{- end }}
{{- toYaml $strategy }}
{{- end }}

{{- define "nodecache.surges" -}}
{{- if not (has (include "nodecache.updateStrategy" . | fromYaml | dig "rollingUpdate" "maxSurge" 0 | toString) (list "0" "0%")) }}true{{ end }}
{{- end }}

{{/* A list of capabilities replaces ours in Helm's merge, so what it takes to serve is added to it. */}}
{{- define "nodecache.securityContext" -}}
{{- $context := deepCopy .Values.securityContext }}
{{- if $context.privileged }}
{{- $context = omit $context "allowPrivilegeEscalation" "capabilities" }}
{{- else }}
{{- $needed := list "NET_BIND_SERVICE" }}
{{- if include "nodecache.onHostNetwork" . }}{{ $needed = prepend $needed "NET_ADMIN" }}{{ end }}
{{- $capabilities := $context.capabilities | default dict }}
{{- $_ := set $capabilities "add" (concat $needed ($capabilities.add | default list) | uniq) }}
{{- $_ := set $context "capabilities" $capabilities }}
{{- end }}
{{- toYaml $context }}
{{- end }}

{{- define "nodecache.image" -}}
{{- $repository := .Values.nodelocaldns.image.repository | default .Values.image.repository }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (.Values.nodelocaldns.image.tag | default .Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}
