{{/*
`skaffold dev` copies changed Python files into running pods. The root is read-only, so with global.devSync the code is on
a volume, which starts as a copy of the image's.
*/}}
{{- define "lib.devSource" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.global.devSync }}
initContainers:
- name: source
  image: {{ include "lib.image" . }}
  imagePullPolicy: {{ (index . 1).pullPolicy }}
  command: [cp, -r, /srv/app, /source/]
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 64Mi}
  securityContext:
    {{- include "lib.container" $root | nindent 4 }}
  volumeMounts:
  - {name: source, mountPath: /source}
{{- end }}
{{- end }}

{{- define "lib.devMount" -}}
{{- if .Values.global.devSync }}
- {name: source, mountPath: /srv}
{{- end }}
{{- end }}

{{- define "lib.devVolume" -}}
{{- if .Values.global.devSync }}
- name: source
  emptyDir: {}
{{- end }}
{{- end }}
