{{- define "runmirror.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "runmirror.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := include "runmirror.name" . }}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "runmirror.selector" -}}
app.kubernetes.io/name: {{ include "runmirror.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of an object: (dict "root" . "component" "server") */}}
{{- define "runmirror.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{ include "runmirror.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "runmirror.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "runmirror.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "runmirror.fullname" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "runmirror.databaseSecret" -}}
{{- with .Values.backendStore }}
{{- if .existingDatabaseSecret.name }}{{ .existingDatabaseSecret.name }}
{{- else if .databaseUrl }}{{ include "runmirror.fullname" $ }}-database
{{- else }}{{ fail "\n\nrunmirror needs a database: set backendStore.existingDatabaseSecret.name to a Secret whose key database-url is postgresql://user:password@host:5432/name" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "runmirror.artifacts" -}}
{{- with .Values.artifactRoot }}
{{- if and .azureBlob.storageAccount .azureBlob.container -}}
wasbs://{{ .azureBlob.container }}@{{ .azureBlob.storageAccount }}.{{ .azureBlob.endpointSuffix }}{{ with .azureBlob.path }}/{{ trimPrefix "/" . }}{{ end }}
{{- else if .persistence.enabled -}}
/artifacts
{{- else -}}
{{ fail "\n\nrunmirror needs a place for artifacts that all pods reach: set artifactRoot.azureBlob.storageAccount and .container, or artifactRoot.persistence.enabled" }}
{{- end }}
{{- end }}
{{- end }}

{{/* The names it answers to: a page elsewhere must not be able to have its own name lead here. */}}
{{- define "runmirror.allowedHosts" -}}
{{- $name := include "runmirror.fullname" . }}
{{- $hosts := list "localhost" "127.0.0.0/8" "[::1]" "10.0.0.0/8" "172.16.0.0/12" "192.168.0.0/16" "fc00::/7" }}
{{- $hosts = concat $hosts (list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace)) }}
{{- if .Values.ingress.enabled }}{{ range .Values.ingress.hosts }}{{ $hosts = append $hosts .host }}{{ end }}{{ end }}
{{- if .Values.httpRoute.enabled }}{{ $hosts = concat $hosts .Values.httpRoute.hostnames }}{{ end }}
{{- concat $hosts .Values.serverAllowedHosts | uniq | join "," }}
{{- end }}

{{- define "runmirror.databaseEnv" -}}
- name: RUNMIRROR_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "runmirror.databaseSecret" . }}
      key: {{ .Values.backendStore.existingDatabaseSecret.key }}
{{- end }}

{{/* What server, worker and garbage collection are told alike. */}}
{{- define "runmirror.env" -}}
{{ include "runmirror.databaseEnv" . }}
- name: RUNMIRROR_ARTIFACTS_DESTINATION
  value: {{ include "runmirror.artifacts" . | quote }}
{{- with .Values.artifactRoot.azureBlob.existingSecret }}
{{- if .name }}
- name: AZURE_STORAGE_CONNECTION_STRING
  valueFrom:
    secretKeyRef: {name: {{ .name }}, key: {{ .key }}}
{{- end }}
{{- end }}
- name: RUNMIRROR_AUTH
  value: {{ .Values.auth.mode }}
{{- if eq .Values.auth.mode "none" }}
- name: RUNMIRROR_INSECURE_NO_AUTH
  value: "true"
{{- else if eq .Values.auth.mode "entra" }}
- name: RUNMIRROR_OIDC_ISSUER
  value: {{ required "auth.mode entra needs auth.oidc.issuer" .Values.auth.oidc.issuer | quote }}
- name: RUNMIRROR_OIDC_AUDIENCE
  value: {{ required "auth.mode entra needs auth.oidc.audience" .Values.auth.oidc.audience | quote }}
- name: RUNMIRROR_OIDC_ADMIN_ROLE
  value: {{ .Values.auth.oidc.adminRole | quote }}
{{- with .Values.auth.oidc.clientId }}
- name: RUNMIRROR_OIDC_CLIENT_ID
  value: {{ . | quote }}
{{- end }}
{{- with .Values.auth.oidc.existingSecret }}
{{- if .name }}
- name: RUNMIRROR_OIDC_CLIENT_SECRET
  valueFrom:
    secretKeyRef: {name: {{ .name }}, key: {{ .key }}}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.auth.publicUrl }}
- name: RUNMIRROR_PUBLIC_URL
  value: {{ . | quote }}
{{- end }}
- name: RUNMIRROR_DEFAULT_PERMISSION
  value: {{ .Values.auth.defaultPermission }}
{{- with .Values.azureml.workspace }}
- name: RUNMIRROR_AZUREML_WORKSPACE
  value: {{ . | quote }}
{{- end }}
{{- with .Values.webhooks.existingSecret }}
{{- if .name }}
- name: RUNMIRROR_WEBHOOK_SECRET_KEY
  valueFrom:
    secretKeyRef: {name: {{ .name }}, key: {{ .key }}}
{{- end }}
{{- end }}
{{- if not (hasKey .Values.settings "RUNMIRROR_LOG_FORMAT") }}
- name: RUNMIRROR_LOG_FORMAT
  value: json
{{- end }}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  {{- /* To Helm every number is a fraction, and a large one would be written as 6.7e+07. */}}
  {{- if and (kindIs "float64" $value) (eq $value (floor $value)) }}
  value: {{ int64 $value | toString | quote }}
  {{- else }}
  value: {{ $value | toString | quote }}
  {{- end }}
{{- end }}
{{- with .Values.extraEnvVars }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "runmirror.envFrom" -}}
{{- with .Values.azureml.existingSecret }}
- secretRef: {name: {{ . }}}
{{- end }}
{{- with .Values.extraEnvFrom }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "runmirror.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: data, mountPath: /data}
{{- if and .Values.artifactRoot.persistence.enabled (not .Values.artifactRoot.azureBlob.storageAccount) }}
- {name: artifacts, mountPath: /artifacts}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "runmirror.volumes" -}}
- {name: tmp, emptyDir: {}}
- {name: data, emptyDir: {}}
{{- if and .Values.artifactRoot.persistence.enabled (not .Values.artifactRoot.azureBlob.storageAccount) }}
- name: artifacts
  persistentVolumeClaim:
    claimName: {{ .Values.artifactRoot.persistence.existingClaim | default (printf "%s-artifacts" (include "runmirror.fullname" .)) }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Metadata and placing of a pod: (dict "root" . "component" "server" "of" .Values.server) */}}
{{- define "runmirror.podMetadata" -}}
labels:
  {{- include "runmirror.labels" . | nindent 2 }}
  {{- if .root.Values.workloadIdentity.enabled }}
  azure.workload.identity/use: "true"
  {{- end }}
  {{- with .of.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .of.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "runmirror.podSpec" -}}
automountServiceAccountToken: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "priorityClassName" }}
{{- with get $.of $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "runmirror.container" -}}
image: {{ include "runmirror.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- end }}

{{- define "runmirror.hpa" -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "runmirror.fullname" .root }}-{{ .component }}
  labels:
    {{- include "runmirror.labels" . | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "runmirror.fullname" .root }}-{{ .component }}
  minReplicas: {{ .of.autoscaling.minReplicas }}
  maxReplicas: {{ .of.autoscaling.maxReplicas }}
  metrics:
    {{- range $resource, $target := dict "cpu" .of.autoscaling.targetCPUUtilizationPercentage "memory" .of.autoscaling.targetMemoryUtilizationPercentage }}
    {{- with $target }}
    - type: Resource
      resource:
        name: {{ $resource }}
        target: {type: Utilization, averageUtilization: {{ . }}}
    {{- end }}
    {{- end }}
  {{- with .of.autoscaling.behavior }}
  behavior:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "runmirror.pdb" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "runmirror.fullname" .root }}-{{ .component }}
  labels:
    {{- include "runmirror.labels" . | nindent 4 }}
spec:
  {{- if not (kindIs "invalid" .of.pdb.minAvailable) }}
  minAvailable: {{ .of.pdb.minAvailable }}
  {{- else }}
  maxUnavailable: {{ .of.pdb.maxUnavailable }}
  {{- end }}
  selector:
    matchLabels:
      {{- include "runmirror.selector" . | nindent 6 }}
{{- end }}
