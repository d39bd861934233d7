{{/* The IngressClass of the bundled Traefik: one for each release of each namespace. */}}
{{- define "lib.ingressClass" -}}
{{ .Release.Namespace }}-{{ include "lib.fullname" . }}
{{- end }}

{{/* "true" where the ingress ends TLS for every service. */}}
{{- define "lib.tls" -}}
{{- if .Values.global.ingress.tls.enabled }}true{{ end -}}
{{- end }}

{{/* The hosts of a service, as a YAML list: of its `ingress`, or <name>.<domain>. (list . "mlflow" .Values.ingress) */}}
{{- define "lib.hosts" -}}
{{- $own := index . 2 | default dict -}}
{{- range $own.hosts | default (list (printf "%s.%s" (index . 1) (index . 0).Values.global.ingress.domain)) }}
- {{ if kindIs "string" . }}{{ . }}{{ else }}{{ .host }}{{ end }}
{{- end }}
{{- end }}

{{/* The address of a service for people: by its ingress. (list . "mlflow" .Values.ingress) */}}
{{- define "lib.url" -}}
{{- $global := (index . 0).Values.global.ingress -}}
{{- $own := index . 2 | default dict -}}
{{- $tls := include "lib.tls" (index . 0) -}}
{{- $scheme := $global.scheme }}{{ if or $tls $own.tls }}{{ $scheme = "https" }}{{ end -}}
{{- $default := ternary 443 80 (eq $scheme "https") -}}
{{- $port := $default }}{{ if or $tls (eq $scheme $global.scheme) }}{{ $port = int $global.port }}{{ end -}}
{{ $scheme }}://{{ include "lib.hosts" . | fromYamlArray | first }}{{ if ne $port $default }}:{{ $port }}{{ end }}{{ $own.path | default "/" | trimSuffix "/" }}
{{- end }}

{{/* The address of another chart's service for people; the platform tells all charts. (list . "mlflow") */}}
{{- define "lib.address" -}}
{{- $root := index . 0 -}}
{{ get ($root.Values.global.addresses | default dict) (index . 1) | default (include "lib.url" (list $root (index . 1) dict)) }}
{{- end }}

{{/*
The Ingress of a service and, with global.gateway.enabled, its HTTPRoute.
(dict "root" . "name" "mlflow" "service" "mlflow" "port" 5000), and
"own"          .Values.ingress, where that is not it
"login"        true: the page has no accounts of its own, so the ingress asks for one
"paths"        other paths than .path of `own`, "suffix" for the name of such an object
"middlewares"  further ones of the chart traefik
*/}}
{{- define "lib.ingress" -}}
{{- $root := .root -}}
{{- $global := $root.Values.global -}}
{{- $own := .own | default $root.Values.ingress | default dict -}}
{{- if and $global.ingress.enabled (ne (toString $own.enabled) "false") }}
{{- $class := $own.className | default $global.ingress.className -}}
{{- $bundled := and $global.traefik (not $class) -}}
{{- $annotations := mergeOverwrite (dict) (deepCopy $global.ingress.annotations) -}}
{{- $login := and .login $global.ingress.auth.enabled -}}
{{- if $login }}{{ $annotations = mergeOverwrite $annotations (deepCopy $global.ingress.auth.annotations) }}{{ end -}}
{{- $annotations = mergeOverwrite $annotations (deepCopy ($own.annotations | default dict)) -}}
{{- if $bundled -}}
{{- $names := concat (list "again") (.middlewares | default list) -}}
{{- if and $login (not $global.ingress.auth.annotations) }}{{ $names = append $names "account" }}{{ end -}}
{{- $middlewares := list -}}
{{- range $names }}{{ $middlewares = append $middlewares (printf "%s@file" .) }}{{ end -}}
{{- $annotations = mergeOverwrite (dict "traefik.ingress.kubernetes.io/router.middlewares" (join "," $middlewares)) $annotations -}}
{{- if $global.clusterScoped }}{{ $class = include "lib.ingressClass" $root }}
{{- else }}{{ $_ := set $annotations "kubernetes.io/ingress.class" (include "lib.ingressClass" $root) }}{{ end -}}
{{- end -}}
{{- $hosts := include "lib.hosts" (list $root .name $own) | fromYamlArray -}}
{{- $name := printf "%s%s" (include "lib.name" (list $root .name)) (.suffix | default "") -}}
{{- $tls := $own.tls | default list -}}
{{- if and (not $tls) (include "lib.tls" $root) -}}
{{- $tls = list (dict "hosts" $hosts "secretName" ($global.ingress.tls.secretName | default (printf "%s-tls" (include "lib.name" (list $root .name))))) -}}
{{- end -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  {{- include "lib.metadata" (dict "root" $root "name" $name "annotations" $annotations) | nindent 2 }}
spec:
  {{- with $class }}
  ingressClassName: {{ . }}
  {{- end }}
  {{- with $tls }}
  tls:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  rules:
  {{- range $host := $hosts }}
  - host: {{ $host }}
    http:
      paths:
      {{- range $.paths | default (list ($own.path | default "/")) }}
      - path: {{ . }}
        pathType: {{ $own.pathType | default "Prefix" }}
        backend:
          service:
            name: {{ include "lib.name" (list $root $.service) }}
            port: {number: {{ $.port }}}
      {{- end }}
  {{- end }}
{{- end }}
{{- if and $global.gateway.enabled (ne (toString $own.enabled) "false") }}
---
{{ include "lib.httpRoute" (merge (dict "own" $own) .) }}
{{- end }}
{{- end }}

{{/*
Routes ask for no login by themselves. Pages without accounts are left out, and those of the API, which share its host, lead
to an answer of 404, unless global.gateway.filters or the Gateway (global.ingress.auth.enabled=false) ask for one, or the
page's own `ingress.enabled` says that it is wanted.
*/}}
{{- define "lib.httpRoute" -}}
{{- $global := .root.Values.global -}}
{{- if not $global.gateway.parentRefs }}
{{- fail "global.gateway.enabled needs global.gateway.parentRefs: the Gateways that the routes are attached to, such as [{name: public, namespace: gateways}]" }}
{{- end -}}
{{- $login := and .login $global.ingress.auth.enabled -}}
{{- $shown := or (not $login) $global.gateway.filters (eq (toString .own.enabled) "true") -}}
{{- $filters := list -}}
{{- if and $login $global.gateway.filters }}{{ $filters = $global.gateway.filters }}
{{- else if not $shown }}{{ $filters = list (dict "type" "URLRewrite" "urlRewrite" (dict "path" (dict "type" "ReplaceFullPath" "replaceFullPath" "/not-shown"))) }}{{ end -}}
{{- if or $shown .paths -}}
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  {{- include "lib.metadata" (dict "root" .root "name" (print (include "lib.name" (list .root .name)) (.suffix | default ""))) | nindent 2 }}
spec:
  parentRefs:
    {{- toYaml $global.gateway.parentRefs | nindent 4 }}
  hostnames:
    {{- include "lib.hosts" (list .root .name .own) | nindent 4 }}
  rules:
  - matches:
    {{- range .paths | default (list (.own.path | default "/")) }}
    - path: {type: PathPrefix, value: {{ . }}}
    {{- end }}
    {{- with $filters }}
    filters:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    backendRefs:
    - {name: {{ include "lib.name" (list .root .service) }}, port: {{ .port }}}
{{- end }}
{{- end }}
