{{/*
What is backed up: component -> the chart whose volume it is of; "secrets", the Secret with passwords and keys, where there is
a key to encrypt them for.
*/}}
{{- define "backup.components" -}}
{{- $components := dict "mlflow" "mlflow" "prefect" "prefect-server" -}}
{{- if .Values.recipient }}{{ $_ := set $components "secrets" "" }}{{ end -}}
{{ toYaml $components }}
{{- end }}

{{/* The volume with what is backed up, or the Secret. (list . component chart) */}}
{{- define "backup.source" -}}
{{- $root := index . 0 }}{{ $chart := index . 2 -}}
name: data
{{- if $chart }}
persistentVolumeClaim:
  claimName: {{ get ($root.Values.global.claims | default dict) $chart | default (include "lib.name" (list $root $chart)) }}
{{- else }}
secret: {secretName: {{ include "lib.secret" $root }}}
{{- end }}
{{- end }}

{{/* A volume that one node has is mounted where its service runs, and SQLite's locks hold on one machine. (list . chart) */}}
{{- define "backup.beside" -}}
podAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
  - topologyKey: kubernetes.io/hostname
    labelSelector:
      matchLabels:
        {{- include "lib.selector" . | nindent 8 }}
{{- end }}
