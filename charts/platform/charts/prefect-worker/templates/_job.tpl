{{- define "prefect-worker.jobTemplate" -}}
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
      labels: {{ "{{ labels }}" | quote }}
      annotations: {{ "{{ annotations }}" | quote }}
    spec:
      backoffLimit: 0 # a second pod would be a second run
      ttlSecondsAfterFinished: {{ "{{ finished_job_ttl }}" | quote }}
      template:
        metadata:
          labels:
            {{- include "lib.selector" (list . "training") | nindent 12 }}
            app.kubernetes.io/part-of: mlops
        spec:
          parallelism: 1
          completions: 1
          restartPolicy: Never
          serviceAccountName: {{ include "lib.name" (list . "training") }}
          automountServiceAccountToken: false
          enableServiceLinks: false
          terminationGracePeriodSeconds: 20
          securityContext:
            runAsNonRoot: true
            runAsUser: 10001
            runAsGroup: 10001
            fsGroup: 10001
            seccompProfile: {type: RuntimeDefault}
          {{- with .Values.global.imagePullSecrets }}
          imagePullSecrets:
          {{- range . }}
          - name: {{ . }}
          {{- end }}
          {{- end }}
          {{- with .Values.nodeSelector }}
          nodeSelector:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with .Values.tolerations }}
          tolerations:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          initContainers:
          - name: network
            image: {{ "{{ image }}" | quote }}
            imagePullPolicy: {{ .Values.image.pullPolicy }}
            command: [python, -m, flows.reachable, "http://{{ include "lib.name" (list . "prefect-server") }}:4200/api/health"]
            resources:
              requests: {cpu: 10m, memory: 32Mi}
              limits: {memory: 64Mi}
            securityContext:
              {{- include "lib.container" . | nindent 14 }}
          containers:
          - name: prefect-job
            image: {{ "{{ image }}" | quote }}
            imagePullPolicy: {{ .Values.image.pullPolicy }}
            args: {{ "{{ command }}" | quote }}
            env:
            - {name: MLFLOW_TRACKING_URI, value: "http://{{ include "lib.name" (list . "mlflow") }}:5000"}
            - {name: MLFLOW_TRACKING_USERNAME, value: trainer}
            {{- include "lib.secretEnv" (list . "MLFLOW_TRACKING_PASSWORD" "mlflow-trainer-password") | nindent 12 }}
            {{- include "lib.secretEnv" (list . "PREFECT_API_AUTH_STRING" "prefect-auth-string") | nindent 12 }}
            - {name: MLOPS_MLFLOW_PUBLIC_URL, value: {{ include "lib.url" (list . "mlflow") | quote }}}
            - {name: MLOPS_RETRY_SECONDS, value: "180"}
            - {name: MLOPS_IMAGE, value: {{ include "lib.image" (list . .Values.image) | quote }}}
            - {name: PREFECT_FLOWS_HEARTBEAT_FREQUENCY, value: "30"}
            {{- with .Values.jobs.secret }}
            envFrom:
            - secretRef: {name: {{ . }}}
            {{- end }}
            resources:
              requests:
                cpu: {{ "{{ cpu }}" | quote }}
                memory: {{ "{{ memory }}" | quote }}
              limits:
                memory: {{ "{{ memory }}" | quote }}
            securityContext:
              {{- include "lib.container" . | nindent 14 }}
            volumeMounts:
            - {name: tmp, mountPath: /tmp}
          volumes:
          - name: tmp
            emptyDir: {}
variables:
  type: object
  description: Settings of a training Job. What is the same for all is in the chart prefect-worker.
  properties:
    name: {type: string, title: Name, description: "Of the Job; by default the flow run's."}
    image: {type: string, title: Image, default: {{ include "lib.image" (list . .Values.image) | quote }}}
    cpu: {type: string, title: CPU request, default: 100m}
    memory: {type: string, title: Memory, description: "Request and limit.", default: 1Gi}
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
