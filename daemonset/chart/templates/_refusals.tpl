{{/* What no schema can say in a sentence. Every message names the value and the next step. */}}

{{- define "nodecache.refuse" -}}
{{- $locals := include "nodecache.localAddresses" . | fromJsonArray }}
{{- $clusters := include "nodecache.clusterAddresses" . | fromJsonArray }}
{{- include "nodecache.refuseNonAddresses" (list "config.localDns" $locals) }}
{{- include "nodecache.refuseNonAddresses" (list "config.dnsServer" $clusters) }}
{{- include "nodecache.refuseNonAddresses" (list "upstreamService.clusterIP" (without (list (include "nodecache.upstreamServiceIP" .)) "" "None")) }}
{{- if not $locals }}
{{- fail "\n\nconfig.localDns is empty: give an address that nobody uses, such as 169.254.20.10." }}
{{- end }}
{{- if and (include "nodecache.servesClusterAddress" .) (not $clusters) }}
{{- fail (printf "\n\nconfig.dnsServer is empty, and Service %s/%s was not found; rendering offline, as GitOps does, finds none.\nSet config.dnsServer to the address of the cluster's DNS (kubectl -n kube-system get services has it),\nor config.clusterDNSService to its name there, or mode to ipvs if pods are to use config.localDns alone." (include "nodecache.clusterDNSNamespace" .) (include "nodecache.clusterDNSService" .)) }}
{{- end }}
{{- range $locals }}
{{- if has . $clusters }}
{{- fail (printf "\n\nconfig.localDns %s is the cluster DNS' own address (config.dnsServer): give another, such as 169.254.20.10." .) }}
{{- end }}
{{- end }}
{{- if has (include "nodecache.upstreamServiceIP" .) $clusters }}
{{- fail "\n\nenv.upstream_ip (upstreamService.clusterIP) is the cluster DNS' own address, which leads here: leave it empty, or give a free address of the Service range." }}
{{- end }}
{{- if not (regexMatch "^([A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?\\.)*[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?$" (include "nodecache.dnsDomain" .)) }}
{{- fail (printf "\n\nconfig.dnsDomain %q is no domain: give the cluster's, such as cluster.local." (include "nodecache.dnsDomain" .)) }}
{{- end }}
{{- include "nodecache.refuseImage" . }}
{{- include "nodecache.refusePorts" . }}
{{- include "nodecache.refuseSelector" . }}
{{- end }}

{{- define "nodecache.refuseNonAddresses" -}}
{{- $name := first . }}
{{- range last . }}
{{- $four := regexMatch "^(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(\\.(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])){3}$" (toString .) }}
{{- $six := and (contains ":" (toString .)) (regexMatch "^[0-9A-Fa-f:.]{2,45}$" (toString .)) }}
{{- $variable := regexMatch "^__PILLAR__[A-Z_]+__$" (toString .) }}
{{- if not (or $four $six $variable) }}
{{- fail (printf "\n\n%s: %q is no IP address." $name .) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "nodecache.refuseImage" -}}
{{- if contains "k8s-dns-node-cache" (include "nodecache.image" .) }}
{{- fail (printf "\n\nThe image %s is node-cache, which lacks what this chart's probes and flags ask for.\nSet image.repository and image.tag to nodecache's. If it came from the release before, upgrade with --reset-values." (include "nodecache.image" .)) }}
{{- end }}
{{- end }}

{{- define "nodecache.refusePorts" -}}
{{- if and (include "nodecache.onHostNetwork" .) .Values.daemonset.declarePorts (include "nodecache.surges" .) }}
{{- fail "\n\ndaemonset.declarePorts makes ports of the node of them, and the next pod would wait for the present one's for ever.\nLeave it false, or set updateStrategy.rollingUpdate.maxUnavailable to 1 and live with a gap at each upgrade." }}
{{- end }}
{{- if and .Values.podmonitor.enabled (not (include "nodecache.declaresPorts" .)) }}
{{- fail "\n\npodmonitor.enabled finds nothing, because the pods declare no ports: set serviceMonitor.enabled instead, which needs none.\n(Or daemonset.declarePorts, and updateStrategy.rollingUpdate.maxUnavailable to 1.)" }}
{{- end }}
{{- end }}

{{/* Otherwise Helm would find out when the ConfigMap has been changed under the old pods. */}}
{{- define "nodecache.refuseSelector" -}}
{{- $there := lookup "apps/v1" "DaemonSet" (include "nodecache.namespace" .) (include "nodecache.fullname" .) }}
{{- $selector := dig "spec" "selector" "matchLabels" (dict) $there }}
{{- if and $selector (ne (toJson $selector) (include "nodecache.selectorLabels" . | fromYaml | toJson)) }}
{{- fail (printf "\n\nDaemonSet %s/%s is there with another selector, which cannot be changed.\nTo go on with it, set daemonset.selectorLabels to %s" (include "nodecache.namespace" .) (include "nodecache.fullname" .) (toJson $selector)) }}
{{- end }}
{{- end }}
