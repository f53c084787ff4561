{{- define "nodecache.webhookImage" -}}
{{- if .Values.controller.image }}
{{- printf "%s:%s" .Values.controller.image (.Values.controller.imageTag | default .Chart.AppVersion) }}
{{- else }}
{{- .Values.webhook.image | default (include "nodecache.image" .) }}
{{- end }}
{{- end }}

{{- define "nodecache.webhookReplicas" -}}
{{- .Values.controller.replicas | default .Values.webhook.replicas | int }}
{{- end }}

{{- define "nodecache.webhookArgs" -}}
{{- $cluster := include "nodecache.injectedClusterDns" . | fromJsonArray }}
{{- $args := list "webhook" "-nameserver" (include "nodecache.injectedLocalDns" . | fromJsonArray | join ",") }}
{{- if $cluster }}
{{- $args = concat $args (list "-cluster-dns" ($cluster | join ",")) }}
{{- else }}
{{- $args = append $args "-include-kube-dns=false" }}
{{- end }}
{{- $args = concat $args (list "-cluster-domain" (include "nodecache.dnsDomain" .)) }}
{{- with .Values.injection }}
{{- if .searches }}{{ $args = concat $args (list "-searches" (.searches | join ",")) }}{{ end }}
{{- $args = concat $args (list "-ndots" (toString .ndots) "-attempts" (toString .attempts) "-timeout" (toString .timeout)) }}
{{- end }}
{{- $args = concat $args (list "-excluded-namespaces" (include "nodecache.excludedNamespaces" . | fromJsonArray | join ",")) }}
{{- with .Values.webhook }}
{{- if eq .certificates "self" }}
{{- $args = concat $args (list "-tls-secret" .secretName "-service" .name "-webhook-configuration" .name) }}
{{- else }}
{{- $args = concat $args (list "-tls-cert-file" "/tls/tls.crt" "-tls-private-key-file" "/tls/tls.key") }}
{{- end }}
{{- concat $args .extraArgs | toJson }}
{{- end }}
{{- end }}

{{- define "nodecache.webhookSelector" -}}
k8s-app: {{ .Values.webhook.name }}
{{- end }}

{{- define "nodecache.webhookMetadata" -}}
name: {{ .Values.webhook.name }}
namespace: {{ include "nodecache.namespace" . }}
{{- include "nodecache.metadataLabels" (list . (include "nodecache.webhookSelector" . | fromYaml)) }}
{{- end }}
