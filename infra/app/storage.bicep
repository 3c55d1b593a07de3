// The app's storage account: the host's own blobs, the package, locks, and the records and the queue of jobs.
param name string
param location string
param tags object
param principalId string
param isPrivate bool
param appSubnetId string
param endpointSubnetId string
param networkName string

var containerName = 'app-package'
// Locks and the host's own use want the first; jobs the two others.
var roles = {
  storageBlobDataOwner: 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'
  storageQueueDataContributor: '974c5e8b-45b9-4653-ba55-5f855dd0fb88'
  storageTableDataContributor: '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3'
}
var privateServices = isPrivate ? ['blob', 'queue', 'table'] : []

resource account 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: name
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: {
    name: 'Standard_ZRS'
  }
  properties: {
    allowSharedKeyAccess: false
    allowBlobPublicAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    networkAcls: {
      defaultAction: 'Deny'
      bypass: 'None'
      virtualNetworkRules: isPrivate ? [] : [
        {
          id: appSubnetId
          action: 'Allow'
        }
      ]
    }
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2023-05-01' = {
  parent: account
  name: 'default'
}

resource packages 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' = {
  parent: blobs
  name: containerName
  properties: {
    publicAccess: 'None'
  }
}

resource assignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for role in items(roles): {
  name: guid(account.id, principalId, role.value)
  scope: account
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role.value)
  }
}]

module zones 'dns-zone.bicep' = [for service in privateServices: {
  name: 'dns-${service}'
  params: {
    zoneName: 'privatelink.${service}.${environment().suffixes.storage}'
    networkName: networkName
    tags: tags
  }
}]

module endpoints 'private-endpoint.bicep' = [for (service, place) in privateServices: {
  name: 'endpoint-${service}'
  params: {
    name: 'pe-${service}-${name}'
    location: location
    tags: tags
    subnetId: endpointSubnetId
    resourceId: account.id
    groupId: service
    zoneId: zones[place].outputs.id
  }
}]

output name string = account.name
output deploymentContainer string = '${account.properties.primaryEndpoints.blob}${containerName}'
