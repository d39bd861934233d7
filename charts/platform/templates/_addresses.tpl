{{/* Where people reach each service: for the links between pages, in alerts and in the logs of runs. */}}
{{- define "platform.addresses" -}}
{{- $values := .Values -}}
{{- range $name, $ingress := dict "api" (index $values "model-api").ingress "mlflow" $values.mlflow.ingress "prefect" (index $values "prefect-server").ingress "ui" $values.ui.ingress "grafana" $values.grafana.ingress "prometheus" (dig "prometheus" "ingress" dict ($values.monitoring | default dict)) }}
{{- if or (ne $name "grafana") $values.global.grafana }}
{{ $name }}: {{ include "lib.url" (list $ $name $ingress) }}
{{- end }}
{{- end }}
{{- end }}
