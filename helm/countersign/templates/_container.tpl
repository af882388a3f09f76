{{/* The container, but for what tells a native sidecar from an ordinary one. */}}
{{- define "countersign._container" -}}
{{- $values := .Values -}}
name: countersign
image: {{ include "countersign._image" . | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
args: [serve, --config, /etc/countersign/config/countersign.yaml]
ports:
  - name: countersign-ops
    containerPort: {{ $values.ports.ops }}
    protocol: TCP
  {{- if eq $values.mode "application" }}
  - name: countersign-api
    containerPort: {{ $values.ports.api }}
    protocol: TCP
  {{- end }}
# Until it can tell: keys from files and the whole revocation log are there.
startupProbe:
  {{- include "countersign._probe" (dict "service" "readiness" "port" $values.ports.ops "times" $values.probes.startup) | nindent 2 }}
readinessProbe:
  {{- include "countersign._probe" (dict "service" "readiness" "port" $values.ports.ops "times" $values.probes.readiness) | nindent 2 }}
livenessProbe:
  {{- include "countersign._probe" (dict "service" "liveness" "port" $values.ports.ops "times" $values.probes.liveness) | nindent 2 }}
resources:
  {{- toYaml $values.resources | nindent 2 }}
securityContext:
  runAsUser: 65532
  runAsGroup: 65532
  runAsNonRoot: true
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
volumeMounts:
  - name: countersign-config
    mountPath: /etc/countersign/config
    readOnly: true
  {{- range $name, $_ := $values.files }}
  - name: countersign-file-{{ $name }}
    mountPath: /etc/countersign/files/{{ $name }}
    readOnly: true
  {{- end }}
  {{- if include "countersign._has_socket" . }}
  - name: countersign-socket
    mountPath: /run/countersign
  {{- end }}
  {{- if include "countersign._embedded" . }}
  - name: countersign-data
    mountPath: /var/lib/countersign
  {{- end }}
{{- end -}}

{{- define "countersign._probe" -}}
grpc:
  port: {{ .port }}
  service: {{ .service }}
periodSeconds: {{ .times.periodSeconds }}
failureThreshold: {{ .times.failureThreshold }}
timeoutSeconds: {{ .times.timeoutSeconds }}
{{- end -}}

{{/* Directories, never single files: the kubelet swaps a directory's content at once, and countersign sees it. */}}
{{- define "countersign._volumes" -}}
{{- $values := .Values -}}
- name: countersign-config
  configMap:
    name: {{ include "countersign._name" . }}
    defaultMode: 0444
{{- range $name, $file := $values.files }}
- name: countersign-file-{{ $name }}
  {{- if $file.secret }}
  secret:
    secretName: {{ $file.secret | quote }}
    # The owner is root; countersign reads it by the group.
    defaultMode: 0440
  {{- else }}
  configMap:
    name: {{ $file.configMap | quote }}
    defaultMode: 0444
  {{- end }}
{{- end }}
{{- if include "countersign._has_socket" . }}
- name: countersign-socket
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- end }}
{{- if include "countersign._embedded" . }}
- name: countersign-data
  {{- if $values.data.claim }}
  persistentVolumeClaim:
    claimName: {{ $values.data.claim | quote }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ $values.data.sizeLimit }}
  {{- end }}
{{- end }}
{{- end -}}
