{{/* Variables of both containers. */}}
{{- define "prefect-worker.env" -}}
- {name: PREFECT_API_URL, value: "http://{{ include "lib.name" (list . "prefect-server") }}:4200/api"}
# For people: in the logs of runs, and of what is started from this pod. Prefect hands it on to the Jobs.
- {name: PREFECT_UI_URL, value: {{ include "lib.address" (list . "prefect") | quote }}}
{{ include "lib.secretEnv" (list . "PREFECT_API_AUTH_STRING" "prefect-auth-string") }}
{{- end }}

{{- define "prefect-worker.mounts" -}}
- {name: config, mountPath: /config}
- {name: models, mountPath: /models}
{{- include "prefect-worker.modelsMount" . }}
- {name: tmp, mountPath: /tmp}
{{- end }}
