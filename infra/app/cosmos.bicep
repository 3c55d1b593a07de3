// The backup's Cosmos DB account: serverless or with autoscale that its containers share, without keys, with continuous
// backup, and a lock against deletion.
// A data role cannot make containers, so those of `initialize` are made here.
param accountName string
param databaseName string
param containerName string
param partitionKey string
@description('The most request units a second that the containers share; 0 for serverless.')
param autoscaleThroughput int
param location string
param tags object
param principalId string
param isPrivate bool
param appSubnetId string
param deleteLock bool

var isServerless = autoscaleThroughput == 0
var dataContributor = '00000000-0000-0000-0000-000000000002'
// Nothing asks for a part of these texts, and an index of them would cost request units with each write.
var containers = [
  {
    name: containerName
    path: partitionKey
    unindexed: []
  }
  {
    name: 'sync-history'
    path: '/serviceName'
    unindexed: ['/checkpoint/?', '/failures/?', '/notes/?', '/errorMessage/?']
  }
  {
    name: 'recycle-bin'
    path: '/entryId'
    unindexed: ['/record/?']
  }
]

resource account 'Microsoft.DocumentDB/databaseAccounts@2024-11-15' = {
  name: accountName
  location: location
  tags: tags
  kind: 'GlobalDocumentDB'
  properties: {
    databaseAccountOfferType: 'Standard'
    locations: [
      {
        locationName: location
        failoverPriority: 0
        isZoneRedundant: false
      }
    ]
    capabilities: isServerless ? [
      {
        name: 'EnableServerless'
      }
    ] : []
    consistencyPolicy: {
      defaultConsistencyLevel: 'Session'
    }
    backupPolicy: {
      type: 'Continuous'
      continuousModeProperties: {
        tier: 'Continuous7Days'
      }
    }
    disableLocalAuth: true
    disableKeyBasedMetadataWriteAccess: true
    minimalTlsVersion: 'Tls12'
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    ipRules: []
    isVirtualNetworkFilterEnabled: !isPrivate
    virtualNetworkRules: isPrivate ? [] : [
      {
        id: appSubnetId
        ignoreMissingVNetServiceEndpoint: false
      }
    ]
  }
}

resource database 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases@2024-11-15' = {
  parent: account
  name: databaseName
  properties: {
    resource: {
      id: databaseName
    }
    options: isServerless ? {} : {
      autoscaleSettings: {
        maxThroughput: autoscaleThroughput
      }
    }
  }
}

resource made 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers@2024-11-15' = [for container in containers: {
  parent: database
  name: container.name
  properties: {
    resource: {
      id: container.name
      partitionKey: {
        paths: [container.path]
        kind: 'Hash'
        version: 2
      }
      indexingPolicy: {
        automatic: true
        indexingMode: 'consistent'
        includedPaths: [
          {
            path: '/*'
          }
        ]
        excludedPaths: [for path in concat(container.unindexed, ['/"_etag"/?']): {
          path: path
        }]
      }
    }
  }
}]

// The account does one such thing at a time, and refuses what comes beside it.
resource contributor 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2024-11-15' = {
  parent: account
  dependsOn: [made]
  name: guid(account.id, principalId, dataContributor)
  properties: {
    principalId: principalId
    roleDefinitionId: '${account.id}/sqlRoleDefinitions/${dataContributor}'
    scope: account.id
  }
}

resource lock 'Microsoft.Authorization/locks@2020-05-01' = if (deleteLock) {
  name: 'backup'
  scope: account
  properties: {
    level: 'CanNotDelete'
    notes: 'It holds the backup, its history and its recycle bin.'
  }
}

output accountId string = account.id
