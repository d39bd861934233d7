{{/* The head of a NetworkPolicy about the chart's own pods. Edges follow as `ingress:` and `egress:`. */}}
{{- define "lib.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "lib.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "lib.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
{{- end }}

{{/* Peers: pods of these charts. (list . "ui" "traefik") */}}
{{- define "lib.pods" -}}
{{- $root := first . -}}
{{- range rest . }}
- podSelector:
    matchLabels:
      {{- include "lib.selector" (list $root .) | nindent 6 }}
{{- end }}
{{- end }}

{{/* An egress rule to a chart's port. (list . "mlflow" 5000) */}}
{{- define "lib.egress" -}}
- to:
  {{- include "lib.pods" (list (index . 0) (index . 1)) | nindent 2 }}
  ports:
  - {port: {{ index . 2 }}, protocol: TCP}
{{- end }}

{{/* An egress rule to the cluster's DNS. */}}
{{- define "lib.dns" -}}
{{- with .Values.global.networkPolicy.dns -}}
- to:
  {{- toYaml .to | nindent 2 }}
  ports:
  {{- range .ports }}
  - {port: {{ . }}, protocol: UDP}
  - {port: {{ . }}, protocol: TCP}
  {{- end }}
{{- end }}
{{- end }}

{{/* An egress rule to the PostgreSQL that replaces SQLite, if it is ours; egressCIDRs lets one outside be reached. */}}
{{- define "lib.databaseEgress" -}}
{{- if .Values.global.postgres }}
{{- include "lib.egress" (list . "postgres" 5432) }}
{{- end }}
{{- end }}

{{/* Egress rules to addresses outside the cluster. */}}
{{- define "lib.outside" -}}
{{- range . }}
- to:
  - ipBlock: {cidr: {{ . }}}
{{- end }}
{{- end }}

{{/*
Peers: the cluster's own ingress controller or gateway, if there is one. It may be anywhere, where nobody says in which
namespace; and so may who comes by a Service of another type than ClusterIP.
*/}}
{{- define "lib.otherController" -}}
{{- $global := .Values.global -}}
{{- $another := or $global.gateway.enabled (and $global.ingress.enabled (or $global.ingress.className (not $global.traefik))) -}}
{{- $service := dig "service" "type" "ClusterIP" (.Values.prometheus | default (dict "service" (.Values.service | default dict))) -}}
{{- if or (and $another (not $global.ingress.controllerNamespace)) (ne $service "ClusterIP") }}
- namespaceSelector: {}
- ipBlock: {cidr: 0.0.0.0/0}
- ipBlock: {cidr: "::/0"}
{{- else if $global.ingress.controllerNamespace }}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ $global.ingress.controllerNamespace }}
{{- end }}
{{- end }}
