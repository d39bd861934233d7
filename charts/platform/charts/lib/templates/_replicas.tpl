{{/* Pods spread over the nodes, unless the settings say how. Under the pod's `spec`. */}}
{{- define "lib.spread" -}}
{{- if not (include "lib.settings" (dict "root" .) | fromYaml).topologySpreadConstraints }}
topologySpreadConstraints:
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "lib.selector" . | nindent 6 }}
{{- end }}
{{- end }}

{{/* Where nodes are drained, one of the chart's pods goes at a time. */}}
{{- define "lib.disruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "lib.metadata" . | nindent 2 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      {{- include "lib.selector" . | nindent 6 }}
{{- end }}

{{/* "true" where MLflow and Prefect keep what they know in PostgreSQL, ours or another. */}}
{{- define "lib.hasDatabase" -}}
{{- if or .Values.global.postgres .Values.global.databaseSecret }}true{{ end -}}
{{- end }}

{{/* What the container `prepare` of a server is told, for the command that goes back to a copy of its database. */}}
{{- define "lib.prepareEnv" -}}
- name: MLOPS_SET_ENV
  value: kubectl -n {{ .Release.Namespace }} set env deployment/{{ include "lib.name" . }} --containers=prepare
{{- end }}

{{/* Refuses several pods of a server that would each have a SQLite of its own. */}}
{{- define "lib.requireDatabase" -}}
{{- if not (include "lib.hasDatabase" .) }}
{{- fail (printf "%s.replicas is %v, but SQLite has one pod: set postgres.enabled=true, or global.databaseSecret to the Secret of a PostgreSQL of yours" .Chart.Name .Values.replicas) }}
{{- end }}
{{- end }}
