{{- define "agentrunner.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 35 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 35 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "agentrunner.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "agentrunner.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* What tells the pods of a part: never changes. Called with (dict "root" $ "part" "…"). */}}
{{- define "agentrunner.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{/* Where variables come from. */}}
{{- define "agentrunner.env" -}}
envFrom:
  - configMapRef:
      name: {{ include "agentrunner.name" . }}
{{- range .Values.existingSecrets }}
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end }}

{{- define "agentrunner.hardened" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- define "agentrunner.pod" -}}
serviceAccountName: {{ include "agentrunner.name" . }}
automountServiceAccountToken: false
# Kubernetes' variables for services look like settings.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A deployment of a part. Called with (dict "root" $ "part" … "port" … "replicas" … "resources" …). */}}
{{- define "agentrunner.deployment" -}}
{{- $name := include "agentrunner.name" .root -}}
{{- $scheme := ternary "HTTPS" "HTTP" (ne .root.Values.tls.existingSecret "") -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}-{{ .part }}
  labels:
    {{- include "agentrunner.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .part }}
spec:
  {{- if ne .replicas nil }}
  replicas: {{ .replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: 0
      maxSurge: 1
  selector:
    matchLabels:
      {{- include "agentrunner.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "agentrunner.labels" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .part }}
      annotations:
        checksum/settings: {{ .root.Values.settings | toJson | sha256sum }}
        {{- with .root.Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "agentrunner.pod" .root | nindent 6 }}
      terminationGracePeriodSeconds: {{ .root.Values.terminationGracePeriodSeconds }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "agentrunner.selector" . | nindent 14 }}
      {{- with .root.Values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .part }}
          image: {{ include "agentrunner.image" .root | quote }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args: [serve, {{ .part }}]
          {{- include "agentrunner.env" .root | nindent 10 }}
          ports:
            - name: http
              containerPort: {{ .port }}
          # A migration's end is waited for by the job; a first look at the agents takes its time.
          startupProbe:
            httpGet: {path: /health/live, port: http, scheme: {{ $scheme }}}
            periodSeconds: 1
            failureThreshold: 60
          livenessProbe:
            httpGet: {path: /health/live, port: http, scheme: {{ $scheme }}}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet: {path: /health/ready, port: http, scheme: {{ $scheme }}}
            periodSeconds: 5
            timeoutSeconds: 5
          resources:
            {{- toYaml .resources | nindent 12 }}
          {{- include "agentrunner.hardened" .root | nindent 10 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            - {name: data, mountPath: /app/data}
            {{- if or .root.Values.agents.existingConfigMap .root.Values.agents.files }}
            - {name: agents, mountPath: /app/config/agents, readOnly: true}
            {{- end }}
            {{- if .root.Values.tls.existingSecret }}
            - {name: tls, mountPath: /app/certs, readOnly: true}
            {{- end }}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: 256Mi}
        - name: data
          emptyDir: {sizeLimit: 256Mi}
        {{- if or .root.Values.agents.existingConfigMap .root.Values.agents.files }}
        - name: agents
          configMap:
            name: {{ .root.Values.agents.existingConfigMap | default (printf "%s-agents" $name) }}
        {{- end }}
        {{- if .root.Values.tls.existingSecret }}
        - name: tls
          secret:
            secretName: {{ .root.Values.tls.existingSecret }}
        {{- end }}
{{- end }}
