{{/*
Cilium takes no CIDR for its own nodes, whose address the Kubernetes API or a kubelet may have: it knows them by entity.
(dict "root" . "components" list "entities" list "ports" list)
*/}}
{{- define "platform.cilium" -}}
endpointSelector:
  matchExpressions:
  - {key: app.kubernetes.io/instance, operator: In, values: [{{ include "lib.fullname" .root }}]}
  - {key: app.kubernetes.io/component, operator: In, values: {{ toJson .components }}}
egress:
- toEntities: {{ toJson .entities }}
  toPorts:
  - ports:
    {{- range .ports }}
    - {port: {{ . | toString | quote }}, protocol: TCP}
    {{- end }}
{{- end }}

{{- define "platform.hasCilium" -}}
{{- if and .Values.global.networkPolicy.enabled (.Capabilities.APIVersions.Has "cilium.io/v2/CiliumNetworkPolicy") }}true{{ end -}}
{{- end }}
