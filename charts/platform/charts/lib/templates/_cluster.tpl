{{/*
"true" in a cluster without the Prometheus Operator's kinds. A chart that is rendered without a cluster knows of none (so by
`helm template`, and by GitOps tools that do not say): such a one may have them. All clusters have apiregistration.k8s.io.
*/}}
{{- define "lib.lacksOperator" -}}
{{- $apis := .Capabilities.APIVersions -}}
{{- if and ($apis.Has "apiregistration.k8s.io/v1") (not ($apis.Has "monitoring.coreos.com/v1/ServiceMonitor")) }}true{{ end -}}
{{- end }}
