{{/* "true" where artifacts are where several pods reach them: in S3, or on a volume that many nodes mount. */}}
{{- define "mlflow.sharesArtifacts" -}}
{{- if or .Values.artifacts.destination (has "ReadWriteMany" (.Values.persistence.accessModes | default list)) }}true{{ end -}}
{{- end }}

{{/* "true" where several pods may run: databases and artifacts are none of theirs. */}}
{{- define "mlflow.shared" -}}
{{- if and (include "lib.hasDatabase" .) (include "mlflow.sharesArtifacts" .) }}true{{ end -}}
{{- end }}

{{/* "true" where there is something to keep on a volume. */}}
{{- define "mlflow.hasVolume" -}}
{{- if not (and (include "lib.hasDatabase" .) .Values.artifacts.destination) }}true{{ end -}}
{{- end }}

{{/* Variables of both containers. */}}
{{- define "mlflow.env" -}}
- {name: MLFLOW_AUTH_CONFIG_PATH, value: /config/basic_auth.ini}
{{- if include "lib.hasDatabase" . }}
{{- include "lib.databaseEnv" (list . "MLFLOW_BACKEND_STORE_URI" "mlflow" "postgresql+psycopg2") }}
{{- include "lib.databaseEnv" (list . "MLOPS_AUTH_DATABASE_URI" "mlflow-auth" "postgresql+psycopg2") }}
{{- else }}
- {name: MLFLOW_BACKEND_STORE_URI, value: sqlite:////data/mlflow.db}
- {name: MLOPS_AUTH_DATABASE_URI, value: sqlite:////data/basic_auth.db}
{{- end }}
{{ include "lib.secretEnv" (list . "MLFLOW_AUTH_ADMIN_PASSWORD" "mlflow-admin-password") }}
{{- end }}

{{- define "mlflow.mounts" -}}
{{- if include "mlflow.hasVolume" . }}
- {name: data, mountPath: /data}
{{- end }}
- {name: config, mountPath: /config}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{/* Names under which MLflow may be asked: its Service, a port-forward, the ingress; and its address, for Prometheus. */}}
{{- define "mlflow.hosts" -}}
{{- $name := include "lib.name" . -}}
{{- $public := urlParse (include "lib.url" (list . "mlflow" .Values.ingress)) -}}
{{- $hosts := list "localhost:*" "127.0.0.1:*" "$(POD_IP):5000" $name (print $name ":*") (print $name "." .Release.Namespace "*") $public.host -}}
{{- join "," (concat $hosts .Values.allowedHosts) -}}
{{- end }}

{{/* Origins of the pages that may send requests: MLflow's own, as browsers name it. */}}
{{- define "mlflow.origins" -}}
{{- $origins := list "http://localhost:5000" "http://127.0.0.1:5000" (include "lib.url" (list . "mlflow" .Values.ingress)) -}}
{{- range .Values.allowedHosts }}{{ $origins = concat $origins (list (print "http://" .) (print "https://" .)) }}{{ end -}}
{{- join "," $origins -}}
{{- end }}
