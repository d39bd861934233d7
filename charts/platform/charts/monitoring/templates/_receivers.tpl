{{/* Refuse receivers that would reach nobody, or of which nobody knows who is meant. */}}
{{- define "monitoring.checkReceivers" -}}
{{- $names := list }}
{{- range $index, $receiver := .Values.alertmanager.receivers }}
{{- $where := printf "monitoring.alertmanager.receivers[%d] (%s)" $index .name }}
{{- if has .name $names }}
{{- fail (printf "%s has the name of another receiver: give it one of its own" $where) }}
{{- end }}
{{- $names = append $names .name }}
{{- if not (or .slack .email .webhook .pagerduty) }}
{{- fail (printf "%s does not say how: add slack, email, webhook or pagerduty" $where) }}
{{- end }}
{{- with .webhook }}
{{- if eq (hasKey . "url") (hasKey . "existingSecret") }}
{{- fail (printf "%s.webhook needs either url, or existingSecret and key where the address is a secret" $where) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Which alerts a receiver gets. (list . receiver) */}}
{{- define "monitoring.matchers" -}}
{{- $receiver := index . 1 -}}
{{- if hasKey $receiver "matchers" }}
{{- $form := "^([a-zA-Z0-9_]+)(=~|!~|!=|=)\"(.*)\"$" }}
{{- range $receiver.matchers }}
- name: {{ regexReplaceAll $form . "${1}" }}
  matchType: {{ regexReplaceAll $form . "${2}" | quote }}
  value: {{ regexReplaceAll $form . "${3}" | quote }}
{{- end }}
{{- else if (index . 0).Values.global.retrainer }}
- {name: action, value: retrain, matchType: "!="}
{{- end }}
{{- end }}

{{/* Where a webhook is: the namespace of one in the cluster, or the port of one outside. */}}
{{- define "monitoring.webhookPlace" -}}
{{- if .url }}
{{- $address := urlParse .url }}
{{- $host := regexReplaceAll ":[0-9]+$" $address.host "" }}
{{- if regexMatch "\\.svc(\\.cluster\\.local)?$" $host }}
namespace: {{ index (splitList "." $host) 1 | quote }}
{{- else }}
port: {{ regexFind "[0-9]+$" (regexFind ":[0-9]+$" $address.host) | default (ternary 443 80 (eq $address.scheme "https")) }}
{{- end }}
{{- else if .namespace }}
namespace: {{ .namespace | quote }}
{{- else }}
port: {{ .port | default 443 }}
{{- end }}
{{- end }}

{{/* Egress rules to where the receivers are. */}}
{{- define "monitoring.receiverEgress" -}}
{{- $ports := list }}
{{- $namespaces := list }}
{{- range .Values.alertmanager.receivers }}
{{- if or .slack .pagerduty }}
{{- $ports = append $ports 443 }}
{{- end }}
{{- with .email }}
{{- $ports = append $ports (.smarthost | splitList ":" | last | int) }}
{{- end }}
{{- with .webhook }}
{{- with include "monitoring.webhookPlace" . | fromYaml }}
{{- if .namespace }}
{{- $namespaces = append $namespaces .namespace }}
{{- else }}
{{- $ports = append $ports (int .port) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- with $ports }}
- to:
  {{- include "lib.addresses" (list "0.0.0.0/0" "::/0") | nindent 2 }}
  ports:
  {{- range . | uniq }}
  - {port: {{ . }}, protocol: TCP}
  {{- end }}
{{- end }}
{{- range $namespaces | uniq }}
- to: # on any port, as a Service's may be another than its pods'
  - namespaceSelector:
      matchLabels:
        kubernetes.io/metadata.name: {{ . | quote }}
{{- end }}
{{- end }}

{{/* The Secret that Alertmanager's configuration begins with; nothing where it is the operator's own, which tells nobody. */}}
{{- define "monitoring.alertmanagerSecret" -}}
{{- with .Values.alertmanager }}
{{- if .configSecret }}
{{- .configSecret }}
{{- else if .config }}
{{- include "lib.name" (list $ "alertmanager") }}
{{- end }}
{{- end }}
{{- end }}
