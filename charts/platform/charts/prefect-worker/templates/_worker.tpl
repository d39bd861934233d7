{{/* Variables of both containers. */}}
{{- define "prefect-worker.env" -}}
- {name: PREFECT_API_URL, value: "http://{{ include "lib.name" (list . "prefect-server") }}:4200/api"}
{{ include "lib.secretEnv" (list . "PREFECT_API_AUTH_STRING" "prefect-auth-string") }}
{{- end }}
