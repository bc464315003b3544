# The same as ../bicep: runmirror on Azure Container Apps, with Postgres Flexible Server in a network of its own, artifacts
# in Blob Storage, and one identity that may do what docs/azure.md lists and nothing else.
terraform {
  required_version = ">= 1.6"
  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 4.55"
    }
    random = {
      source  = "hashicorp/random"
      version = "~> 3.6"
    }
  }
}

provider "azurerm" {
  features {}
  subscription_id     = var.subscription_id
  storage_use_azuread = true # the account has no keys to sign in with
}

locals {
  container = "artifacts"
  hosts     = concat(["${var.name}-api.${azurerm_container_app_environment.this.default_domain}"], var.allowed_hosts)
  database_url = format(
    "postgresql://%s:%s@%s:5432/%s?sslmode=verify-full",
    azurerm_postgresql_flexible_server.this.administrator_login,
    urlencode(random_password.database.result),
    azurerm_postgresql_flexible_server.this.fqdn,
    azurerm_postgresql_flexible_server_database.this.name,
  )
  told = {
    PGSSLROOTCERT                   = "/etc/ssl/certs/ca-certificates.crt"
    RUNMIRROR_ARTIFACTS_DESTINATION = "wasbs://${local.container}@${azurerm_storage_account.this.primary_blob_host}"
    AZURE_CLIENT_ID                 = azurerm_user_assigned_identity.this.client_id
    RUNMIRROR_AUTH                  = "token"
    RUNMIRROR_LOG_FORMAT            = "json"
    RUNMIRROR_AZUREML_WORKSPACE     = var.workspace_id
  }
}

data "azurerm_resource_group" "this" {
  name = var.resource_group
}

resource "random_string" "suffix" {
  length  = 8
  special = false
  upper   = false
}

resource "random_password" "database" {
  length  = 40
  special = false
}

resource "azurerm_user_assigned_identity" "this" {
  name                = var.name
  resource_group_name = data.azurerm_resource_group.this.name
  location            = data.azurerm_resource_group.this.location
}

# --- artifacts ------------------------------------------------------------------------------------------------------

resource "azurerm_storage_account" "this" {
  name                            = "${var.name}${random_string.suffix.result}"
  resource_group_name             = data.azurerm_resource_group.this.name
  location                        = data.azurerm_resource_group.this.location
  account_tier                    = "Standard"
  account_replication_type        = "ZRS"
  allow_nested_items_to_be_public = false
  shared_access_key_enabled       = false
  min_tls_version                 = "TLS1_2"
  https_traffic_only_enabled      = true

  blob_properties {
    delete_retention_policy {
      days = 14
    }
  }
}

resource "azurerm_storage_container" "artifacts" {
  name               = local.container
  storage_account_id = azurerm_storage_account.this.id
}

resource "azurerm_role_assignment" "read_and_write_artifacts" {
  scope                = azurerm_storage_container.artifacts.id
  role_definition_name = "Storage Blob Data Contributor"
  principal_id         = azurerm_user_assigned_identity.this.principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_role_assignment" "sign_artifact_urls" {
  scope                = azurerm_storage_account.this.id
  role_definition_name = "Storage Blob Delegator"
  principal_id         = azurerm_user_assigned_identity.this.principal_id
  principal_type       = "ServicePrincipal"
}

# --- database, which nothing outside this network reaches -----------------------------------------------------------

resource "azurerm_virtual_network" "this" {
  name                = var.name
  resource_group_name = data.azurerm_resource_group.this.name
  location            = data.azurerm_resource_group.this.location
  address_space       = ["10.70.0.0/16"]
}

resource "azurerm_subnet" "apps" {
  name                 = "apps"
  resource_group_name  = data.azurerm_resource_group.this.name
  virtual_network_name = azurerm_virtual_network.this.name
  address_prefixes     = ["10.70.0.0/23"]

  delegation {
    name = "apps"
    service_delegation {
      name    = "Microsoft.App/environments"
      actions = ["Microsoft.Network/virtualNetworks/subnets/join/action"]
    }
  }
}

resource "azurerm_subnet" "database" {
  name                 = "database"
  resource_group_name  = data.azurerm_resource_group.this.name
  virtual_network_name = azurerm_virtual_network.this.name
  address_prefixes     = ["10.70.2.0/28"]

  delegation {
    name = "database"
    service_delegation {
      name    = "Microsoft.DBforPostgreSQL/flexibleServers"
      actions = ["Microsoft.Network/virtualNetworks/subnets/join/action"]
    }
  }
}

resource "azurerm_private_dns_zone" "this" {
  name                = "${var.name}.private.postgres.database.azure.com"
  resource_group_name = data.azurerm_resource_group.this.name
}

resource "azurerm_private_dns_zone_virtual_network_link" "this" {
  name                  = var.name
  resource_group_name   = data.azurerm_resource_group.this.name
  private_dns_zone_name = azurerm_private_dns_zone.this.name
  virtual_network_id    = azurerm_virtual_network.this.id
}

resource "azurerm_postgresql_flexible_server" "this" {
  name                          = "${var.name}-${random_string.suffix.result}"
  resource_group_name           = data.azurerm_resource_group.this.name
  location                      = data.azurerm_resource_group.this.location
  version                       = "16"
  administrator_login           = "runmirror"
  administrator_password        = random_password.database.result
  sku_name                      = var.database_sku
  storage_mb                    = 32768
  auto_grow_enabled             = true
  backup_retention_days         = 14
  delegated_subnet_id           = azurerm_subnet.database.id
  private_dns_zone_id           = azurerm_private_dns_zone.this.id
  public_network_access_enabled = false
  depends_on                    = [azurerm_private_dns_zone_virtual_network_link.this]

  lifecycle {
    ignore_changes  = [zone]
    prevent_destroy = true
  }
}

resource "azurerm_postgresql_flexible_server_database" "this" {
  name      = "runmirror"
  server_id = azurerm_postgresql_flexible_server.this.id
}

# --- server and worker ----------------------------------------------------------------------------------------------

resource "azurerm_log_analytics_workspace" "this" {
  name                = var.name
  resource_group_name = data.azurerm_resource_group.this.name
  location            = data.azurerm_resource_group.this.location
  sku                 = "PerGB2018"
  retention_in_days   = 30
}

resource "azurerm_container_app_environment" "this" {
  name                       = var.name
  resource_group_name        = data.azurerm_resource_group.this.name
  location                   = data.azurerm_resource_group.this.location
  log_analytics_workspace_id = azurerm_log_analytics_workspace.this.id
  infrastructure_subnet_id   = azurerm_subnet.apps.id

  workload_profile {
    name                  = "Consumption"
    workload_profile_type = "Consumption"
  }
}

resource "azurerm_container_app" "api" {
  name                         = "${var.name}-api"
  resource_group_name          = data.azurerm_resource_group.this.name
  container_app_environment_id = azurerm_container_app_environment.this.id
  workload_profile_name        = "Consumption"
  revision_mode                = "Single"
  depends_on                   = [azurerm_role_assignment.read_and_write_artifacts]

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.this.id]
  }

  secret {
    name  = "database-url"
    value = local.database_url
  }

  dynamic "registry" {
    for_each = var.registry_server == "" ? [] : [var.registry_server]
    content {
      server   = registry.value
      identity = azurerm_user_assigned_identity.this.id
    }
  }

  ingress {
    external_enabled           = true
    target_port                = 5000
    transport                  = "http"
    allow_insecure_connections = false

    traffic_weight {
      latest_revision = true
      percentage      = 100
    }
  }

  template {
    min_replicas                     = var.min_servers
    max_replicas                     = var.max_servers
    termination_grace_period_seconds = 45

    container {
      name   = "api"
      image  = var.image
      args   = ["serve", "--no-mirror"]
      cpu    = 0.5
      memory = "1Gi"

      env {
        name        = "RUNMIRROR_DATABASE_URL"
        secret_name = "database-url"
      }

      dynamic "env" {
        for_each = merge(local.told, { RUNMIRROR_ALLOWED_HOSTS = join(",", local.hosts) })
        content {
          name  = env.key
          value = env.value
        }
      }

      startup_probe {
        transport               = "HTTP"
        path                    = "/livez"
        port                    = 5000
        interval_seconds        = 20
        failure_count_threshold = 10
      }

      liveness_probe {
        transport               = "HTTP"
        path                    = "/livez"
        port                    = 5000
        interval_seconds        = 10
        failure_count_threshold = 3
      }

      readiness_probe {
        transport               = "HTTP"
        path                    = "/readyz"
        port                    = 5000
        interval_seconds        = 5
        failure_count_threshold = 3
      }
    }

    http_scale_rule {
      name                = "requests"
      concurrent_requests = "50"
    }
  }
}

resource "azurerm_container_app" "worker" {
  name                         = "${var.name}-worker"
  resource_group_name          = data.azurerm_resource_group.this.name
  container_app_environment_id = azurerm_container_app_environment.this.id
  workload_profile_name        = "Consumption"
  revision_mode                = "Single"
  depends_on                   = [azurerm_container_app.api, azurerm_role_assignment.read_and_write_artifacts]

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.this.id]
  }

  secret {
    name  = "database-url"
    value = local.database_url
  }

  dynamic "registry" {
    for_each = var.registry_server == "" ? [] : [var.registry_server]
    content {
      server   = registry.value
      identity = azurerm_user_assigned_identity.this.id
    }
  }

  template {
    min_replicas                     = var.workers
    max_replicas                     = var.workers
    termination_grace_period_seconds = 90

    container {
      name   = "worker"
      image  = var.image
      args   = ["worker"]
      cpu    = 0.5
      memory = "1Gi"

      env {
        name        = "RUNMIRROR_DATABASE_URL"
        secret_name = "database-url"
      }

      dynamic "env" {
        for_each = local.told
        content {
          name  = env.key
          value = env.value
        }
      }
    }
  }
}

# --- the workspace, which may be in another resource group ----------------------------------------------------------

resource "azurerm_role_assignment" "mirror_into" {
  count                = var.workspace_id == "" ? 0 : 1
  scope                = var.workspace_id
  role_definition_name = "AzureML Data Scientist"
  principal_id         = azurerm_user_assigned_identity.this.principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_role_assignment" "look_up" {
  count                = var.workspace_id == "" ? 0 : 1
  scope                = var.workspace_id
  role_definition_name = "Reader"
  principal_id         = azurerm_user_assigned_identity.this.principal_id
  principal_type       = "ServicePrincipal"
}
