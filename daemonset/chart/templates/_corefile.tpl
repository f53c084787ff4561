{{- define "nodecache.corefile" -}}
{{- with .Values.config }}
{{- if .customConfig }}
{{- tpl .customConfig $ }}
{{- else }}
{{- $cluster := list "__PILLAR__CLUSTER__DNS__" (list .commProtocol) }}
{{- $options := list }}
{{- range .upstreamForwardConfig }}{{ $options = append $options . }}{{ end }}
{{- $elsewhere := list .upstreamServers $options }}
{{- if .serveStale.cluster }}
# serve_stale: when the cluster's DNS fails, answers that have expired are better than none.
# "verify" asks it first, for 400 ms. Addresses of pods move sooner than names out there.
{{- end }}
{{ include "nodecache.zone" (list $ (include "nodecache.dnsDomain" $) (list "success 9984 30" "denial 9984 5") .serveStale.cluster $cluster true) }}
{{ include "nodecache.zone" (list $ "in-addr.arpa" list .serveStale.cluster $cluster false) }}
{{ include "nodecache.zone" (list $ "ip6.arpa" list .serveStale.cluster $cluster false) }}
{{ include "nodecache.zone" (list $ "." list .serveStale.elsewhere $elsewhere false) }}
{{- with .extraServerBlocks }}
{{ tpl . $ | trim }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* One server block: (list CONTEXT ZONE CACHE-LINES STALE (list UPSTREAMS OPTIONS) ANSWERS-PROBES). */}}
{{- define "nodecache.zone" -}}
{{- $ := index . 0 }}
{{- $config := $.Values.config }}
{{- $stale := index . 3 }}
{{- $upstreams := index . 4 }}
{{- $cache := index . 2 }}
{{- $ttl := ternary "" (printf " %v" $config.cacheTTL) (not (empty $cache)) }}
{{- if $config.prefetch.enabled }}
{{- $cache = append $cache (printf "prefetch %v %v %v" $config.prefetch.amount $config.prefetch.duration $config.prefetch.percentage) }}
{{- end }}
{{- if $stale }}{{ $cache = append $cache (printf "serve_stale %v verify" $stale) }}{{ end -}}
{{ index . 1 }}:{{ $config.port.number }} {
    errors
{{- if include "nodecache.enableLogging" $ }}
    log
{{- end }}
    {{- include "nodecache.directive" (list (printf "cache%s" $ttl) $cache) | nindent 4 }}
    reload
    loop
{{- if and $config.bindIp (include "nodecache.onHostNetwork" $) }}
    bind {{ include "nodecache.addresses" $ | fromJsonArray | join " " }}
{{- else }}
    bind 0.0.0.0{{ if contains ":" (include "nodecache.localAddresses" $) }} ::{{ end }}
{{- end }}
{{- if $config.noIPv6Lookups }}
    template IN AAAA {
        rcode NOERROR
    }
{{- end }}
    {{- include "nodecache.directive" (list (printf "forward . %s" (first $upstreams)) (last $upstreams)) | nindent 4 }}
    prometheus :{{ $.Values.metrics.port }}
{{- if index . 5 }}
    health {{ include "nodecache.probeListen" $ }}:{{ $config.healthPort }}
    ready {{ include "nodecache.probeListen" $ }}:{{ $config.readyPort }}
{{- end }}
}
{{- end }}

{{/* With its options in braces, if it has any. */}}
{{- define "nodecache.directive" -}}
{{- first . }}
{{- if last . }} {
{{- range last . }}
    {{ . }}
{{- end }}
}
{{- end }}
{{- end }}
