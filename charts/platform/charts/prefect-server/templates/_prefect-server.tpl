{{/* "true" where several pods may run: the database is in PostgreSQL, and Redis carries events from pod to pod. */}}
{{- define "prefect-server.shared" -}}
{{- if and (include "lib.hasDatabase" .) .Values.redis.existingSecret }}true{{ end -}}
{{- end }}

{{/* Variables of both containers: where Prefect keeps things, and the database's address, by default a SQLite there. */}}
{{- define "prefect-server.env" -}}
- {name: PREFECT_HOME, value: /data}
{{- if include "lib.hasDatabase" . }}
{{- include "lib.databaseEnv" (list . "PREFECT_SERVER_DATABASE_CONNECTION_URL" "prefect" "postgresql+asyncpg") }}
{{- end }}
{{- end }}

{{- define "prefect-server.mounts" -}}
- {name: data, mountPath: /data}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{/*
What the pods tell each other by Redis: events (automations and cancelled runs need them), which of them runs a service when,
and who holds a slot of a limited concurrency. Without, each would know of its own alone.
*/}}
{{- define "prefect-server.redisEnv" -}}
{{- range list "PREFECT_REDIS_MESSAGING_URL" "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_URL" "PREFECT_SERVER_DOCKET_URL" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef: {name: {{ $.Values.redis.existingSecret }}, key: redis-url}
{{- end }}
- {name: PREFECT_MESSAGING_BROKER, value: prefect_redis.messaging}
- {name: PREFECT_MESSAGING_CACHE, value: prefect_redis.messaging}
- {name: PREFECT_SERVER_EVENTS_CAUSAL_ORDERING, value: prefect_redis.ordering}
- {name: PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE, value: prefect_redis.lease_storage}
- {name: PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE, value: prefect_redis.cleanup_queue}
# Done by `prepare`.
- {name: PREFECT_SERVER_REGISTER_BLOCKS_ON_START, value: "false"}
{{- end }}
