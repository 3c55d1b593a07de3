// The backup's SQL server: Entra alone, serverless, and a lock against deletion.
param serverName string
param databaseName string
param maxGb int
param location string
param tags object
param administratorId string
param administratorType string
param isPrivate bool
param appSubnetId string
param deleteLock bool

resource server 'Microsoft.Sql/servers@2023-08-01' = {
  name: serverName
  location: location
  tags: tags
  properties: {
    minimalTlsVersion: '1.2'
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    restrictOutboundNetworkAccess: 'Enabled'
    administrators: {
      administratorType: 'ActiveDirectory'
      azureADOnlyAuthentication: true
      login: 'backup-administrator'
      sid: administratorId
      principalType: administratorType == 'ServicePrincipal' ? 'Application' : administratorType
      tenantId: tenant().tenantId
    }
  }
}

// It pauses an hour after the last connection; docs/cost.md says what keeps it awake.
resource database 'Microsoft.Sql/servers/databases@2023-08-01' = {
  parent: server
  name: databaseName
  location: location
  tags: tags
  sku: {
    name: 'GP_S_Gen5'
    tier: 'GeneralPurpose'
    family: 'Gen5'
    capacity: 2
  }
  properties: {
    autoPauseDelay: 60
    maxSizeBytes: maxGb * 1024 * 1024 * 1024
    minCapacity: json('0.5')
    requestedBackupStorageRedundancy: 'Geo'
    zoneRedundant: false
  }
}

resource shortTerm 'Microsoft.Sql/servers/databases/backupShortTermRetentionPolicies@2023-08-01' = {
  parent: database
  name: 'default'
  properties: {
    retentionDays: 14
  }
}

resource rule 'Microsoft.Sql/servers/virtualNetworkRules@2023-08-01' = if (!isPrivate) {
  parent: server
  name: 'app'
  properties: {
    virtualNetworkSubnetId: appSubnetId
  }
}

resource lock 'Microsoft.Authorization/locks@2020-05-01' = if (deleteLock) {
  name: 'backup'
  scope: server
  properties: {
    level: 'CanNotDelete'
    notes: 'It holds the backup, its history and its recycle bin.'
  }
}

output serverId string = server.id
