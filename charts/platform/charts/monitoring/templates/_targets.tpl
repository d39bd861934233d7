{{/*
What Prometheus asks for metrics: Service, name and number of its port, and what differs. Another target is another line.
The chart of a target with `monitored` brings its ServiceMonitor itself.
*/}}
{{- define "monitoring.targets" -}}
model-api: {port: http, number: 8086, monitored: true}
mlflow: {port: http, number: 5000, account: mlflow-admin} # it shows its metrics to nobody else
prefect-server: {port: http, number: 4200, path: /api/metrics, account: prefect}
prefect-worker: {port: metrics, number: 4201}
{{- if .Values.global.traefik }}
traefik: {port: metrics, number: 9000}
{{- end }}
{{- if .Values.global.retrainer }}
retrainer: {port: http, number: 8090}
{{- end }}
{{- end }}

{{/* And its own parts, where they run. */}}
{{- define "monitoring.ownTargets" -}}
{{- if .Values.operator.enabled }}
prometheus: {port: http, number: 9090}
alertmanager: {port: http, number: 9093}
kube-state-metrics: {port: http, number: 8080, honorLabels: true}
{{- end }}
{{- end }}

{{/* Who asks: the platform's Prometheus, or that of the existing stack. */}}
{{- define "monitoring.prometheusPeer" -}}
{{- if .Values.operator.enabled }}
{{- include "lib.pods" (list . "prometheus") }}
{{- else }}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ .Values.namespace }}
{{- end }}
{{- end }}

{{/* The metadata of an object of the chart. (list . "prometheus") */}}
{{- define "monitoring.metadata" -}}
{{ include "lib.metadata" (dict "root" (index . 0) "name" (include "lib.name" .) "labels" (include "monitoring.labels" .)) }}
{{- end }}

{{- define "monitoring.labels" -}}
{{- $root := index . 0 -}}
{{ include "lib.selector" . }}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/part-of: mlops
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
{{- include "lib.commonLabels" $root }}
{{- end }}

{{/* What the operator reconciles: no other operator of the cluster does, and ours nothing else. */}}
{{- define "monitoring.controller" -}}
operator.prometheus.io/controller-id: {{ .Release.Namespace }}/{{ .Release.Name }}
{{- end }}

{{/*
What people add to a pod that the operator makes, in the fields that it has for it. "claim": theirs, mounted at "data" in
place of the volume that the operator would make.
*/}}
{{- define "monitoring.extras" -}}
{{- $settings := include "lib.settings" . | fromYaml -}}
{{- $env := include "lib.extraEnv" . | fromYamlArray -}}
{{- $volumes := $settings.extraVolumes | default list -}}
{{- with .claim }}{{ $volumes = append $volumes (dict "name" "theirs" "persistentVolumeClaim" (dict "claimName" .)) }}{{ end -}}
{{- with $volumes }}
volumes:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $settings.extraVolumeMounts }}
volumeMounts:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or $env $settings.extraEnvFrom $settings.securityContext $settings.extraContainers .claim }}
containers: # merged with the operator's by its name, its mounts by their path
- name: {{ .name }}
  {{- with .claim }}
  volumeMounts:
  - {name: theirs, mountPath: {{ $.data }}}
  {{- end }}
  {{- with $env }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.extraEnvFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- with $settings.extraContainers }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}

{{/* "true" where kubelets are asked how full volumes are: that takes a right beyond the namespace. */}}
{{- define "monitoring.kubelet" -}}
{{- if and .Values.operator.enabled .Values.kubelet.enabled .Values.global.clusterScoped }}true{{ end -}}
{{- end }}

{{/* The objects of this release, for the operator's selectors. */}}
{{- define "monitoring.ofRelease" -}}
{matchLabels: {app.kubernetes.io/instance: {{ include "lib.fullname" . }}}}
{{- end }}

{{/* "true" where a Gateway has a route to Prometheus: somebody asks for a login, or nobody is to. */}}
{{- define "monitoring.routed" -}}
{{- if and .Values.global.gateway.enabled (or .Values.global.gateway.filters (not .Values.global.ingress.auth.enabled)) }}true{{ end -}}
{{- end }}
