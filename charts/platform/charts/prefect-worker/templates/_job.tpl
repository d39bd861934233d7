{{/* The image of trainings: one of yours, or the worker's. */}}
{{- define "prefect-worker.jobImage" -}}
{{- $own := .Values.jobs.image }}
{{- if and (not $own.repository) (or $own.registry $own.tag $own.digest) }}
{{- fail "prefect-worker.jobs.image has no repository: name it, or leave registry, tag and digest out, too, for the worker's image" }}
{{- end }}
{{- include "lib.image" (list . (ternary $own .Values.image (ne $own.repository ""))) }}
{{- end }}

{{- define "prefect-worker.jobTemplate" -}}
{{- $training := dict "root" . "own" .Values.jobs "alone" true "name" "training" -}}
{{- $settings := include "lib.settings" $training | fromYaml -}}
{{- $image := include "prefect-worker.jobImage" . }}
{{- $pullPolicy := .Values.jobs.image.pullPolicy | default .Values.image.pullPolicy }}
job_configuration:
  name: {{ "{{ name }}" | quote }}
  namespace: {{ "{{ namespace }}" | quote }}
  command: {{ "{{ command }}" | quote }}
  env: {{ "{{ env }}" | quote }}
  labels: {{ "{{ labels }}" | quote }}
  annotations: {{ "{{ annotations }}" | quote }}
  stream_output: false # Prefect's own logs say the same; the pod's go to kubectl logs
  job_manifest:
    apiVersion: batch/v1
    kind: Job
    metadata:
      generateName: {{ "{{ name }}-" | quote }}
      namespace: {{ "{{ namespace }}" | quote }}
      # to which Prefect adds its own
      labels: {{ .Values.global.commonLabels | default dict | toJson }}
      annotations: {{ .Values.global.commonAnnotations | default dict | toJson }}
    spec:
      backoffLimit: 0 # a second pod would be a second run
      ttlSecondsAfterFinished: {{ "{{ finished_job_ttl }}" | quote }}
      {{- with .Values.jobs.activeDeadlineSeconds }}
      activeDeadlineSeconds: {{ . }}
      {{- end }}
      template:
        metadata:
          {{- $labels := printf "%s\napp.kubernetes.io/part-of: mlops" (include "lib.selector" (list . "training")) }}
          {{- include "lib.podMetadata" (merge (dict "labels" $labels) $training) | nindent 10 }}
        spec:
          parallelism: 1
          completions: 1
          restartPolicy: Never
          serviceAccountName: {{ include "lib.accountName" $training }}
          automountServiceAccountToken: false
          enableServiceLinks: false
          securityContext:
            {{- include "lib.podSecurityContext" (dict "root" . "uid" 10001 "settings" $settings) | nindent 12 }}
          {{- include "lib.scheduling" (dict "settings" $settings "grace" 20) | nindent 10 }}
          initContainers:
          - name: network
            image: {{ "{{ image }}" | quote }}
            imagePullPolicy: {{ $pullPolicy }}
            command: [python, -m, flows.reachable, "http://{{ include "lib.name" (list . "prefect-server") }}:4200/api/health"]
            resources:
              requests: {cpu: 10m, memory: 32Mi}
              limits: {memory: 64Mi}
            securityContext:
              {{- include "lib.container" $training | nindent 14 }}
          containers:
          - name: prefect-job
            image: {{ "{{ image }}" | quote }}
            imagePullPolicy: {{ $pullPolicy }}
            args: {{ "{{ command }}" | quote }}
            env:
            - {name: MLFLOW_TRACKING_URI, value: "http://{{ include "lib.name" (list . "mlflow") }}:5000"}
            - {name: MLFLOW_TRACKING_USERNAME, value: {{ "{{ account }}" | quote }}}
            {{- include "lib.secretEnv" (list . "MLFLOW_TRACKING_PASSWORD" ("mlflow-{{ account }}-password" | quote)) | nindent 12 }}
            - {name: MLOPS_MLFLOW_PUBLIC_URL, value: {{ include "lib.address" (list . "mlflow") | quote }}}
            - {name: MLOPS_RETRY_SECONDS, value: "180"}
            - {name: MLOPS_PROMOTION_DEPLOYMENT, value: promote/promote}
            - {name: MLOPS_IMAGE, value: {{ quote $image }}}
            - {name: PREFECT_FLOWS_HEARTBEAT_FREQUENCY, value: "30"}
            {{- include "prefect-worker.modelsEnv" (list . "") | nindent 12 }}
            {{- include "lib.extraEnv" $training | nindent 12 }}
            {{- include "lib.envFrom" $training | nindent 12 }}
            resources:
              requests:
                cpu: {{ "{{ cpu }}" | quote }}
                memory: {{ "{{ memory }}" | quote }}
              limits:
                memory: {{ "{{ memory }}" | quote }}
                {{ .Values.jobs.gpuResource }}: {{ "{{ gpus }}" | quote }}
            securityContext:
              {{- include "lib.container" $training | nindent 14 }}
            volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- include "prefect-worker.modelsMount" . | nindent 12 }}
            {{- include "lib.extraVolumeMounts" $training | nindent 12 }}
          {{- include "lib.extraContainers" $training | nindent 10 }}
          volumes:
          - name: tmp
            emptyDir: {sizeLimit: {{ .Values.jobs.tmpSize }}}
          {{- include "prefect-worker.modelsVolume" . | nindent 10 }}
          {{- include "lib.extraVolumes" $training | nindent 10 }}
variables:
  type: object
  description: Settings of a training Job. What is the same for all is in the chart prefect-worker.
  properties:
    name: {type: string, title: Name, description: "Of the Job; by default the flow run's."}
    account:
      type: string
      title: MLflow account
      description: Whoever trains registers; the gate alone moves `production`.
      enum: [trainer, gate]
      default: trainer
    image: {type: string, title: Image, default: {{ quote $image }}}
    cpu: {type: string, title: CPU request, default: {{ .Values.jobs.cpu | quote }}}
    memory: {type: string, title: Memory, description: "Request and limit.", default: {{ .Values.jobs.memory }}}
    gpus: {type: integer, title: GPUs, description: "None by default."}
    env:
      type: object
      title: Environment
      additionalProperties: {type: string}
      default: # an evicted pod's run ends and says so, rather than to start again somewhere
        PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR: crash
    labels: {type: object, title: Labels, additionalProperties: {type: string}}
    annotations: {type: object, title: Annotations, additionalProperties: {type: string}}
    command: {type: string, title: Command, description: "By default what runs the flow."}
    namespace: {type: string, title: Namespace, default: {{ .Release.Namespace }}}
    finished_job_ttl: {type: integer, title: Seconds that a finished Job is kept, default: {{ .Values.jobs.ttlSecondsAfterFinished }}}
{{- end }}
