{{/* The head of a NetworkPolicy about the chart's own pods. Edges follow as `ingress:` and `egress:`. */}}
{{- define "lib.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "lib.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "lib.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
{{- end }}

{{/* Peers: pods of these charts. (list . "ui" "traefik") */}}
{{- define "lib.pods" -}}
{{- $root := first . -}}
{{- range rest . }}
- podSelector:
    matchLabels:
      {{- include "lib.selector" (list $root .) | nindent 6 }}
{{- end }}
{{- end }}

{{/* An egress rule to a chart's port. (list . "mlflow" 5000) */}}
{{- define "lib.egress" -}}
- to:
  {{- include "lib.pods" (list (index . 0) (index . 1)) | nindent 2 }}
  ports:
  - {port: {{ index . 2 }}, protocol: TCP}
{{- end }}

{{/* An egress rule to the cluster's DNS. */}}
{{- define "lib.dns" -}}
{{- with .Values.global.networkPolicy.dns -}}
- to:
  {{- toYaml .to | nindent 2 }}
  ports:
  {{- range .ports }}
  - {port: {{ . }}, protocol: UDP}
  - {port: {{ . }}, protocol: TCP}
  {{- end }}
{{- end }}
{{- end }}

{{/* An egress rule to the PostgreSQL that replaces SQLite, if it is ours; egressCIDRs lets one outside be reached. */}}
{{- define "lib.databaseEgress" -}}
{{- if .Values.global.postgres }}
{{- include "lib.egress" (list . "postgres" 5432) }}
{{- end }}
{{- end }}

{{/* Egress rules to addresses outside the cluster. */}}
{{- define "lib.outside" -}}
{{- range . }}
- to:
  {{- include "lib.addresses" (list .) | nindent 2 }}
{{- end }}
{{- end }}

{{/* Peers: these addresses (CIDR), but for the clouds' metadata services where they are among many. */}}
{{- define "lib.addresses" -}}
{{- range . }}
- ipBlock:
    cidr: {{ quote . }}
    {{- with include "lib.metadataServices" . | fromYamlArray }}
    except: {{ toJson . }}
    {{- end }}
{{- end }}
{{- end }}

{{/*
Where clouds tell a machine who it is and hand it its rights (link-local: AWS, Google, Azure, OpenStack; Azure's wire server;
Alibaba), as far as they are inside a larger CIDR. One that is given exactly, such as 169.254.169.254/32, is meant.
*/}}
{{- define "lib.metadataServices" -}}
{{- $cidr := . -}}
{{- if contains ":" $cidr -}}
{{- if has $cidr (list "::/0" "fc00::/7" "fd00::/8") }}["fd00:ec2::254/128", "fd20:ce::254/128"]{{ else }}[]{{ end -}}
{{- else -}}
{{- $size := splitList "/" $cidr | last | int -}}
{{- $inside := list -}}
{{- range list (ternary "169.254.169.254/32" "169.254.0.0/16" (ge $size 16)) "100.100.100.200/32" "168.63.129.16/32" -}}
{{- if and (lt $size (splitList "/" . | last | int)) (eq (include "lib.network" (list . $size)) (include "lib.network" (list $cidr $size))) -}}
{{- $inside = append $inside . -}}
{{- end -}}
{{- end -}}
{{- toJson $inside -}}
{{- end -}}
{{- end }}

{{/* The first bits of an IPv4 address, as a number. (list "10.1.0.0/16" 8) */}}
{{- define "lib.network" -}}
{{- $number := 0 -}}
{{- range splitList "." (splitList "/" (index . 0) | first) }}{{ $number = add (mul $number 256) (int .) }}{{ end -}}
{{- range until (sub 32 (index . 1) | int) }}{{ $number = div $number 2 }}{{ end -}}
{{- $number -}}
{{- end }}

{{/* Networks that are nobody's on the internet: nodes, pods and Services are in them. */}}
{{- define "lib.privateNetworks" -}}
["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"]
{{- end }}

{{/*
Egress rules to the Kubernetes API: global.networkPolicy.apiServer.cidrs, or where the cluster says that it is, by the
endpoints and, for network plugins that look before they translate, by the Service. Private networks where that cannot be
asked (helm template, GitOps, an installer with rights in one namespace) or does not stay (EKS).
*/}}
{{- define "lib.apiServerEgress" -}}
{{- $given := .Values.global.networkPolicy.apiServer -}}
{{- $slice := dict }}{{ $service := dict -}}
{{- if not (or $given.cidrs (not .Values.global.clusterScoped) (contains "-eks-" .Capabilities.KubeVersion.Version)) -}}
{{- $slice = lookup "discovery.k8s.io/v1" "EndpointSlice" "default" "kubernetes" | default dict -}}
{{- $service = lookup "v1" "Service" "default" "kubernetes" | default dict -}}
{{- end -}}
{{- if $slice.endpoints }}
{{- $addresses := list }}
{{- range $slice.endpoints }}{{ $addresses = concat $addresses .addresses }}{{ end }}
{{- include "lib.machines" (dict "addresses" $addresses "ports" $slice.ports) }}
{{- with $service.spec }}
{{ include "lib.machines" (dict "addresses" (.clusterIPs | default (list .clusterIP)) "ports" .ports) }}
{{- end }}
{{- else }}
- to:
  {{- include "lib.addresses" ($given.cidrs | default (include "lib.privateNetworks" . | fromYamlArray)) | nindent 2 }}
  ports:
  {{- range $given.ports }}
  - {port: {{ . }}, protocol: TCP}
  {{- end }}
{{- end }}
{{- end }}

{{/* An egress rule to single addresses. (dict "addresses" list "ports" <those of an EndpointSlice or Service>) */}}
{{- define "lib.machines" -}}
- to:
  {{- range .addresses | uniq | sortAlpha }}
  - ipBlock: {cidr: "{{ . }}/{{ ternary 128 32 (contains ":" .) }}"}
  {{- end }}
  ports:
  {{- range .ports }}
  - {port: {{ .port }}, protocol: TCP}
  {{- end }}
{{- end }}

{{/*
Peers: the cluster's own ingress controller or gateway, if there is one. It may be anywhere, where nobody says in which
namespace; and so may who comes by a Service of another type than ClusterIP.
*/}}
{{- define "lib.otherController" -}}
{{- $global := .Values.global -}}
{{- $another := or $global.gateway.enabled (and $global.ingress.enabled (or $global.ingress.className (not $global.traefik))) -}}
{{- $service := dig "service" "type" "ClusterIP" (.Values.prometheus | default (dict "service" (.Values.service | default dict))) -}}
{{- if or (and $another (not $global.ingress.controllerNamespace)) (ne $service "ClusterIP") }}
- namespaceSelector: {}
- ipBlock: {cidr: 0.0.0.0/0}
- ipBlock: {cidr: "::/0"}
{{- else if $global.ingress.controllerNamespace }}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ $global.ingress.controllerNamespace }}
{{- end }}
{{- end }}
