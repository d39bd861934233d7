{{/* A volume claim that outlives `helm uninstall`; a reinstall finds its data. None where persistence names one, or is off. */}}
{{- define "lib.claim" -}}
{{- with .Values.persistence }}
{{- if and (ne (toString .enabled) "false") (not .existingClaim) }}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  {{- $annotations := include "lib.claimAnnotations" . | fromYaml }}
  {{- include "lib.metadata" (dict "root" $ "annotations" (set $annotations "helm.sh/resource-policy" "keep")) | nindent 2 }}
spec:
  {{- include "lib.claimSpec" (list $ .) | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* volumeType is for local-path-provisioner: of such a volume the kubelet tells how full it is. */}}
{{- define "lib.claimAnnotations" -}}
{{- mergeOverwrite (dict "volumeType" "local") (.annotations | default dict) | toYaml }}
{{- end }}

{{/* (list . .Values.persistence) */}}
{{- define "lib.claimSpec" -}}
{{- $persistence := index . 1 -}}
accessModes: {{ $persistence.accessModes | default (list "ReadWriteOnce") | toJson }}
{{- with $persistence.storageClass | default (index . 0).Values.global.storageClass }}
storageClassName: {{ if ne . "-" }}{{ . }}{{ else }}""{{ end }}
{{- end }}
resources:
  requests:
    storage: {{ $persistence.size }}
{{- end }}

{{/* The pod's volume of that claim. Without persistence, data is gone with the pod. */}}
{{- define "lib.dataVolume" -}}
name: data
{{- with .Values.persistence }}
{{- if eq (toString .enabled) "false" }}
emptyDir: {sizeLimit: {{ .size }}}
{{- else }}
persistentVolumeClaim:
  claimName: {{ .existingClaim | default (include "lib.name" $) }}
{{- end }}
{{- end }}
{{- end }}
