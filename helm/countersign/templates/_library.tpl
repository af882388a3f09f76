{{/*
For charts that depend on this one. Each takes your chart's context; where the dependency has an alias, or you have several,
`(dict "root" . "alias" "ALIAS")`.

countersign.sidecar             an item of initContainers: the native sidecar. Put it before whatever calls it.
countersign.volumes             items of volumes
countersign.podSecurityContext  members of the pod's securityContext
countersign.mount               an item of volumeMounts, for your own containers: the socket
countersign.target              what a gRPC client dials: unix:/run/countersign/api/api.sock, or 127.0.0.1:50051
countersign.checksum            changes with the configuration; as an annotation of the pod it restarts pods when that changes
*/}}

{{- define "countersign.sidecar" -}}
{{- $scope := include "countersign._find" . | index (default . .root).Subcharts -}}
{{- include "countersign._judge" $scope -}}
{{- if ne $scope.Values.mode "sidecar" -}}
{{- fail "countersign: an application is no sidecar; set mode to sidecar" -}}
{{- end -}}
- {{ include "countersign._container" $scope | nindent 2 | trim }}
  # A container that starts before yours and ends after them (Kubernetes 1.29).
  restartPolicy: Always
{{- end -}}

{{- define "countersign.volumes" -}}
{{- $scope := include "countersign._find" . | index (default . .root).Subcharts -}}
{{- include "countersign._volumes" $scope -}}
{{- end -}}

{{- define "countersign.podSecurityContext" -}}
{{- $scope := include "countersign._find" . | index (default . .root).Subcharts -}}
fsGroup: {{ $scope.Values.fsGroup }}
{{- end -}}

{{- define "countersign.mount" -}}
{{- $scope := include "countersign._find" . | index (default . .root).Subcharts -}}
{{- if not (include "countersign._has_socket" $scope) -}}
{{- fail "countersign: there is no socket to mount; set socket.enabled" -}}
{{- end -}}
- name: countersign-socket
  mountPath: /run/countersign
  readOnly: true
{{- end -}}

{{- define "countersign.target" -}}
{{- $scope := include "countersign._find" . | index (default . .root).Subcharts -}}
{{- if include "countersign._has_socket" $scope -}}
unix:/run/countersign/api/api.sock
{{- else -}}
{{ printf "127.0.0.1:%d" (int $scope.Values.ports.api) }}
{{- end -}}
{{- end -}}

{{- define "countersign.checksum" -}}
{{- $scope := include "countersign._find" . | index (default . .root).Subcharts -}}
{{- include "countersign._configuration" $scope | sha256sum -}}
{{- end -}}

{{/* The name under which the including chart has this one. */}}
{{- define "countersign._find" -}}
{{- $alias := default "countersign" .alias -}}
{{- if not (hasKey (default dict (default . .root).Subcharts) $alias) -}}
{{- fail (printf "countersign: %s is no dependency of this chart; name its alias: (dict \"root\" . \"alias\" \"ALIAS\")" $alias) -}}
{{- end -}}
{{- $alias -}}
{{- end -}}
