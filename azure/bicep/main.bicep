// runmirror on Azure Container Apps, with Postgres Flexible Server in a network of its own, artifacts in Blob Storage, and
// one identity that may do what docs/azure.md lists and nothing else. The Terraform beside it makes the same.
targetScope = 'resourceGroup'

@minLength(3)
@maxLength(14)
@description('What everything is called: lower-case letters and digits.')
param name string = 'runmirror'

param location string = resourceGroup().location

@description('The image, e.g. myregistry.azurecr.io/runmirror:0.1.0')
param image string

@description('The container registry that the identity pulls from, e.g. myregistry.azurecr.io; empty: a public one.')
param registryServer string = ''

@description('ARM id of the Azure ML workspace to mirror into; empty: link one later.')
param workspaceId string = ''

@secure()
@minLength(16)
@description('Of the database: openssl rand -hex 24')
param databasePassword string

@description('Names of your own that lead to the server.')
param allowedHosts array = []

param minServers int = 1
param maxServers int = 4
param workers int = 1
param databaseSku object = { name: 'Standard_B1ms', tier: 'Burstable' }

var databaseUser = 'runmirror'
var containerName = 'artifacts'
var storageName = take('${name}${uniqueString(resourceGroup().id)}', 24)
var hosts = concat(['${name}-api.${environment.properties.defaultDomain}'], allowedHosts)

// Built-in roles, the same everywhere in Azure.
var storageBlobDataContributor = 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
var storageBlobDelegator = 'db58b8e5-c6ad-4a2a-8342-4190687cbf4a'

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: name
  location: location
}

// --- artifacts ----------------------------------------------------------------------------------------------------------

resource storage 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: storageName
  location: location
  kind: 'StorageV2'
  sku: { name: 'Standard_ZRS' }
  properties: {
    allowBlobPublicAccess: false
    allowSharedKeyAccess: false
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2023-05-01' = {
  parent: storage
  name: 'default'
  properties: {
    deleteRetentionPolicy: { enabled: true, days: 14 }
  }
}

resource artifacts 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' = {
  parent: blobs
  name: containerName
}

resource readAndWriteArtifacts 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(artifacts.id, identity.id, storageBlobDataContributor)
  scope: artifacts
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataContributor)
  }
}

resource signArtifactUrls 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(storage.id, identity.id, storageBlobDelegator)
  scope: storage
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDelegator)
  }
}

// --- database, which nothing outside this network reaches -----------------------------------------------------------

resource network 'Microsoft.Network/virtualNetworks@2023-11-01' = {
  name: name
  location: location
  properties: {
    addressSpace: { addressPrefixes: ['10.70.0.0/16'] }
    subnets: [
      {
        name: 'apps'
        properties: {
          addressPrefix: '10.70.0.0/23'
          delegations: [{ name: 'apps', properties: { serviceName: 'Microsoft.App/environments' } }]
        }
      }
      {
        name: 'database'
        properties: {
          addressPrefix: '10.70.2.0/28'
          delegations: [{ name: 'database', properties: { serviceName: 'Microsoft.DBforPostgreSQL/flexibleServers' } }]
        }
      }
    ]
  }
}

resource zone 'Microsoft.Network/privateDnsZones@2020-06-01' = {
  name: '${name}.private.postgres.database.azure.com'
  location: 'global'
}

resource zoneInNetwork 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2020-06-01' = {
  parent: zone
  name: name
  location: 'global'
  properties: {
    registrationEnabled: false
    virtualNetwork: { id: network.id }
  }
}

resource postgres 'Microsoft.DBforPostgreSQL/flexibleServers@2024-08-01' = {
  name: '${name}-${uniqueString(resourceGroup().id)}'
  location: location
  sku: databaseSku
  properties: {
    version: '16'
    administratorLogin: databaseUser
    administratorLoginPassword: databasePassword
    storage: { storageSizeGB: 32, autoGrow: 'Enabled' }
    backup: { backupRetentionDays: 14, geoRedundantBackup: 'Disabled' }
    network: {
      delegatedSubnetResourceId: network.properties.subnets[1].id
      privateDnsZoneArmResourceId: zone.id
    }
  }
  dependsOn: [zoneInNetwork]
}

resource database 'Microsoft.DBforPostgreSQL/flexibleServers/databases@2024-08-01' = {
  parent: postgres
  name: 'runmirror'
}

// --- server and worker ----------------------------------------------------------------------------------------------

resource logs 'Microsoft.OperationalInsights/workspaces@2023-09-01' = {
  name: name
  location: location
  properties: {
    sku: { name: 'PerGB2018' }
    retentionInDays: 30
  }
}

resource environment 'Microsoft.App/managedEnvironments@2024-03-01' = {
  name: name
  location: location
  properties: {
    appLogsConfiguration: {
      destination: 'log-analytics'
      logAnalyticsConfiguration: {
        customerId: logs.properties.customerId
        sharedKey: logs.listKeys().primarySharedKey
      }
    }
    vnetConfiguration: { infrastructureSubnetId: network.properties.subnets[0].id }
    workloadProfiles: [{ name: 'Consumption', workloadProfileType: 'Consumption' }]
  }
}

var databaseUrl = 'postgresql://${databaseUser}:${uriComponent(databasePassword)}@${postgres.properties.fullyQualifiedDomainName}:5432/${database.name}?sslmode=verify-full'
var secrets = [{ name: 'database-url', value: databaseUrl }]
var registries = empty(registryServer) ? [] : [{ server: registryServer, identity: identity.id }]
var told = [
  { name: 'RUNMIRROR_DATABASE_URL', secretRef: 'database-url' }
  { name: 'PGSSLROOTCERT', value: '/etc/ssl/certs/ca-certificates.crt' }
  { name: 'RUNMIRROR_ARTIFACTS_DESTINATION', value: 'wasbs://${containerName}@${storage.name}.blob.${az.environment().suffixes.storage}' }
  { name: 'AZURE_CLIENT_ID', value: identity.properties.clientId }
  { name: 'RUNMIRROR_AUTH', value: 'token' }
  { name: 'RUNMIRROR_LOG_FORMAT', value: 'json' }
  { name: 'RUNMIRROR_AZUREML_WORKSPACE', value: workspaceId }
]

resource api 'Microsoft.App/containerApps@2024-03-01' = {
  name: '${name}-api'
  location: location
  identity: { type: 'UserAssigned', userAssignedIdentities: { '${identity.id}': {} } }
  properties: {
    environmentId: environment.id
    workloadProfileName: 'Consumption'
    configuration: {
      ingress: { external: true, targetPort: 5000, transport: 'http', allowInsecure: false }
      secrets: secrets
      registries: registries
    }
    template: {
      terminationGracePeriodSeconds: 45
      containers: [
        {
          name: 'api'
          image: image
          args: ['serve', '--no-mirror']
          env: concat(told, [{ name: 'RUNMIRROR_ALLOWED_HOSTS', value: join(hosts, ',') }])
          resources: { cpu: json('0.5'), memory: '1Gi' }
          probes: [
            { type: 'Startup', httpGet: { path: '/livez', port: 5000 }, periodSeconds: 20, failureThreshold: 10 }
            { type: 'Liveness', httpGet: { path: '/livez', port: 5000 }, periodSeconds: 10, failureThreshold: 3 }
            { type: 'Readiness', httpGet: { path: '/readyz', port: 5000 }, periodSeconds: 5, failureThreshold: 3 }
          ]
        }
      ]
      scale: {
        minReplicas: minServers
        maxReplicas: maxServers
        rules: [{ name: 'requests', http: { metadata: { concurrentRequests: '50' } } }]
      }
    }
  }
  dependsOn: [readAndWriteArtifacts]
}

resource worker 'Microsoft.App/containerApps@2024-03-01' = {
  name: '${name}-worker'
  location: location
  identity: { type: 'UserAssigned', userAssignedIdentities: { '${identity.id}': {} } }
  properties: {
    environmentId: environment.id
    workloadProfileName: 'Consumption'
    configuration: {
      secrets: secrets
      registries: registries
    }
    template: {
      terminationGracePeriodSeconds: 90
      containers: [
        {
          name: 'worker'
          image: image
          args: ['worker']
          env: told
          resources: { cpu: json('0.5'), memory: '1Gi' }
        }
      ]
      scale: { minReplicas: workers, maxReplicas: workers }
    }
  }
  dependsOn: [api, readAndWriteArtifacts]
}

// --- the workspace, which may be in another resource group ----------------------------------------------------------

// Without a workspace there is no module, but its scope is looked at all the same.
var someWorkspace = '${resourceGroup().id}/providers/Microsoft.MachineLearningServices/workspaces/none'
var workspaceParts = split(empty(workspaceId) ? someWorkspace : workspaceId, '/')

module workspaceRoles 'workspace.bicep' = if (!empty(workspaceId)) {
  name: '${name}-workspace'
  scope: resourceGroup(workspaceParts[2], workspaceParts[4])
  params: {
    workspaceName: workspaceParts[8]
    principalId: identity.properties.principalId
  }
}

output url string = 'https://${api.properties.configuration.ingress.fqdn}'
output identityId string = identity.id
output principalId string = identity.properties.principalId
output firstToken string = 'az containerapp exec --resource-group ${resourceGroup().name} --name ${api.name} --command "runmirror token create me --admin"'
