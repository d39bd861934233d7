{{/*
What all names of an installation begin with: the release's name, unless global.fullnameOverride or global.nameOverride say
otherwise. A long one is cut, so that no name or label made of it is longer than the 63 characters that Kubernetes allows.
*/}}
{{- define "lib.fullname" -}}
{{- $global := .Values.global -}}
{{- $name := .Release.Name -}}
{{- with $global.nameOverride }}{{ $name = printf "%s-%s" $name . }}{{ end -}}
{{- with $global.fullnameOverride }}{{ $name = . }}{{ end -}}
{{- if gt (len $name) 36 -}}
{{ trunc 30 $name | trimSuffix "-" }}-{{ sha256sum $name | trunc 5 }}
{{- else -}}
{{ $name }}
{{- end -}}
{{- end }}

{{/* The name of a chart's objects, <release>-<chart>. Where another chart is meant: (list . "mlflow"). */}}
{{- define "lib.name" -}}
{{- if kindIs "slice" . -}}
{{ include "lib.fullname" (index . 0) }}-{{ index . 1 }}
{{- else -}}
{{ include "lib.fullname" . }}-{{ .Chart.Name }}
{{- end -}}
{{- end }}

{{/* The labels that select a chart's pods. Not by app.kubernetes.io/name, which Prefect sets itself on its Jobs' pods. */}}
{{- define "lib.selector" -}}
{{- $root := . }}{{ $component := "" -}}
{{- if kindIs "slice" . }}{{ $root = index . 0 }}{{ $component = index . 1 }}{{ else }}{{ $component = .Chart.Name }}{{ end -}}
app.kubernetes.io/component: {{ $component }}
app.kubernetes.io/instance: {{ include "lib.fullname" $root }}
{{- end }}

{{/* All labels of an object. */}}
{{- define "lib.labels" -}}
{{ include "lib.selector" . }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/part-of: mlops
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- include "lib.commonLabels" . }}
{{- end }}

{{/*
The metadata of an object, its labels last: of the chart's main one (.), or (dict "root" .) with what differs of "name",
"labels", "annotations"; "clusterScoped" true for an object that is in no namespace.
*/}}
{{- define "lib.metadata" -}}
{{- $object := ternary . (dict "root" .) (hasKey . "root") -}}
name: {{ $object.name | default (include "lib.name" $object.root) }}
{{- if not $object.clusterScoped }}
namespace: {{ $object.root.Release.Namespace }}
{{- end }}
{{- with mergeOverwrite (dict) ($object.root.Values.global.commonAnnotations | default dict) ($object.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
labels:
  {{- $object.labels | default (include "lib.labels" $object.root) | nindent 2 }}
{{- end }}

{{/*
An image reference, with its digest where one is set; the tag is the chart's version where none is set.
(list . image) with image {registry, repository, tag, digest}: one without a registry is ours and in global.imageRegistry,
the others come from global.mirrorRegistry where there is one.
*/}}
{{- define "lib.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $global := $root.Values.global -}}
{{- $registry := $global.imageRegistry -}}
{{- with $image.registry }}{{ $registry = $global.mirrorRegistry | default . }}{{ end -}}
{{- with $registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end }}

{{/* The Secret with the platform's passwords and keys. */}}
{{- define "lib.secret" -}}
{{ .Values.global.existingSecret | default (include "lib.name" (list . "credentials")) }}
{{- end }}

{{/* An environment variable from that Secret. (list . NAME key) */}}
{{- define "lib.secretEnv" -}}
- name: {{ index . 1 }}
  valueFrom:
    secretKeyRef:
      name: {{ include "lib.secret" (index . 0) }}
      key: {{ index . 2 }}
{{- end }}

{{/* A database URL in the environment: of our PostgreSQL or from the Secret of another. (list . NAME database scheme) */}}
{{- define "lib.databaseEnv" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.global.databaseSecret }}
- name: {{ index $ 1 }}
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: {{ index $ 2 }}-url}
{{- else }}
{{- $password := print (index . 1) "_PASSWORD" }}
{{ include "lib.secretEnv" (list $root $password "postgres-password") }}
- name: {{ index . 1 }}
  value: {{ index . 3 }}://mlops:$({{ $password }})@{{ include "lib.name" (list $root "postgres") }}:5432/{{ index . 2 | replace "-" "_" }}
{{- end }}
{{- end }}

{{/* The address of the platform's own Prometheus; nothing where none runs. The chart monitoring tells of it. */}}
{{- define "lib.prometheus" -}}
{{- if .Values.global.monitoring -}}
http://{{ include "lib.name" (list . "prometheus") }}:9090
{{- end -}}
{{- end }}
