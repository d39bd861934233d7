{{/*
A Service of the chart, as its `service` and global.service say. (dict "root" . "port" 5000), and "name" and "labels",
"selector", "own" where the chart has several.
*/}}
{{- define "lib.service" -}}
{{- $settings := mergeOverwrite (dict) (deepCopy (.root.Values.global.service | default dict)) (.own | default .root.Values.service | default dict) -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "lib.metadata" (dict "root" .root "name" .name "labels" .labels "annotations" $settings.annotations) | nindent 2 }}
spec:
  {{- include "lib.serviceSettings" $settings | nindent 2 }}
  selector:
    {{- .selector | default (include "lib.selector" .root) | nindent 4 }}
  ports:
  - name: http
    port: {{ .port }}
    targetPort: {{ .targetPort | default "http" }}
    {{- if and $settings.nodePort (has $settings.type (list "NodePort" "LoadBalancer")) }}
    nodePort: {{ $settings.nodePort }}
    {{- end }}
{{- end }}

{{/* How a Service is reached, but for its ports. */}}
{{- define "lib.serviceSettings" -}}
{{- range $name := list "type" "ipFamilyPolicy" "loadBalancerClass" "loadBalancerIP" "externalTrafficPolicy" }}
{{- with get $ $name }}
{{ $name }}: {{ . }}
{{- end }}
{{- end }}
{{- range $name := list "ipFamilies" "loadBalancerSourceRanges" }}
{{- with get $ $name }}
{{ $name }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}
