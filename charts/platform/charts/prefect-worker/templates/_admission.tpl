{{/*
CEL: an optional place has these fields with these values; what the API server adds by itself may be there, too. Sizes are
left out, as it writes them in its own way. (list "v.?secret" value)
*/}}
{{- define "prefect-worker.has" -}}
{{- $place := index . 0 }}{{ $value := index . 1 }}{{ $parts := list -}}
{{- if kindIs "map" $value -}}
{{- range $key, $child := omit $value "sizeLimit" "resources" "resourceFieldRef" -}}
{{- $field := ternary (print ".?" $key) (printf "[?%s]" (toJson $key)) (regexMatch "^[a-zA-Z]+$" $key) -}}
{{- $parts = append $parts (include "prefect-worker.has" (list (print $place $field) $child)) -}}
{{- else -}}
{{- $parts = append $parts (print $place ".hasValue()") -}}
{{- end -}}
{{- else if kindIs "slice" $value -}}
{{- $parts = append $parts (printf "size(%s.orValue([])) == %d" $place (len $value)) -}}
{{- range $at, $child := $value -}}
{{- $parts = append $parts (include "prefect-worker.has" (list (printf "%s[?%d]" $place $at) $child)) -}}
{{- end -}}
{{- else -}}
{{- $parts = append $parts (printf "%s == optional.of(%s)" $place (toJson $value)) -}}
{{- end -}}
{{- join " && " $parts -}}
{{- end }}

{{/*
What the Jobs' template has that a Job may have, as lists in JSON: read from the template itself, so that a change there
needs none here.
*/}}
{{- define "prefect-worker.allowed" -}}
{{- $template := include "prefect-worker.jobTemplate" . | fromYaml -}}
{{- $job := $template.job_configuration.job_manifest.spec.template -}}
{{- $accounts := $template.variables.properties.account.enum -}}
{{- $keys := list }}{{ $sources := list }}{{ $volumes := list }}{{ $tolerated := list }}{{ $pullSecrets := list -}}
{{- $containers := list }}{{ range $job.spec.containers }}{{ $containers = append $containers .name }}{{ end -}}
{{- $inits := list }}{{ range $job.spec.initContainers }}{{ $inits = append $inits .name }}{{ end -}}
{{- range concat $job.spec.containers $job.spec.initContainers -}}
{{- range .env -}}
{{- with dig "valueFrom" "secretKeyRef" dict . }}
{{- $ref := . }}
{{- range $accounts }}{{ $keys = append $keys (printf "%s/%s" $ref.name ($ref.key | replace "{{ account }}" .)) }}{{ end }}
{{- end -}}
{{- end -}}
{{- range .envFrom }}{{ with .secretRef }}{{ $sources = append $sources .name }}{{ end }}{{ end -}}
{{- end -}}
{{- range $job.spec.volumes -}}
{{- if not (hasKey . "emptyDir") -}}
{{- $volumes = append $volumes (include "prefect-worker.has" (list "v" .)) -}}
{{- end -}}
{{- end -}}
{{- range $job.spec.tolerations }}{{ $tolerated = append $tolerated (.key | default "") }}{{ end -}}
{{- range $job.spec.imagePullSecrets }}{{ $pullSecrets = append $pullSecrets .name }}{{ end -}}
account: {{ $job.spec.serviceAccountName | toJson }}
labels: {{ $job.metadata.labels | toJson }}
containers: {{ toJson $containers }}
initContainers: {{ toJson $inits }}
keys: {{ uniq $keys | toJson }}
sources: {{ uniq $sources | toJson }}
volumes: {{ $volumes | toJson }}
tolerations: {{ uniq $tolerated | toJson }}
imagePullSecrets: {{ uniq $pullSecrets | toJson }}
priorityClassName: {{ $job.spec.priorityClassName | default "" | toJson }}
schedulerName: {{ $job.spec.schedulerName | default "default-scheduler" | toJson }}
runtimeClassName: {{ $job.spec.runtimeClassName | default "" | toJson }}
podContext: {{ $job.spec.securityContext | toJson }}
context: {{ (first $job.spec.containers).securityContext | toJson }}
{{- end }}

{{/* "true" where Kubernetes is told what the worker may make: it is in no namespace, so an installer needs the right to. */}}
{{- define "prefect-worker.admission" -}}
{{- if and .Values.admissionPolicy.enabled .Values.global.clusterScoped }}true{{ end -}}
{{- end }}

{{/* A namespace has no dot, so no other release of another namespace has the same name. */}}
{{- define "prefect-worker.policyName" -}}
{{ .Release.Namespace }}.{{ include "lib.name" . }}
{{- end }}

{{/* Labels that Prefect and Kubernetes set themselves; no policy selects by them. */}}
{{- define "prefect-worker.prefectLabels" -}}
{{- range list "name" "version" "part-of" "managed-by" }}
- app.kubernetes.io/{{ . }}
{{- end }}
- controller-uid
- job-name
{{- end }}

{{/* Each with the sentence that a run ends with. (dict "allowed" <prefect-worker.allowed>) */}}
{{- define "prefect-worker.validations" -}}
{{- $own := include "prefect-worker.prefectLabels" . | fromYamlArray -}}
- expression: variables.pod.?serviceAccountName.orValue("") == {{ toJson .allowed.account }}
  message: spec.template.spec.serviceAccountName must be {{ .allowed.account }}, which has no rights; set prefect-worker.jobs.serviceAccount for another account.
- expression: variables.pod.?automountServiceAccountToken.orValue(true) == false
  message: spec.template.spec.automountServiceAccountToken must be false, as no training asks Kubernetes; leave it as the chart has it.
- expression: "[variables.pod.?hostNetwork, variables.pod.?hostPID, variables.pod.?hostIPC].all(f, !f.orValue(false))"
  message: spec.template.spec.hostNetwork, hostPID and hostIPC must not be set, as a training has nothing to do with its node; leave them out.
- expression: variables.pod.?nodeName.orValue("") == ""
  message: spec.template.spec.nodeName must not be set, as the scheduler chooses; set prefect-worker.jobs.nodeSelector or .affinity.
- expression: variables.containers.all(c, c.?ports.orValue([]).all(p, p.?hostPort.orValue(0) == 0))
  message: spec.template.spec.containers[].ports[].hostPort must not be set, as nobody connects to a training; leave it out.
- expression: >-
    variables.pod.containers.map(c, c.name) == {{ toJson .allowed.containers }}
    && variables.pod.?initContainers.orValue([]).map(c, c.name) == {{ toJson .allowed.initContainers }}
    && size(variables.pod.?ephemeralContainers.orValue([])) == 0
  message: spec.template.spec.containers, initContainers and ephemeralContainers must be those of the chart's template, {{ join ", " (concat .allowed.containers .allowed.initContainers) }}; leave others out.
- expression: size(variables.images) == 0
  messageExpression: '"spec.template.spec.containers[].image must be of this release, not " + variables.images.join(", ") + "; add it to prefect-worker.jobs.allowedImages if trainings may run it."'
- expression: >-
    variables.containers.all(c, !c.?securityContext.?privileged.orValue(false)
    && c.?securityContext.?allowPrivilegeEscalation.orValue(true) == false
    && c.?securityContext.?procMount.orValue("Default") == "Default")
  message: spec.template.spec.containers[].securityContext must not be privileged, nor have another procMount, and allowPrivilegeEscalation must be false; leave them as the chart has them.
- expression: >-
    variables.containers.all(c, size(c.?securityContext.?capabilities.?add.orValue([])) == 0
    && "ALL" in c.?securityContext.?capabilities.?drop.orValue([]))
  message: spec.template.spec.containers[].securityContext.capabilities must drop ALL and add none; leave them as the chart has them.
- expression: >-
    variables.pod.?securityContext.?runAsNonRoot.orValue(false) && variables.pod.?securityContext.?runAsUser.orValue(1) != 0
    && variables.containers.all(c, c.?securityContext.?runAsNonRoot.orValue(true) && c.?securityContext.?runAsUser.orValue(1) != 0)
  message: spec.template.spec.securityContext.runAsNonRoot must be true, and runAsUser of the pod and its containers not 0; leave them as the chart has them.
- expression: >-
    variables.pod.?securityContext.?seccompProfile.?type.orValue("Unconfined") != "Unconfined"
    && variables.containers.all(c, c.?securityContext.?seccompProfile.?type.orValue("RuntimeDefault") != "Unconfined")
  message: spec.template.spec.securityContext.seccompProfile.type must be RuntimeDefault or Localhost, and of no container Unconfined; leave it as the chart has it.
{{- range $field := list "seLinuxOptions" "windowsOptions" "appArmorProfile" }}
{{- $ofPod := print "variables.pod.?securityContext.?" $field }}{{ $ofContainer := print "c.?securityContext.?" $field }}
- expression: >-
    (!{{ $ofPod }}.hasValue(){{ with get $.allowed.podContext $field }} || {{ include "prefect-worker.has" (list $ofPod .) }}{{ end }})
    && variables.containers.all(c, !{{ $ofContainer }}.hasValue(){{ with get $.allowed.context $field }} || {{ include "prefect-worker.has" (list $ofContainer .) }}{{ end }})
  message: spec.template.spec.securityContext.{{ $field }}, of the pod or a container, must be as the settings have it; set prefect-worker.jobs.podSecurityContext or .securityContext.
{{- end }}
- expression: object.spec.template.metadata.?annotations.orValue({}).all(k, !k.startsWith("container.apparmor.security.beta.kubernetes.io/"))
  message: spec.template.metadata.annotations must not choose an AppArmor profile; leave it out.
- expression: variables.containers.all(c, [c.?livenessProbe, c.?readinessProbe, c.?startupProbe, c.?lifecycle].all(p, !p.hasValue()))
  message: spec.template.spec.containers[] must have no probes and no lifecycle, as the node itself connects to what those name; leave them out.
{{- range $key, $value := .allowed.labels }}
{{- if not (has $key $own) }}
- expression: variables.labels[?{{ toJson $key }}] == optional.of({{ toJson $value }})
  message: spec.template.metadata.labels must have {{ $key }}={{ $value }}, by which policies know a training; leave it as the chart has it.
{{- end }}
{{- end }}
- expression: size(variables.otherLabels) == 0
  messageExpression: '"spec.template.metadata.labels must not have " + variables.otherLabels.join(", ") + ", by which somebody may select pods; set prefect-worker.jobs.podLabels for labels of all trainings."'
- expression: size(variables.volumes) == 0
  messageExpression: '"spec.template.spec.volumes must be empty ones or those of the settings, unlike " + variables.volumes.join(", ") + "; set prefect-worker.jobs.extraVolumes."'
- expression: size(variables.keys) == 0
  messageExpression: '"spec.template.spec.containers[].env must not read " + variables.keys.join(", ") + ", which trainings do not need; set prefect-worker.jobs.extraEnv for Secrets of yours."'
- expression: size(variables.sources) == 0
  messageExpression: '"spec.template.spec.containers[].envFrom must not read the Secret " + variables.sources.join(", ") + "; set prefect-worker.jobs.extraEnvFrom for Secrets of yours."'
- expression: variables.pod.?imagePullSecrets.orValue([]).all(s, s.?name.orValue("") in {{ toJson .allowed.imagePullSecrets }})
  message: spec.template.spec.imagePullSecrets must be those of the settings; set prefect-worker.jobs.imagePullSecrets.
- expression: >-
    variables.pod.?tolerations.orValue([]).all(t, t.?key.orValue("") in {{ toJson .allowed.tolerations }})
    && variables.pod.?priorityClassName.orValue("") in {{ list "" .allowed.priorityClassName | uniq | toJson }}
    && variables.pod.?schedulerName.orValue("default-scheduler") == {{ toJson .allowed.schedulerName }}
    && variables.pod.?runtimeClassName.orValue("") == {{ toJson .allowed.runtimeClassName }}
  message: spec.template.spec.tolerations, priorityClassName, schedulerName and runtimeClassName must be those of the settings; set prefect-worker.jobs.tolerations or .priorityClassName.
- expression: >-
    object.spec.?parallelism.orValue(1) <= 1 && object.spec.?completions.orValue(1) <= 1
    && !object.spec.?manualSelector.orValue(false)
  message: spec.parallelism and spec.completions must be 1 and spec.manualSelector not true, as a flow run is one pod; leave them out.
- expression: size(object.metadata.?ownerReferences.orValue([])) == 0
  message: metadata.ownerReferences must be empty, as a Job belongs to its flow run alone; leave it out.
{{- end }}
