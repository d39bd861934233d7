{{/* What keeps pods in bounds and is not there, at the end of the notes, with what to do. */}}
{{- define "platform.warnings" -}}
{{- $label := "pod-security.kubernetes.io/enforce" -}}
{{- $command := printf "kubectl label namespace %s %s=restricted --overwrite" .Release.Namespace $label -}}
{{- if not .Values.global.clusterScoped }}

WARNING: with global.clusterScoped=false the chart cannot see whether Kubernetes refuses privileged pods in this namespace, nor
tell it what the worker may start. Ask who runs the cluster for both, as docs/security.md says under "In one namespace only":

  {{ $command }}
{{- else }}
{{- with lookup "v1" "Namespace" "" .Release.Namespace }}
{{- if ne (get (.metadata.labels | default dict) $label) "restricted" }}

WARNING: Kubernetes takes any pod in the namespace {{ $.Release.Namespace }}, privileged ones, too. This has it refuse them:

  {{ $command }}
{{- end }}
{{- end }}
{{- if not (index .Values "prefect-worker").admissionPolicy.enabled }}

WARNING: prefect-worker.admissionPolicy.enabled is false, so that whoever is inside a training can have the worker start any
pod that this namespace takes.
{{- end }}
{{- end }}
{{- end }}
