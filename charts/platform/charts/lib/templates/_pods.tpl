{{/*
What every pod has: Pod Security "restricted", no variables of other Services.
(dict "root" . "uid" 10001), and "token" true for the pod that asks the Kubernetes API, "account" for another account.
*/}}
{{- define "lib.pod" -}}
{{- $root := .root -}}
{{- $uid := .uid -}}
serviceAccountName: {{ .account | default (include "lib.name" $root) }}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $uid }}
  runAsGroup: {{ $uid }}
  fsGroup: {{ $uid }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with $root.Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The security context of every container. */}}
{{- define "lib.container" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* An HTTP probe of the pod itself, never of a peer. (list path port extra-fields) */}}
{{- define "lib.probe" -}}
httpGet:
  path: {{ index . 0 }}
  port: {{ index . 1 }}
{{- range $name, $value := index . 2 }}
{{ $name }}: {{ $value }}
{{- end }}
{{- end }}

{{/* A volume claim that outlives `helm uninstall`; a reinstall finds its data. */}}
{{- define "lib.claim" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  {{- include "lib.metadata" . | nindent 2 }}
  annotations:
    helm.sh/resource-policy: keep
    volumeType: local # for local-path-provisioner: of such a volume the kubelet tells how full it is
spec:
  accessModes: [ReadWriteOnce]
  {{- with .Values.global.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ .Values.persistence.size }}
{{- end }}
