output "url" {
  value = "https://${azurerm_container_app.api.ingress[0].fqdn}"
}

output "identity_id" {
  value = azurerm_user_assigned_identity.this.id
}

output "principal_id" {
  value = azurerm_user_assigned_identity.this.principal_id
}

output "first_token" {
  value = "az containerapp exec --resource-group ${var.resource_group} --name ${azurerm_container_app.api.name} --command \"runmirror token create me --admin\""
}
