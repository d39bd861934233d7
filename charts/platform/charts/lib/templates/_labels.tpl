{{/* Labels that the platform's commonLabels add to all objects, on lines of their own. */}}
{{- define "lib.commonLabels" -}}
{{- include "lib.addedLabels" (list "commonLabels" (.Values.global.commonLabels | default dict)) }}
{{- end }}

{{/*
Labels that a setting adds to the chart's own, by which somebody else's Prometheus finds an object.
(list "monitoring.serviceMonitor.labels" labels)
*/}}
{{- define "lib.addedLabels" -}}
{{- $setting := index . 0 -}}
{{- $own := list "helm.sh/chart" }}
{{- range list "component" "instance" "name" "part-of" "version" "managed-by" }}{{ $own = append $own (print "app.kubernetes.io/" .) }}{{ end -}}
{{- range $key, $value := index . 1 }}
{{- if has $key $own }}
{{- fail (printf "%s has %s=%s, but the chart sets %s itself: leave it out" $setting $key $value $key) }}
{{- end }}
{{ $key }}: {{ $value | quote }}
{{- end }}
{{- end }}
