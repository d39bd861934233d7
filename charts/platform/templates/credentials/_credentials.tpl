{{/*
The Secret <release>-credentials is made in the cluster, by a Job before each install and upgrade: a value that is there
stays. Nothing is generated here, so two renderings are the same. With global.existingSecret there is none of this.
*/}}
{{- define "credentials.name" -}}
{{ include "lib.name" (list . "credentials") }}
{{- end }}

{{- define "credentials.labels" -}}
{{ include "lib.labels" . | replace "/component: platform" "/component: credentials" | replace "/name: platform" "/name: credentials" }}
{{- end }}

{{/* The metadata of an object that is there for the Job: made before it, removed when it has succeeded. (list . weight) */}}
{{- define "credentials.metadata" -}}
{{- $root := index . 0 -}}
{{- $hook := dict "helm.sh/hook" "pre-install,pre-upgrade" "helm.sh/hook-weight" (index . 1 | toString) "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded" -}}
{{ include "lib.metadata" (dict "root" $root "name" (include "credentials.name" $root) "labels" (include "credentials.labels" $root) "annotations" $hook) }}
{{- end }}
