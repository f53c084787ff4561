{{/* What both carriers share: who injects, what, and into which pods. docs/webhook.md has the table. */}}

{{/* policy, webhook, or nothing. */}}
{{- define "nodecache.injectionMode" -}}
{{- $mode := toString .Values.injection.mode }}
{{- /* off without quotes is false in YAML. */}}
{{- if or (eq $mode "false") (eq (toString .Values.controller.enabled) "false") }}{{ $mode = "off" }}{{ end }}
{{- if and (eq $mode "auto") (or (include "nodecache.leadsPodsItself" .) (include "nodecache.lacksClusterDns" .)) }}{{ $mode = "off" }}{{ end }}
{{- if eq $mode "auto" }}
{{- $mode = ternary "policy" "webhook" (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy") }}
{{- end }}
{{- if ne $mode "off" }}{{ include "nodecache.refuseInjection" . }}{{ $mode }}{{ end }}
{{- end }}

{{/* Where Cilium leads the Service here, no node has the local address. */}}
{{- define "nodecache.leadsPodsItself" -}}
{{- if and (eq .Values.mode "cilium") (ne .Values.config.cilium.redirectType "address") }}true{{ end }}
{{- end }}

{{/* Offline, in a mode that does not need its address itself. */}}
{{- define "nodecache.lacksClusterDns" -}}
{{- if and .Values.injection.includeClusterDns (not (include "nodecache.injectedClusterDns" . | fromJsonArray)) }}true{{ end }}
{{- end }}

{{- define "nodecache.refuseInjection" -}}
{{- include "nodecache.refuse" . }}
{{- include "nodecache.refuseNonAddresses" (list "injection.nameservers" (include "nodecache.injectedLocalDns" . | fromJsonArray)) }}
{{- include "nodecache.refuseNonAddresses" (list "injection.clusterDns" (include "nodecache.injectedClusterDns" . | fromJsonArray)) }}
{{- if include "nodecache.leadsPodsItself" . }}
{{- fail (printf "\n\ninjection.mode %s does not go with mode cilium, which leads the cluster DNS' address here for all pods: leave injection.mode out, or set config.cilium.redirectType to address." .Values.injection.mode) }}
{{- end }}
{{- if include "nodecache.lacksClusterDns" . }}
{{- fail "\n\nconfig.dnsServer is empty, and there is no cluster to look it up in: pods are given it behind this cache.\nSet it to the address of the cluster's DNS (kubectl -n kube-system get service kube-dns), injection.includeClusterDns to false, or injection.mode to off." }}
{{- end }}
{{- if contains "admission-controller" (include "nodecache.webhookImage" .) }}
{{- fail (printf "\n\nThe image %s is ACK's admission controller, which lacks this chart's flags: leave controller.image empty.\nIf it came from the release before, upgrade with --reset-values." (include "nodecache.webhookImage" .)) }}
{{- end }}
{{- end }}

{{- define "nodecache.injectedLocalDns" -}}
{{- if .Values.injection.nameservers }}{{ include "nodecache.list" .Values.injection.nameservers }}
{{- else }}{{ include "nodecache.localAddresses" . }}{{ end }}
{{- end }}

{{- define "nodecache.injectedClusterDns" -}}
{{- if not .Values.injection.includeClusterDns }}[]
{{- else if .Values.injection.clusterDns }}{{ include "nodecache.list" .Values.injection.clusterDns }}
{{- else }}{{ include "nodecache.clusterAddresses" . }}{{ end }}
{{- end }}

{{/* All in the order in which a pod asks: the cluster's first is second, see nodecache/webhook/model.py. */}}
{{- define "nodecache.injectedNameservers" -}}
{{- $local := include "nodecache.injectedLocalDns" . | fromJsonArray }}
{{- $cluster := include "nodecache.injectedClusterDns" . | fromJsonArray }}
{{- $all := list (first $local) }}
{{- if $cluster }}{{ $all = append $all (first $cluster) }}{{ end }}
{{- concat $all (rest $local) (rest $cluster) | uniq | toJson }}
{{- end }}

{{- define "nodecache.excludedNamespaces" -}}
{{- append .Values.injection.excludedNamespaces (include "nodecache.namespace" .) | uniq | toJson }}
{{- end }}

{{/* Pods that somebody chose: a list of name, namespaceSelector and objectSelector. No pod is in two. */}}
{{- define "nodecache.chosenPods" -}}
{{- $label := "node-local-dns-injection" }}
{{- $notServerless := list
    (dict "key" "eci" "operator" "DoesNotExist")
    (dict "key" "alibabacloud.com/eci" "operator" "DoesNotExist") }}
{{- $never := concat (list
    (dict "key" "kubernetes.io/metadata.name" "operator" "NotIn" "values" (include "nodecache.excludedNamespaces" . | fromJsonArray))
    (dict "key" "virtual-node-affinity-injection" "operator" "DoesNotExist")) $notServerless }}
{{- $notDisabled := dict "key" $label "operator" "NotIn" "values" (list "disabled") }}
{{- $notOptedOut := dict "matchExpressions" (append $notServerless $notDisabled) }}
{{- if eq .Values.injection.scope "all" }}
{{- list (dict
    "name" "namespaces"
    "namespaceSelector" (dict "matchExpressions" (append $never $notDisabled))
    "objectSelector" $notOptedOut) | toJson }}
{{- else }}
{{- list
    (dict
      "name" "namespaces"
      "namespaceSelector" (dict "matchLabels" (dict $label "enabled") "matchExpressions" $never)
      "objectSelector" $notOptedOut)
    (dict
      "name" "pods"
      "namespaceSelector" (dict "matchExpressions" (append $never (dict "key" $label "operator" "NotIn" "values" (list "enabled" "disabled"))))
      "objectSelector" (dict "matchLabels" (dict $label "enabled") "matchExpressions" $notServerless)) | toJson }}
{{- end }}
{{- end }}

{{- define "nodecache.newPods" -}}
- apiGroups: [""]
  apiVersions: [v1]
  operations: [CREATE]
  resources: [pods]
  scope: Namespaced
{{- end }}

{{/* In CEL as Kubernetes 1.28 has it: without optionals. */}}
{{- define "nodecache.matchConditions" -}}
# On the node's network ClusterFirst means Default.
- name: resolves-through-cluster-dns
  expression: >-
    (has(object.spec.dnsPolicy) ? object.spec.dnsPolicy : "ClusterFirst") ==
    (has(object.spec.hostNetwork) && object.spec.hostNetwork ? "ClusterFirstWithHostNet" : "ClusterFirst")
# The kubelet runs it from a file, and not from this object.
- name: no-mirror-pod
  expression: >-
    !(has(object.metadata.annotations) && "kubernetes.io/config.mirror" in object.metadata.annotations)
- name: linux-on-a-real-node
  expression: >-
    !(has(object.spec.os) && object.spec.os.name == "windows") &&
    !(has(object.spec.nodeName) && object.spec.nodeName.startsWith("virtual-kubelet")) &&
    !(has(object.spec.nodeSelector) && object.spec.nodeSelector.exists(name,
    (name == "kubernetes.io/os" && object.spec.nodeSelector[name] == "windows") ||
    (name == "type" && object.spec.nodeSelector[name] == "virtual-kubelet")))
{{- end }}
