{{- define "pando.name" -}}
{{- $release := .Release.Name | replace "." "-" -}}
{{- if contains "pando" $release }}{{ $release | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-pando" $release | trunc 52 | trimSuffix "-" }}{{ end -}}
{{- end -}}

{{- define "pando.selector" -}}
app.kubernetes.io/name: pando
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "pando.labels" -}}
{{ include "pando.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{- define "pando.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "pando.name" .) }}
{{- end -}}

{{- define "pando.keySecret" -}}
{{ .Values.tailnet.existingSecret | default (printf "%s-authkey" (include "pando.name" .)) }}
{{- end -}}

{{- /* The port in an address such as ":8443". */ -}}
{{- define "pando.port" -}}
{{ splitList ":" . | last }}
{{- end -}}

{{- /* The keys that are not live: when one of them changes, the pods restart. */ -}}
{{- define "pando.restartConfig" -}}
{{- $c := omit (include "pando.config" . | fromYaml) "policy" "limits" -}}
{{- $c = set $c "resolve" (omit ($c.resolve | default dict) "hosts" "zones" "privateAnswers" "privateZones") -}}
{{- set $c "log" (omit ($c.log | default dict) "level" "sample") | toYaml -}}
{{- end -}}

{{- /* What the chart sets itself; the value config wins. */ -}}
{{- define "pando.config" -}}
{{- $key := printf "/etc/pando/key/%s" .Values.tailnet.authKeyField -}}
{{- $tailnet := dict "mode" .Values.mode "authKeyFile" $key -}}
{{- with .Values.tailnet.controlURL }}{{ $_ := set $tailnet "controlURL" . }}{{ end -}}
{{- with .Values.tailnet.tags }}{{ $_ := set $tailnet "tags" . }}{{ end -}}
{{- $own := dict
  "listen" (dict "proxy" ":1055" "admin" ":9002" "replicas" (list (printf "%s-replicas.%s.svc" (include "pando.name" .) .Release.Namespace) (printf "%s.%s.svc" (include "pando.name" .) .Release.Namespace)))
  "tailnet" $tailnet
  "drain" (dict "settle" (printf "%vs" (int .Values.drain.settleSeconds)) "timeout" (printf "%vs" (int .Values.drain.timeoutSeconds)))
-}}
{{- if (.Values.config.dns | default dict).zones }}{{ $_ := set $own "dns" (dict "fleet" (list (printf "%s.%s.svc" (include "pando.name" .) .Release.Namespace))) }}{{ end -}}
{{ mustMergeOverwrite $own (deepCopy .Values.config) | toYaml }}
{{- end -}}
