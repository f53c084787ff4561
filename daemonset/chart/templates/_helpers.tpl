{{/* Names and labels that all objects share. */}}

{{/* Not that of the release: a node has one cache, and tools look for this name. */}}
{{- define "nodecache.fullname" -}}
{{- .Values.fullnameOverride | default .Values.nameOverride | default "node-local-dns" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* That of the cluster's DNS, whatever --namespace says: the Service for its pods selects there. */}}
{{- define "nodecache.namespace" -}}
{{- .Values.namespaceOverride | default (include "nodecache.clusterDNSNamespace" .) }}
{{- end }}

{{/* For metadata of every object; the plain manifests go without Helm's. */}}
{{- define "nodecache.labels" -}}
{{- $labels := deepCopy .Values.commonLabels }}
{{- if .Values.helmLabels }}
{{- $labels = merge $labels (dict
    "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63)
    "app.kubernetes.io/name" .Chart.Name
    "app.kubernetes.io/instance" .Release.Name
    "app.kubernetes.io/version" .Chart.AppVersion
    "app.kubernetes.io/managed-by" .Release.Service) }}
{{- end }}
{{- if $labels }}{{ toYaml $labels }}{{ end }}
{{- end }}

{{/* The DaemonSet's selector, which cannot be changed once it is there. */}}
{{- define "nodecache.selectorLabels" -}}
{{- toYaml (.Values.daemonset.selectorLabels | default (dict "k8s-app" "node-local-dns")) }}
{{- end }}

{{/* Call with (list CONTEXT LABELS...): one map, in which what comes first counts. */}}
{{- define "nodecache.metadataLabels" -}}
{{- $labels := dict }}
{{- range rest . }}{{ $labels = merge $labels . }}{{ end }}
{{- $labels = merge $labels (include "nodecache.labels" (first .) | fromYaml) }}
{{- if $labels }}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- end }}
{{- end }}

{{- define "nodecache.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "nodecache.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}
