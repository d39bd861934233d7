{{/*
The settings that every pod takes, as YAML: those of `global`, of the chart, and of one of its pods (`own`, where a chart has
several). Maps are merged, lists put one after the other; of single values the last counts.
(dict "root" . "own" .Values.prometheus); with "alone" true the chart's are left out.
*/}}
{{- define "lib.settings" -}}
{{- $settings := dict -}}
{{- range $given := list .root.Values.global (ternary dict .root.Values (.alone | default false)) (.own | default dict) -}}
{{- range list "affinity" "dnsConfig" "nodeSelector" "podAnnotations" "podLabels" "podSecurityContext" "securityContext" -}}
{{- $_ := set $settings . (mergeOverwrite (get $settings . | default dict) (deepCopy (get $given . | default dict))) -}}
{{- end -}}
{{- range list "tolerations" "topologySpreadConstraints" "hostAliases" "extraContainers" "extraEnv" "extraEnvFrom" "extraVolumes" "extraVolumeMounts" "imagePullSecrets" -}}
{{- $_ := set $settings . (concat (get $settings . | default list) (get $given . | default list)) -}}
{{- end -}}
{{- range list "priorityClassName" "dnsPolicy" "runtimeClassName" "schedulerName" "revisionHistoryLimit" "terminationGracePeriodSeconds" -}}
{{- $value := get $given . -}}
{{- if not (has $value (list nil "")) }}{{ $_ := set $settings . $value }}{{ end -}}
{{- end -}}
{{- end -}}
{{ toYaml $settings }}
{{- end }}

{{/*
What every pod has: Pod Security "restricted", no variables of other Services, and the settings above.
(dict "root" . "uid" 10001), and "token" true for the pod that asks the Kubernetes API, "account" for another account,
"grace" for the seconds that it takes to end, "name" and "own" where the chart has several pods, "operated" true for the
fields that the Prometheus Operator's kinds have of them.
*/}}
{{- define "lib.pod" -}}
{{- $root := .root -}}
{{- $settings := include "lib.settings" . | fromYaml -}}
serviceAccountName: {{ .account | default (include "lib.accountName" .) }}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
securityContext:
  {{- include "lib.podSecurityContext" (dict "root" $root "uid" .uid "settings" $settings) | nindent 2 }}
{{- if .operated }}{{ $settings = omit $settings "runtimeClassName" }}{{ end }}
{{- include "lib.scheduling" (dict "settings" $settings "grace" .grace) }}
{{- end }}

{{/* Where and how a pod runs and what its images are pulled with, of its settings. */}}
{{- define "lib.scheduling" -}}
{{- with .settings.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ if kindIs "string" . }}{{ . }}{{ else }}{{ .name }}{{ end }}
{{- end }}
{{- end }}
{{- range $name := list "affinity" "nodeSelector" "tolerations" "topologySpreadConstraints" "hostAliases" "dnsConfig" }}
{{- with get $.settings $name }}
{{ $name }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- range $name := list "priorityClassName" "dnsPolicy" "runtimeClassName" "schedulerName" }}
{{- with get $.settings $name }}
{{ $name }}: {{ . }}
{{- end }}
{{- end }}
{{- $grace := ternary .settings.terminationGracePeriodSeconds .grace (hasKey .settings "terminationGracePeriodSeconds") }}
{{- if ne $grace nil }}
terminationGracePeriodSeconds: {{ int $grace }}
{{- end }}
{{- end }}

{{/* What a Deployment keeps of its past, where a setting says so. (dict "root" .) */}}
{{- define "lib.revisionHistory" -}}
{{- $settings := include "lib.settings" . | fromYaml }}
{{- if hasKey $settings "revisionHistoryLimit" }}
revisionHistoryLimit: {{ int $settings.revisionHistoryLimit }}
{{- end }}
{{- end }}

{{/* The pod's security context. On OpenShift the namespace gives the user and the group. */}}
{{- define "lib.podSecurityContext" -}}
{{- $context := dict "runAsNonRoot" true "fsGroupChangePolicy" "OnRootMismatch" "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- if not .root.Values.global.openshift -}}
{{- range list "runAsUser" "runAsGroup" "fsGroup" }}{{ $_ := set $context . $.uid }}{{ end -}}
{{- end -}}
{{ mergeOverwrite $context .settings.podSecurityContext | toYaml }}
{{- end }}

{{/* Labels and annotations of a pod. (dict "root" .), "annotations" with the chart's own, "labels" where they are others. */}}
{{- define "lib.podMetadata" -}}
{{- $settings := include "lib.settings" . | fromYaml -}}
labels:
  {{- $common := .root.Values.global.commonLabels | default dict }}
  {{- mergeOverwrite (dict) $common $settings.podLabels (.labels | default (include "lib.labels" .root) | fromYaml) | toYaml | nindent 2 }}
{{- with mergeOverwrite $settings.podAnnotations (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The security context of every container: of the chart, or (dict "root" . "own" .Values.prometheus). */}}
{{- define "lib.container" -}}
{{- $settings := include "lib.settings" (ternary . (dict "root" .) (hasKey . "root")) | fromYaml -}}
{{- $context := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) -}}
{{ mergeOverwrite $context $settings.securityContext | toYaml }}
{{- end }}

{{/* What people add to a pod's main container and to its volumes, after the chart's own. (dict "root" .) */}}
{{- define "lib.extraEnv" -}}
{{- include "lib.proxyEnv" .root }}
{{- include "lib.extra" (list "extraEnv" .) }}
{{- end }}

{{- define "lib.extraVolumeMounts" -}}
{{- include "lib.extra" (list "extraVolumeMounts" .) }}
{{- end }}

{{- define "lib.extraVolumes" -}}
{{- include "lib.extra" (list "extraVolumes" .) }}
{{- end }}

{{/* Further containers of the pod, after the chart's own. (dict "root" .) */}}
{{- define "lib.extraContainers" -}}
{{- include "lib.extra" (list "extraContainers" .) }}
{{- end }}

{{- define "lib.extra" -}}
{{- with get (include "lib.settings" (index . 1) | fromYaml) (index . 0) }}{{ toYaml . }}{{ end }}
{{- end }}

{{/*
The way out by a proxy, as environment variables. What is in the cluster is asked directly: the platform's Services by their
names, which no usual list of exceptions has.
*/}}
{{- define "lib.proxyEnv" -}}
{{- $root := . }}
{{- with .Values.global.proxy }}
{{- if or .httpProxy .httpsProxy }}
{{- $direct := list "localhost" "127.0.0.1" "::1" "$(KUBERNETES_SERVICE_HOST)" ".svc" ".cluster.local" }}
{{- range list "mlflow" "prefect-server" "model-api" "ui" "postgres" "retrainer" "prometheus" "alertmanager" "grafana" }}
{{- $direct = concat $direct (list (include "lib.name" (list $root .)) (print (include "lib.name" (list $root .)) "." $root.Release.Namespace)) }}
{{- end }}
{{- with .noProxy }}{{ $direct = append $direct . }}{{ end }}
{{- range $name, $value := dict "HTTP_PROXY" .httpProxy "HTTPS_PROXY" .httpsProxy "NO_PROXY" (join "," $direct) }}
{{- if $value }}
- {name: {{ $name }}, value: {{ $value | quote }}}
- {name: {{ lower $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{ end }}
{{- end }}
{{- end }}

{{/* "secret": a Secret of the chart's own, before those. */}}
{{- define "lib.envFrom" -}}
{{- $own := list }}{{ with .secret }}{{ $own = list (dict "secretRef" (dict "name" .)) }}{{ end -}}
{{- with concat $own ((include "lib.settings" . | fromYaml).extraEnvFrom | default list) }}
envFrom:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{/* The name of a pod's account: (dict "root" . "name" "prometheus" "own" .Values.prometheus), or of the chart's. */}}
{{- define "lib.accountName" -}}
{{- $account := (.own | default .root.Values).serviceAccount | default dict -}}
{{- $made := ternary (include "lib.name" (list .root .name)) (include "lib.name" .root) (hasKey . "name") -}}
{{ $account.name | default (ternary "default" $made (eq (toString $account.create) "false")) }}
{{- end }}

{{/* That account, unless there is one already. */}}
{{- define "lib.account" -}}
{{- $account := (.own | default .root.Values).serviceAccount | default dict -}}
{{- if ne (toString $account.create) "false" }}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "lib.metadata" (dict "root" .root "name" (include "lib.accountName" .) "labels" .labels "annotations" $account.annotations) | nindent 2 }}
automountServiceAccountToken: false
{{- end }}
{{- end }}

{{/* An HTTP probe of the pod itself, never of a peer. (list path port timing .Values.livenessProbe): the last are people's */}}
{{- define "lib.probe" -}}
httpGet:
  path: {{ index . 0 }}
  port: {{ index . 1 }}
{{ include "lib.timing" (list (index . 2) (index . 3)) }}
{{- end }}

{{/* When a probe asks. (list timing .Values.livenessProbe) */}}
{{- define "lib.timing" -}}
{{- range $name, $value := mergeOverwrite (dict) (index . 0) (index . 1 | default dict) }}
{{ $name }}: {{ int $value }}
{{- end }}
{{- end }}
