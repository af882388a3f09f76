{{/* countersign.yaml: what the values say, and over it what the chart decides. */}}
{{- define "countersign._configuration" -}}
{{- $values := .Values -}}
{{- $config := deepCopy $values.config -}}
{{- $api := default dict $config.api -}}
{{- $wildcard := ternary "[::]" $values.bind (eq $values.bind "::") -}}
{{- if $values.tcp.enabled -}}
{{- $host := ternary $wildcard "127.0.0.1" (eq $values.mode "application") -}}
{{- $_ := set $api "tcp" (printf "%s:%d" $host (int $values.ports.api)) -}}
{{- else -}}
{{- $_ := set $api "tcp" nil -}}
{{- end -}}
{{- if include "countersign._has_socket" . -}}
{{- $_ := set $api "unix" "/run/countersign/api/api.sock" -}}
{{- $_ := set $api "unix_group" (printf "%d" (int $values.fsGroup)) -}}
{{- end -}}
{{- $_ := set $config "api" $api -}}
{{- $_ := set $config "ops" (dict "address" (printf "%s:%d" $wildcard (int $values.ports.ops))) -}}
{{- toYaml $config -}}
{{- end -}}

{{/* "yes" where there is a Unix socket: nobody could share it with a pod that has no other container. */}}
{{- define "countersign._has_socket" -}}
{{- if and .Values.socket.enabled (eq .Values.mode "sidecar") -}}yes{{- end -}}
{{- end -}}

{{/* What the schema can't see: values that contradict each other. */}}
{{- define "countersign._judge" -}}
{{- $values := .Values -}}
{{- $config := $values.config -}}
{{- $application := eq $values.mode "application" -}}
{{- if not (or $config.own $config.issuers) -}}
{{- fail "countersign: whose tokens are verified? set config.own or config.issuers" -}}
{{- end -}}
{{- if not (or $values.tcp.enabled (include "countersign._has_socket" .)) -}}
{{- fail "countersign: nobody could call it; set tcp.enabled or, in the sidecar mode, socket.enabled" -}}
{{- end -}}
{{- if eq (int $values.ports.api) (int $values.ports.ops) -}}
{{- fail (printf "countersign: ports.api and ports.ops are both %d; only one of them could listen" (int $values.ports.api)) -}}
{{- end -}}
{{- $served := default dict $config.api | dig "serve" list -}}
{{- if and (hasKey $config "ext_authz") $served (not (has "check" $served)) -}}
{{- fail "countersign: config.ext_authz says how Check is answered, which is not served; add check to config.api.serve" -}}
{{- end -}}
{{- range $path := regexFindAll "/etc/countersign/files/[^\\s\"',}\\]]+" (toYaml $config) -1 -}}
{{- $name := regexReplaceAll "^/etc/countersign/files/([^/]+).*$" $path "${1}" -}}
{{- if not (hasKey $values.files $name) -}}
{{- fail (printf "countersign: config names %s, but files.%s is not there to mount it" $path $name) -}}
{{- end -}}
{{- end -}}
{{- if $application -}}
{{- $api := default dict $config.api -}}
{{- $tls := default dict $api.tls -}}
{{- if not (or $tls.client_ca $api.danger_plaintext_beyond_loopback) -}}
{{- fail "countersign: an application is called over the network; set config.api.tls with certificate, key and client_ca" -}}
{{- end -}}
{{- if and (include "countersign._embedded" .) (gt (int $values.application.replicas) 1) -}}
{{- fail "countersign: pods do not share an embedded store; set config.store to redis: or postgres:, or application.replicas to 1" -}}
{{- end -}}
{{- $drain := default dict $config.drain -}}
{{- $deadline := include "countersign._seconds" (default "20s" $drain.deadline) | int -}}
{{- if le (int $values.application.terminationGracePeriodSeconds) $deadline -}}
{{- fail (printf "countersign: application.terminationGracePeriodSeconds (%d) must be longer than config.drain.deadline (%ds)" (int $values.application.terminationGracePeriodSeconds) $deadline) -}}
{{- end -}}
{{- else if and (or $values.networkPolicy.enabled $values.podMonitor.enabled) (not $values.podSelector) -}}
{{- fail "countersign: set podSelector to your pods' labels, for networkPolicy and podMonitor to find them" -}}
{{- end -}}
{{- end -}}
