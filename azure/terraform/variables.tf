variable "subscription_id" {
  type = string
}

variable "resource_group" {
  description = "It exists."
  type        = string
}

variable "name" {
  description = "What everything is called: lower-case letters and digits."
  type        = string
  default     = "runmirror"

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{2,13}$", var.name))
    error_message = "3 to 14 lower-case letters and digits."
  }
}

variable "image" {
  description = "The image, e.g. myregistry.azurecr.io/runmirror:0.1.0"
  type        = string
}

variable "registry_server" {
  description = "The container registry that the identity pulls from, e.g. myregistry.azurecr.io; empty: a public one."
  type        = string
  default     = ""
}

variable "workspace_id" {
  description = "ARM id of the Azure ML workspace to mirror into; empty: link one later."
  type        = string
  default     = ""
}

variable "allowed_hosts" {
  description = "Names of your own that lead to the server."
  type        = list(string)
  default     = []
}

variable "min_servers" {
  type    = number
  default = 1
}

variable "max_servers" {
  type    = number
  default = 4
}

variable "workers" {
  type    = number
  default = 1
}

variable "database_sku" {
  type    = string
  default = "B_Standard_B1ms"
}
