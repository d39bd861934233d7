{{/*
Labels that a setting adds to the chart's own, by which somebody else's Prometheus finds an object.
(list "monitoring.serviceMonitor.labels" labels)
*/}}
{{- define "lib.addedLabels" -}}
{{- $setting := index . 0 -}}
{{- range $key, $value := index . 1 }}
{{- if or (hasPrefix "app.kubernetes.io/" $key) (hasPrefix "helm.sh/" $key) }}
{{- fail (printf "%s has %s=%s, but the chart sets %s itself: leave it out" $setting $key $value $key) }}
{{- end }}
{{ $key }}: {{ $value | quote }}
{{- end }}
{{- end }}
