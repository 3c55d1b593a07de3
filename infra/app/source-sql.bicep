// Lets the app's subnet reach the source's SQL server, where there is no private endpoint.
param serverName string
param appSubnetId string
param ruleName string

resource server 'Microsoft.Sql/servers@2023-08-01' existing = {
  name: serverName
}

resource rule 'Microsoft.Sql/servers/virtualNetworkRules@2023-08-01' = {
  parent: server
  name: ruleName
  properties: {
    virtualNetworkSubnetId: appSubnetId
  }
}
