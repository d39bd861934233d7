{{/* The address of the Prometheus that is asked. */}}
{{- define "grafana.prometheus" -}}
{{ .Values.prometheusUrl | default (printf "http://%s:9090" (include "lib.name" (list . "prometheus"))) }}
{{- end }}

{{/* The egress rule to it: all of the namespace it is in, or its port at any address. */}}
{{- define "grafana.egress" -}}
{{- if not .Values.prometheusUrl }}
{{- include "lib.egress" (list . "prometheus" 9090) }}
{{- else if .Values.prometheusNamespace }}
- to:
  - namespaceSelector:
      matchLabels:
        kubernetes.io/metadata.name: {{ .Values.prometheusNamespace }}
{{- else }}
{{- $url := urlParse .Values.prometheusUrl }}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "443" "80" (eq $url.scheme "https")) }}
- to:
  {{- include "lib.addresses" (list "0.0.0.0/0" "::/0") | nindent 2 }}
  ports:
  - {port: {{ $port }}, protocol: TCP}
{{- end }}
{{- end }}
