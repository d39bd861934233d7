{{/*
What is backed up: component -> the chart whose volume it is of, "" where PostgreSQL and S3 have all; "secrets", the Secret
with passwords and keys, where there is a key to encrypt them for.
*/}}
{{- define "backup.components" -}}
{{- $components := dict "mlflow" "mlflow" "prefect" "prefect-server" -}}
{{- if include "lib.hasDatabase" . }}
{{- $components = dict "mlflow" (ternary "" "mlflow" (not (empty .Values.global.artifacts))) "prefect" "" -}}
{{- end }}
{{- if .Values.recipient }}{{ $_ := set $components "secrets" "" }}{{ end -}}
{{ toYaml $components }}
{{- end }}

{{/* The volume with what is backed up, or the Secret. (list . component chart) */}}
{{- define "backup.source" -}}
{{- $root := index . 0 }}{{ $component := index . 1 }}{{ $chart := index . 2 -}}
name: data
{{- if $chart }}
persistentVolumeClaim:
  claimName: {{ get ($root.Values.global.claims | default dict) $chart | default (include "lib.name" (list $root $chart)) }}
{{- else if eq $component "secrets" }}
secret: {secretName: {{ include "lib.secret" $root }}}
{{- else }}
emptyDir: {sizeLimit: {{ $root.Values.persistence.size }}} # a restore unpacks dumps here
{{- end }}
{{- end }}

{{/* The addresses of PostgreSQL's databases of a component. (list . component) */}}
{{- define "backup.databaseEnv" -}}
{{- $root := index . 0 }}{{ $component := index . 1 -}}
{{- if include "lib.hasDatabase" $root }}
{{- if eq $component "mlflow" }}
{{- include "lib.databaseEnv" (list $root "MLOPS_BACKUP_MLFLOW_URL" "mlflow" "postgresql") }}
{{- include "lib.databaseEnv" (list $root "MLOPS_BACKUP_MLFLOW_AUTH_URL" "mlflow-auth" "postgresql") }}
{{- else if eq $component "prefect" }}
{{- include "lib.databaseEnv" (list $root "MLOPS_BACKUP_PREFECT_URL" "prefect" "postgresql") }}
{{- end }}
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

{{/* What is asked for the volume of the backups. */}}
{{- define "backup.volumePod" -}}
metadata:
  {{- include "lib.podMetadata" (dict "root" .) | nindent 2 }}
spec:
  {{- include "lib.pod" (dict "root" . "own" dict "uid" 10001) | nindent 2 }}
  restartPolicy: Never
  containers:
  - name: volume
    image: {{ include "lib.image" (list . .Values.image) }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    command: [python, -m, app.backup]
    args: [list]
    env:
    - {name: MLOPS_BACKUP_DESTINATION, value: /backups}
    {{- include "lib.extraEnv" (dict "root" .) | nindent 4 }}
    {{- include "lib.envFrom" (dict "root" .) | nindent 4 }}
    resources:
      {{- toYaml .Values.resources | nindent 6 }}
    securityContext:
      {{- include "lib.container" . | nindent 6 }}
    volumeMounts:
    - {name: backups, mountPath: /backups}
    - {name: tmp, mountPath: /tmp}
    {{- include "lib.extraVolumeMounts" (dict "root" .) | nindent 4 }}
  {{- include "lib.extraContainers" (dict "root" .) | nindent 2 }}
  volumes:
  - {{- include "lib.dataVolume" . | replace "name: data" "name: backups" | nindent 4 }}
  - name: tmp
    emptyDir: {sizeLimit: 100Mi}
  {{- include "lib.extraVolumes" (dict "root" .) | nindent 2 }}
{{- end }}
