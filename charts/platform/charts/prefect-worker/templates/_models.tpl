{{/*
Where model files are beside those in the image. A run's pull step puts those of the repository first.
(list . <folder of the repository's files, "" for none>)
*/}}
{{- define "prefect-worker.modelsEnv" -}}
{{- $root := index . 0 }}{{ $checkout := index . 1 -}}
{{- $folders := list }}{{ with $checkout }}{{ $folders = append $folders . }}{{ end -}}
{{- with $root.Values.models -}}
{{- if .configMap }}{{ $folders = append $folders "/configmap-models" }}{{ end -}}
{{- with $folders }}
- {name: MLOPS_MODELS_PATH, value: {{ join ":" . | quote }}}
{{- end }}
{{- if not .examples }}
- {name: MLOPS_EXAMPLES, value: "0"}
{{- end }}
{{- if and .git.url .git.credentialsSecret }}
{{- range $key := list "username" "password" }}
- name: MLOPS_MODELS_GIT_{{ upper $key }}
  valueFrom: {secretKeyRef: {name: {{ $root.Values.models.git.credentialsSecret }}, key: {{ $key }}, optional: {{ eq $key "username" }}}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* What flows.deploy, which registers all that there is to run, and the worker, which calls it again, are told. */}}
{{- define "prefect-worker.registerEnv" -}}
{{- $git := .Values.models.git -}}
{{- include "prefect-worker.modelsEnv" (list . (ternary (clean (printf "/models/current/%s" $git.path)) "" (ne $git.url ""))) }}
- {name: MLOPS_MODELS_FOLDER, value: /models}
{{- if $git.url }}
{{- range $key := list "url" "ref" "path" }}
{{- with get $git $key }}
- {name: MLOPS_MODELS_GIT_{{ upper $key }}, value: {{ quote . }}}
{{- end }}
{{- end }}
{{- end }}
- {name: MLOPS_IMAGE, value: {{ include "prefect-worker.jobImage" . | quote }}}
- {name: MLOPS_CONCURRENCY, value: {{ .Values.jobs.concurrency | quote }}}
{{- if .Values.bootstrap.enabled }}
- {name: MLOPS_BOOTSTRAP_MODEL, value: {{ .Values.global.defaultModel | quote }}}
{{- end }}
{{- end }}

{{- define "prefect-worker.modelsMount" -}}
{{- if .Values.models.configMap }}
- {name: configmap-models, mountPath: /configmap-models, readOnly: true}
{{- end }}
{{- end }}

{{- define "prefect-worker.modelsVolume" -}}
{{- with .Values.models.configMap }}
- name: configmap-models
  configMap: {name: {{ . }}}
{{- end }}
{{- end }}

{{/* An egress rule to the repository. */}}
{{- define "prefect-worker.repositoryEgress" -}}
{{- with .Values.models.git }}
{{- if and .url .egressCIDRs }}
{{- $parts := urlParse .url }}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $parts.host) | default (get (dict "https" "443" "http" "80" "git" "9418") $parts.scheme) }}
- to:
  {{- include "lib.addresses" .egressCIDRs | nindent 2 }}
  ports:
  - {port: {{ $port }}, protocol: TCP}
{{- end }}
{{- end }}
{{- end }}
