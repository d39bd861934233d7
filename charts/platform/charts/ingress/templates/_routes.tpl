{{/* What is reached from outside: name in the address, chart, port. Another service is another line. */}}
{{- define "ingress.routes" -}}
mlflow: {chart: mlflow, port: 5000}
prefect: {chart: prefect-server, port: 4200}
api: {chart: model-api, port: 8086}
ui: {chart: ui, port: 8501}
{{- if and (include "lib.prometheus" .) (not .Values.className) }}
prometheus: {chart: prometheus, port: 9090} # has no accounts: Traefik asks for one
{{- end }}
{{- if .Values.global.grafana }}
grafana: {chart: grafana, port: 3000}
{{- end }}
{{- end }}
