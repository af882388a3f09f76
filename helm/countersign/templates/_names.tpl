{{/*
Templates whose names go on with an underscore take this chart's own context. Those for your charts are in _library.tpl.
*/}}

{{- define "countersign._name" -}}
{{- $name := default (printf "%s-%s" .Release.Name .Chart.Name) .Values.fullnameOverride -}}
{{- if gt (len $name) 63 -}}
{{- fail (printf "countersign: the name %s is longer than 63 characters; set fullnameOverride" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "countersign._selector" -}}
app.kubernetes.io/name: countersign
app.kubernetes.io/instance: {{ printf "%s-%s" .Release.Name .Chart.Name | quote }}
{{- end -}}

{{- define "countersign._labels" -}}
{{ include "countersign._selector" . }}
{{- with .Chart.AppVersion }}
app.kubernetes.io/version: {{ . | quote }}
{{- end }}
app.kubernetes.io/component: token-verification
app.kubernetes.io/part-of: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end -}}

{{/* The labels of the pods that countersign runs in. */}}
{{- define "countersign._pods" -}}
{{- if eq .Values.mode "application" -}}
{{ include "countersign._selector" . }}
{{- else -}}
{{ toYaml .Values.podSelector }}
{{- end -}}
{{- end -}}

{{- define "countersign._image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $image.repository $image.digest }}
{{- else -}}
{{ printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) }}
{{- end -}}
{{- end -}}

{{/* "yes" where the store is the embedded one. */}}
{{- define "countersign._embedded" -}}
{{- $store := default "" .Values.config.store -}}
{{- $url := $store -}}
{{- if kindIs "map" $store -}}
{{- $url = default "" $store.url -}}
{{- end -}}
{{- if or (not $url) (hasPrefix "sqlite:" $url) -}}yes{{- end -}}
{{- end -}}

{{/* A duration of one unit, in seconds: 20s, 2m, 1h. The schema lets no other through where this is used. */}}
{{- define "countersign._seconds" -}}
{{- $number := atoi (regexFind "^[0-9]+" .) -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- mul $number (get (dict "s" 1 "m" 60 "h" 3600) $unit) -}}
{{- end -}}
