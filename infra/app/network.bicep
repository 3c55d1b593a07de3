// The network: a subnet that the app is integrated with, and one for private endpoints.
// Flex Consumption has no stable outgoing addresses, so no firewall rule by address would hold.
param name string
param location string
param tags object

@description('The addresses of the network, /25 or more: each subnet has 64 of them.')
param prefix string

@description('Private endpoints are used. Without them the subnet has service endpoints, which servers admit by rule.')
param isPrivate bool

var services = isPrivate ? [] : ['Microsoft.Storage', 'Microsoft.Sql', 'Microsoft.AzureCosmosDB']

resource network 'Microsoft.Network/virtualNetworks@2024-05-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    addressSpace: {
      addressPrefixes: [prefix]
    }
    subnets: [
      {
        name: 'app'
        properties: {
          addressPrefix: cidrSubnet(prefix, 26, 0)
          // Tokens and telemetry go to public addresses of Azure. Later versions of this API give no way out unless asked.
          defaultOutboundAccess: true
          delegations: [
            {
              name: 'flex'
              properties: {
                serviceName: 'Microsoft.App/environments'
              }
            }
          ]
          serviceEndpoints: [for service in services: {
            service: service
          }]
        }
      }
      {
        name: 'endpoints'
        properties: {
          addressPrefix: cidrSubnet(prefix, 26, 1)
          privateEndpointNetworkPolicies: 'Disabled'
        }
      }
    ]
  }
}

output name string = network.name
output appSubnetId string = '${network.id}/subnets/app'
output endpointSubnetId string = '${network.id}/subnets/endpoints'
